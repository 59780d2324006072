"""Text keeps its bytes in every encoding, and what is added to it is in its character set."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from pydicom import Dataset

from gateway.dicom.copy.derivation import SERIES_SUFFIX
from gateway.dicom.copy.derive import derive
from gateway.dicom.copy.references import derive_references
from gateway.dicom.encoding import notes
from gateway.dicom.encoding.charset import encoded, joined, python_encodings
from gateway.dicom.encoding.encoded import InstanceHeader, read_header
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.syntaxes import DEFLATED_LITTLE, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from tests.support.dicom.samples import encode, facts, image

SYNTAXES = [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED_LITTLE]
# Specific Character Set -> a name as it lies in bytes, some of them wrong in their character set
NAMES = {
    "": b"Doe^Jos\xe9",
    "ISO_IR 100": "Köln^Müller".encode("latin-1"),
    "ISO_IR 192": "山田^太郎".encode(),
    "ISO_IR 192 ": b"Caf\xe9^Ren\xe9",  # ISO 8859-1 under the name of UTF-8
    "ISO_IR 13": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎".encode("shift_jis"),  # kanji, which ISO_IR 13 has not
    "\\ISO 2022 IR 87": b"Yamada^Tarou=" + "山田".encode("iso2022_jp") + b"^" + "太郎".encode("iso2022_jp"),
    "ISO 2022 IR 6\\ISO 2022 IR 149": b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7",
    "IR 6\\IR 100\\IR 87": b"Buc^J\x1b-A\xe9r\xf4me",
    "GB18030": "王^小东".encode("gb18030"),
    "NONESUCH": b"Caf\xe9",
    "ISO_IR 100\0\0": b"Caf\xe9",
}


def deflated(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(data) + squeeze.flush()


def with_text(term: str, value: bytes, syntax: str) -> bytes:
    """An image whose texts are these bytes, in one of the uncompressed encodings."""
    ds = image(np.zeros((1, 6, 8), np.uint16))
    item = Dataset()
    value += b" " * (len(value) % 2)
    written, named = "q" * len(value), "Z" * (len(term) + len(term) % 2)
    ds.PatientName = ds.PatientID = ds.SeriesDescription = ds.ImageComments = written
    item.CodeMeaning = item.ScheduledProcedureStepDescription = written
    ds.ProcedureCodeSequence = [item]
    data = encode(ds, EXPLICIT_LITTLE if syntax == DEFLATED_LITTLE else syntax)
    if term:  # pydicom would write texts anew in it
        ds.StationName = named
        data = encode(ds, EXPLICIT_LITTLE if syntax == DEFLATED_LITTLE else syntax)
        at = data.index(named.encode()) - 8
        order = "big" if syntax == EXPLICIT_BIG else "little"
        head = data[at : at + 8]
        data = data[:at] + data[at + 8 + len(named) :]
        head = (0x0008).to_bytes(2, order) + (0x0005).to_bytes(2, order) + head[4:].replace(b"SH", b"CS")
        data = head + term.encode().ljust(len(named)) + data
    data = data.replace(written.encode(), value)
    return deflated(data) if syntax == DEFLATED_LITTLE else data


def texts(data: bytes) -> dict[int, bytes]:
    """Encoded texts of a data set in Explicit VR Little Endian, those of the item too."""
    form = read_header(io.BytesIO(data), EXPLICIT_LITTLE).form
    found = {int(element.tag): element.value or b"" for element in form.elements}
    return found | {0: found.pop(0x00081032, b"")}


def header_of(data: bytes, syntax: str) -> InstanceHeader:
    return read_header(io.BytesIO(data), syntax)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("term", NAMES)
def test_text_keeps_its_bytes_and_gets_ours_beside_them(term, syntax):
    value = NAMES[term]
    data = with_text(term, value, syntax)
    padded = value + b" " * (len(value) % 2)
    for copy in (
        derive(data, syntax, decode_pixels(data, syntax).frames, facts()),
        derive_references(data, syntax, facts()),
    ):
        found = texts(copy)
        assert found[0x00100010] == found[0x00100020] == padded
        assert found[0].count(value) == 2  # in the item
        assert found[0x0008103E].rstrip() == value + SERIES_SUFFIX.encode()
        assert found.get(0x00080005, b"").strip(b" ") == term.encode().strip(b" ")
    assert found[0x00204000].rstrip() == value  # of the remapped one; of the marked one it stands behind our words


def test_a_field_report_of_two_patients_and_of_broken_text(field_inputs):
    ids = set()
    for path in sorted([*field_inputs.glob("charsets/*/*.dcm"), *field_inputs.glob("patient-id/*.dcm")]):
        with path.open("rb") as file:
            meta, _ = split_part10(file)
            data = file.read()
        header = header_of(data, meta.transfer_syntax_uid)
        before = {int(one.tag): one.value for one in header.form.elements if one.VR in ("LO", "PN", "SH", "LT", "ST")}
        after = texts(
            derive(data, meta.transfer_syntax_uid, decode_pixels(data, meta.transfer_syntax_uid).frames, facts())
        )
        assert before.pop(0x0008103E, b"").rstrip(b" ") in after[0x0008103E]
        assert {tag: after[tag] for tag in before} == before and len(before) > 2
        assert all(value in data for value in before.values() if value) or meta.transfer_syntax_uid == DEFLATED_LITTLE
        if path.parent.name == "patient-id":
            ids.add(header.attributes["00100020"]["Value"][0])
    assert len(ids) == 2


def test_different_bytes_stay_different_patients():
    seen = set()
    for number in range(0x80, 0x100):
        header = header_of(with_text("ISO_IR 192", b"P\xff" + bytes([number]), EXPLICIT_LITTLE), EXPLICIT_LITTLE)
        seen.add(header.attributes["00100020"]["Value"][0])
    assert len(seen) == 128


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("term", ["NONESUCH", "ISO_IR 100\0\0", "ISO_IR\0100", "ISO_IR 100\\NONESUCH"])
def test_an_unusable_character_set_does_not_refuse_the_object(term, syntax):
    header = header_of(with_text(term, b"Caf\xe9^A", syntax), syntax)
    assert (notes.CHARACTER_SET in header.notes) == (term != "ISO_IR 100\0\0")
    assert header.attributes["00100010"]["Value"][0]["Alphabetic"].startswith("Caf")
    assert header_of(with_text(term, b"Doe^A", syntax), syntax).attributes["00100020"]["Value"] == ["Doe^A"]


def test_the_field_object_with_an_unusable_character_set_is_taken(field_inputs):
    with (field_inputs / "charset-nul" / "charset_nul.dcm").open("rb") as file:
        meta, _ = split_part10(file)
        data = file.read()
    header = header_of(data, meta.transfer_syntax_uid)
    assert notes.CHARACTER_SET in header.notes and header.rows
    frames = decode_pixels(data, meta.transfer_syntax_uid).frames
    assert texts(derive(data, meta.transfer_syntax_uid, frames, facts()))[0x00080005] in data


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("term", "own"),
    [
        ("ISO_IR 100", ""),
        ("", "ISO_IR 192"),
        ("ISO_IR 192", ""),
        ("\\ISO 2022 IR 87", "ISO_IR 192"),
        ("GB18030", ""),
        ("NONESUCH", "ISO_IR 192"),
    ],
)
def test_the_name_of_the_site_is_written_whole(term, own, syntax):
    name = "Universitätsklinikum Köln"
    data = with_text(term, b"Doe", syntax)
    copy = derive(data, syntax, decode_pixels(data, syntax).frames, facts(institution=name, manufacturer="Größe\\AG"))
    item = header_of(copy, EXPLICIT_LITTLE).dataset.ContributingEquipmentSequence[-1]
    assert item.get("SpecificCharacterSet", "") == own
    assert (item.InstitutionName, item.Manufacturer) == (name, "Größe AG")
    assert b"?" not in copy[: copy.index(b"\xe0\x7f\x10\x00")].replace(b"Purpose?", b"")


def test_text_that_does_not_fit_is_cut_between_characters():
    for term, text in (
        ("ISO_IR 192", "ä山" * 30),
        ("ISO_IR 100", "ä" * 64),
        ("GB18030", "王" * 64),
        ("\\ISO 2022 IR 87", "山" * 64),
    ):
        encodings, _ = python_encodings(term.encode())
        value = encoded(text, encodings)
        assert value
        whole = joined("", value, SERIES_SUFFIX, encodings, 64)
        shown = header_of(with_text(term, whole, EXPLICIT_LITTLE), EXPLICIT_LITTLE).dataset.SeriesDescription
        assert shown == text[: 64 - len(SERIES_SUFFIX)] + SERIES_SUFFIX
