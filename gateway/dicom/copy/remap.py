"""References follow the instances that they name: mapping UIDs at every nesting level.

(Architecture, life of an instance, step 5.)

Mapped are SOP Instance UIDs that refer (0008,1155 and a few like it) and, inside sequences, Series Instance UIDs: all
of them, since a keyed map needs no list of the instances that a study has. Tag and context say which elements those
are, not a comparison of values: an object may come before everything that it names. Which copy of an instance is named,
where there are several, is for the map to say (the newest: `gateway.vault.copies`). UIDs that name a study are mapped
by choice: Study Instance UID inside sequences, and what refers to the study itself (Referenced Study Sequence, RT
Referenced Study Sequence). Never mapped: the instance's own UIDs, Frame of Reference UID, tracking and observation
UIDs, references to procedure steps, patients and visits, well-known instances of the standard, and whatever stands in
private sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pydicom.values import convert_SQ

from gateway.dicom.encoding.depth import check_depth
from gateway.dicom.encoding.library import foreign_errors
from gateway.errors import DicomError

UidMap = Callable[[str], str | None]

INSTANCE_TAGS = frozenset(
    {
        0x00081155,  # Referenced SOP Instance UID
        0x00081167,  # Multi-frame Source SOP Instance UID
        0x00200242,  # SOP Instance UID of Concatenation Source
        0x00209161,  # Concatenation UID: one for all parts, so mapped like an instance
    }
)
SERIES_TAG = 0x0020000E
STUDY_TAG = 0x0020000D
NOT_INSTANCES = frozenset(
    {
        0x00081111,  # Referenced Performed Procedure Step Sequence
        0x00081120,  # Referenced Patient Sequence
        0x00081125,  # Referenced Visit Sequence
    }
)
# Referenced SOP Class UIDs of what is no composite instance, so that no copy of it goes out (PS3.6 table A-1).
_NOT_INSTANCE_CLASSES = (
    "1.2.840.10008.3.1.",  # patients, visits, study components, performed procedure steps
    "1.2.840.10008.5.1.1.",  # print management
    "1.2.840.10008.5.1.4.32.",  # general purpose procedure steps
    "1.2.840.10008.5.1.4.34.6.",  # unified procedure steps
)
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management: the study itself, by its UID
# Referenced Study Sequence; RT Referenced Study Sequence: (0008,1155) in it is the study's UID (PS3.3 C.8.8.5)
_STUDIES = frozenset({0x00081110, 0x30060012})
VALUE_UID = 0x0040A124  # UID of an SR content item of type UIDREF
# DCM: Series Instance UID; Source series for segmentation, and for image processing operation (CID 7210)
_SERIES_CONCEPTS = frozenset({"112002", "121232", "121323"})
_STUDY_CONCEPTS = frozenset({"110180", "121018"})  # Study Instance UID; Procedure Study Instance UID


def leave(_uid: str) -> None:
    """A map that leaves every UID as it is."""


@dataclass(frozen=True)
class Maps:
    """What maps UIDs of instances, series and studies."""

    instance: UidMap
    series: UidMap = leave
    study: UidMap = leave

    def of_value(self, tag: int) -> UidMap:
        """What maps a Series or Study Instance UID that stands in an item."""
        return self.series if tag == SERIES_TAG else self.study


def remap_references(
    ds: Dataset,
    map_instance: UidMap,
    map_series: UidMap | None = None,
    map_study: UidMap | None = None,
    done: Collection[int] = (),
) -> int:
    """Replace references in place; returns how many UIDs were replaced.

    Parameters
    ----------
    map_instance
        Original SOP Instance UID to derived one, or None to leave it. It decides what belongs to the study.
    map_series
        The same for Series Instance UIDs that stand in sequences; without it they stay.
    map_study
        The same for UIDs of studies; without it they stay.
    done
        Tags of sequences that are left alone.

    Raises
    ------
    DicomError
        "undecodable-header" for a sequence or UID that cannot be read: references could not follow.
    """
    with foreign_errors("undecodable-header", "a sequence with references cannot be read"):
        return _remap(ds, Maps(map_instance, map_series or leave, map_study or leave), nested=False, done=done)


def _remap(ds: Dataset, maps: Maps, nested: bool, within: int = 0, done: Collection[int] = ()) -> int:
    replaced = 0
    uid_map = instance_map(sop_class_of(ds), maps, within)
    for tag in list(ds.keys()):
        number = int(tag)
        if number >> 16 & 1 or number in NOT_INSTANCES or number in done:
            continue
        if number in INSTANCE_TAGS:
            replaced += replace(ds[tag], uid_map)
        elif nested and number in (SERIES_TAG, STUDY_TAG, VALUE_UID):
            replaced += replace(ds[tag], _value_map(ds, maps, number))
        elif is_sequence(ds, number):
            for item in ds[tag].value or ():
                replaced += _remap(item, maps, nested=True, within=number)
    return replaced


def sop_class_of(ds: Dataset) -> str:
    """Referenced SOP Class UID, or ""."""
    return str(ds.get("ReferencedSOPClassUID") or "")


def instance_map(sop_class: str, maps: Maps, within: int) -> UidMap:
    """What maps Referenced SOP Instance UID beside this Referenced SOP Class UID, in an item of sequence `within`."""
    if within in _STUDIES or sop_class == _STUDY_CLASS:
        return maps.study
    return leave if sop_class.startswith(_NOT_INSTANCE_CLASSES) else maps.instance


def _value_map(ds: Dataset, maps: Maps, tag: int) -> UidMap:
    """What maps a UID that stands in an item: of an SR content item its concept name tells (PS3.3 C.18.4)."""
    if tag != VALUE_UID:
        return maps.of_value(tag)
    name = ds.get("ConceptNameCodeSequence")
    concept = str(name[0].get("CodeValue", "")) if name else ""
    return maps.series if concept in _SERIES_CONCEPTS else maps.study if concept in _STUDY_CONCEPTS else leave


def replace(element: DataElement, uid_map: UidMap) -> int:
    """Map the UID, or each of several where one belongs; what is no text cannot be followed, and must not stay."""
    if uid_map is leave:
        return 0
    several = isinstance(element.value, MultiValue)
    originals = list(element.value) if several else [element.value or ""]
    if not all(isinstance(one, str) for one in originals):
        raise DicomError("undecodable-header", f"the UID in {element.tag} cannot be read: a reference could not follow")
    found = [mapped(one, uid_map) for one in originals]
    if not any(found):
        return 0
    values = [new or old for new, old in zip(found, originals, strict=True)]
    element.value = values if several else values[0]
    return sum(new is not None for new in found)


def mapped(uid: str, uid_map: UidMap) -> str | None:
    """What a UID becomes, without its padding; None where it stays."""
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
    """Pydicom leaves UN of 64 KiB and more as bytes, since few elements with a VR of their own can be that long."""
    items = convert_SQ(ds[tag].value, False, True)
    for item in items:
        check_depth(item, 1)
    ds[tag] = DataElement(tag, "SQ", items)
