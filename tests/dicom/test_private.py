"""The private block: found by creator, in any block, with any VR, and never at another creator's cost."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from gateway.dicom.encoding.private import CREATOR, GROUP, has_block, read_block, write_block
from gateway.errors import DicomError
from tests.support.dicom.samples import encode
from tests.support.examples import examples

BLOCKS = st.sets(st.integers(0x10, 0xFF), max_size=12)


@examples(100)
@given(creators=BLOCKS, orphans=BLOCKS, token=st.binary(min_size=1, max_size=300), implicit=st.booleans())
def test_nobody_elses_elements_change_and_ours_come_back(creators, orphans, token, implicit):
    ds = Dataset()
    for block in creators:
        ds.add_new(Tag(GROUP, block), "LO", f"OTHER {block}")
        ds.add_new(Tag(GROUP, block << 8 | 1), "OB", b"theirs")
    for block in orphans:
        ds.add_new(Tag(GROUP, block << 8 | 2), "OB", b"orphan")
    before = {element.tag: element.value for element in ds}
    write_block(ds, token, "RESTORE")
    assert {tag: ds[tag].value for tag in before} == before
    (ours,) = [e.tag.element for e in ds if e.tag not in before and e.tag.element <= 0xFF]
    assert ours not in creators and ours not in orphans
    syntax = "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"
    again = read_dataset(io.BytesIO(encode(ds, syntax)), implicit, True)
    found = read_block(again)
    assert (found.version, found.token.rstrip(b"\0"), found.hint) == (1, token.rstrip(b"\0"), "RESTORE")
    assert len(found.token) == len(token) + len(token) % 2


def test_a_peer_that_moves_the_block_or_forgets_its_vrs():
    ds = Dataset()
    ds.add_new(Tag(GROUP, 0x7B), "UN", b"MIAD GATEWAY 1")
    ds.add_new(Tag(GROUP, 0x7B01), "UN", b"\x01\x00")
    ds.add_new(Tag(GROUP, 0x7B02), "UN", b"token!")
    ds.add_new(Tag(GROUP, 0x7B03), "UN", b"HINT")
    ds.add_new(Tag(GROUP, 0x7B10), "UN", b"sealed")
    found = read_block(read_dataset(io.BytesIO(encode(ds)), False, True))
    assert (found.version, found.token, found.hint, found.sealed_key, found.payload) == (
        1,
        b"token!",
        "HINT",
        b"sealed",
        None,
    )


def test_our_family_of_creators_is_known_and_others_are_not():
    ds = Dataset()
    assert not has_block(ds) and read_block(ds) is None
    ds.add_new(Tag(GROUP, 0x10), "LO", "SOMEBODY ELSE")
    assert not has_block(ds)
    ds.add_new(Tag(GROUP, 0x11), "LO", "MIAD GATEWAY 2")  # of a later release: not ours to read, but ours to refuse
    assert has_block(ds) and read_block(ds) is None
    with pytest.raises(DicomError) as caught:
        write_block(ds, b"x", "")
    assert caught.value.code == "already-marked"


def test_a_creator_without_a_token_is_no_block():
    ds = Dataset()
    ds.add_new(Tag(GROUP, 0x10), "LO", CREATOR)
    assert has_block(ds) and read_block(ds) is None


def test_an_empty_element_of_no_known_vr_is_no_token():
    """Found by tests.fuzz: pydicom decodes an empty element when it is only looked at, and cannot."""
    data = b"\x49\x4d\x10\0LO\x0e\0MIAD GATEWAY 1\x49\x4d\x02\x10O\0\0\0"
    ds = read_dataset(io.BytesIO(data), False, True)
    assert has_block(ds) and read_block(ds) is None


def test_a_full_group():
    ds = Dataset()
    for block in range(0x10, 0x100):
        ds.add_new(Tag(GROUP, block), "LO", "FULL")
    with pytest.raises(DicomError) as caught:
        write_block(ds, b"x", "")
    assert caught.value.code == "no-free-private-block"


@pytest.mark.parametrize("hint", ["x" * 65, "back\\slash", "Zürich", "line\nbreak"])
def test_hints_that_cannot_be_written(hint):
    with pytest.raises(ValueError):
        write_block(Dataset(), b"x", hint)
