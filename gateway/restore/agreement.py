"""Does an opened original agree with its record? Asked before anything of it is released (promises 3 and 5).

The record says whose study an original is in and who may have it; the query index says which patient it is of. Both lie
in a database that the worker writes, and the worker's key signs records. What the original says was sealed with it, so
that counts.
"""

from __future__ import annotations

import io
import re
from typing import Any, BinaryIO

from gateway.dicom.encoding.encoded import Identity, read_identity
from gateway.dicom.encoding.plain import plain_values
from gateway.dicom.encoding.syntaxes import syntax_of
from gateway.errors import DicomError, IntegrityError
from gateway.vault import VaultRecord

PATIENT_ID, PATIENT_NAME, BIRTH_DATE = "00100020", "00100010", "00100030"
_UIDS = (
    (0x00080016, "sop_class_uid", "sop_class_uid"),
    (0x00080018, "sop_instance_uid", "original_sop_uid"),
    (0x0020000D, "study_uid", "study_uid"),
    (0x0020000E, "series_uid", "original_series_uid"),
)
_VRS = dict.fromkeys((tag for tag, _, _ in _UIDS), b"UI")
_VRS |= {int(PATIENT_ID, 16): b"LO", int(PATIENT_NAME, 16): b"PN", int(BIRTH_DATE, 16): b"DA"}
_PLAIN = re.compile(rb"[ -<>-\[\]-}]*")  # the same in every character set, of one value and one group of components
_OLD_LENGTH = 64  # characters of a value that the index of records of version 1 and 2 could hold


def check_agreement_of(record: VaultRecord, data: memoryview) -> None:
    """As `check_agreement`, of an original that lies in memory: mostly a look at seven values tells."""
    if not _plainly_agrees(record, data):
        check_agreement(record, io.BytesIO(data))


def _plainly_agrees(record: VaultRecord, data: memoryview) -> bool:
    """Whether all that counts stands there letter for letter as it is claimed; False: look closer."""
    found = plain_values(data, syntax_of(record.transfer_syntax_uid), _VRS)
    if found is None:
        return False
    if any(found.get(tag, b"").rstrip(b"\0") != getattr(record, theirs).encode() for tag, _, theirs in _UIDS):
        return False
    for tag in _claimable(record):
        claimed, value = record.attributes.get(tag, {}).get("Value"), found.get(int(tag, 16), b"")
        if not claimed:
            continue
        text = value.decode("ascii").strip(" ") if _PLAIN.fullmatch(value) else ""
        if not text or claimed != [{"Alphabetic": text} if tag == PATIENT_NAME else text]:
            return False
    return True


def check_agreement(record: VaultRecord, data: BinaryIO) -> None:
    """Compare a record, and what the query index claims of the patient, with the opened original.

    Parameters
    ----------
    data
        The original's bytes from their beginning; only the header is read.

    Raises
    ------
    IntegrityError
        ``original-differs-from-record``: another instance, series, study or patient than the record or the index says;
        ``original-unreadable``: the header cannot be read, so nothing can be compared.
    """
    try:
        header = read_identity(data, record.transfer_syntax_uid)
    except DicomError as error:
        raise IntegrityError(
            "original-unreadable", f"the header of the original of record {record.locator}: {error.code}"
        ) from None
    # Of an element that stands twice with different values the first counts today; older gateways took the last.
    differing = [
        theirs
        for tag, ours, theirs in _UIDS
        if getattr(header, ours) != getattr(record, theirs) and tag not in header.conflicts
    ]
    if not _is_claimed_patient(record, header):
        differing.append("the patient")
    if differing:
        raise IntegrityError(
            "original-differs-from-record",
            f"the original of record {record.locator} is not what its record says: {', '.join(differing)}",
            "somebody changed the record or the query index: compare with the audit and a backup",
        )


def _is_claimed_patient(record: VaultRecord, header: Identity) -> bool:
    """Whether the index names the original's own patient. What it does not claim cannot mislead."""
    for tag in _claimable(record):
        claimed, found = record.attributes.get(tag, {}).get("Value"), header.attributes.get(tag, {}).get("Value")
        if claimed and int(tag, 16) not in header.conflicts and claimed != found and not _was_cut(record, found):
            return False
    return True


def _claimable(record: VaultRecord) -> tuple[str, ...]:
    """What the index of a record of this version can mislead with."""
    return (PATIENT_ID, PATIENT_NAME, BIRTH_DATE) if record.index_sha256 else (PATIENT_ID,)


def _was_cut(record: VaultRecord, found: Any) -> bool:
    """Records of version 1 and 2 left out what is longer than its VR allows."""
    return not record.index_sha256 and any(len(str(value)) > _OLD_LENGTH for value in found or ())
