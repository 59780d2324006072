"""What a marked copy says of itself, so that it is never mistaken for its original (PS3.3 C.7.6.1, C.12.1, C.12.4.1).

Functions here change a header in place; `gateway.dicom.copy.derive` puts them together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.tag import Tag

from gateway.dicom.copy.bulk import RideAlong
from gateway.dicom.copy.remap import is_sequence
from gateway.dicom.encoding import charset, values
from gateway.dicom.encoding.part10 import IMPLEMENTATION_CLASS_UID

SERIES_SUFFIX = " [MARKED COPY]"
COMMENT = (
    "MARKED COPY - NOT FOR DIAGNOSIS. The pixels were changed on purpose to mislead unauthorized AI. "
    "Authorized workstations retrieve the original from the restore service."
)
SCHEME = "99MIAD"
_LONGEST_LO, _LONGEST_ST, _LONGEST_LT = 64, 1024, 10240  # characters (PS3.5 6.2)
_DROPPED = frozenset(
    {
        0xFFFAFFFA,  # Digital Signatures Sequence, and below all that signatures need (PS3.15 C.2)
        0x4FFE0001,  # MAC Parameters Sequence
        *(0x04000000 | element for element in (0x05, 0x10, 0x15, 0x20, 0x100, 0x105, 0x110, 0x115, 0x120)),
        *(0x04000000 | element for element in (0x305, 0x310, 0x401, 0x402, 0x403, 0x404)),
        0xFFFCFFFC,  # Data Set Trailing Padding
        0x00280108,  # Smallest and Largest Pixel Value in Series: of another series now
        0x00280109,
        0x00280110,  # Smallest and Largest Image Pixel Value in Plane (retired)
        0x00280111,
        0x00080054,  # Retrieve AE Title, and below all that says where the archive has what a reference names
        0x00080056,  # Instance Availability
        0x00081190,  # Retrieve URL
        0x0040E010,  # Retrieve URI
        0x0040E011,  # Retrieve Location UID
        *range(0x0040E021, 0x0040E026),  # DICOM, DICOM Media, WADO, XDS and WADO-RS Retrieval Sequence
        0x0040E030,  # Repository Unique ID
        0x0040E031,  # Home Community ID
        0x00880130,  # Storage Media File-Set ID and UID
        0x00880140,
    }
)
_DROPPED_GROUPS = frozenset({0x0000, 0x0002, 0x7FE0})
# Ophthalmic photographs, 8 and 16 bit: value 3 of Image Type says how a derived one was derived (PS3.3 C.8.17.2).
_OPHTHALMIC = frozenset({"1.2.840.10008.5.1.4.1.1.77.1.5.1", "1.2.840.10008.5.1.4.1.1.77.1.5.2"})


def _leave(_uid: str) -> None:
    return None


@dataclass(frozen=True)
class DerivationFacts:
    """All that goes into a derived instance besides its original and the marked frames: same facts, same bytes.

    Attributes
    ----------
    created_at
        With time zone; when the derived UID was assigned (C.12.1).
    description
        Derivation Description in plain words, without PHI.
    source_reference
        Name the original's UID in Source Image Sequence.
    token, hint
        For the private block: sealed key reference; restore service hint.
    derived_study_uid
        Empty: the original's Study Instance UID stays.
    map_uid, map_series, map_study
        Original UID to derived UID for references inside the image, or None to leave one as it is; without map_study
        those to studies stay.
    sealed_key, payload
        For `carried` restoration.
    visible_text
        Words over the image, in an overlay plane.
    ride_along
        What the route says of private elements.
    """

    derived_sop_uid: str
    derived_series_uid: str
    created_at: datetime
    manufacturer: str
    software_version: str
    description: str
    source_reference: bool
    token: bytes
    hint: str = ""
    device_serial: str = ""
    institution: str = ""
    model: str = "MIAD Gateway"
    map_uid: Callable[[str], str | None] = _leave
    map_series: Callable[[str], str | None] = _leave
    derived_study_uid: str = ""
    map_study: Callable[[str], str | None] | None = None
    creator_uid: str = IMPLEMENTATION_CLASS_UID
    sealed_key: bytes | None = None
    payload: bytes | None = None
    visible_text: bool = False
    ride_along: RideAlong = field(default_factory=RideAlong)


def dropped_within() -> frozenset[int]:
    """Tags of what `drop_invalid` takes out of sequences, besides group lengths."""
    return _DROPPED


def drop_invalid(ds: Dataset, nested: bool = False, done: Collection[int] = ()) -> None:
    """Take out, at all levels, what is not true of the marked copy: signatures, MACs, group lengths, padding.

    done: tags of sequences that are left alone.
    """
    for tag in list(ds.keys()):
        number = int(tag)
        if number in done:
            continue
        if number in _DROPPED or number & 0xFFFF == 0 or (number >> 16 in _DROPPED_GROUPS and not nested):
            del ds[tag]
        elif not number >> 16 & 1 and is_sequence(ds, number):
            for item in ds[tag].value or ():
                drop_invalid(item, nested=True)


def set_identity(ds: Dataset, facts: DerivationFacts, done: Collection[int] = ()) -> None:
    """New UIDs, and DERIVED, also in every Frame Type, but for functional groups that are done already."""
    set_uids(ds, facts)
    kept = list(values.texts(ds, "ImageType"))[1:]
    kind = ["DERIVED", *(kept or ["SECONDARY" if "SecondaryCapture" in ds.SOPClassUID.keyword else "PRIMARY"])]
    if ds.SOPClassUID in _OPHTHALMIC and not any(kind[2:3]):
        kind[2:3] = ["MARKED"]
    ds.ImageType = kind
    _set_frame_types(ds, done)


def set_uids(ds: Dataset, facts: DerivationFacts) -> None:
    """New SOP Instance and Series Instance UID, of the study too if wanted, and who assigned them when (C.12.1)."""
    ds.SOPInstanceUID = facts.derived_sop_uid
    ds.SeriesInstanceUID = facts.derived_series_uid
    if facts.derived_study_uid:
        ds.StudyInstanceUID = facts.derived_study_uid
    moment = _in_zone_of(ds, facts.created_at)
    ds.InstanceCreationDate = moment.strftime("%Y%m%d")
    ds.InstanceCreationTime = moment.strftime("%H%M%S")
    ds.InstanceCreatorUID = facts.creator_uid


def describe_derivation(ds: Dataset, facts: DerivationFacts) -> None:
    """Derivation Description and codes, comments, equipment, content qualification. What stood there is kept behind."""
    description = _ascii(facts.description)
    charset.extend(ds, "DerivationDescription", description[:_LONGEST_ST] + charset.SEPARATOR, "", _LONGEST_ST)
    charset.extend(ds, "ImageComments", COMMENT + charset.SEPARATOR, "", _LONGEST_LT)
    _mark_series(ds)
    ds.ContentQualification = "RESEARCH"
    ds.DerivationCodeSequence = [
        *values.items(ds, "DerivationCodeSequence"),
        _code("113042", "DCM", "Pixel by pixel addition"),
        _code("MARK", SCHEME, "Adversarial protection mark"),
    ]
    schemes = [i for i in values.items(ds, "CodingSchemeIdentificationSequence") if _designator(i) != SCHEME]
    ds.CodingSchemeIdentificationSequence = [*schemes, scheme_identification()]
    _contribute(ds, facts, "Adversarial protection mark")


def scheme_identification() -> Dataset:
    """The item of Coding Scheme Identification Sequence that says whose codes those of `SCHEME` are (PS3.3 C.12.1)."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeName = "MIAD Gateway private codes"
    scheme.CodingSchemeResponsibleOrganization = "MIAD Gateway"
    return scheme


