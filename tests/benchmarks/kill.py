"""Kill the gateway again and again while a study goes through it, and look at what is true in the end.

    python -m tests.benchmarks.kill [--kills 50 --sends 5 --instances 200] [--points WORDS] [--seed N] [--json FILE]

Sender is DCMTK `storescu`, sink DCMTK `storescp +B +uf` (bit-preserving, every copy kept). Instances are CT of
64x64x16 bit made from noise, in three transfer syntaxes; the mark is at its fast setting (steps = 0). Half of the kills
fall at named points (`tests.crash.points`), half at random moments on one role, the supervisor or the whole tree. A
send goes out in parts, one part for each kill; what storescu got no success for is sent again. Exit code 1 when a
promise did not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.crash.agreement import agreement
from tests.crash.campaign import campaign


def main() -> None:
    """Run the campaign, then the comparison of batches of 1 and 8, and print both as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--sends", type=int, default=5)
    parser.add_argument("--instances", type=int, default=200, help="of each send")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--points", default="", help="only named points that begin so, as commitment")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        outcome = campaign(
            Path(name),
            kills=arguments.kills,
            sends=arguments.sends,
            instances=arguments.instances,
            seed=arguments.seed,
            only=arguments.points,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    with tempfile.TemporaryDirectory() as name:
        batches = agreement(Path(name), instances=24)
    result = {"seed": arguments.seed, **asdict(outcome), "batches_of_1_and_8": batches}
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    if outcome.problems or batches["different"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
