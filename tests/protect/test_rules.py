"""Rules: what they match on, each way to fit and not to, and that nothing unknown fits."""

from __future__ import annotations

import io
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError
from pydicom import Dataset

from gateway.config.models import Route
from gateway.config.rules import Rule
from gateway.dicom.encoding.encoded import InstanceHeader, read_header
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.mark import load_profiles
from gateway.protect import Arrival, decide
from gateway.protect.rules import asked, check_tag, fits
from tests.support.dicom.enhanced import grouped, item
from tests.support.dicom.samples import encode, image

PROFILES = load_profiles()
BERLIN = ZoneInfo("Europe/Berlin")


def header(**changes: object) -> InstanceHeader:
    ds = image(**changes)
    block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x08, "CS", "IMAGE NUM 4")
    other = ds.private_block(0x0029, "OTHER", create=True)
    other.add_new(0x08, "LO", "else")
    return read_header(io.BytesIO(encode(ds)), EXPLICIT_LITTLE)


HEAD = header(
    BodyPartExamined="HEAD",
    StudyDescription="Schädel nativ",
    SeriesDescription="AX 5mm [test]",
    StationName="CT01",
    ImageType=["DERIVED", "SECONDARY", "MPR"],
    SliceThickness="5.0",
    SpecificCharacterSet="ISO_IR 100",
)
CAME = Arrival("CT_ROOM_1", "10.1.2.3", datetime(2026, 11, 28, 22, 30, tzinfo=BERLIN).timestamp())  # a Saturday


def fit(head: InstanceHeader = HEAD, came: Arrival = CAME, **keys: object) -> bool:
    return fits(Rule(**keys, action="hold"), head, came)


def tag(name: str, like: str, creator: str = "") -> dict:
    return {"tags": [{"tag": name, "like": like, "creator": creator}]}


def at(*windows: str) -> dict:
    return {"when": windows, "time_zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        ({"body_part": ["head"]}, {"body_part": ["HEA"]}),
        ({"body_part": ["NECK", "H*D"]}, {"body_part": ["NECK"]}),
        ({"description": ["*schädel*"]}, {"description": ["*schadel*"]}),
        ({"description": ["AX ?mm [test]"]}, {"description": ["AX ?mm t"]}),
        ({"calling_ae": ["ct_room_?"]}, {"calling_ae": ["CT_ROOM"]}),
        ({"addresses": ["10.1.0.0/16"]}, {"addresses": ["10.2.0.0/16", "10.1.2.4"]}),
        (tag("StationName", "ct*"), tag("StationName", "MR*")),
        (tag("0008,1010", "CT01"), tag("(0008,1010)", "CT02")),
        (tag("ImageType", "MPR"), tag("ImageType", "AXIAL")),
        (tag("SliceThickness", "5*"), tag("SliceThickness", "3*")),
        (tag("PatientComments", ""), tag("StationName", "")),
        (tag("0029,xx08", "IMAGE*", "SIEMENS CSA HEADER"), tag("0029,xx08", "IMAGE*", "OTHER")),
        (at("sat 22:00-23:00"), at("sun 22:00-23:00")),
        (at("mon 09:00-10:00", "fri,sat 20:00-06:00"), at("mon-fri 00:00-24:00")),
    ],
)  # fmt: skip
def test_each_key_fits_and_does_not(yes: dict, no: dict) -> None:
    assert fit(**yes) and not fit(**no)
    assert not fit(**{**no, **{key: value for key, value in yes.items() if key not in no}, "modality": "MR"})
    assert fit(**yes, modality="CT") and not fit(**yes, modality="MR")


def test_all_tags_must_fit_and_of_a_list_one_entry() -> None:
    both = [{"tag": "StationName", "like": "CT*"}, {"tag": "ImageType", "like": "MPR"}]
    assert fit(tags=both) and not fit(tags=[*both, {"tag": "Modality", "like": "MR"}])