def describe_remapping(ds: Dataset, facts: DerivationFacts) -> None:
    """Series Description and equipment say that references were changed, in an object whose content was not."""
    _mark_series(ds)
    _contribute(ds, facts, "References mapped to marked copies")


def _mark_series(ds: Dataset) -> None:
    charset.extend(ds, "SeriesDescription", "", SERIES_SUFFIX, _LONGEST_LO)


def _contribute(ds: Dataset, facts: DerivationFacts, what: str) -> None:
    ds.ContributingEquipmentSequence = [
        *values.items(ds, "ContributingEquipmentSequence"),
        _equipment(facts, what, charset.encodings_within(ds)),
    ]


def refer_to_source(ds: Dataset, sop_class_uid: str, original_uid: str, wanted: bool) -> None:
    """Source Image Sequence names the original, and nothing else, or is taken out.

    An original whose UID is under no registered root (PS3.5 9.1) is not named: repeating its error would make the
    marked copy invalid. The vault knows it all the same.
    """
    ds.pop("SourceImageSequence", None)
    if wanted and original_uid.startswith(("1.", "2.")):
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class_uid
        item.ReferencedSOPInstanceUID = original_uid
        item.SpatialLocationsPreserved = "YES"
        item.PurposeOfReferenceCodeSequence = [_code("121322", "DCM", "Source image for image processing operation")]
        ds.SourceImageSequence = [item]


