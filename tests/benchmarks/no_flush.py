"""`gateway.cli` whose flushes do nothing, for benchmarks of the path before them: never for anything that matters."""

from __future__ import annotations

import os

from gateway import cli


def _nothing(_descriptor: int) -> None:
    """What a flush is replaced by."""


if __name__ == "__main__":
    os.fsync = os.fdatasync = _nothing
    cli.main()
