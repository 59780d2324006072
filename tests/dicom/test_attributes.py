"""What C-FIND answers from: decoded text, tolerated nonsense."""

from __future__ import annotations

import io
import json

import pytest
from pydicom import Dataset

from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from tests.support.dicom.samples import corpus, encode, image, is_standin


def attributes(**changes: object) -> dict:
    return read_header(io.BytesIO(encode(image(**changes))), EXPLICIT_LITTLE).attributes


def test_keys_of_all_levels():
    found = attributes(
        StudyDate="20260102",
        StudyTime="030405.5",
        AccessionNumber="A1 ",
        StudyID="7",
        SeriesNumber=3,
        InstanceNumber=12,
        PatientSex="F",
        ReferringPhysicianName="Roe^Richard",
    )
    assert found["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}
    assert found["00080050"] == {"vr": "SH", "Value": ["A1"]}
    assert found["00200011"] == {"vr": "IS", "Value": [3]}
    assert found["00200013"] == {"vr": "IS", "Value": [12]}
    assert found["00280010"] == {"vr": "US", "Value": [6]}
    assert found["0020000D"] == {"vr": "UI", "Value": ["1.2.3.1"]}
    assert found["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("character_set", "encoded", "groups"),
    [
        ("ISO_IR 100", "Müller^Jörg".encode("latin-1"), {"Alphabetic": "Müller^Jörg"}),
        ("ISO_IR 192", "Wáng^小东".encode(), {"Alphabetic": "Wáng^小东"}),
        ("ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), {"Alphabetic": "Люкceмбypг"}),  # noqa: RUF001
        (
            "GB18030",
            "Wang^XiaoDong=王^小东".encode("gb18030"),
            {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"},
        ),
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
        ),
    ],
)
def test_names_are_decoded(character_set, encoded, groups):
    ds = image(PatientName="X" * 41)
    ds.SpecificCharacterSet = character_set.split("\\")
    value = encoded + b" " * (len(encoded) % 2)
    data = encode(ds).replace(
        b"PN" + (42).to_bytes(2, "little") + b"X" * 41 + b" ", b"PN%b%b" % (len(value).to_bytes(2, "little"), value)
    )
    assert read_header(io.BytesIO(data), EXPLICIT_LITTLE).attributes["00100010"]["Value"] == [groups]


def test_text_longer_than_its_vr_is_kept_whole():
    found = attributes(PatientID="P" * 70, AccessionNumber="A" * 20, StudyDescription="D" * 80)
    assert [len(found[tag]["Value"][0]) for tag in ("00100020", "00080050", "00081030")] == [70, 20, 80]
    assert "Value" not in attributes(PatientID="P" * 2000)["00100020"]


def test_values_against_their_vr_are_dropped_not_fatal():
    found = attributes(StudyDate="yesterday", StudyTime="99x")
    assert found["00080020"] == {"vr": "DA"} and found["00080030"] == {"vr": "TM"}
    assert attributes(StudyDate="1997.04.24", StudyTime="10:11:12")["00080020"]["Value"] == ["19970424"]
    data = encode(image(InstanceNumber="12")).replace(b"IS\x02\x0012", b"IS\x02\x00zz")
    assert "Value" not in read_header(io.BytesIO(data), EXPLICIT_LITTLE).attributes["00200013"]
    unknown = encode(image(SpecificCharacterSet="ISO_IR 999", PatientName="Doe^Jane"))
    assert read_header(io.BytesIO(unknown), EXPLICIT_LITTLE).attributes["00100010"]["Value"]


def test_every_header_of_the_corpus_goes_through_json_and_back(miad_data):
    seen = 0
    for one in corpus(miad_data):
        data, syntax = one.read()
        try:
            found = read_header(io.BytesIO(data), syntax).attributes
        except Exception:
            continue
        text = json.dumps(found)
        assert "\\u0000" not in text
        ds = Dataset.from_json(text)
        assert ds.SOPInstanceUID and encode(ds)
        seen += 1
    assert seen >= (110 if is_standin(miad_data) else 179)
