"""The record of one original: a signed document, and what a database row repeats of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gateway.database import VaultRow
from gateway.errors import IntegrityError, SealError
from gateway.keys import Verifier, canonical
from gateway.vault.attributes import ACCESSION_NUMBER, MODALITY, PATIENT_ID, STUDY_DATE, column_text, first_text

DOCUMENT_VERSION = 4  # as 3, and the key slice that the mark began from
FIRST_VERSION = 1
NEW_STUDY_VERSION = 2  # as 1, and one more UID: that of the copy's study, where it is not the original's
INDEXED_VERSION = 3  # as 2, and the digest of what C-FIND answers from
CARRIED = "carried"  # in place of a payload's name: the original rides in its marked copy, the vault holds none

# What both the document and VaultRow hold, under one name.
SHARED = (
    "locator",
    "generation",
    "original_sop_uid",
    "original_series_uid",
    "study_uid",
    "derived_sop_uid",
    "derived_series_uid",
    "sop_class_uid",
    "transfer_syntax_uid",
    "original_sha256",
    "original_size",
    "policy",
    "derived_sha256",
    "payload_file",
)
_LATER = ("derived_study_uid", "index_sha256", "begun_from")  # not in every version: empty there
# created_ms: whole milliseconds, so that no float is signed
_KEYS = frozenset(SHARED) | {"version", "vault", "key_id", "created_ms"}
_KEYS_OF = {
    FIRST_VERSION: _KEYS,
    NEW_STUDY_VERSION: _KEYS | {"derived_study_uid"},
    INDEXED_VERSION: _KEYS | {"derived_study_uid", "index_sha256"},
    DOCUMENT_VERSION: _KEYS | {"derived_study_uid", "index_sha256", "begun_from"},
}
_CHANGE = (
    "derived_sha256",
    "begun_from",
    "payload_file",
)  # all that may change in a record, each once; the first two together


@dataclass(frozen=True, repr=False)
class RecordFacts:
    """What is known of an original when it is to be sealed.

    Attributes
    ----------
    original_sha256, original_size
        Of the data set bytes as received: hexadecimal digest, and count.
    policy
        Digest of the decision that shapes the derived bytes; at most 64 characters.
    attributes
        DICOM JSON model of what C-FIND answers (`gateway.dicom`'s `InstanceHeader.attributes`).
    received_at
        Seconds since 1970; see `RecordStore.create`. None: the order of receipt is not known.
    is_carried
        The original will ride in its marked copy only: no payload is to be put.
    has_new_study
        The copy will have a Study Instance UID of its own.
    """

    original_sop_uid: str
    original_series_uid: str
    study_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    original_sha256: str
    original_size: int
    policy: str
    attributes: dict[str, Any]
    received_at: float | None = None
    is_carried: bool = False
    has_new_study: bool = False


@dataclass(frozen=True, repr=False)
class VaultRecord:
    """One record, as its document says; `token` and `attributes` are not in it. Bytes, and seconds since 1970.

    Attributes
    ----------
    derived_study_uid
        The copy's Study Instance UID where it is not the original's, else empty. What a marked copy carries of its
        record does not name it.
    index_sha256
        Of the attributes that C-FIND answers from (`index_digest`), so that they cannot be changed by whoever can only
        write rows; empty in records of version 1 and 2.
    begun_from
        SOP Instance UID of the marked copy (of the key slice, `gateway.protect.key_slices`) whose texture the mark of
        this one began from; empty: it began from itself, is not made yet, or the record is of a version before 4.
    version
        Of the document. It says of which version the payload is too: 2 for records from version 3 on, else 1.
    """

    vault_id: str
    locator: str
    generation: int
    original_sop_uid: str
    original_series_uid: str
    study_uid: str
    derived_sop_uid: str
    derived_series_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    original_sha256: str
    original_size: int
    policy: str
    derived_sha256: str | None
    payload_file: str | None
    key_id: str
    created_at: float
    token: bytes
    attributes: dict[str, Any]
    derived_study_uid: str = ""
    index_sha256: str = ""
    begun_from: str = ""
    version: int = DOCUMENT_VERSION

    def __repr__(self) -> str:
        return f"VaultRecord({self.locator})"  # UIDs and attributes have no place in logs

    @property
    def is_carried(self) -> bool:
        """Whether the vault holds no payload since the marked copy carries the original."""
        return self.payload_file == CARRIED

    @property
    def copy_study_uid(self) -> str:
        """Study Instance UID of the marked copy."""
        return self.derived_study_uid or self.study_uid

    def document(self) -> bytes:
        """What is signed: canonical JSON (deploy/formats.md, "record")."""
        content = {key: getattr(self, key) for key in SHARED}
        content |= {
            "version": self.version,
            "vault": self.vault_id,
            "key_id": self.key_id,
            "created_ms": round(self.created_at * 1000),
            "derived_study_uid": self.derived_study_uid,
            "index_sha256": self.index_sha256,
            "begun_from": self.begun_from,
        }
        return canonical({key: content[key] for key in _KEYS_OF[self.version]})

    @cached_property
    def lasting_sha256(self) -> str:
        """SHA-256 of what never changes in this record: its document without the fields that may."""
        content = {key: value for key, value in json.loads(self.document()).items() if key not in _CHANGE}
        return hashlib.sha256(canonical(content)).hexdigest()


def index_digest(attributes: Mapping[str, Any]) -> str:
    """SHA-256 of the attributes that C-FIND answers from, as canonical JSON."""
    return hashlib.sha256(canonical(attributes)).hexdigest()


def read_row(row: VaultRow, verifier: Verifier | None, vault_id: str = "") -> VaultRecord:
    """Check a row and give its record.

    Parameters
    ----------
    verifier
        Checks the signature; None only where nothing is released, e.g. for showing a list.
    vault_id
        The vault that the record must belong to; empty: any.

    Raises
    ------
    IntegrityError
        ``signer-unknown``, ``signature-wrong``, ``record-format``, ``record-of-another-vault``,
        ``record-columns-differ`` or ``index-differs``.
    """
    if verifier is not None:
        try:
            verifier.check(row.document, row.signature, row.signer)
        except SealError as error:
            raise IntegrityError(error.code, f"record {row.locator}: {error.message}", error.hint) from None
    content = _parse(row)
    if vault_id and content["vault"] != vault_id:
        raise IntegrityError("record-of-another-vault", f"record {row.locator} belongs to another vault")
    for name in (*SHARED, "derived_study_uid"):
        if content[name] != getattr(row, name):
            raise IntegrityError("record-columns-differ", f"record {row.locator}: {name} is not what was signed")
    if content["created_ms"] != round(row.created_at * 1000):
        raise IntegrityError("record-columns-differ", f"record {row.locator}: created_at is not what was signed")
    if content["index_sha256"] and content["payload_file"] is not None:  # with retention the attributes end
        _check_index(row, content["index_sha256"])
    return VaultRecord(
        vault_id=content["vault"],
        key_id=content["key_id"],
        created_at=content["created_ms"] / 1000,
        token=row.token,
        attributes=row.attributes,
        **{key: content[key] for key in (*SHARED, *_LATER, "version")},
    )


def _check_index(row: VaultRow, digest: str) -> None:
    columns = index_columns(row.attributes)
    if index_digest(row.attributes) != digest or any(getattr(row, name) != text for name, text in columns.items()):
        raise IntegrityError("index-differs", f"record {row.locator}: what the query index says was not signed")


def index_columns(attributes: Mapping[str, Any]) -> dict[str, str]:
    """The columns that repeat attributes for look-ups."""
    return {
        "patient_id": column_text(attributes, PATIENT_ID),
        "study_date": column_text(attributes, STUDY_DATE)[:8],
        "accession_number": column_text(attributes, ACCESSION_NUMBER),
        "modality": first_text(attributes, MODALITY, 16),
    }


def _parse(row: VaultRow) -> dict[str, Any]:
    try:
        content = json.loads(row.document)
    except ValueError:
        content = None
    version = content.get("version") if isinstance(content, dict) else None
    if not isinstance(version, int) or set(content) != _KEYS_OF.get(version):
        raise IntegrityError("record-format", f"record {row.locator} is not of a version that is known here")
    return {**dict.fromkeys(_LATER, ""), **content}
