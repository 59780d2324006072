"""Record and original are compared: mostly by a quick look, which never lets through what the full walk would not."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import pytest

from gateway.dicom.encoding.attributes import query_attributes
from gateway.dicom.encoding.elements import Layout
from gateway.dicom.encoding.encoded import parse
from gateway.errors import IntegrityError
from gateway.restore import agreement
from gateway.restore.agreement import check_agreement, check_agreement_of
from tests.support.vault import CT

EXPLICIT = Layout(False, True)
PLAIN = {"name": b"DOE^JANE", "id": b"P1", "birth": b"19700101", "charset": b"ISO_IR 100"}


def original(name: bytes, id: bytes, birth: bytes, charset: bytes, sop: bytes = b"1.2.3.1") -> bytes:
    elements = (
        (0x00080005, b"CS", charset),
        (0x00080016, b"UI", CT.encode()),
        (0x00080018, b"UI", sop),
        (0x00100010, b"PN", name),
        (0x00100020, b"LO", id),
        (0x00100030, b"DA", birth),
        (0x0020000D, b"UI", b"1.2"),
        (0x0020000E, b"UI", b"1.2.3"),
        (0x00280010, b"US", b"\0\2"),
    )
    data = b""
    for tag, vr, value in elements:
        value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
        data += struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value
    return data


def record_of(vault, data: bytes):
    return replace(vault.store(data), attributes=query_attributes(parse(data, EXPLICIT)))


def agrees(check) -> bool:
    try:
        check()
    except IntegrityError as error:
        assert error.code == "original-differs-from-record"
        return False
    return True


def test_a_plain_header_is_not_walked(vault, monkeypatch):
    data = original(**PLAIN)
    record = record_of(vault, data)
    monkeypatch.setattr(agreement, "check_agreement", lambda *_: pytest.fail("the quick look did not tell"))
    check_agreement_of(record, memoryview(data))


@pytest.mark.parametrize("key", ["name", "id", "birth", "sop"])
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"OTHER",
        b"DOE^JANE^^",
        b"D\\OE",
        b"A=B",
        b"\xc4RZTIN",
        b"  P1 ",
        b"P1\0",
        b"P~1",
        b"\x1b$BX",
        b"1970.01.01",
        b"1.2.3.1",
    ],
)
def test_the_quick_look_and_the_walk_agree(vault, key, value):
    """Whatever the original holds, its own record agrees with it, and that of another patient or instance does not."""
    data = original(**(PLAIN | {key: value}))
    if key != "sop" or value == b"1.2.3.1":
        own = record_of(vault, data)
        check_agreement_of(own, memoryview(data))
        check_agreement(own, io.BytesIO(data))
    other = record_of(vault, original(**PLAIN))
    try:
        walked = agrees(lambda: check_agreement(other, io.BytesIO(data)))
    except AssertionError:
        return  # no readable UID: the quick look cannot tell, which the next test holds
    assert agrees(lambda: check_agreement_of(other, memoryview(data))) == walked


def test_what_cannot_be_read_is_refused(vault):
    record = record_of(vault, original(**PLAIN))
    with pytest.raises(IntegrityError) as caught:
        check_agreement_of(record, memoryview(original(**PLAIN, sop=b"OTHER")))
    assert caught.value.code == "original-unreadable"
