"""The exit codes: stable, for scripts."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from gateway.errors import (
    ConfigError,
    DeliveryError,
    DicomError,
    GatewayError,
    HoldError,
    NotFoundError,
    UnreachableError,
)


class ExitCode(IntEnum):
    """What the caller may conclude. The text of each stands in `--help` and in the documents."""

    OK = 0
    FAILED = 1
    USAGE = 2
    HELD = 3
    UNREACHABLE = 4


MEANING = {
    ExitCode.OK: "everything was done",
    ExitCode.FAILED: "something failed unexpectedly",
    ExitCode.USAGE: "wrong usage or configuration; nothing was done",
    ExitCode.HELD: "something was held or refused",
    ExitCode.UNREACHABLE: "the peer or the database could not be reached or did not answer",
}

_BY_ERROR: tuple[tuple[type[GatewayError], ExitCode], ...] = (
    (ConfigError, ExitCode.USAGE),
    (NotFoundError, ExitCode.USAGE),
    (HoldError, ExitCode.HELD),
    (DicomError, ExitCode.HELD),
    (DeliveryError, ExitCode.UNREACHABLE),
    (UnreachableError, ExitCode.UNREACHABLE),
)


def exit_code_of(error: GatewayError) -> ExitCode:
    """The code that a command ends with when `error` stopped it."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.FAILED)


def exit_code_of_outcomes(outcomes: Iterable[str]) -> ExitCode:
    """The code after a run over many files: a failure counts more than something held or refused."""
    seen = set(outcomes)
    if "failed" in seen:
        return ExitCode.FAILED
    return ExitCode.HELD if seen & {"held", "blocked", "refused"} else ExitCode.OK
