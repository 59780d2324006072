"""A copy in another lossless transfer syntax, for a destination that does not take the one it is kept in."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.dicom.pixels.compress import recode
from gateway.errors import CapacityError, PermanentError, TransientError


def recoded(open_file: Callable[[], BinaryIO], transfer_syntax_uid: str, wanted: str) -> BinaryIO:
    """The data set that `open_file` opens (in `transfer_syntax_uid`) in the lossless syntax `wanted`.

    Raises
    ------
    PermanentError
        ``context-refused``: only what is kept in Explicit VR Little Endian is encoded anew.
    DicomError
        As `gateway.dicom.pixels.compress.recode`: "not-exact" where another syntax may do.
    TransientError
        ``codec-start``: this machine starts no process to encode in, at the moment.
    """
    if transfer_syntax_uid != EXPLICIT_LITTLE:
        raise PermanentError("context-refused", f"a compressed segmentation is sent as it came, not in {wanted}")
    with open_file() as file:
        try:
            return io.BytesIO(recode(file.read(), wanted))
        except CapacityError as error:
            raise TransientError(error.code, error.message, error.hint) from None
