"""Whose a file is, for the person who runs a command as somebody else."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def run_as(path: Path) -> str:
    """What to do when this user may not use `path`: run as the user whose it is; empty where it is this user's own.

    Of a path that this user cannot even see, the nearest folder that can be seen counts.
    """
    for one in (path.absolute(), *path.absolute().parents):
        try:
            owner = one.stat().st_uid
        except OSError:
            continue
        if owner == os.geteuid():
            return ""
        return (
            f"this is user {_name(os.geteuid())}, and {one} belongs to {_name(owner)}: run it as sudo -u {_name(owner)}"
        )
    return ""


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
