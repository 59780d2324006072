"""Reading foreign bytes forward, never more than is there: the reader under the element walker.

Spool files decrypt as a stream, so nothing here seeks unless the stream can and its size is known.
"""

from __future__ import annotations

import zlib
from typing import Any, BinaryIO

from gateway.dicom.encoding.limits import ELEMENT, HINT, MAX_DECODED
from gateway.errors import DicomError

_CHUNK = 1 << 20
_AHEAD = 1 << 14  # bytes that are read at once where fewer are asked for
MAX_INFLATED = 512 << 20  # bytes that a deflated data set may inflate to; deflate reaches 1:1032
MAX_ELEMENTS = MAX_DECODED // ELEMENT  # elements, items and fragments


class InflatingReader:
    """The bytes behind a raw deflate stream (RFC 1951; PS3.5 A.5), inflated as they are asked for.

    Raises DicomError "bad-deflate", "truncated", or "inflates-too-large" beyond `limit` bytes.
    """

    def __init__(self, stream: BinaryIO, limit: int = MAX_INFLATED) -> None:
        self._stream = stream
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._left = limit

    def read(self, size: int) -> bytes:
        """Up to `size` (> 0) bytes; empty only at the end of the deflate stream."""
        while not self._inflate.eof:
            pending = self._inflate.unconsumed_tail or self._stream.read(1 << 16)
            try:
                out = self._inflate.decompress(pending, size)
            except zlib.error:
                raise DicomError("bad-deflate", "the deflated data set cannot be inflated") from None
            if out:
                self._left -= len(out)
                if self._left < 0:
                    raise DicomError("inflates-too-large", "the deflated data set inflates beyond the limit")
                return out
            if not pending and not self._inflate.eof:
                raise DicomError("truncated", "the deflated data set ends early")
        return b""


class Source:
    """A forward reader that counts, checks and, when told to, keeps what passes.

    Parameters
    ----------
    stream
        Anything with ``read(n)``.
    size
        Bytes in the stream when known: a declared length beyond them fails at once, and a stream that can seek skips
        values without reading them.
    """

    def __init__(self, stream: BinaryIO | InflatingReader, size: int | None = None) -> None:
        self._stream: Any = stream  # whether it can seek is asked below
        self._size = size
        self._ahead = b""  # what was read, and is not consumed from `_at` on
        self._at = 0
        seekable = getattr(stream, "seekable", None)
        self._can_seek = size is not None and seekable is not None and seekable()
        self.position = 0
        self._elements = 0
        self._kept: bytearray | None = None
        self._keep_at_most = 0

    def keep(self, into: bytearray | None = None, *, at_most: int) -> bytearray:
        """From here on copy what is consumed to the end of `into` (or a new buffer), which is returned.

        Going beyond `at_most` bytes raises DicomError "header-too-large".
        """
        self._kept = bytearray() if into is None else into
        self._keep_at_most = at_most
        return self._kept

    def keep_no_more(self) -> None:
        """Consume without copying from here on."""
        self._kept = None

    def peek(self, size: int) -> bytes:
        """The next bytes without consuming them; fewer than `size` only at the end."""
        have = len(self._ahead) - self._at
        if have < size:
            pieces = [self._ahead[self._at :]]
            while have < size and (more := self._stream.read(max(size - have, _AHEAD))):
                pieces.append(more)
                have += len(more)
            self._ahead, self._at = b"".join(pieces), 0
        return self._ahead[self._at : self._at + size]

    def ahead(self, least: int) -> tuple[bytes, int]:
        """What is read already, and where in it the rest begins: of `least` bytes or more, but at the end."""
        self.peek(least)
        return self._ahead, self._at

    @property
    def elements_left(self) -> int:
        """How many elements may still begin."""
        return MAX_ELEMENTS - self._elements

    def advance(self, size: int, elements: int) -> None:
        """Go past bytes that `ahead` gave, in which so many elements begin."""
        self._elements += elements
        self._consume(size)

    def count_element(self) -> None:
        """One more element, item or fragment begins. Raises DicomError "too-many-elements" beyond `MAX_ELEMENTS`."""
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise DicomError(
                "too-many-elements", f"more than {MAX_ELEMENTS} elements before byte {self.position}", HINT
            )

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes (for small, trusted sizes). Raises DicomError "truncated"."""
        data = self.peek(size)
        if len(data) < size:
            raise self._truncated()
        self._consume(size)
        return data

    def skip(self, size: int) -> None:
        """Go past `size` bytes, keeping them when keeping is on. Raises DicomError "truncated"."""
        self._check(size)
        while size:
            have = len(self._ahead) - self._at
            if self._can_seek and self._kept is None and size > have:
                self._stream.seek(size - have, 1)
                self._ahead, self._at = b"", 0
                self.position += size
                return
            data = self.peek(min(size, _CHUNK))
            if not data:
                raise self._truncated()
            self._consume(len(data))
            size -= len(data)

    def rest_is_zero(self) -> bool:
        """Consume everything that is left; True when it holds nothing but zero bytes. Keeps none of it."""
        self.keep_no_more()
        while data := self.peek(_CHUNK):
            if data.count(0) != len(data):
                return False
            self._consume(len(data))
        return True

    def _consume(self, size: int) -> None:
        if self._kept is not None:
            if len(self._kept) + size > self._keep_at_most:
                raise DicomError("header-too-large", f"more than {self._keep_at_most} bytes before the pixel data")
            self._kept += self._ahead[self._at : self._at + size]
        self._at += size
        self.position += size

    def _check(self, size: int) -> None:
        if self._size is not None and self.position + size > self._size:
            raise self._truncated()

    def _truncated(self) -> DicomError:
        return DicomError("truncated", f"the data set ends inside an element that begins before byte {self.position}")
