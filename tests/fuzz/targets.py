"""What is fuzzed: for each parser of foreign bytes a function that takes bytes and raises only what must not happen.

A `GatewayError` is an answer, and its text must show nothing of the data. Everything else (another exception, a wrong
result, a hang, too much memory) is a finding.
"""

from __future__ import annotations

import hashlib
import io
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import zstandard
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydicom.filereader import read_dataset
from pynetdicom.pdu import A_ASSOCIATE_RQ

from gateway.config.load import load_config
from gateway.dicom.copy.derive import derive
from gateway.dicom.copy.references import derive_references, is_signed, references_syntax
from gateway.dicom.encoding.check import check_encoding
from gateway.dicom.encoding.directory import read_directory
from gateway.dicom.encoding.element_count import count
from gateway.dicom.encoding.elements import Layout
from gateway.dicom.encoding.encoded import read_arrival, read_header
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.parts import split
from gateway.dicom.encoding.private import read_block
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, syntax_of
from gateway.dicom.pixels.frames import FrameReader
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError, GatewayError
from gateway.files.archive import Archive
from gateway.files.inputs import Inputs
from gateway.keys import ChunkedReader, ChunkedWriter, canonical, hpke, make_token, read_token
from gateway.keys.envelope import wrap_dek
from gateway.network.associate_pdus import AssociateRequest, read_answer, read_reject, read_request
from gateway.network.command import decode_command, encode_command
from gateway.network.pdu_socket import DataPdu
from gateway.network.retrieve.identifiers import read_identifier, retrieve_level
from gateway.vault.record import VaultRecord
from gateway.vault.sealed import open_payload, payload_context
from tests.fuzz.carried import residual_body, sealed_parts
from tests.support.dicom.samples import decoded, facts, slightly_changed

PHI = "Doe^Jane"  # stands in the seeds; must stand in no error
_ROOT = "1.2.840.10008.1.2"
SYNTAXES = [
    _ROOT + suffix
    for suffix in ("", ".1", ".2", ".1.99", ".5", *(f".4.{n}" for n in (50, 57, 70, 80, 81, 90, 91, 201, 203, 51)))
]
PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = bytes(range(32))
LARGEST = 64 << 20  # bytes of decoded pixels that a target goes on with: the fuzzer's time, not a limit of the reader