def set_lossy_history(ds: Dataset, lossy: bool, method: str, ratio: float | None) -> None:
    """Keep what the header says of lossy compression; say it for a lossy source whose header does not.

    PS3.3 C.7.6.1.1.5: once "01", always "01". Marking itself is no compression and adds nothing.

    Parameters
    ----------
    method, ratio
        Of the source's transfer syntax; "" and None where that is lossless.
    """
    if not lossy:
        return
    ds.LossyImageCompression = "01"
    if method and not values.raw_value(ds, "LossyImageCompressionMethod"):
        ds.LossyImageCompressionMethod = method
        if ratio is not None and not values.raw_value(ds, "LossyImageCompressionRatio"):
            ds.LossyImageCompressionRatio = f"{ratio:.2f}"


def _equipment(facts: DerivationFacts, what: str, encodings: tuple[str, ...]) -> Dataset:
    """Contributing Equipment Sequence item (C.12.1.1.5); its date-time says its zone.

    encodings: of the data set around it. Names of the site that they cannot hold are in UTF-8, as the item then says.
    """
    item = Dataset()
    given = {
        "Manufacturer": facts.manufacturer or "MIAD Gateway",
        "InstitutionName": facts.institution,
        "ManufacturerModelName": facts.model,
        "DeviceSerialNumber": facts.device_serial,
        "SoftwareVersions": facts.software_version,
    }
    lines = {keyword: charset.plain_line(text)[:_LONGEST_LO].strip() for keyword, text in given.items() if text}
    if any(charset.encoded(line, encodings) is None for line in lines.values()):
        item.SpecificCharacterSet = "ISO_IR 192"
        encodings = charset.encodings_of(item)
    item.set_original_encoding(False, True, list(encodings) or None)  # what is encoded here stays as it is
    for keyword, line in lines.items():
        charset.put(item, keyword, charset.encoded(line, encodings) or b"")
    utc = facts.created_at.astimezone(timezone.utc)  # noqa: UP017 - beside timezone(offset) below
    item.ContributionDateTime = utc.strftime("%Y%m%d%H%M%S") + "+0000"
    item.ContributionDescription = what
    item.PurposeOfReferenceCodeSequence = [_code("109103", "DCM", "Modifying Equipment")]
    return item


def _set_frame_types(ds: Dataset, done: Collection[int]) -> None:
    """Frame Type (0008,9007) stands in the functional groups of enhanced images; value 1 as in Image Type."""
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in values.items(ds, keyword) if tag_for_keyword(keyword) not in done else ():
            for tag in list(group.keys()):
                if not is_sequence(group, int(tag)):
                    continue
                for item in group[tag].value or ():
                    set_frame_type(item)


def set_frame_type(item: Dataset) -> None:
    """Value 1 of Frame Type becomes DERIVED, where the item has one."""
    if "FrameType" in item:
        item.FrameType = ["DERIVED", *values.texts(item, "FrameType")[1:]]


def _in_zone_of(ds: Dataset, moment: datetime) -> datetime:
    """Dates and times of a data set are in the zone of (0008,0201); UTC where it names none (C.12.1.1.8)."""
    match = re.fullmatch(r"([+-])(\d{2})(\d{2})", values.text(ds, "TimezoneOffsetFromUTC"))
    if match is None:
        return moment.astimezone(timezone.utc)  # noqa: UP017
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    if offset >= timedelta(hours=24):
        return moment.astimezone(timezone.utc)  # noqa: UP017
    return moment.astimezone(timezone(offset if match[1] == "+" else -offset))


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def _designator(item: Dataset) -> str:
    return values.text(item, "CodingSchemeDesignator")


def _ascii(text: str) -> str:
    """Our words go into data sets of any character set: ASCII only, one line, no backslash."""
    return re.sub(r"[^\x20-\x5b\x5d-\x7e]", "?", text).strip()


def smallest_and_largest(ds: Dataset, smallest: int, largest: int, signed: bool) -> None:
    """Correct (0028,0106) and (0028,0107) where they are present."""
    for element, value in ((0x0106, smallest), (0x0107, largest)):
        tag = Tag(0x0028, element)
        if tag in ds:
            ds.add_new(tag, "SS" if signed else "US", value)
