"""Which files a DICOMDIR names (PS3.10 8.6; PS3.3 F.3.2.2, Basic Directory Information Object).

A DICOMDIR is foreign bytes like any other, and what it names are paths: a File ID that could lead out of its own folder
is refused here, before it is one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from pydicom import Dataset

from gateway.dicom.encoding import values
from gateway.dicom.encoding.encoded import open_source, parse, split_header
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.limits import MAX_HEADER
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.syntaxes import syntax_of
from gateway.errors import DicomError

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
NAME = "DICOMDIR"
_COMPONENTS = 8  # PS3.10 8.2; each has 8 characters at most, of A-Z, 0-9 and _, which few writers keep to
# No separator, drive letter, control character or wildcard of any file system; no "." or "..".
_COMPONENT = re.compile(r"(?!\.{1,2}$)[^\x00-\x1f\x7f/\\:*?\"<>|]{1,64}")


@dataclass(frozen=True)
class DirectoryEntry:
    """One directory record that names a file.

    Attributes
    ----------
    number
        Of the record in the Directory Record Sequence, from 1.
    file
        The Referenced File ID (0004,1500) as a path below the DICOMDIR's own folder; None when it is not one.
    """

    number: int
    file: PurePosixPath | None


def is_directory(stream: BinaryIO) -> bool:
    """True when a seekable stream is a DICOM file whose File Meta says Media Storage Directory; left at its start."""
    try:
        stream.seek(0)
        return split_part10(stream)[0].sop_class_uid == MEDIA_STORAGE_DIRECTORY
    except DicomError:
        return False
    finally:
        stream.seek(0)


def read_directory(stream: BinaryIO) -> list[DirectoryEntry]:
    """The records in use that name a file, in the order of the Directory Record Sequence (0004,1220).

    Parameters
    ----------
    stream
        A DICOM file, seekable, at its beginning.

    Raises
    ------
    DicomError
        "not-dicom", "truncated" and the others of `read_header`; "not-a-directory" when there is no such sequence.
    """
    meta, _ = split_part10(stream)
    with foreign_errors("undecodable-header", "the DICOMDIR cannot be read"):
        source, layout = open_source(stream, syntax_of(meta.transfer_syntax_uid))
        header, _ = split_header(source, layout, bulk=MAX_HEADER)
        ds = parse(header, layout)
        if "DirectoryRecordSequence" not in ds:
            raise DicomError("not-a-directory", "the file has no Directory Record Sequence")
        records = enumerate(values.items(ds, "DirectoryRecordSequence"), 1)
        return [DirectoryEntry(number, _file(record)) for number, record in records if _names_a_file(record)]


def _names_a_file(record: Dataset) -> bool:
    """In use, or without the flag (0004,1410): 0000H says that the record is to be ignored."""
    return "ReferencedFileID" in record and values.integer(record, "RecordInUseFlag") != 0


def _file(record: Dataset) -> PurePosixPath | None:
    parts = values.texts(record, "ReferencedFileID")
    if 1 <= len(parts) <= _COMPONENTS and all(_COMPONENT.fullmatch(part) for part in parts):
        return PurePosixPath(*parts)
    return None
