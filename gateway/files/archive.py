"""Zip archives as input (PS3.12 annex V): members are read where they lie, one after the other, never unpacked.

An archive is foreign bytes: what it claims of its sizes is held against bounds before anything is inflated, and only
the two methods are read that inflate in bounded memory (stored, deflate: the only ones that PS3.12 allows).
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from gateway.dicom.encoding.library import foreign_errors
from gateway.errors import DicomError

MAX_DIRECTORY = 16 << 20  # bytes of the archive's directory; the library reads it at once
MAX_MEMBERS = 100_000
MAX_RATIO = 200  # inflated to compressed; deflate reaches 1032. A frame of one value comes near it and is small:
RATIO_FROM = 256 << 20  # so no ratio is asked for below this size
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def is_archive(path: Path) -> bool:
    """True when a file begins as a zip archive and is no DICOM file, whose preamble may say anything (PS3.10 7.1)."""
    with open(path, "rb") as file:
        head = file.read(132)
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06") and head[128:] != b"DICM"


class Archive:
    """One open archive. Close it, or use it in a `with` block; for one thread at a time.

    Parameters
    ----------
    member_limit
        Bytes that one member may have.

    Raises
    ------
    DicomError
        "not-an-archive", "archive-directory-too-large", "too-many-members", "archive-ratio" (its members inflate to
        far more than any images do).
    OSError
        The file cannot be read.
    """

    def __init__(self, path: Path, member_limit: int) -> None:
        self._limit = member_limit
        self._file = _SmallReads(path)
        try:
            with foreign_errors("not-an-archive", "the zip archive is damaged or incomplete"):
                self._zip = zipfile.ZipFile(self._file)
            self._members = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
            if len(self._members) > MAX_MEMBERS:
                raise DicomError("too-many-members", f"the zip archive has more than {MAX_MEMBERS} members")
            total = sum(info.file_size for info in self._members)
            if total > RATIO_FROM and total > MAX_RATIO * path.stat().st_size:
                raise DicomError("archive-ratio", f"the members of the zip archive inflate to {total} bytes")
        except BaseException:
            self._file.close()
            raise

    def members(self) -> Iterator[zipfile.ZipInfo]:
        """All members but folders, in the order of the archive's directory; a name may come twice."""
        return iter(self._members)

    def open(self, member: zipfile.ZipInfo) -> BinaryIO:
        """Open a member for reading; seeking back inflates it again from its start.

        Raises
        ------
        DicomError
            "encrypted-member", "unsupported-compression", "member-too-large", "archive-ratio"; while reading as well,
            "damaged-member" (it cannot be inflated, ends early, or its CRC-32 differs).
        """
        if member.flag_bits & 0x1:
            raise DicomError("encrypted-member", "the archive's member is encrypted", "decrypt the archive first")
        if member.compress_type not in _METHODS:
            raise DicomError("unsupported-compression", "the archive's member is neither stored nor deflated")
        if member.file_size > self._limit:
            message = f"the archive's member has {member.file_size} bytes, more than {self._limit}"
            raise DicomError("member-too-large", message, "see ingress.max_instance_mib")
        if member.file_size > RATIO_FROM and member.file_size > MAX_RATIO * member.compress_size:
            raise DicomError("archive-ratio", f"the archive's member inflates more than {MAX_RATIO} times")
        with _damaged():
            opened = self._zip.open(member)
            return cast(BinaryIO, _Member(cast(zipfile.ZipExtFile, opened)))

    def close(self) -> None:
        """Close the archive's file."""
        self._zip.close()
        self._file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _damaged():
    return foreign_errors("damaged-member", "the archive's member cannot be read")


class _SmallReads(io.FileIO):
    """A file that refuses to be read in pieces larger than any directory of an archive that is read here."""

    def read(self, size: int | None = -1) -> bytes:
        left = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > MAX_DIRECTORY:
            raise DicomError(
                "archive-directory-too-large", f"the zip archive's directory exceeds {MAX_DIRECTORY} bytes"
            )
        return super().read(wanted)


class _Member(io.RawIOBase):
    """A member being read; what `zipfile` and `zlib` raise on damaged bytes becomes a `DicomError`."""

    def __init__(self, member: zipfile.ZipExtFile) -> None:
        super().__init__()
        self._member = member

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        with _damaged():
            return self._member.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _damaged():
            return self._member.seek(offset, whence)

    def tell(self) -> int:
        return self._member.tell()

    def close(self) -> None:
        if not self.closed:
            self._member.close()
        super().close()
