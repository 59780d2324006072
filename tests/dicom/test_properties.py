"""Properties of the readers over made-up data sets and bytes: what goes in comes out, or a `DicomError` comes out."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from gateway.dicom.copy.remap import remap_references
from gateway.dicom.encoding import encoded as encoded_header
from gateway.dicom.encoding.directory import read_directory
from gateway.dicom.encoding.elements import skip_value, top_level
from gateway.dicom.encoding.encoded import open_source, read_header, split_header
from gateway.dicom.encoding.part10 import FileMeta, split_part10, write_part10
from gateway.dicom.encoding.parts import split
from gateway.dicom.encoding.private import CREATOR, GROUP, read_block, write_block
from gateway.dicom.encoding.syntaxes import DEFLATED_LITTLE, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, syntax_of
from gateway.errors import DicomError
from tests.support.dicom.samples import encode, image
from tests.support.examples import examples

NATIVE = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG)
SYNTAXES = st.sampled_from((*NATIVE, DEFLATED_LITTLE))
UIDS = st.from_regex(r"[12](\.(0|[1-9][0-9]{0,5})){1,8}", fullmatch=True)
TEXT = st.text("ABC xyz^=-019", max_size=40)
_VALUES = {
    "LO": TEXT,
    "UI": UIDS,
    "US": st.integers(0, 65535),
    "UL": st.integers(0, 2**32 - 1),
    "FD": st.floats(-1e6, 1e6, width=32),
    "OB": st.binary(max_size=80),
    "UN": st.binary(max_size=80),
    "UT": TEXT,
}
LEAVES = st.sampled_from(sorted(_VALUES)).flatmap(lambda vr: st.tuples(st.just(vr), _VALUES[vr]))
# Odd, nobody's and harmless: a block of its own in group 0013, so that no meaning of a standard element is at stake.
NUMBERS = st.integers(0x1001, 0x10FF)
DATASETS = st.recursive(
    st.dictionaries(NUMBERS, LEAVES, max_size=5),
    lambda inner: st.dictionaries(NUMBERS, LEAVES | st.tuples(st.just("SQ"), st.lists(inner, max_size=3)), max_size=5),
    max_leaves=12,
)


def dataset(described: dict, undefined: bool) -> Dataset:
    ds = Dataset()
    ds.add_new(Tag(0x0013, 0x0010), "LO", "PROPERTIES")
    for number, (vr, value) in described.items():
        if vr == "SQ":
            ds.add_new(Tag(0x0013, number), "SQ", [dataset(item, undefined) for item in value])
            ds[0x0013, number].is_undefined_length = undefined
        else:
            even = value + b"\0" if isinstance(value, bytes) and len(value) % 2 else value
            ds.add_new(Tag(0x0013, number), vr, even)
    return ds


def encoded(described: dict, undefined: bool, syntax: str) -> bytes:
    """An image with those elements before its pixels, and one behind them."""
    ds = image()
    ds.update(dataset(described, undefined))
    ds.add_new(0xFFFCFFFC, "OB", bytes(4))
    if syntax != DEFLATED_LITTLE:
        return encode(ds, syntax)
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(encode(ds)) + squeeze.flush()


class Drip(io.RawIOBase):
    """A stream that gives few bytes at a time and cannot seek."""

    def __init__(self, data: bytes, at_most: int) -> None:
        self._inner, self._at_most = io.BytesIO(data), at_most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._inner.read(min(size, self._at_most) if size >= 0 else self._at_most)


# --- the encoded instance


@examples(60)
@given(described=DATASETS, undefined=st.booleans(), syntax=SYNTAXES, drip=st.integers(1, 70))
def test_no_byte_of_an_instance_is_lost_or_changed_by_taking_it_apart(described, undefined, syntax, drip):
    data = encoded(described, undefined, syntax)
    plain = zlib.decompress(data, -15) if syntax == DEFLATED_LITTLE else data
    parts = split(data, syntax)
    head = plain[parts.pixels.start : parts.pixels.value]
    assert parts.header_bytes + head + bytes(parts.value) + parts.trailer_bytes == plain
    assert bytes(parts.value) == image().PixelData or syntax == EXPLICIT_BIG
    header = read_header(Drip(data, drip), syntax)
    assert header == parts.header and (header.rows, header.columns, header.frames) == (6, 8, 1)
    assert sorted(parts.fresh_dataset().keys()) == sorted({*header.dataset.keys(), 0xFFFCFFFC})


@examples(60)
@given(described=DATASETS, undefined=st.booleans(), syntax=st.sampled_from(NATIVE))
def test_the_walker_and_pydicom_see_the_same_elements(described, undefined, syntax):
    data = encoded(described, undefined, syntax)
    source, layout = open_source(io.BytesIO(data), syntax_of(syntax), len(data))
    walked = []
    for element in top_level(source, layout):
        skip_value(source, element, layout)
        walked.append(element.tag)
    assert walked == list(read_dataset(io.BytesIO(data), layout.implicit, layout.little_endian).keys())
    assert source.position == len(data)


@examples(150)
@given(
    described=DATASETS, syntax=SYNTAXES, cuts=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=9)), max_size=4)
)
def test_damage_gives_an_instance_or_a_dicom_error(described, syntax, cuts):
    data = encoded(described, True, syntax)
    for where, junk in cuts:
        at = int(where * len(data))
        data = data[:at] + junk + data[at + len(junk) // 2 :]
    try:
        parts = split(data, syntax)
    except DicomError as error:
        assert "Doe" not in str(error)
    else:
        assert len(parts.value) >= 96  # 6 x 8 x 16 bit, whatever else was damaged


@examples(150)
@given(
    described=DATASETS,
    syntax=st.sampled_from(NATIVE),
    bulk=st.sampled_from([4, 1 << 20]),
    at_most=st.sampled_from([400, 1 << 20]),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=9) | st.just(bytes(2000))), max_size=2),
)
def test_many_elements_in_one_loop_are_what_they_are_one_by_one(described, syntax, bulk, at_most, cuts):
    data = encoded(described, True, syntax)
    for where, junk in cuts:
        at = int(where * len(data))
        data = data[:at] + junk + data[at + len(junk) // 2 :]

    def outcome() -> tuple:
        try:
            source, layout = open_source(io.BytesIO(data), syntax_of(syntax))
            return *split_header(source, layout, bulk=bulk, at_most=at_most), source.position
        except DicomError as error:
            return error.code, error.message

    together = outcome()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(encoded_header, "skip_plain", lambda *_: None)
        assert outcome() == together


@examples(100)
@given(data=st.binary(max_size=300), magic=st.booleans())
def test_random_bytes_are_no_directory(data, magic):
    with pytest.raises(DicomError):
        read_directory(io.BytesIO(bytes(128) + b"DICM" + data if magic else data))


# --- the file around it


@examples(80)
@given(sop_class=UIDS, uid=UIDS, syntax=UIDS, data=st.lists(st.binary(max_size=90), max_size=4))
def test_a_file_gives_back_its_head_and_its_data_set(sop_class, uid, syntax, data):
    out = io.BytesIO()
    write_part10(out, sop_class, uid, syntax, data)
    out.seek(0)
    following = b"".join(data)
    if following[:2] == b"\x02\0":  # would read on as File Meta; no data set begins so (PS3.10 7.1)
        return
    assert split_part10(out) == (FileMeta(syntax, sop_class, uid), len(out.getvalue()) - len(following))
    assert out.read() == following


@examples(150)
@given(data=st.binary(max_size=400), magic=st.booleans())
def test_the_head_of_anything_is_read_or_refused(data, magic):
    data = bytes(128) + b"DICM\x02\0" + data if magic else data
    stream = io.BytesIO(data)
    try:
        meta, offset = split_part10(stream)
    except DicomError:
        return
    assert meta.transfer_syntax_uid and 0 <= offset <= len(data) and stream.tell() == offset


# --- references

INSTANCES = st.sampled_from([f"1.2.9.{number}" for number in range(6)])
REFERENCE_SEQUENCES = (
    "ReferencedImageSequence",
    "SourceImageSequence",
    "ReferencedInstanceSequence",
    "ContentSequence",
)
STUDY_SEQUENCE = "ReferencedStudySequence"
OTHER_SEQUENCES = ("ReferencedPerformedProcedureStepSequence", "ReferencedPatientSequence")
NAMED_UIDS = ("ReferencedSOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
TREES = st.recursive(
    st.fixed_dictionaries({}, optional=dict.fromkeys(NAMED_UIDS, INSTANCES)),
    lambda inner: st.dictionaries(
        st.sampled_from((*REFERENCE_SEQUENCES, STUDY_SEQUENCE, *OTHER_SEQUENCES)),
        st.lists(inner, min_size=1, max_size=3),
        max_size=3,
    ),
    max_leaves=15,
)


def tree(described: dict) -> Dataset:
    ds = Dataset()
    for keyword, value in described.items():
        setattr(ds, keyword, [tree(item) for item in value] if isinstance(value, list) else value)
    return ds


def leaves(ds: Dataset, path: tuple = ()) -> Iterator[tuple[tuple, str]]:
    """Every value that is no sequence, with the keywords and item numbers that lead to it."""
    for element in ds:
        here = (*path, keyword_for_tag(element.tag))
        if element.VR == "SQ":
            for number, item in enumerate(element.value):
                yield from leaves(item, (*here, number))
        else:
            yield here, str(element.value)


@examples(100)
@given(described=TREES, mapped=st.sets(INSTANCES), again=st.sampled_from((None, *NATIVE)))
def test_exactly_the_references_in_the_map_follow_at_every_level(described, mapped, again):
    ds = tree(described)
    if again:  # as it is read from bytes
        syntax = syntax_of(again)
        ds = read_dataset(io.BytesIO(encode(ds, again)), syntax.implicit, syntax.little_endian)
    before = dict(leaves(tree(described)))
    instances = {uid: f"2.25.1{uid[-1]}" for uid in mapped}
    series = {uid: f"2.25.2{uid[-1]}" for uid in mapped}
    studies = {uid: f"2.25.3{uid[-1]}" for uid in mapped}
    maps = (instances.get, series.get, studies.get)
    count = remap_references(ds, *maps)
    expected = {}
    for path, uid in before.items():
        if path[-1] == "ReferencedSOPInstanceUID":  # in an item of Referenced Study Sequence it is the study's
            uid_map = studies if path[-3:-2] == (STUDY_SEQUENCE,) else instances
        elif len(path) > 1:
            uid_map = series if path[-1] == "SeriesInstanceUID" else studies
        else:  # the data set's own stay
            uid_map = {}
        expected[path] = uid if set(path) & set(OTHER_SEQUENCES) else uid_map.get(uid, uid)
    assert dict(leaves(ds)) == expected
    assert count == sum(expected[path] != before[path] for path in before)
    assert remap_references(ds, *maps) == 0  # what was mapped is nobody's original


# --- the private block


@examples(80)
@given(
    token=st.binary(min_size=1, max_size=200),
    sealed=st.none() | st.binary(min_size=1, max_size=99),
    hint=st.text("ABC 09_", max_size=64),
    block=st.integers(0x10, 0xFF),
    syntax=st.sampled_from(NATIVE),
    unknown=st.booleans(),
)
def test_the_block_is_found_wherever_and_however_a_peer_writes_it(token, sealed, hint, block, syntax, unknown):
    ours = Dataset()
    write_block(ours, token, hint, sealed_key=sealed, payload=sealed)
    moved = Dataset()
    for element in ours:
        number = element.tag.element
        number = block if number == 0x10 else block << 8 | number & 0xFF
        is_raw = unknown and number & 0xFF != 0x01  # the version is a number: its bytes would depend on the byte order
        value = element.value.encode() if is_raw and isinstance(element.value, str) else element.value
        moved.add_new(Tag(GROUP, number), "UN" if is_raw else element.VR, value)
    layout = syntax_of(syntax)
    found = read_block(read_dataset(io.BytesIO(encode(moved, syntax)), layout.implicit, layout.little_endian))
    even = lambda value: value + b"\0" * (len(value) % 2) if value else value  # noqa: E731
    assert (found.version, found.token, found.hint) == (1, even(token), hint.strip())
    assert (found.sealed_key, found.payload) == (even(sealed), even(sealed))


@examples(100)
@given(
    elements=st.dictionaries(
        st.integers(0x10, 0x13) | st.integers(0x1001, 0x1304),
        st.tuples(st.sampled_from(sorted(_VALUES)), st.binary(max_size=20)),
    ),
    names=st.sets(st.integers(0x10, 0x13)),
)
def test_whatever_stands_in_the_group_is_a_block_or_none(elements, names):
    data = b""
    for number in sorted({*elements, *names}):
        vr, value = ("LO", CREATOR.encode()) if number in names else elements[number]
        ds = Dataset()
        ds.add_new(Tag(GROUP, number), "OB", value + b"\0" * (len(value) % 2))
        raw = encode(ds)
        short = vr in ("LO", "UI", "US", "UL", "FD")
        data += raw[:4] + vr.encode() + (raw[8:10] if short else raw[6:12]) + raw[12:]
    found = read_block(read_dataset(io.BytesIO(data), False, True))
    assert found is None or (found.token and isinstance(found.version, int) and isinstance(found.hint, str))