def test_what_is_not_known_fits_no_rule_that_asks_for_it() -> None:
    nobody = Arrival()
    for keys in ({"calling_ae": ["*"]}, {"addresses": ["0.0.0.0/0"]}, {"when": ["mon-sun 00:00-24:00"]}):
        assert fit(**keys) and not fit(HEAD, nobody, **keys)
    assert not fit(HEAD, Arrival("A", "no address", 0.0), addresses=["0.0.0.0/0"])


def test_the_region_of_an_enhanced_image_counts() -> None:
    region = item(AnatomicRegionSequence=[item(CodeValue="12738006")])
    ds = grouped(image(SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1", Modality="MR"), [item(FrameAnatomySequence=[region])])
    enhanced = read_header(io.BytesIO(encode(ds)), EXPLICIT_LITTLE)
    assert fit(enhanced, body_part=["BRAIN"]) and not fit(enhanced, body_part=["HEAD"])


@pytest.mark.parametrize("value", [b"\xff\xfe", b"A" * 300_000, b""])
def test_a_value_that_cannot_be_read_or_is_too_long_fits_as_if_it_were_not_there(value: bytes) -> None:
    ds = image()
    ds.add_new(0x00081010, "SH", "X")
    data = encode(ds)
    at = data.index(b"\x08\x00\x10\x10SH") + 6
    even = value + b" " * (len(value) % 2)
    if len(even) < 65_536:
        data = data[:at] + len(even).to_bytes(2, "little") + even + data[at + 4 :]
        head = read_header(io.BytesIO(data), EXPLICIT_LITTLE)
        assert not fit(head, **tag("StationName", "CT*"))
    ds = Dataset()
    ds.update(image())
    ds.add_new(0x00204000, "LT", value.decode("latin-1")[: 1 << 18] + "x")
    assert not fit(read_header(io.BytesIO(encode(ds)), EXPLICIT_LITTLE), **tag("ImageComments", "CT*"))


def test_the_decision_names_its_rule_and_stays_what_it_was_at_night() -> None:
    night = Rule(when=["mon-sun 20:00-06:00"], time_zone="Europe/Berlin", action="hold")
    route = Route(name="r", called_ae="R", destinations=("o",), rules=(Rule(modality="MR", action="block"), night))
    decision = decide(HEAD, route, PROFILES, arrival=CAME)
    assert (decision.code, decision.rule) == ("rule-holds", 1)
    day = decide(HEAD, route, PROFILES, arrival=Arrival(received_at=CAME.received_at - 12 * 3600))
    assert (day.action, day.rule) == ("mark", None)


def test_what_does_not_fit_is_told() -> None:
    rule = Rule(modality="CT", body_part=["NECK"], addresses=["10.9.9.9"], action="hold")
    assert dict(asked(rule, HEAD, CAME)) == {"modality": True, "addresses": False, "body_part": False}


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"time_zone": "Europe/Berlin"},
        {"time_zone": "Europe/Berlin", "modality": "CT"},
        {"sop_class": "CT Image"},
        {"addresses": ["10.1.2.x"]},
        {"when": ["monday"]},
        {"body_part": ["a\nb"]},
        tag("station name", "x"),
        tag("0029,1008", "x"),
        tag("0029,xx08", "x"),
        tag("StationName", "x", "SIEMENS"),
        tag("0028,xx08", "x", "SIEMENS"),
    ],
)
def test_a_rule_that_cannot_be_meant_so_is_refused(keys: dict) -> None:
    with pytest.raises(ValidationError):
        Rule(**keys, action="hold")


@pytest.mark.parametrize(
    ("name", "is_known"),
    [
        ("StationName", True),
        ("0008,1010", True),
        ("StationNam", False),
        ("0008,9999", False),
        ("IconImageSequence", False),
    ],
)
def test_what_the_dictionary_does_not_know_is_found_before_the_start(name: str, is_known: bool) -> None:
    (match,) = Rule(**tag(name, "x"), action="hold").tags
    assert (check_tag(match) == "") is is_known
