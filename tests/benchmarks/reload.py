"""Reload under load: instances come over several associations while the configuration is reloaded, at times broken.

    python -m tests.benchmarks.reload [--instances 1000 --reloads 20 --broken 5 --senders 4] [--json FILE]

Sender is pynetdicom, sink DCMTK `storescp`; instances are CT of 64x64x16 bit made from noise, the mark is at its fast
setting (steps = 0). Reloads come by `miad-gateway reload` and by SIGHUP in turn; every third changes ports and
certificates too. Exit code 1 when anything was lost, or refused that should not be.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.support.reloading import campaign


def main() -> None:
    """Run it and print the outcome as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--broken", type=int, default=5, help="of the reloads")
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        outcome = campaign(
            Path(name), arguments.instances, arguments.reloads, arguments.broken, senders=arguments.senders
        )
    result = {**vars(outcome), "problems": outcome.problems}
    result["sent"] = {"statuses": outcome.sent.statuses, "associations": outcome.sent.associations}
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    if outcome.problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
