"""Every place that refers to instances, series and studies, row by row (`tests.support.dicom.reference_rows`)."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from gateway.dicom.copy.derive import derive
from gateway.dicom.copy.references import derive_references
from gateway.dicom.copy.remap import remap_references
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from tests.support.dicom.reference_rows import FOLLOWED, LISTED, ROWS, Row, found, holding
from tests.support.dicom.samples import encode, facts, image

UID = "1.2.826.0.5.77"
OTHER = "1.2.826.0.5.78"
PREFIX = {"instance": "2.25.1.", "series": "2.25.2.", "study": "2.25.3."}
TEXTS = {"RetrieveAETitle": "ARCHIVE", "InstanceAvailability": "ONLINE", "StorageMediaFileSetID": "DISC1"}
UNDEFINED = 0xFFFFFFFF


def _decoded(data: bytes) -> Dataset:
    return read_dataset(io.BytesIO(data), False, True)


def _value(row: Row) -> str:
    """What stands at the row's place: a UID, or what else the attribute takes."""
    return TEXTS.get(row.keywords[-1], UID)


def _map(level: str) -> Callable[[str], str]:
    return lambda uid: PREFIX[level] + uid


def _copy(kind: str, original: bytes, syntax: str, **changes: object) -> Dataset:
    """The copy of an object, as an image that is marked or as one that only has its references mapped."""
    given = facts(map_uid=_map("instance"), map_series=_map("series"), source_reference=False, **changes)
    if kind == "remapped":
        return _decoded(derive_references(original, syntax, given))
    return _decoded(derive(original, syntax, decode_pixels(original, syntax).frames, given))


def _unknown(ds: Dataset, length: int | None = None) -> bytes:
    """Explicit VR, where whoever wrote it knew no public sequence: VR UN, implicit inside (PS3.5 6.2.2)."""
    out = b""
    for tag in sorted(ds.keys()):
        alone = Dataset()
        alone.add(ds[tag])
        if ds[tag].VR != "SQ" or tag.is_private:
            out += encode(alone)
            continue
        value = encode(alone, IMPLICIT_LITTLE)[8:]
        end = b"" if length is None else b"\xfe\xff\xdd\xe0\0\0\0\0"
        size = len(value) if length is None else length
        out += encode(alone)[:4] + b"UN\0\0" + size.to_bytes(4, "little") + value + end
    return out


def _implicit(ds: Dataset) -> bytes:
    return encode(ds, IMPLICIT_LITTLE)


def _undefined(ds: Dataset) -> bytes:
    return _unknown(ds, UNDEFINED)


ENCODINGS = {
    "explicit": (encode, EXPLICIT_LITTLE),
    "implicit": (_implicit, IMPLICIT_LITTLE),
    "unknown": (_unknown, EXPLICIT_LITTLE),
    "unknown without length": (_undefined, EXPLICIT_LITTLE),
}


def _expected(row: Row, kind: str) -> str | None:
    """Where studies keep their UIDs."""
    outcome = row.outcome_in(kind)
    mapped = {level: PREFIX[level] for level in ("instance", "series")}
    return None if outcome == "removed" else mapped.get(outcome, "") + _value(row)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["marked", "remapped"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.path} {row.code}".strip())
def test_what_becomes_of_it(row, kind, encoding):
    encoder, syntax = ENCODINGS[encoding]
    original = encoder(holding(row, _value(row), image()))
    assert original.count(_value(row).encode()) == 1
    copy = _copy(kind, original, syntax)
    assert found(row, copy) == _expected(row, kind)
    if row.outcome == "removed" and "Retrieval" in row.path:  # nor an empty item that could not say where
        assert not [element for element in copy.iterall() if "Retrieval" in element.keyword]
    left = encode(copy).count(_value(row).encode())
    assert left == (row.outcome_in(kind) != "removed"), "it stands elsewhere in the copy"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["marked", "remapped"])
def test_what_becomes_of_studies_where_they_get_new_uids(kind, encoding):
    encoder, syntax = ENCODINGS[encoding]
    for row in ROWS:
        original = encoder(holding(row, _value(row), image()))
        copy = _copy(kind, original, syntax, derived_study_uid=PREFIX["study"] + UID, map_study=_map("study"))
        mapped = row.outcome_in(kind) == "study"
        assert found(row, copy) == (PREFIX["study"] + UID if mapped else _expected(row, kind)), row.path
        assert copy.StudyInstanceUID == PREFIX["study"] + UID and copy.FrameOfReferenceUID in ("1.2.3.3", UID)


