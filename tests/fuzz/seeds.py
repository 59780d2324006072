"""Seeds, made from pydicom's own test files and our own writers each time: nothing of them is kept."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pynetdicom.dsutils import encode as encode_identifier
from pynetdicom.pdu import A_ASSOCIATE_RQ, A_RELEASE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    A_RELEASE,
    P_DATA,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.parts import split
from gateway.dicom.encoding.private import read_block, write_block
from gateway.dicom.encoding.syntaxes import LOSSLESS_NAMES
from gateway.dicom.pixels.compress import recode
from gateway.errors import DicomError
from gateway.network import command
from tests.fuzz.carried import GATEWAY, body, original
from tests.fuzz.targets import SYNTAXES, chunked_file, compressed_payload, sealed_token
from tests.support.dicom.samples import encode, image

LARGEST = 16 << 10  # bytes of a file: larger ones make a fuzzer slow and teach it nothing


def _files() -> Iterator[Path]:
    folder = Path(get_testdata_file("CT_small.dcm", download=False)).parent
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size <= LARGEST)


def _instances() -> Iterator[bytes]:
    """Data sets, each behind the number of its transfer syntax; the small one of the tests in every native syntax."""
    for path in _files():
        with path.open("rb") as file:
            try:
                meta, _ = split_part10(file)
            except DicomError:
                continue
            if meta.transfer_syntax_uid in SYNTAXES:
                yield bytes([SYNTAXES.index(meta.transfer_syntax_uid)]) + file.read()
    for number in range(3):
        yield bytes([number]) + encode(image(), SYNTAXES[number])
    yield from _compressed()


def _compressed() -> Iterator[bytes]:
    """Two frames in every lossless syntax that can be written here, so that each decoder is reached from a seed."""
    gray = encode(image(np.arange(2560, dtype=np.uint16).reshape(2, 32, 40), BitsStored=12))
    colour = encode(image(np.arange(3840, dtype=np.uint16).astype(np.uint8).reshape(1, 32, 40, 3)))
    for syntax in LOSSLESS_NAMES.values():
        for native in (gray, colour):
            yield bytes([SYNTAXES.index(syntax)]) + recode(native, syntax)


def _decoded() -> Iterator[bytes]:
    """Those that have pixels. A lossless frame also stands in for the syntaxes that nothing here writes."""
    twins = {_of(f".4.{written}"): _of(f".4.{other}") for written, other in ((70, 57), (80, 81), (201, 203), (90, 91))}
    for seed in _instances():
        syntax = SYNTAXES[seed[0]]
        try:
            parts = split(seed[1:], syntax)
        except DicomError:
            continue
        if parts.header.bits_allocated in (8, 16):
            yield seed
            if seed[0] in twins:
                yield bytes([twins[seed[0]]]) + seed[1:]


def _of(suffix: str) -> int:
    return SYNTAXES.index(f"1.2.840.10008.1.2{suffix}")


def _headers() -> Iterator[bytes]:
    """Headers with sequences, each behind a byte that tells its layout."""
    for seed in _instances():
        try:
            parts = split(seed[1:], SYNTAXES[seed[0]], without_pixels=True)
        except DicomError:
            continue
        yield bytes([parts.layout.implicit | (not parts.layout.little_endian) << 1]) + parts.header_bytes


def _private() -> Iterator[bytes]:
    for number, syntax in enumerate(SYNTAXES[:3]):
        ds = Dataset()
        write_block(ds, sealed_token(), "RESTORE", sealed_key=b"sealed", payload=b"payload")
        yield bytes([(1, 0, 2)[number]]) + encode(ds, syntax)


def _archives() -> Iterator[bytes]:
    member = Path(get_testdata_file("MR_truncated.dcm", download=False)).read_bytes()[:2000]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as made:
            made.writestr("DICOMDIR", member)
            made.writestr("a/one.dcm", member)
            made.mkdir("b")
        yield out.getvalue()


def _pdus() -> Iterator[bytes]:
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "ARCHIVE", "MIAD"
    context = build_context("1.2.840.10008.5.1.4.1.1.2")
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = "1.2.3"
    request.user_information = [length, implementation]
    associate = A_ASSOCIATE_RQ()
    associate.from_primitive(request)
    data = P_DATA()
    data.presentation_data_value_list.extend([(1, b"\x03" + next(_commands())), (1, b"\x02data")])
    transfer = P_DATA_TF()
    transfer.from_primitive(data)
    release = A_RELEASE_RQ()
    release.from_primitive(A_RELEASE())
    abort = struct.pack(">BBLBBBB", 7, 0, 4, 0, 0, 0, 0)
    each = [associate.encode(), transfer.encode(), release.encode(), abort]
    yield from each
    yield b"".join(each)


def _commands() -> Iterator[bytes]:
    yield command.encode_command(
        {
            command.AFFECTED_SOP_CLASS_UID: "1.2.840.10008.5.1.4.1.1.2",
            command.COMMAND_FIELD: command.C_STORE_RQ,
            command.MESSAGE_ID: 1,
            command.PRIORITY: 0,
            command.DATA_SET_TYPE: command.WITH_DATA_SET,
            command.AFFECTED_SOP_INSTANCE_UID: "1.2.3",
            command.MOVE_ORIGINATOR_AE: "READING",
        }
    )
    yield command.encode_command({command.COMMAND_FIELD: command.C_ECHO_RQ, command.MESSAGE_ID: 7})


def _identifiers() -> Iterator[bytes]:
    ds = Dataset()
    ds.QueryRetrieveLevel, ds.PatientName, ds.StudyInstanceUID = "STUDY", "Doe^Jane", ["1.2.3", "1.2.4"]
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.RequestAttributesSequence = [Dataset()]
    for number, (implicit, little) in enumerate(((True, True), (False, True), (False, False))):
        yield bytes([number]) + encode_identifier(ds, implicit, little)


def _bodies() -> Iterator[bytes]:
    for number in range(2):
        yield bytes([number]) + body(number)
        yield bytes([number | 2]) + original(number)[0]


def _sealed() -> Iterator[bytes]:
    data, syntax, _ = original(0)
    found = read_block(read_header(io.BytesIO(GATEWAY.copy(data, syntax)), syntax).dataset)
    for key, content in ((found.sealed_key, found.payload), (found.sealed_key, b"MGCP\x01"), (b"MGK\x01", b"")):
        yield bytes([len(key)]) + key + content


def _logos() -> Iterator[bytes]:
    from gateway.mark.placement.logo import FORMATS

    drawn = Image.new("L", (24, 12), 255)
    drawn.paste(0, (4, 2, 18, 9))
    for kind, mode in (("PNG", "RGBA"), ("PNG", "P"), *((kind, "L") for kind in FORMATS)):
        out = io.BytesIO()
        drawn.convert(mode).save(out, kind)
        yield out.getvalue()


def _configurations() -> Iterator[bytes]:
    whole = (Path(__file__).parents[2] / "deploy" / "gateway.toml").read_bytes()
    yield whole
    yield b"\n".join(line.removeprefix(b"#").strip() for line in whole.splitlines() if b"=" in line or b"[" in line)
    yield b'[ingress]\nport = 11112\n[[ingress.peers]]\nae_title = "ARCHIVE"\naddresses = ["10.0.0.1"]\n'
    yield b'[mark]\ntier = "lettered"\nlogo = 2026-01-02\n"a b"."c" = { d = 1, e = [1, 2] }\n'


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    **dict.fromkeys(("header", "parts", "references"), _instances),
    **dict.fromkeys(("pixels", "frames", "derived"), _decoded),
    "amount": _headers,
    "part10": lambda: (path.read_bytes()[:4096] for path in _files()),
    "private": _private,
    "token": lambda: iter((sealed_token(), b"site" + bytes(44))),
    "chunked": lambda: (chunked_file(bytes(size)) for size in (0, 10, 1024, 3000)),
    "payload": lambda: (compressed_payload(bytes(range(256)) * times) for times in (0, 1, 40)),
    "residual_body": _bodies,
    "sealed_parts": _sealed,
    "dicomdir": lambda: (path.read_bytes() for path in _files() if path.name.startswith("DICOMDIR")),
    "archive": _archives,
    "pdu": _pdus,
    "command": _commands,
    "identifier": _identifiers,
    "logo": _logos,
    "config": _configurations,
}
