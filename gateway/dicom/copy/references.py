"""The derived form of an object that refers to images: same content, references that point at the marked copies.

Segmentations, registrations, reports, key object notes and presentation states say nothing false of a marked image as
long as they name it by its derived UIDs. Nothing else in them changes: pixel data keeps its bytes, and its transfer
syntax where it is compressed. The bytes sealed in the vault are the original's, references and all.
"""

from __future__ import annotations

from pydicom import Dataset

from gateway.dicom.copy import derivation
from gateway.dicom.copy.derivation import DerivationFacts
from gateway.dicom.copy.nested import settle
from gateway.dicom.copy.remap import Maps, is_sequence, leave, remap_references
from gateway.dicom.copy.sift import sift
from gateway.dicom.encoding.depth import check_depth
from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.dicom.encoding.explicit import encode_around
from gateway.dicom.encoding.fragments import even_fragments
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.parts import Parts, native_value, split
from gateway.dicom.encoding.private import write_block
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, syntax_of
from gateway.errors import DicomError

_SIGNATURES = 0xFFFAFFFA  # Digital Signatures Sequence, PS3.3 C.12.1.1.3


def derive_references(
    original: bytes, transfer_syntax_uid: str, facts: DerivationFacts, parts: Parts | None = None
) -> bytes:
    """Build the derived data set, in `references_syntax(transfer_syntax_uid)`: the same inputs give the same bytes.

    New SOP Instance and Series Instance UID, every reference mapped, private block and equipment added, signatures
    dropped; of other bulk than the object's own content only what may ride along (`gateway.dicom.copy.bulk`). Frame of
    Reference UID stays, Study Instance UID by choice of the facts, and Image Type too: nothing was derived from pixels.

    Raises
    ------
    DicomError
        all of `check_encoding`, "already-marked", "undecodable-header", "no-free-private-block", "swapped-pixels"
        (big endian pixel data whose words cannot be told).
    HoldError
        as `gateway.dicom.copy.sift.sift`.
    """
    if parts is None:
        parts = split(original, transfer_syntax_uid, without_pixels=True)
    if parts.header.has_our_private_block:
        raise DicomError("already-marked", "the data set carries a private block of this gateway already")
    parts, _ = sift(parts, facts.ride_along)
    ds = parts.fresh_dataset()
    with foreign_errors("undecodable-header", "the derived header cannot be made"):
        follow(ds, parts.header, facts)
        derivation.set_uids(ds, facts)
        derivation.describe_remapping(ds, facts)
        write_block(ds, facts.token, facts.hint, sealed_key=facts.sealed_key, payload=facts.payload)
        before, behind = encode_around(ds)
        return before + _pixels(parts) + behind


def references_syntax(transfer_syntax_uid: str) -> str:
    """The transfer syntax of `derive_references`: the original's where its pixels come in fragments, which are kept."""
    return transfer_syntax_uid if syntax_of(transfer_syntax_uid).encapsulated else EXPLICIT_LITTLE


def follow(ds: Dataset, header: InstanceHeader, facts: DerivationFacts, *, frame_types: bool = False) -> frozenset[int]:
    """Take out what is not true of a copy and map references, in place, at all levels.

    References to this very instance and series get the UIDs that it is given here.

    Parameters
    ----------
    ds
        Whose elements nobody has looked at yet.
    frame_types
        Whether Frame Type becomes DERIVED in functional groups.

    Returns
    -------
    frozenset of int
        Tags of the sequences in which all of this is done; in the others Frame Type is not.
    """

    def instance(uid: str) -> str | None:
        return facts.derived_sop_uid if uid == header.sop_instance_uid else facts.map_uid(uid)

    def series(uid: str) -> str | None:
        return facts.derived_series_uid if uid == header.series_uid else facts.map_series(uid)

    done = settle(ds, Maps(instance, series, facts.map_study or leave), frame_types=frame_types)
    derivation.drop_invalid(ds, done=done)
    remap_references(ds, instance, series, facts.map_study, done)
    return done


def is_signed(ds: Dataset) -> bool:
    """Whether a data set or any item in it carries a digital signature (PS3.15 C.2)."""
    with foreign_errors("undecodable-header", "a sequence cannot be read"):
        check_depth(ds)
        return _is_signed(ds)


def _is_signed(ds: Dataset) -> bool:
    for tag in list(ds.keys()):
        if int(tag) == _SIGNATURES:
            return True
        if is_sequence(ds, int(tag)) and any(_is_signed(item) for item in ds[tag].value or ()):
            return True
    return False


def _pixels(parts: Parts) -> bytes:
    """The pixel data element as it came; only the order of bytes in a word follows the transfer syntax (PS3.5 7.3)."""
    element = parts.pixels
    if element is None:
        return b""
    if parts.syntax.encapsulated:
        value, length = even_fragments(parts.value)[0], b"\xff\xff\xff\xff"
    else:
        value = native_value(parts)
        value += b"\0" * (len(value) % 2)
        length = len(value).to_bytes(4, "little")
    group, number = (element.tag >> 16).to_bytes(2, "little"), (element.tag & 0xFFFF).to_bytes(2, "little")
    return group + number + (element.vr or b"OW") + b"\0\0" + length + value
