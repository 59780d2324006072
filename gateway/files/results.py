"""What became of one file: the row that the command shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.errors import DicomError, GatewayError, NotFoundError, SealError
from gateway.files.inputs import Input

Outcome = Literal["marked", "remapped", "restored", "held", "refused", "failed"]


@dataclass(frozen=True)
class FileResult:
    """What became of one file.

    outcome: ``marked``, ``remapped`` (its references name marked copies now), ``restored``, ``held`` (does not leave;
    nothing was written), ``refused`` (not ours to mark or restore) or ``failed``. member: which one of an archive or
    DICOMDIR. notes: codes of what was irregular in it and did not stand in the way (`gateway.dicom.encoding.notes`).
    """

    path: Path
    outcome: Outcome
    output: Path | None = None
    sop_instance_uid: str = ""
    reason_code: str = ""
    reason: str = ""
    member: str = ""
    notes: tuple[str, ...] = ()


def refusal(found: Input, error: GatewayError | OSError) -> FileResult:
    """The row of an input that could not be read, marked or restored."""
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        return FileResult(found.path, "failed", None, "", "cannot-read-or-write", reason, found.member)
    outcome: Outcome = "refused" if isinstance(error, DicomError | NotFoundError | SealError) else "failed"
    return FileResult(found.path, outcome, None, "", error.code, str(error), found.member)
