"""The archive's side: DCMTK `storescu`, which is believed only when it says that it was answered with success."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.crash.objects import Instance
from tests.support.network.peers import run

_SENDING = re.compile(r"^I: Sending file: (.+)$")
_SUCCESS = "I: Received Store Response (Success)"


def store(instances: Iterable[Instance], port: int, called_ae: str = "RELAY") -> set[str]:
    """Send each file in its own transfer syntax, one association for each syntax.

    Returns
    -------
    set[str]
        SOP Instance UIDs that were answered with 0x0000; after a failure or a lost connection the rest is not sent.
    """
    by_option: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        by_option[instance.option].append(instance)
    acknowledged: set[str] = set()
    for option, members in by_option.items():
        uids = {str(instance.path): instance.sop_instance_uid for instance in members}
        options = ["-v", option, "-to", "5", "-ta", "20", "-td", "30", "-aet", "STORESCU", "-aec", called_ae]
        done = run("storescu", *options, "127.0.0.1", port, *uids, timeout_s=120)
        acknowledged |= {uids[path] for path in acknowledged_files(done.stdout + done.stderr)}
    return acknowledged


def acknowledged_files(output: str) -> set[str]:
    """Files that ``storescu -v`` got a success for."""
    found: set[str] = set()
    current = ""
    for line in output.splitlines():
        if match := _SENDING.match(line):
            current = match[1]
        elif line.strip() == _SUCCESS and current:
            found.add(current)
            current = ""
    return found


def received_files(folder: Path) -> list[Path]:
    """What a `storescp` has written."""
    return sorted(path for path in folder.iterdir() if path.is_file())
