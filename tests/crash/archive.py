"""The archive's side: DCMTK `storescu`, which is believed only when it says that it was answered with success."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.crash.objects import Instance
from tests.support.network.peers import run

_SENDING = re.compile(r"^I: Sending file: (.+)$")
_ANSWER = re.compile(r"^I: Received Store Response \((.+)\)\s*$")
SUCCESS, NO_RESOURCES = "Success", "Refused: OutOfResources"


def store(instances: Iterable[Instance], port: int, called_ae: str = "RELAY") -> set[str]:
    """Send each file to a port of this machine; returns the SOP Instance UIDs that were answered with 0x0000."""
    answers = send(instances, "127.0.0.1", port, called_ae)
    return {uid for uid, answer in answers.items() if answer == SUCCESS}


def send(
    instances: Iterable[Instance], address: str, port: int, called_ae: str = "RELAY", patience_s: int = 30
) -> dict[str, str]:
    """Send each file in its own transfer syntax, one association for each syntax.

    Returns
    -------
    dict[str, str]
        SOP Instance UID -> the answer in DCMTK's words, of those that were answered; after a failure or a lost
        connection the rest is not sent.
    """
    by_option: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        by_option[instance.option].append(instance)
    answered: dict[str, str] = {}
    waits = ["-to", "5", "-ta", min(20, patience_s), "-td", patience_s]
    for option, members in by_option.items():
        uids = {str(instance.path): instance.sop_instance_uid for instance in members}
        words = ["-v", option, *waits, "-aet", "STORESCU", "-aec", called_ae, address, port, *uids]
        done = run("storescu", *words, timeout_s=120)
        answered |= {uids[path]: answer for path, answer in answered_files(done.stdout + done.stderr).items()}
    return answered


def answered_files(output: str) -> dict[str, str]:
    """Files that ``storescu -v`` got an answer for, and which."""
    found: dict[str, str] = {}
    current = ""
    for line in output.splitlines():
        if match := _SENDING.match(line):
            current = match[1]
        elif current and (match := _ANSWER.match(line)):
            found[current] = match[1]
            current = ""
    return found


def received_files(folder: Path) -> list[Path]:
    """What a `storescp` has written."""
    return sorted(path for path in folder.iterdir() if path.is_file())