def _answers(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The target, which may end in a `GatewayError` without a patient's name in it."""

    def target(data: bytes) -> None:
        try:
            run(data)
        except GatewayError as error:
            assert PHI not in f"{error} {error.hint}", "patient data in an error"

    target.__doc__ = run.__doc__
    return target


def _with_syntax(data: bytes) -> tuple[str, bytes]:
    return SYNTAXES[data[0] % len(SYNTAXES)] if data else SYNTAXES[0], data[1:]


class OneWay(io.RawIOBase):
    """Reads forward only, as the spool does."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._inner = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._inner.read(size)


def header(data: bytes) -> None:
    """The encoded-instance reader: what can seek and what cannot give the same header."""
    syntax, data = _with_syntax(data)
    found = read_header(OneWay(data), syntax)
    assert found == read_header(io.BytesIO(data), syntax)
    arrival = read_arrival(io.BytesIO(data), syntax)
    assert all(getattr(found, name) == value for name, value in vars(arrival).items())
    check_encoding(io.BytesIO(data), len(data), syntax)


def parts(data: bytes) -> None:
    """An instance cut into its parts gives its bytes back."""
    syntax, data = _with_syntax(data)
    found = split(data, syntax)
    if not found.syntax.deflated:
        value = data[found.pixels.value : found.pixels.value + len(found.value)]
        assert data.startswith(found.header_bytes) and value == bytes(found.value)
        assert data.startswith(found.trailer_bytes, found.pixels.value + len(value))


def amount(data: bytes) -> None:
    """Elements and items of a header, counted before they are decoded: never fewer than pydicom then makes."""
    layout = Layout(implicit=bool(data[:1] and data[0] & 1), little_endian=not (data[:1] and data[0] & 2))
    elements, items = count(data[1:], layout)
    with foreign_errors("undecodable-header", "the header cannot be decoded"):
        made = decoded(read_dataset(io.BytesIO(data[1:]), layout.implicit, layout.little_endian))
    assert made[0] <= elements and made[1] <= items


def part10(data: bytes) -> None:
    """The head of a file: the data set begins where the stream is left."""
    stream = io.BytesIO(data)
    _, offset = split_part10(stream)
    assert stream.tell() == offset <= len(data)


def _size(syntax: str, data: bytes) -> int:
    found = read_header(io.BytesIO(data), syntax)
    return found.rows * found.columns * found.frames * max(found.samples, 1) * max(found.bits_allocated // 8, 1)


def pixels(data: bytes) -> None:
    """Decoding: values within their bits, and the containers as they came where they are native."""
    syntax, data = _with_syntax(data)
    if _size(syntax, data) > LARGEST:
        split(data, syntax)
        return
    found = decode_pixels(data, syntax)
    low, high = found.limits
    assert low <= int(found.frames.min()) and int(found.frames.max()) <= high
    assert found.containers(found.frames).shape == found.frames.shape


def derived(data: bytes) -> None:
    """What decodes can be derived, and the derived instance decodes to the marked values."""
    syntax, data = _with_syntax(data)
    if _size(syntax, data) > 1 << 20:
        return
    found = decode_pixels(data, syntax)
    marked = slightly_changed(found.frames, found.limits)
    copy = derive(data, syntax, marked, facts(), found)
    assert np.array_equal(decode_pixels(copy, EXPLICIT_LITTLE).frames, marked)
    assert read_block(read_header(io.BytesIO(copy), EXPLICIT_LITTLE).dataset).token == facts().token


def frames(data: bytes) -> None:
    """Frame by frame an object gives the pixels that it gives as a whole."""
    syntax, data = _with_syntax(data)
    if _size(syntax, data) > 1 << 20 or syntax_of(syntax).deflated:
        return
    try:
        whole = decode_pixels(data, syntax).frames
    except GatewayError:
        whole = None
    reader = FrameReader(io.BytesIO(data), len(data), syntax)
    count, pieces = reader.header.frames, []
    for first in range(0, count, 2):
        pieces.append(reader.piece(first, min(first + 2, count)).frames)
    assert whole is None or np.array_equal(np.concatenate(pieces), whole)


def references(data: bytes) -> None:
    """Any object, with or without pixels, remapped: its copy reads, under the UIDs that it was given."""
    syntax, data = _with_syntax(data)
    copy = derive_references(data, syntax, facts(map_uid=lambda uid: f"2.25.{len(uid)}"))
    found = read_header(io.BytesIO(copy), references_syntax(syntax))
    assert (found.sop_instance_uid, found.series_uid) == (facts().derived_sop_uid, facts().derived_series_uid)
    is_signed(found.dataset)


def private(data: bytes) -> None:
    """The private block, in whatever group 4D49 holds; and the token in it."""
    with foreign_errors("undecodable-header", "the header cannot be decoded"):
        ds = read_dataset(io.BytesIO(data[1:]), bool(data[:1] and data[0] & 1), not (data[:1] and data[0] & 2))
    found = read_block(ds)
    if found is not None:
        assert found.token and isinstance(found.version, int)
        read_token(PRIVATE, found.token, "2.25.7")


def token(data: bytes) -> None:
    """A key reference as it comes, and one that a stranger sealed to our public key."""
    head = b"MGT\x01" + bytes.fromhex(hpke.key_id(PRIVATE.public_key()))
    info = b"miad/token/1\0MIAD GATEWAY 1\0" + head + b"2.25.7"
    forged = head + hpke.seal(PRIVATE.public_key(), (data + bytes(48))[:48], info)
    content = None
    try:
        content = read_token(PRIVATE, data, "2.25.7")
    except GatewayError:
        content = read_token(PRIVATE, forged, "2.25.7")
    assert len(content.locator) == 32 and content.vault_id.isascii()


def chunked(data: bytes) -> None:
    """A chunked file as it comes, and its plaintext when data is the body behind a good header."""
    _read_all(ChunkedReader(io.BytesIO(data), KEY, b"context"))


def _read_all(reader: ChunkedReader) -> None:
    size = reader.size
    read = sum(len(piece) for piece in reader)
    assert read == size


def record_of(size: int) -> VaultRecord:
    """A record of an original of that size, sealed to our key."""
    return VaultRecord(
        vault_id="site",
        locator="0" * 32,
        generation=1,
        original_sop_uid="1.2.3",
        original_series_uid="1.2.4",
        study_uid="1.2.5",
        derived_sop_uid="2.25.7",
        derived_series_uid="2.25.8",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid=EXPLICIT_LITTLE,
        original_sha256="0" * 64,
        original_size=size,
        policy="policy",
        derived_sha256=None,
        payload_file="0" * 32,
        key_id=hpke.key_id(PRIVATE.public_key()),
        created_at=0.0,
        token=b"",
        attributes={},
    )


def payload(data: bytes) -> None:
    """A sealed payload as it comes, and one whose compressed content is foreign: never more than the record says."""
    size = int.from_bytes(data[:2], "big")
    record = record_of(size)
    context = payload_context(record)
    head = struct.pack(">4sBB8sH", b"MGSP", 2, 1, bytes.fromhex(record.key_id), 80)
    wrapped = wrap_dek(KEY, PRIVATE.public_key(), context)
    sealed = io.BytesIO()
    sealed.write(head + wrapped)
    writer = ChunkedWriter(sealed, KEY, b"miad/payload/2\0" + head + wrapped + canonical(context), 1 << 10)
    writer.write(data[2:])
    writer.close()
    for file in (data[2:], sealed.getvalue()):
        try:
            out = b"".join(open_payload(io.BytesIO(file), record, PRIVATE))
            assert len(out) == size
        except GatewayError as error:
            assert error.code != "unexpected"


def dicomdir(data: bytes) -> None:
    """A DICOMDIR: every file that it names lies below its folder."""
    for entry in read_directory(io.BytesIO(data)):
        if entry.file is not None:
            assert not entry.file.is_absolute() and ".." not in entry.file.parts and "\0" not in str(entry.file)


def _as_file(data: bytes, name: str, use: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        use(path)


def logo(data: bytes) -> None:
    """A logo's file: ink is there, and no more of it than the limit on pixels."""
    from gateway.mark.placement.logo import MAX_PIXELS, load_logo  # here: it brings torch, which no other target needs

    def use(path: Path) -> None:
        ink = load_logo(path)
        assert ink.any() and ink.size <= MAX_PIXELS

    _as_file(data, "logo.png", use)


def config(data: bytes) -> None:
    """A configuration file: a configuration, or problems with their lines."""
    _as_file(data, "gateway.toml", lambda path: str(load_config(path)))


def archive(data: bytes) -> None:
    """A zip archive: members that can be read have the size that they claim, or less."""

    def use(path: Path) -> None:
        with Inputs([path], 1 << 20) as inputs:
            for found in inputs.found:
                assert found.member.isprintable()
        with Archive(path, 1 << 20) as opened:
            for member in opened.members():
                try:
                    with opened.open(member) as stream:
                        assert len(stream.read()) <= member.file_size <= 1 << 20
                except GatewayError:
                    continue

    _as_file(data, "foreign.zip", use)


def pdu(data: bytes) -> None:
    """Upper-layer PDUs (PS3.8 9.3): the readers of associations and of data take any bytes, or say what is wrong."""
    kind, body = data[:1], data[6:]
    readers = {b"\1": read_request, b"\2": read_answer, b"\3": read_reject}
    if kind == b"\4":
        with suppress(ValueError):
            assert sum(len(value) for _, value in DataPdu(bytearray(body)).fragments) <= len(body)
        return
    with suppress(DicomError):
        found = readers.get(kind, read_request)(bytes(body))
        if isinstance(found, AssociateRequest):  # what goes on to pynetdicom is what it can read
            A_ASSOCIATE_RQ().decode(found.encode())


def command(data: bytes) -> None:
    """A DIMSE command set: what was decoded is encoded and decoded again to the same."""
    found = decode_command(data)
    if all(value.isascii() for value in found.values() if isinstance(value, str)):
        assert decode_command(encode_command(found)) == found


def identifier(data: bytes) -> None:
    """A C-FIND, C-MOVE or C-GET identifier."""
    syntax, data = _with_syntax(data[:1] and bytes([data[0] % 4]) + data[1:])
    retrieve_level("STUDY", read_identifier(io.BytesIO(data), syntax))


TARGETS: dict[str, Callable[[bytes], None]] = {
    run.__name__: _answers(run)
    for run in (
        header, parts, amount, part10, pixels, frames, derived, references, private, token, chunked, payload,
        residual_body, sealed_parts, dicomdir, archive, pdu, command, identifier, logo, config,
    )
}  # fmt: skip


def sealed_token() -> bytes:
    """A token that opens."""
    return make_token(PRIVATE.public_key(), "site", "0123456789abcdef" * 2, "2.25.7")


def chunked_file(plaintext: bytes) -> bytes:
    """A chunked file under `KEY`, in the smallest chunks."""
    out = io.BytesIO()
    writer = ChunkedWriter(out, KEY, b"context", 1 << 10)
    writer.write(plaintext)
    writer.close()
    return out.getvalue()


def compressed_payload(plaintext: bytes) -> bytes:
    """The length of an original and its zstd frame, as `payload` takes them."""
    return len(plaintext).to_bytes(2, "big") + zstandard.ZstdCompressor(level=1).compress(plaintext)


def digest(data: bytes) -> str:
    """A name for a seed or a finding."""
    return hashlib.sha256(data).hexdigest()[:16]
