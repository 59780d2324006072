"""Reading an encoded instance as it arrived: its header, and whether its encoding holds together.

Nothing here changes a byte, decodes a pixel, or trusts a declared size: values are counted against what is there, and
a header is bounded. What cannot be read is a `DicomError`, never another exception.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pydicom import Dataset

from gateway.dicom.encoding import values
from gateway.dicom.encoding.attributes import PATIENT, query_attributes
from gateway.dicom.encoding.element_count import count
from gateway.dicom.encoding.elements import BULK_VRS, UNDEFINED, Element, Layout, skip_plain, skip_value, top_level
from gateway.dicom.encoding.geometry import slice_position
from gateway.dicom.encoding.groups import body_part_of
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.limits import MAX_HEADER
from gateway.dicom.encoding.normal_form import NormalForm, normal_form
from gateway.dicom.encoding.part10 import FileMeta
from gateway.dicom.encoding.private import has_block
from gateway.dicom.encoding.source import InflatingReader, Source
from gateway.dicom.encoding.syntaxes import Syntax, syntax_of
from gateway.errors import DicomError

PIXEL_GROUP = 0x7FE00000
PIXEL_DATA = 0x7FE00010
PIXEL_TAGS = {PIXEL_DATA, 0x7FE00008, 0x7FE00009}  # Pixel Data, Float and Double Float Pixel Data
BULK = 1 << 20  # larger binary values (documents, waveforms, spectra) are not part of a header
MAX_VALUES = 1 << 21  # in multi-valued text; each empty one of a single byte takes some 170 in memory


@dataclass(frozen=True, repr=False)
class InstanceHeader:
    """What the gateway knows of an instance without its pixels. Its text form shows nothing of it (PHI).

    Attributes
    ----------
    photometric, samples, bits_allocated, bits_stored, high_bit, signed, rows, columns
        Image Pixel module, PS3.3 C.7.6.3; 0 or "" where absent or unusable.
    frames
        Number of Frames, 1 when absent, 0 when it is present and no positive number.
    pixel_tag
        0x7FE00010, or that of Float or Double Float Pixel Data, or None. Offset tables are no pixel data.
    presentation_intent
        (0008,0068): "FOR PRESENTATION", "FOR PROCESSING" or "".
    slice_position
        mm along the slice normal (PS3.3 C.7.6.2), else Slice Location, else None.
    attributes
        What C-FIND answers: DICOM JSON model, see `gateway.dicom.encoding.attributes`.
    form
        The elements that all of this was read from.
    dataset
        The decoded header, without pixel data and without binary values above 1 MiB. Changing it changes nothing else.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    modality: str
    photometric: str
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    rows: int
    columns: int
    frames: int
    body_part: str
    image_type: tuple[str, ...]
    presentation_intent: str
    has_pixel_data: bool
    pixel_tag: int | None
    has_our_private_block: bool
    slice_position: float | None
    attributes: dict[str, Any] = field(compare=False)
    form: NormalForm = field(compare=False)
    dataset: Dataset = field(compare=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """Codes of what was irregular (`gateway.dicom.encoding.notes`)."""
        return self.form.notes

    @property
    def conflicts(self) -> tuple[int, ...]:
        """Tags of elements that stand in one data set twice with different values: nobody can tell which one counts."""
        return self.form.conflicts


def read_header(stream: BinaryIO, transfer_syntax_uid: str) -> InstanceHeader:
    """Read a data set (the bytes behind the File Meta) up to, not including, its pixel data.

    The stream is read forward only and not closed.

    Raises
    ------
    DicomError
        "unknown-transfer-syntax", "not-dicom", "truncated", "bad-sequence", "stray-delimiter", "nested-too-deep",
        "trailing-bytes", "header-too-large", "too-many-elements", "too-many-items", "too-many-values", "bad-deflate",
        "inflates-too-large", "undecodable-header", "missing-uid", "bad-uid".
    """
    syntax = syntax_of(transfer_syntax_uid)
    with foreign_errors("undecodable-header", "the data set cannot be read"):
        form, pixels = _walked(stream, syntax)
        return describe(form, pixels.tag if pixels else None)


@dataclass(frozen=True, repr=False)
class Identity:
    """Which instance of which patient a data set says it is; as of `InstanceHeader`. Its text form shows nothing."""

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    attributes: dict[str, Any]  # of the Patient module alone
    conflicts: tuple[int, ...]


def read_identity(stream: BinaryIO, transfer_syntax_uid: str) -> Identity:
    """As `read_header`, errors included, but only of what says which instance it is: a third of the time."""
    syntax = syntax_of(transfer_syntax_uid)
    with foreign_errors("undecodable-header", "the data set cannot be read"):
        form, _ = _walked(stream, syntax)
        ds = form.dataset()
        return Identity(
            sop_class_uid=values.uid(ds, "SOPClassUID"),
            sop_instance_uid=values.uid(ds, "SOPInstanceUID"),
            series_uid=values.uid(ds, "SeriesInstanceUID"),
            study_uid=values.uid(ds, "StudyInstanceUID"),
            attributes=query_attributes(ds, PATIENT),
            conflicts=form.conflicts,
        )


@dataclass(frozen=True, repr=False)
class Arrival:
    """What decides whether an object is taken in; as of `InstanceHeader`. Its text form shows nothing."""

    sop_class_uid: str
    sop_instance_uid: str
    has_pixel_data: bool
    has_our_private_block: bool


def read_arrival(stream: BinaryIO, transfer_syntax_uid: str) -> Arrival:
    """As `read_header`, errors included, but only of what decides about taking it in."""
    syntax = syntax_of(transfer_syntax_uid)
    with foreign_errors("undecodable-header", "the data set cannot be read"):
        form, pixels = _walked(stream, syntax)
        ds = form.dataset()
        of_class, of_instance, *_ = (
            values.uid(ds, keyword)
            for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
        )
        return Arrival(of_class, of_instance, pixels is not None, has_block(ds))


def _walked(stream: BinaryIO, syntax: Syntax) -> tuple[NormalForm, Element | None]:
    """What stands before the pixel data, and the head of that."""
    source, layout = open_source(stream, syntax)
    header, pixels = split_header(source, layout)
    return walk(header, layout), pixels


def differs_from_meta(header: InstanceHeader, meta: FileMeta) -> bool:
    """Whether a File Meta names other UIDs than the data set behind it.

    The data set's count: they are what every receiver checks a C-STORE command against (PS3.4 B.2.3), while the File
    Meta is what some program wrote into a file.
    """
    instance, kind = meta.sop_instance_uid, meta.sop_class_uid
    return instance not in ("", header.sop_instance_uid) or kind not in ("", header.sop_class_uid)


def open_source(stream: BinaryIO, syntax: Syntax, size: int | None = None) -> tuple[Source, Layout]:
    """A source at the first element, and the layout that its bytes really have.

    Raises DicomError "not-dicom" when what is there cannot be the first element of any data set.
    """
    source = Source(InflatingReader(stream)) if syntax.deflated else Source(stream, size)
    layout = Layout(syntax.implicit, syntax.little_endian)
    head = source.peek(8)
    if len(head) < 8:
        raise DicomError("not-dicom" if not head else "truncated", "the data set is shorter than one element")
    if not 0x0000 <= layout.tag(head) >> 16 <= 0x00FF:
        # Every IOD has group 0008; a data set that begins elsewhere is another byte order, or no data set.
        raise DicomError("not-dicom", "the data does not begin with a data element of group 0008")
    return source, layout.found(head, nested=False)


def split_header(
    source: Source, layout: Layout, *, bulk: int = BULK, at_most: int = MAX_HEADER
) -> tuple[bytes, Element | None]:
    """The encoded elements before group 7FE0, verbatim but for large binary values, and the head of the pixel data.

    Without pixel data there is no "before": signatures (FFFA,FFFA) are then part of the header.
    The source is left at the value of the pixel data, or at the end when there is none.

    Parameters
    ----------
    bulk
        Binary values of more bytes are left out; `UNDEFINED`: none are.
    at_most
        Bytes of header, beyond which DicomError "header-too-large" is raised.
    """
    header = source.keep(at_most=at_most)
    pixels = None
    skip_plain(source, layout, bulk)
    for element in top_level(source, layout):
        in_pixel_group = element.tag >> 16 == PIXEL_GROUP >> 16
        if in_pixel_group or _is_bulk(element, bulk):
            del header[element.start - source.position :]
            source.keep_no_more()
        if in_pixel_group:
            pixels = _pixels(source, element, layout)
            break
        skip_value(source, element, layout)
        source.keep(header, at_most=at_most)
        skip_plain(source, layout, bulk)
    source.keep_no_more()
    return bytes(header), pixels


def walk(header: bytes, layout: Layout) -> NormalForm:
    """Walk collected header bytes, once for all that is to be made of them.

    What the walk cannot follow stays as it came, and is decoded when it is looked at, when nobody counts: so its
    elements and items are counted before as pydicom would decode them, and so is whatever can be a delimiter between
    values (PS3.5 6.4).

    Raises
    ------
    DicomError
        "undecodable-header", "too-many-elements", "too-many-items", "nested-too-deep", "bad-sequence",
        "too-many-values".
    """
    if header.count(b"\\") > MAX_VALUES:
        raise DicomError("too-many-values", f"the text of the header has more than {MAX_VALUES} values")
    with foreign_errors("undecodable-header", "the header cannot be decoded"):
        form = normal_form(header, layout)
        if form.opaque:
            count(header, layout)
        return form


def parse(header: bytes, layout: Layout) -> Dataset:
    """As `walk`: the data set itself."""
    return walk(header, layout).dataset()


def describe(form: NormalForm, pixel_tag: int | None) -> InstanceHeader:
    """The header's facts. Raises DicomError "missing-uid" or "bad-uid"."""
    ds = form.dataset()
    frames = values.integer(ds, "NumberOfFrames")
    return InstanceHeader(
        sop_class_uid=values.uid(ds, "SOPClassUID"),
        sop_instance_uid=values.uid(ds, "SOPInstanceUID"),
        series_uid=values.uid(ds, "SeriesInstanceUID"),
        study_uid=values.uid(ds, "StudyInstanceUID"),
        modality=values.text(ds, "Modality"),
        photometric=values.text(ds, "PhotometricInterpretation"),
        samples=values.integer(ds, "SamplesPerPixel") or 0,
        bits_allocated=values.integer(ds, "BitsAllocated") or 0,
        bits_stored=values.integer(ds, "BitsStored") or 0,
        high_bit=_high_bit(ds),
        signed=values.integer(ds, "PixelRepresentation") == 1,
        rows=values.integer(ds, "Rows") or 0,
        columns=values.integer(ds, "Columns") or 0,
        frames=max(frames or 0, 0) if values.present(ds, "NumberOfFrames") else 1,
        body_part=body_part_of(ds),
        image_type=values.texts(ds, "ImageType"),
        presentation_intent=values.text(ds, "PresentationIntentType"),
        has_pixel_data=pixel_tag is not None,
        pixel_tag=pixel_tag,
        has_our_private_block=has_block(ds),
        slice_position=slice_position(ds),
        attributes=query_attributes(ds),
        form=form,
        dataset=ds,
    )


def _high_bit(ds: Dataset) -> int:
    """High Bit; where it is missing what the standard asks for: Bits Stored - 1 (PS3.5 8.1.1)."""
    found = values.integer(ds, "HighBit")
    return max((values.integer(ds, "BitsStored") or 0) - 1, 0) if found is None else found


def _is_bulk(element: Element, bulk: int) -> bool:
    if element.tag > PIXEL_GROUP and element.tag >> 16 & 1 and element.length > bulk:
        return True  # private raw data of scanners (group 7FE1), also as a sequence of unknown length
    return element.length != UNDEFINED and element.length > bulk and (not element.vr or element.vr in BULK_VRS)


def _pixels(source: Source, element: Element, layout: Layout) -> Element | None:
    """The first pixel data element from here on, going past offset tables (7FE0,0001) to (7FE0,0003)."""
    if element.tag in PIXEL_TAGS:
        return element
    skip_value(source, element, layout)
    for following in top_level(source, layout):
        if following.tag in PIXEL_TAGS:
            return following
        skip_value(source, following, layout)
    return None
