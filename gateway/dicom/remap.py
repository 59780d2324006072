"""References follow the instances that they name: mapping UIDs at every nesting level (design, section 4 step 5).

Mapped are SOP Instance UIDs that refer (0008,1155 and a few like it) and, inside sequences, Series Instance UIDs: all
of them, since a keyed map needs no list of the instances that a study has. Tag and context say which elements those
are, not a comparison of values: an object may come before everything that it names. Never mapped: the instance's own
UIDs, Study Instance UID, Frame of Reference UID, tracking and observation UIDs, references to studies, procedure steps,
patients and visits (also inside RT Referenced Study Sequence), well-known instances of the standard, and whatever
stands in private sequences.
"""

from __future__ import annotations

from collections.abc import Callable

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pydicom.values import convert_SQ

from gateway.dicom.depth import check_depth
from gateway.dicom.library import foreign_errors
from gateway.errors import DicomError

UidMap = Callable[[str], str | None]

_INSTANCE_TAGS = frozenset(
    {
        0x00081155,  # Referenced SOP Instance UID
        0x00081167,  # Multi-frame Source SOP Instance UID
        0x00200242,  # SOP Instance UID of Concatenation Source
        0x00209161,  # Concatenation UID: one for all parts, so mapped like an instance
    }
)
_SERIES_TAG = 0x0020000E
_OWN_TAGS = frozenset({0x00080018, 0x0020000D})
_NOT_INSTANCES = frozenset(
    {
        0x00081110,  # Referenced Study Sequence
        0x00081111,  # Referenced Performed Procedure Step Sequence
        0x00081120,  # Referenced Patient Sequence
        0x00081125,  # Referenced Visit Sequence
    }
)
# Referenced SOP Class UIDs of what is no composite instance, so that no copy of it goes out (PS3.6 table A-1).
_NOT_INSTANCE_CLASSES = (
    "1.2.840.10008.3.1.",  # patients, visits, studies, performed procedure steps
    "1.2.840.10008.5.1.1.",  # print management
    "1.2.840.10008.5.1.4.32.",  # general purpose procedure steps
    "1.2.840.10008.5.1.4.34.6.",  # unified procedure steps
)
_RT_STUDIES = 0x30060012  # RT Referenced Study Sequence: its own (0008,1155) is the study's UID (PS3.3 C.8.8.5)
_VALUE_UID = 0x0040A124  # UID of an SR content item of type UIDREF
# DCM: Series Instance UID; Source series for segmentation, and for image processing operation (CID 7210)
_SERIES_CONCEPTS = frozenset({"112002", "121232", "121323"})


def remap_references(ds: Dataset, map_instance: UidMap, map_series: UidMap | None = None) -> int:
    """Replace references in place; returns how many UIDs were replaced.

    Parameters
    ----------
    map_instance
        Original SOP Instance UID to derived one, or None to leave it. It decides what belongs to the study.
    map_series
        The same for Series Instance UIDs that stand in sequences; without it they stay.

    Raises
    ------
    DicomError
        "undecodable-header" for a sequence or UID that cannot be read: references could not follow.
    """
    with foreign_errors("undecodable-header", "a sequence with references cannot be read"):
        return _remap(ds, map_instance, map_series or _leave, nested=False)


def _leave(_uid: str) -> None:
    return None


def _remap(ds: Dataset, map_instance: UidMap, map_series: UidMap, nested: bool, within: int = 0) -> int:
    replaced = 0
    names_no_instance = within == _RT_STUDIES or _referenced_class(ds).startswith(_NOT_INSTANCE_CLASSES)
    for tag in list(ds.keys()):
        number = int(tag)
        if number >> 16 & 1 or number in _NOT_INSTANCES or number in _OWN_TAGS:
            continue
        if number in _INSTANCE_TAGS:
            if not names_no_instance:
                replaced += _replace(ds[tag], map_instance)
        elif nested and (number == _SERIES_TAG or (number == _VALUE_UID and _concept(ds) in _SERIES_CONCEPTS)):
            replaced += _replace(ds[tag], map_series)
        elif is_sequence(ds, number):
            for item in ds[tag].value or ():
                replaced += _remap(item, map_instance, map_series, nested=True, within=number)
    return replaced


def _replace(element: DataElement, uid_map: UidMap) -> int:
    """Map the UID, or each of several where one belongs; what is no text cannot be followed, and must not stay."""
    several = isinstance(element.value, MultiValue)
    originals = list(element.value) if several else [element.value or ""]
    if not all(isinstance(one, str) for one in originals):
        raise DicomError("undecodable-header", f"the UID in {element.tag} cannot be read: a reference could not follow")
    mapped = [_mapped(one, uid_map) for one in originals]
    if not any(mapped):
        return 0
    values = [new or old for new, old in zip(mapped, originals, strict=True)]
    element.value = values if several else values[0]
    return sum(new is not None for new in mapped)


def _mapped(uid: str, uid_map: UidMap) -> str | None:
    original = uid.strip(" \0")
    if not original or UID(original).type == "Well-known SOP Instance":  # of the standard, the same everywhere
        return None
    return uid_map(original)


def is_sequence(ds: Dataset, tag: int) -> bool:
    """Whether the element is a sequence, which is decoded if its VR got lost on the way (UN, PS3.5 6.2.2)."""
    vr = ds.get_item(tag, keep_deferred=True).VR
    if vr is None or vr == "UN":
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            return False
        if vr == "SQ" and ds[tag].VR == "UN":
            _decode_long(ds, tag)
    return vr == "SQ"


def _decode_long(ds: Dataset, tag: int) -> None:
    """pydicom leaves UN of 64 KiB and more as bytes, since few elements with a VR of their own can be that long."""
    items = convert_SQ(ds[tag].value, False, True)
    for item in items:
        check_depth(item, 1)
    ds[tag] = DataElement(tag, "SQ", items)


def _referenced_class(ds: Dataset) -> str:
    return str(ds.get("ReferencedSOPClassUID") or "")


def _concept(ds: Dataset) -> str:
    name = ds.get("ConceptNameCodeSequence")
    return str(name[0].get("CodeValue", "")) if name else ""
