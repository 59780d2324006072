"""Every error that the gateway raises on purpose.

    GatewayError                code, message, hint
    ├── ConfigError             the configuration cannot be used
    ├── DicomError              bytes that are not what DICOM says they should be
    ├── HoldError               this instance cannot go on; it is held and shown, never forwarded
    │   └── MarkError           ... because it cannot be marked
    ├── SealError               sealing, opening, token or signature failed
    ├── VaultError              the vault cannot store or find what was asked for
    │   ├── NotFoundError       no such record (also: not in the caller's scope)
    │   └── IntegrityError      what was read is not what was stored: never to be released
    ├── CapacityError           out of disk, queue or slots: the peer may try again (DIMSE 0xA700)
    ├── UnreachableError        a server that the gateway itself needs (its database) does not answer: it may later
    └── DeliveryError           a destination did not take an instance
        ├── TransientError      ... it may do so later
        └── PermanentError      ... it will not: hold

`code` is a stable, lower-case, hyphenated word that scripts and tests may rely on. `message` says what and where,
`hint` what to do about it. None of the three ever holds a patient's data (architecture, promise 7).
"""

from __future__ import annotations

import traceback
from pathlib import Path


class GatewayError(Exception):
    """Root of the tree.

    Parameters
    ----------
    code
        Stable hyphenated word, e.g. ``"pixel-data-too-short"``.
    message
        What went wrong and where, without PHI.
    hint
        What the reader can do about it; may be empty.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(GatewayError):
    """The configuration, a secret it refers to, or a file it names cannot be used."""


class DicomError(GatewayError):
    """Bytes that are not what DICOM says they should be."""


class HoldError(GatewayError):
    """This instance cannot go on: it is held with `code` as the reason."""


class MarkError(HoldError):
    """This image cannot be marked."""


class SealError(GatewayError):
    """Sealing, opening, a token or a signature failed."""


class VaultError(GatewayError):
    """The vault cannot store or find what was asked for."""


class NotFoundError(VaultError):
    """There is no such record, or none in the caller's scope: the two look alike on purpose."""


class IntegrityError(VaultError):
    """What was read is not what was stored; it must never be released as an original."""


class CapacityError(GatewayError):
    """Out of disk, queue or slots: the peer may try again later (DIMSE status 0xA700)."""


class UnreachableError(GatewayError):
    """A server that the gateway itself needs does not answer: waiting and trying again may heal it."""


class DeliveryError(GatewayError):
    """A destination did not take an instance.

    Attributes
    ----------
    about_instance
        The connection stood and ended over this very instance: others may well go through on a new one.
    """

    about_instance = False


class TransientError(DeliveryError):
    """The destination may take the instance later."""


class PermanentError(DeliveryError):
    """The destination will not take the instance: hold it for a person."""


def fault(error: BaseException) -> str:
    """Type and place of an exception. Its text is left out: it may quote a patient's data (architecture, promise 7)."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    last = frames[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
