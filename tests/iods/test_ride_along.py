"""Made objects of every kind: what rides along in their copies, and that no pixels do."""

from __future__ import annotations

import io

from pydicom import Dataset
from pydicom.filereader import read_dataset

from gateway.dicom.copy.references import derive_references
from tests.dicom.test_bulk import takes_none_along
from tests.support.dicom.samples import facts


def test_images_take_no_pixels_along(made):
    assert sum(takes_none_along(one.data, one.transfer_syntax_uid) for one in made.values()) > 20


def test_what_refers_keeps_its_own_content(made):
    """Segments, surfaces, vector grids, graphics, overlays and tables of presentation states."""
    checked = 0
    for one in made.values():
        if one.suffix.split(".")[0] not in ("66", "11", "88", "67", "91"):
            continue
        derived = derive_references(one.data, one.transfer_syntax_uid, facts())
        copy = read_dataset(io.BytesIO(derived), False, True)
        assert binary(one.ds) <= binary(copy), one.name
        checked += len(binary(one.ds))
    assert checked > 10


def binary(ds: Dataset) -> set[tuple[int, ...]]:
    """Tags of all binary values with something in them, behind those of the sequences around them."""
    found = set()
    for element in ds:
        if element.VR == "SQ":
            found |= {(int(element.tag), *inner) for item in element.value for inner in binary(item)}
        elif element.VR in ("OB", "OD", "OF", "OL", "OW") and element.value and not element.tag.is_private:
            found.add((int(element.tag),))
    return found
