"""Hours of mixed modalities with faults: is the ledger exact at the end, and does anything grow?

    python -m tests.benchmarks.soak [--minutes 120] [--calm 0.3] [--folder FOLDER] [--database postgresql|sqlite]
        [--small-disk MIB] [--only WORDS] [--waiting N] [--seed N] [--json FILE]
        [--picture FILE]

Eighteen kinds of made objects (`tests.iods`) go through one gateway, which serves all roles, to two destinations; the
first commits to keep what it gets. Meanwhile: a role, the supervisor or the whole tree is killed; a destination
refuses, drops, has no room, or (the first) accepts and forgets; PostgreSQL is restarted at once; the archive sends
everything twice; with `--small-disk` (root) the state folder is a tmpfs of that size that is filled. For the last
`--calm` share of the time there are no faults: memory, files and threads of each role are fitted and drawn there. In
the end all that was sent must be acknowledged, delivered to both, committed by the first, and restored as it was sent.
Jumps of the clock are left out: processes of one machine share it. With `--folder` a later run goes on with what lies
there, so that a day is many runs. Marks are not optimised (`steps = 0`). Exit code 1 when the ledger is not exact.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.facts import facts
from tests.benchmarks.pictures import add_outputs, lines
from tests.benchmarks.postgresql import Cluster
from tests.benchmarks.soak.ground import Sample, SmallDisk, SoakSite, curves, growth, look
from tests.benchmarks.soak.ledger import Ledger, out_of_balance, wait_for_all
from tests.benchmarks.soak.outside import MANNERS, Outside
from tests.conftest import data_folder
from tests.iods.collection import collection
from tests.support.network.peers import free_port

SAMPLE_S = 5.0
TARGETS = ("worker", "ingress", "restore", "supervisor", "tree")
AT_ONCE = 8  # instances of one association
WAITING = 400


class Soak:
    """One run of it."""

    def __init__(
        self,
        folder: Path,
        database: str,
        small_disk: int,
        seed: int,
        only: str,
        waiting: int,
        say: Callable[[str], None],
    ) -> None:
        self._say, self._dice, self._only, self._waiting = say, random.Random(seed), only.split(), waiting
        self._disk = SmallDisk(folder / "site" / "state", small_disk) if small_disk else None
        self._cluster = Cluster(folder) if database == "postgresql" else None
        report_port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        first, second = Outside(folder / "first.jsonl", report_port), Outside(folder / "second.jsonl")
        self.outside = {"first": first, "second": second}
        ports = (first.port, second.port, report_port)
        self.site = SoakSite(folder / "site", self._cluster.url if self._cluster else "", *ports)
        self.ledger = Ledger(folder, collection(data_folder()), seed + int(time.time()))
        self.faults: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self._began = time.monotonic()
        self._until: dict[str, float] = {}  # faults that last: when they end

    def run(self, minutes: float, calm: float, every_s: float) -> list[str]:
        """Run it; what does not add up."""
        self.site.start()
        end = self._began + 60 * minutes
        quiet, next_fault, next_look = end - 60 * minutes * calm, self._began + every_s, 0.0
        try:
            while (now := time.monotonic()) < end:
                self.site.check_alive()
                is_calm = now > quiet
                if now > next_look:
                    if is_calm:
                        self.samples += look(self.site.processes(), now - self._began)
                    next_look = now + SAMPLE_S
                self._end_faults(now, all_of_them=is_calm)
                if not is_calm and now > next_fault:
                    self._fault(now, every_s)
                    next_fault = now + every_s * self._dice.uniform(0.5, 1.5)
                self._send()
            self._end_faults(end, all_of_them=True)
            wait_for_all(self.ledger, self.site, stalled_s=300)
            self.samples += look(self.site.processes(), time.monotonic() - self._began)
            code = self.site.stop()
            problems = out_of_balance(self.ledger, self.site, self.outside)
            return problems + ([f"the gateway stopped with {code}"] if code else [])
        finally:
            self.site.destroy()
            for one in self.outside.values():
                one.close()
            if self._cluster:
                self._cluster.stop()

    def unmount(self) -> None:
        """Take the small disk away, with what lies on it."""
        if self._disk:
            self._disk.unmount()

    def _send(self) -> None:
        waiting = len(self.ledger.acknowledged) - len(self.outside["second"].kept)
        if not self.ledger.pending and waiting < self._waiting:
            self.ledger.make(self._dice.randint(1, AT_ONCE))
        if not self.ledger.pending or not self.ledger.send(self.site.port, "duplicates" in self._until):
            time.sleep(0.5)  # nobody listens, or enough is under way

    def _fault(self, now: float, every_s: float) -> None:
        kinds = ["kill", "kill", "first", "second", "duplicates"]
        kinds += ["postgresql"] if self._cluster else []
        kinds += ["disk"] if self._disk else []
        kind = self._dice.choice([one for one in kinds if not self._only or one in self._only])
        until = now + self._dice.uniform(0.3, 1.0) * every_s
        if kind == "kill":
            kind = f"kill {(target := self._dice.choice(TARGETS))}"
            self._kill(target)
        elif kind == "postgresql" and self._cluster:
            self._cluster.restart()
        elif kind == "disk" and self._disk:
            self._disk.fill()
            self._until[kind] = until
        elif kind == "duplicates":
            self._until[kind] = until
        else:
            manners = [one for one in MANNERS[1:] if kind == "first" or one != "forgets"]
            manner = self.outside[kind].manner = self._dice.choice(manners)
            self._until[kind] = until
            kind = f"{kind} destination: {manner}"
        self.faults[kind] += 1
        self._say(f"{now - self._began:6.0f} s  {kind}; {len(self.ledger.acknowledged)} acknowledged")

    def _kill(self, target: str) -> None:
        if target == "tree":
            self.site.kill_tree()
            self.site.start()
        elif target == "supervisor":
            self.site.kill_supervisor()
            self.site.start()
        else:
            self.site.kill_role(target)

    def _end_faults(self, now: float, all_of_them: bool) -> None:
        for kind in [one for one, until in self._until.items() if all_of_them or until < now]:
            del self._until[kind]
            if kind in self.outside:
                self.outside[kind].manner = "well"
            elif kind == "disk" and self._disk:
                self._disk.empty()


def main() -> None:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--calm", type=float, default=0.3, help="share of the time, at the end, without faults")
    parser.add_argument("--every", type=float, default=30, help="seconds between two faults, about")
    parser.add_argument("--folder", type=Path, help="stays, for a later run to go on")
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--small-disk", type=int, default=0, help="MiB of a tmpfs for the state folder; needs root")
    parser.add_argument("--only", default="", help="these faults alone: kill first second duplicates postgresql disk")
    parser.add_argument(
        "--waiting", type=int, default=WAITING, help="more are not sent while so many are not delivered yet"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    add_outputs(parser, "soak")
    arguments = parser.parse_args()
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = arguments.folder or Path(name)
        chosen = arguments.database, arguments.small_disk, arguments.seed, arguments.only, arguments.waiting
        soak = Soak(folder.resolve(), *chosen, say)
        told = facts(folder, *(["PostgreSQL"] if arguments.database == "postgresql" else []))
        say(str(told))
        try:
            problems = soak.run(arguments.minutes, arguments.calm, arguments.every)
        finally:
            if not arguments.folder:
                soak.unmount()
    result = {
        "seed": arguments.seed,
        "minutes": arguments.minutes,
        "database": arguments.database,
        "sent": len(soak.ledger.sha256),
        "acknowledged": len(soak.ledger.acknowledged),
        "kinds": dict(soak.ledger.kinds.most_common()),
        "answers": dict(soak.ledger.passes.most_common()),
        "faults": dict(soak.faults.most_common()),
        "destinations": {name: dict(one.did.most_common()) for name, one in soak.outside.items()},
        "problems": problems,
        "growth": growth(soak.samples),
        "growth_is": "first, last, slope an hour, its standard error: of each role's longest life in the calm part",
        "facts": asdict(told),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", "utf-8")
    lines(arguments.picture, curves(soak.samples), "minutes since the start, calm part", told)
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
