"""Nothing leaves with another digest than the approved one: a file is hashed before its first byte is sent."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import BinaryIO, cast

from gateway.errors import HoldError, SealError

IN_MEMORY = 64 << 20  # bytes; what is larger is read twice from the one open file
_PIECE = 1 << 20


def verified(open_file: Callable[[], BinaryIO], sha256: str, size: int | None, what: str) -> Callable[[], BinaryIO]:
    """What opens a file and checks all of it.

    Parameters
    ----------
    sha256, size
        That the contents must have: hexadecimal digest, and bytes (None: any).
    what
        The file, for the message, as "the derived file".

    Returns
    -------
    callable
        Opens the contents for reading. It raises HoldError ``not-ours`` when they are others, or cannot be decrypted.
        Up to `IN_MEMORY` bytes are held in memory; of more the last piece is handed out only after the digest of what
        was read the second time fits as well.
    """

    def open_verified() -> BinaryIO:
        file = open_file()
        try:
            return _verified(file, sha256, size, what)
        except SealError as error:
            file.close()
            raise HoldError("not-ours", f"{what} was changed since it was written: {error.message}", _HINT) from None
        except BaseException:
            file.close()
            raise

    return open_verified


_HINT = "somebody changed it; release it to make it again from the received bytes"


def _verified(file: BinaryIO, sha256: str, size: int | None, what: str) -> BinaryIO:
    digest, total, length = hashlib.sha256(), 0, file.seek(0, io.SEEK_END)
    file.seek(0)
    kept = io.BytesIO()
    in_memory = length <= IN_MEMORY
    if in_memory and length:  # room for all of it, where it is sent from
        kept.seek(length - 1)
        kept.write(b"\0")
        kept.seek(0)
    with kept.getbuffer() if in_memory else memoryview(bytearray(_PIECE)) as room:
        while count := file.readinto(room[total : total + _PIECE] if in_memory else room):  # type: ignore[attr-defined]
            digest.update(room[total : total + count] if in_memory else room[:count])
            total += count
    if digest.hexdigest() != sha256 or total != length or size not in (None, total):
        raise HoldError("not-ours", f"the digest of {what} is not the one that was approved", _HINT)
    if in_memory:
        file.close()
        return kept
    file.seek(0)
    # Buffered: whoever reads lines of it would else read byte by byte.
    return cast(BinaryIO, io.BufferedReader(_CheckedAgain(file, sha256, total, what), _PIECE))


class _CheckedAgain(io.RawIOBase):
    """Reads the file a second time, and keeps its end back when it turns out to be another."""

    def __init__(self, file: BinaryIO, sha256: str, size: int, what: str) -> None:
        super().__init__()
        self._file = file
        self._sha256 = sha256
        self._left = size
        self._what = what
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        try:
            data = self._file.read(wanted)
        except SealError as error:
            raise HoldError(
                "not-ours", f"{self._what} was changed since it was written: {error.message}", _HINT
            ) from None
        self._digest.update(data)
        self._left -= len(data)
        short = len(data) < wanted
        if short or (self._left == 0 and wanted and self._digest.hexdigest() != self._sha256):
            raise HoldError("not-ours", f"{self._what} was changed while it was sent", _HINT)
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
