"""Every target of the fuzzer, each in a process of its own, and the table of what became of them."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PREPARING = 600  # seconds that a process may take before and after its fuzzing
_STATUS = re.compile(r"^#(\d+)\t.* cov: (\d+)", re.MULTILINE)  # a line of libFuzzer while it runs
_FINDING = re.compile(r"-(crash|timeout|oom|leak)-[0-9a-f]{40}$")  # its names of kept inputs, behind the target's
_ROW = "{:<14} {:>12} {:>8} {:>9} {:>9} {:>9}  {}"


@dataclass(frozen=True)
class Outcome:
    """What one process told; numbers are None where it did not come to tell them.

    executions: inputs tried; speed: of them in a second; coverage: edges of the gateway's modules that were reached;
    peak: MiB of memory; findings: inputs that were kept, and other ways to end than in good order, in words.
    """

    target: str
    executions: int | None
    speed: int | None
    coverage: int | None
    peak: int | None
    findings: tuple[str, ...]

    def __str__(self) -> str:
        numbers = (self.executions, self.speed, self.coverage, self.peak)
        shown = ["-" if number is None else number for number in numbers]
        return _ROW.format(self.target, *shown, len(self.findings), " ".join(self.findings))


def run_every(targets: Iterable[str], out: Path, asked: argparse.Namespace) -> bool:
    """Fuzz the targets, some at a time, and print the table; True when nothing was found.

    Parameters
    ----------
    out
        Gets the folders `findings` (inputs), `corpus` and `logs` (one for each target).
    asked
        The command line: `jobs`, and the bounds of each target.
    """
    print(f"inputs and logs: {out}", flush=True)
    (out / "logs").mkdir(parents=True, exist_ok=True)
    print(_ROW.format("target", "executions", "per s", "coverage", "peak MiB", "findings", ""), flush=True)
    with ThreadPoolExecutor(asked.jobs) as pool:
        outcomes = []
        for outcome in pool.map(lambda name: _run(name, out, asked), targets):
            print(outcome, flush=True)
            outcomes.append(outcome)
    found = sum(len(outcome.findings) for outcome in outcomes)
    print(f"{len(outcomes)} targets, {sum(one.executions or 0 for one in outcomes)} executions, {found} findings")
    return not found


def _run(target: str, out: Path, asked: argparse.Namespace) -> Outcome:
    log, findings = out / "logs" / f"{target}.log", out / "findings"
    before = set(_kept(target, findings))
    options = {name: getattr(asked, name) for name in ("seconds", "timeout", "memory", "longest")}
    options |= {"findings": findings, "corpus": out / "corpus" / target}
    command = [sys.executable, "-m", "tests.fuzz", target, *(f"--{name}={value}" for name, value in options.items())]
    with log.open("wb") as file:
        try:
            code = subprocess.run(command, stdout=file, stderr=file, timeout=asked.seconds + PREPARING).returncode
            end = f"ended with {code}" if code else ""
        except subprocess.TimeoutExpired:
            end = "did not end"
    found = sorted(set(_kept(target, findings)) - before)
    return read_log(target, log.read_text(errors="replace"), found or ([end] if end else []))


def _kept(target: str, folder: Path) -> Iterator[str]:
    """Names of the inputs that were kept of this target."""
    if folder.is_dir():
        yield from (path.name for path in folder.iterdir() if _FINDING.fullmatch(path.name.removeprefix(target)))


def read_log(target: str, log: str, findings: Iterable[str]) -> Outcome:
    """The numbers in what libFuzzer wrote: of its final statistics, else of its last line of status."""
    status = _STATUS.findall(log)
    executions = _final(log, "number_of_executed_units")
    return Outcome(
        target=target,
        executions=int(status[-1][0]) if executions is None and status else executions,
        speed=_final(log, "average_exec_per_sec"),
        coverage=int(status[-1][1]) if status else None,
        peak=_final(log, "peak_rss_mb"),
        findings=tuple(findings),
    )


def _final(log: str, name: str) -> int | None:
    found = re.search(rf"^stat::{name}:\s+(\d+)", log, re.MULTILINE)
    return int(found[1]) if found else None
