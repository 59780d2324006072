"""`gateway.cli` on a disk whose next flush fails, once, when a file says so: for tests only.

    MIAD_FAIL_FLUSH=FILE python -m tests.support.failing_flush serve --role ingress --config gateway.toml

While FILE is there the next fdatasync, with which alone received instances are flushed, takes FILE away and fails with
EIO. The product has no hooks: the call is replaced here, from outside.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from gateway import cli

VARIABLE = "MIAD_FAIL_FLUSH"


def main() -> None:
    """Be the command line."""
    order, flush = Path(os.environ[VARIABLE]), os.fdatasync

    def fdatasync(descriptor: int) -> None:
        try:
            order.unlink()
        except FileNotFoundError:
            flush(descriptor)
        else:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    os.fdatasync = fdatasync  # type: ignore[assignment]
    cli.main()


if __name__ == "__main__":
    main()
