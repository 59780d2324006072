"""Coverage-guided fuzzing of the parsers of foreign bytes: `python -m tests.fuzz TARGET --seconds 600`.

atheris (libFuzzer for Python; extra `fuzz`, wheels for Linux) mutates seeds that are made anew from pydicom's files,
and follows what the gateway's own modules branch on. A crash, a hang of more than --timeout
seconds or more than --memory MiB ends the run with an exit code other than 0, and leaves the input as a file in
--findings. Run it again with `--run FILE` to see the traceback; then turn it into a test.

`python -m tests.fuzz all --minutes 10` does this for every target, each in a process of its own, and prints a table;
exit code 1 says that something was found. Inputs, corpus and logs are kept in --out.

Not part of the test suite: `tests/fuzz/test_targets.py` runs every target over its seeds, whole and damaged. What was
found is a test where the code is tested that it was found in.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from tests.fuzz.every import run_every


def main() -> int:
    """Parse the command line, then fuzz until time is up or something is found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("target", help="a target of tests/fuzz/targets.py, or `all`, or `list`")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--minutes", type=int, help="the same in minutes")
    parser.add_argument("--jobs", type=int, default=1, help="all: targets at a time")
    parser.add_argument("--out", type=Path, help="all: folder of inputs and logs; default: a new temporary one")
    parser.add_argument("--timeout", type=int, default=20, help="seconds that one input may take")
    parser.add_argument("--memory", type=int, default=2048, help="MiB that the process, or one allocation, may have")
    parser.add_argument("--longest", type=int, default=65_536, help="bytes of the longest input")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--corpus", type=Path, help="kept between runs; default: a temporary folder")
    parser.add_argument("--run", type=Path, help="run one input, without the fuzzer")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the peer's mistakes are pynetdicom's daily news
    if asked.minutes is not None:
        asked.seconds = 60 * asked.minutes
    if asked.target in ("all", "list") or asked.run:
        from tests.fuzz.targets import TARGETS

        if asked.run:
            TARGETS[asked.target](asked.run.read_bytes())
        elif asked.target == "list":
            print("\n".join(TARGETS))
        else:
            out = asked.out or Path(tempfile.mkdtemp(prefix="miad-fuzz-"))
            return 0 if run_every(TARGETS, out, asked) else 1
        return 0
    with tempfile.TemporaryDirectory() as folder:
        _fuzz(asked, asked.corpus or Path(folder))  # ends the process
    return 0


def _fuzz(asked: argparse.Namespace, corpus: Path) -> None:
    import atheris
    import pynetdicom  # noqa: F401 - both come first: to follow all of them takes minutes to prepare

    # Only what is imported here for the first time is followed.
    with atheris.instrument_imports(include=["gateway"]):
        from tests.fuzz.seeds import SEEDS
        from tests.fuzz.targets import TARGETS, digest

        if asked.target not in TARGETS:
            raise SystemExit(f"no target {asked.target!r}; there are {', '.join(TARGETS)}")
        seeds = list(SEEDS[asked.target]())  # some import what only their target needs
    corpus.mkdir(parents=True, exist_ok=True)
    asked.findings.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (corpus / digest(seed)).write_bytes(seed)
    options = {
        "max_total_time": asked.seconds,
        "timeout": asked.timeout,
        "report_slow_units": asked.timeout,
        "rss_limit_mb": asked.memory,
        "malloc_limit_mb": asked.memory,
        "max_len": asked.longest,
        "artifact_prefix": f"{asked.findings}/{asked.target}-",
        "print_final_stats": 1,
    }
    atheris.Setup(
        [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)], TARGETS[asked.target]
    )
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
