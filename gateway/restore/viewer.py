"""Metadata, pictures and single values of an original, made in processes that hold no key and open no file.

The restore role itself decodes no codestream and turns no foreign value into text: it hands an original's verified
bytes to a child (`gateway.dicom.pixels.children.views`), and takes bytes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway.dicom.encoding.limits import MAX_HEADER
from gateway.dicom.pixels.children.pool import Limits, Pool

MOST_VIEWED = 128 << 20  # bytes of an original that pictures and values are made of
MOST_READ = MAX_HEADER + (1 << 20)  # of its beginning, where the header lies
ROOM = 64 << 20  # of what comes back
_MAIN = "gateway.dicom.pixels.children.views"


class Viewer:
    """One pool of children for one role. Safe for any number of threads.

    Parameters
    ----------
    limits
        Of each child, as of those that decode frames.
    """

    def __init__(self, limits: Limits) -> None:
        self._pool = Pool(limits, _MAIN)

    def metadata(self, chunks: Iterable[bytes], transfer_syntax_uid: str, bulk_url: str) -> bytes:
        """All attributes in the DICOM JSON model (PS3.18 F), of one instance; UTF-8.

        Pixel data that lie there uncompressed, and binary values of more than 1 KiB at the top level, are named by
        `bulk_url` and their tag.

        Raises
        ------
        DicomError
            As `gateway.dicom.encoding.encoded.read_header`, and "codec-timeout", "codec-killed", "codec-memory".
        CapacityError
            "codec-start".
        """
        wish = {"bulk_url": bulk_url}
        return self._pool.look("metadata", _beginning(chunks), MOST_READ, ROOM, transfer_syntax_uid, wish)

    def rendered(self, chunks: Iterable[bytes], transfer_syntax_uid: str, wish: Mapping[str, Any]) -> bytes:
        """One frame as a picture of 8 bits.

        Parameters
        ----------
        wish
            ``media``: "image/jpeg" or "image/png"; ``frame``: from 1, 0 where none was named; and where they were given
            ``window``: [centre, width, function], ``viewport``: [width, height], ``quality``: 1 to 100.

        Raises
        ------
        DicomError
            As `metadata`, what cannot be decoded or shown, and "too-large-to-view", "no-such-value",
            "several-frames".
        """
        return self._pool.look("rendered", chunks, MOST_VIEWED, ROOM, transfer_syntax_uid, wish)

    def bulk(self, chunks: Iterable[bytes], transfer_syntax_uid: str, tag: str) -> bytes:
        """The bytes of one uncompressed value at the top level, little endian; `tag`: eight hexadecimal digits.

        Raises
        ------
        DicomError
            As `metadata`; "too-large-to-view", "no-such-value", "compressed-value".
        """
        return self._pool.look("bulk", chunks, MOST_VIEWED, MOST_VIEWED, transfer_syntax_uid, {"tag": tag})

    def close(self) -> None:
        """End the children."""
        self._pool.close()


def _beginning(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The first `MOST_READ` bytes."""
    left = MOST_READ
    for chunk in chunks:
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return