def test_a_study_is_told_by_its_class_wherever_it_is_referred_to():
    """Detached Study Management (retired): the instance is the study. A study component is nothing that has a copy."""
    for sop_class, expected in (("1.2.840.10008.3.1.2.3.1", PREFIX["study"] + UID), ("1.2.840.10008.3.1.2.3.2", UID)):
        row = Row("Referenced SOP Sequence > Referenced SOP Instance UID", "study", sop_class=sop_class)
        ds = holding(row, UID, image())
        remap_references(ds, _map("instance"), _map("series"), _map("study"))
        assert found(row, ds) == expected


def test_the_list_is_followed_whole():
    """No line of the list is without a row; its study is kept by choice, its frame of reference always."""
    named = {f"{Tag(keyword):08X}" for row in FOLLOWED for keyword in row.keywords}
    assert {tag.replace(",", "") for tag in LISTED.split()} - named == set()
    outcomes = {row.path: row.outcome for row in ROWS}
    assert (outcomes["Study Instance UID"], outcomes["Frame of Reference UID"]) == ("study", "kept")


@pytest.mark.parametrize("row", FOLLOWED, ids=lambda row: f"{row.path} {row.code}".strip())
def test_several_follow_each_and_an_empty_one_names_nothing(row):
    prefix = PREFIX[row.outcome]
    for given, expected in (
        (None, None),
        ("", ""),
        ([UID, "", OTHER], [prefix + UID, "", prefix + OTHER]),
        (f"{UID}\0", prefix + UID),
    ):
        ds = _decoded(encode(holding(row, given, Dataset())))
        wanted = [uid for uid in (expected if isinstance(expected, list) else [expected]) if uid]
        assert remap_references(ds, _map("instance"), _map("series")) == len(wanted)
        value = found(row, ds)
        assert (list(value) if isinstance(expected, list) else value or None) == (expected or None)


@pytest.mark.parametrize("kind", ["marked", "remapped"])
@pytest.mark.parametrize("row", [row for row in ROWS if " > " in row.path][::6], ids=lambda row: row.path)
def test_what_stands_in_a_long_sequence_of_unknown_vr_is_met_too(row, kind):
    """Of 64 KiB and more, which pydicom leaves as bytes."""
    ds = holding(row, _value(row), image())
    outermost = ds[row.keywords[0]].value[0]
    outermost.TextValue = "long " * 14_000
    copy = _copy(kind, _unknown(ds), EXPLICIT_LITTLE)
    assert found(row, copy) == _expected(row, kind)
    assert encode(copy).count(_value(row).encode()) == (row.outcome_in(kind) != "removed")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["marked", "remapped"])
def test_private_sequences_keep_what_they_say(kind, encoding):
    """Nobody knows what a UID means there: at the top, and in an item of a public sequence."""
    encoder, syntax = ENCODINGS[encoding]
    ds, row = image(), FOLLOWED[0]
    around = Dataset()
    for into in (ds, around):
        theirs = holding(row, UID, Dataset())
        into.private_block(0x0029, "THEIRS", create=True).add_new(1, "SQ", [theirs])
    around.ReferencedSOPClassUID, around.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", OTHER
    ds.ReferencedImageSequence = [around]
    left = encode(_copy(kind, encoder(ds), syntax))
    assert left.count(UID.encode()) == 2 and PREFIX["instance"].encode() + UID.encode() not in left
    assert left.count(PREFIX["instance"].encode() + OTHER.encode()) == left.count(OTHER.encode()) == 1


def test_what_the_standard_itself_names_stays():
    """A well-known instance has the same UID everywhere (PS3.6 table A-1): here a colour palette."""
    ds = holding(FOLLOWED[0], "1.2.840.10008.1.5.1", image())
    assert remap_references(ds, lambda uid: "2.25.1." + uid) == 0
    assert found(FOLLOWED[0], ds) == "1.2.840.10008.1.5.1"
