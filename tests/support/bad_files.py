"""Bad files, each made from a real one of pydicom's by changing bytes: what hospitals, and attackers, really send."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

from gateway.dicom.encoding.elements import Layout, skip_value, top_level
from gateway.dicom.encoding.part10 import split_part10, write_part10
from gateway.dicom.encoding.source import Source
from gateway.dicom.encoding.syntaxes import DEFLATED_LITTLE
from tests.files.conftest import real

ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HHI", 0xFFFE, number, 0) for number in (0xE000, 0xE00D, 0xE0DD))
OPEN_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
PIXELS = 0x7FE00010
Elements = list[tuple[int, bytes]]


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One element in Explicit VR Little Endian, whose declared length may lie."""
    length = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return head + struct.pack("<HI", 0, length) + value
    return head + struct.pack("<H", length) + value


def taken_apart(name: str) -> tuple[str, str, str, Elements]:
    """SOP class, SOP instance, transfer syntax and top-level elements of a real explicit little endian file."""
    with real(name).open("rb") as file:
        meta, _ = split_part10(file)
        data = file.read()
    layout = Layout(False, True)
    source = Source(io.BytesIO(data), len(data))
    found = []
    for head in top_level(source, layout):
        skip_value(source, head, layout)
        found.append((head.tag, data[head.start : source.position]))
    return meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, found


def rebuilt(name: str, change: Callable[[Elements], Elements], tail: bytes = b"") -> bytes:
    """The file with its elements changed, under its own File Meta."""
    _, _, syntax, elements = taken_apart(name)
    return _file(name, syntax, b"".join(part for _, part in change(elements)) + tail)


def _file(name: str, transfer_syntax_uid: str, data: bytes) -> bytes:
    sop_class, instance, *_ = taken_apart(name)
    out = io.BytesIO()
    write_part10(out, sop_class, instance, transfer_syntax_uid, [data])
    return out.getvalue()


def with_values(**changes: bytes | None) -> Callable[[Elements], Elements]:
    """Replace (or add, in order) elements given as tTAG=encoded; None takes one out."""
    wanted = {int(name[1:], 16): part for name, part in changes.items()}

    def change(elements: Elements) -> Elements:
        kept = [(tag, part) for tag, part in elements if tag not in wanted]
        return sorted([*kept, *((tag, part) for tag, part in wanted.items() if part)], key=lambda entry: entry[0])

    return change


def short(tag: int, value: int) -> bytes:
    return element(tag, b"US", struct.pack("<H", value))


def size(rows: int, columns: int, frames: bytes = b"") -> dict[str, bytes | None]:
    """Rows, Columns and Number of Frames that are not those of the pixels."""
    frames += b" " * (len(frames) % 2)
    return {
        "t00280008": element(0x00280008, b"IS", frames) if frames else None,
        "t00280010": short(0x00280010, rows),
        "t00280011": short(0x00280011, columns),
    }


def append(*parts: bytes) -> Callable[[Elements], Elements]:
    return lambda elements: [*elements, *((0, part) for part in parts)]


def before_pixels(part: bytes) -> Callable[[Elements], Elements]:
    def change(elements: Elements) -> Elements:
        at = next(index for index, (tag, _) in enumerate(elements) if tag == PIXELS)
        return [*elements[:at], (0, part), *elements[at:]]

    return change


def swapped(first: int, second: int) -> Callable[[Elements], Elements]:
    def change(elements: Elements) -> Elements:
        by_tag = dict(elements)
        other = {first: (second, by_tag[second]), second: (first, by_tag[first])}
        return [other.get(tag, (tag, part)) for tag, part in elements]

    return change


def moved_to_the_end(tag: int) -> Callable[[Elements], Elements]:
    return lambda elements: [*(e for e in elements if e[0] != tag), *(e for e in elements if e[0] == tag)]


def doubled(tag: int, part: bytes) -> Callable[[Elements], Elements]:
    """A second element of one tag behind the first."""

    def change(elements: Elements) -> Elements:
        at = next(index for index, (found, _) in enumerate(elements) if found == tag)
        return [*elements[: at + 1], (tag, part), *elements[at + 1 :]]

    return change


def fragments(table: bytes, *parts: bytes) -> bytes:
    items = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(part)) + part for part in (table, *parts))
    return element(PIXELS, b"OB", items + SEQUENCE_END, 0xFFFFFFFF)


def fragments_of(name: str) -> list[bytes]:
    """The fragments of a real compressed file, without its offset table."""
    (pixels,) = (part for tag, part in taken_apart(name)[3] if tag == PIXELS)
    at, found = 12, []
    while pixels[at : at + 4] == ITEM[:4]:
        (length,) = struct.unpack_from("<I", pixels, at + 4)
        found.append(pixels[at + 8 : at + 8 + length])
        at += 8 + length
    return found[1:]


def compressed(name: str, *parts: bytes, table: bytes = b"", **changes: bytes | None) -> bytes:
    return rebuilt(name, with_values(t7FE00010=fragments(table, *parts), **changes))


def nested(depth: int) -> bytes:
    """Sequences of undefined length in one another."""
    head = element(0x00081140, b"SQ", b"", 0xFFFFFFFF) + OPEN_ITEM
    return head * depth + (ITEM_END + SEQUENCE_END) * depth


def nested_defined(depth: int) -> bytes:
    """Sequences of defined length in one another, which a walker goes past and a decoder does not."""
    part = b""
    for _ in range(depth):
        part = element(0x00081140, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(part)) + part)
    return part


def halves(part: bytes) -> tuple[bytes, bytes]:
    at = len(part) // 4 * 2
    return part[:at], part[at:]


def j2k_of_size(rows: int, columns: int) -> bytes:
    """A real JPEG 2000 codestream that claims another size of image and tile (ISO/IEC 15444-1 A.5.1)."""
    (stream,) = fragments_of("MR_small_jp2klossless.dcm")
    stream = bytearray(stream)
    assert stream[:4] == b"\xff\x4f\xff\x51"
    for at, value in ((8, columns), (12, rows), (24, columns), (28, rows)):
        struct.pack_into(">I", stream, at, value)
    return bytes(stream)


def jpeg_ls_of_size(rows: int, columns: int) -> bytes:
    """A real JPEG-LS codestream that claims another size (ISO/IEC 14495-1 annex C)."""
    (stream,) = fragments_of("MR_small_jpeg_ls_lossless.dcm")
    stream = bytearray(stream)
    struct.pack_into(">HH", stream, stream.index(b"\xff\xf7") + 5, rows, columns)
    return bytes(stream)


def bomb() -> bytes:
    """A deflated CT whose pixel data inflates from a megabyte to a gigabyte: one block of zeros, over and over."""
    *header, (_, pixels) = taken_apart(CT)[3]
    squeeze = zlib.compressobj(9, wbits=-15)
    head = squeeze.compress(b"".join(part for _, part in header) + pixels[:8] + struct.pack("<I", 1 << 30))
    head += squeeze.flush(zlib.Z_FULL_FLUSH)
    block = squeeze.compress(bytes(1 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return _file(CT, DEFLATED_LITTLE, head + block * 1024 + squeeze.flush())


def labelled(name: str, transfer_syntax_uid: str) -> bytes:
    """A real file under another transfer syntax than its bytes are in."""
    return _file(name, transfer_syntax_uid, b"".join(part for _, part in taken_apart(name)[3]))


def deflated(name: str) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    data = squeeze.compress(b"".join(part for _, part in taken_apart(name)[3])) + squeeze.flush()
    return _file(name, DEFLATED_LITTLE, data + b"\0" * (len(data) % 2))


def odd_pixels(elements: Elements) -> Elements:
    return [(tag, element(tag, b"OW", part[12:-1]) if tag == PIXELS else part) for tag, part in elements]


def endless_items(tag: int, first: bytes = b"") -> bytes:
    """A million empty items in a sequence, or fragments in pixel data, of undefined length."""
    vr = b"OB" if tag == PIXELS else b"SQ"
    return element(tag, vr, first + ITEM * 1_000_000 + SEQUENCE_END, 0xFFFFFFFF)


def frames(name: str, number: bytes) -> bytes:
    """The file with another Number of Frames."""
    return rebuilt(name, with_values(t00280008=element(0x00280008, b"IS", number + b" " * (len(number) % 2))))


def changed(name: str, **changes: bytes | None) -> bytes:
    return rebuilt(name, with_values(**changes))


def claimed(name: str, stream: bytes, side: int) -> bytes:
    """A compressed image whose header and codestream agree on a size that no such bytes hold."""
    return compressed(name, stream, **size(side, side))


CT, MR, RLE, RLE2 = "CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "SC_rgb_rle_2frame.dcm"
J2K, JLS = "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"
ONE_FRAGMENT = fragments(b"", bytes(64))
TWICE = "duplicate-element"
EXACT = "marked"  # and restored bit for bit
NAME, ROWS, STORED, HIGH, SOURCE, PRIVATE = 0x00100010, 0x00280010, 0x00280101, 0x00280102, 0x00082112, 0x00431029
BEYOND = element(PRIVATE, b"OB", b"..", 0xF0000000)

# name -> (what becomes of it: "marked", or the code that it is held or refused with; how to make it)
BAD_FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    # odd lengths, wrong VRs
    "odd-text": (EXACT, lambda: changed(CT, t00100010=element(NAME, b"PN", b"Doe^J"))),
    "odd-pixels": ("pixel-data-too-short", lambda: rebuilt(CT, odd_pixels)),
    "rows-as-text": (EXACT, lambda: changed(CT, t00280010=element(ROWS, b"IS", b"128 "))),
    "rows-as-nonsense": ("no-pixels", lambda: changed(CT, t00280010=element(ROWS, b"PN", b"many"))),
    "name-as-sequence": (EXACT, lambda: changed(CT, t00100010=element(NAME, b"SQ", ITEM))),
    "name-as-broken-sequence": ("bad-sequence", lambda: changed(CT, t00100010=element(NAME, b"SQ", b"Doe^Jane"))),
    "unknown-vr": (EXACT, lambda: changed(CT, t00101010=element(0x00101010, b"ZZ", b"012Y"))),
    "unknown-vr-empty": (EXACT, lambda: changed(CT, t00101010=element(0x00101010, b"ZZ", b""))),
    "number-as-unknown": (EXACT, lambda: changed(CT, t00080050=element(0x00080050, b"UN", b"1234"))),
    "spacing-as-nonsense": (EXACT, lambda: changed(CT, t00280030=element(0x00280030, b"DS", b"wide\\Doe "))),
    # order and repetition
    "out-of-order": (EXACT, lambda: rebuilt(CT, swapped(0x00080060, 0x00100020))),
    "rows-behind-pixels": ("no-pixels", lambda: rebuilt(CT, moved_to_the_end(ROWS))),
    "uid-behind-pixels": ("missing-uid", lambda: rebuilt(CT, moved_to_the_end(0x00080018))),
    "patient-twice": (TWICE, lambda: rebuilt(CT, doubled(0x00100020, element(0x00100020, b"LO", b"OTHER ")))),
    "uid-twice": (TWICE, lambda: rebuilt(CT, doubled(0x00080018, element(0x00080018, b"UI", b"1.2.3.99")))),
    "pixels-twice": (EXACT, lambda: rebuilt(CT, lambda found: [*found, *(e for e in found if e[0] == PIXELS)])),
    # around the data set
    "no-meta": (EXACT, lambda: b"".join(part for _, part in taken_apart(CT)[3])),
    "no-preamble": (EXACT, lambda: real(CT).read_bytes()[132:]),
    "half-a-meta": ("truncated", lambda: real(CT).read_bytes()[:200]),
    "zeros-behind": (EXACT, lambda: rebuilt(CT, append(), tail=bytes(4096))),
    "trailing-padding": (EXACT, lambda: rebuilt(CT, append(element(0xFFFCFFFC, b"OB", bytes(64))))),
    "letters-behind": ("truncated", lambda: rebuilt(CT, append(), tail=b"Doe^Jane" * 9)),
    "a-file-behind": ("truncated", lambda: real(CT).read_bytes() + real(MR).read_bytes()),
    # frames
    "frames-0": ("no-pixels", lambda: frames(CT, b"0")),
    "frames-negative": ("no-pixels", lambda: frames(CT, b"-1")),
    "frames-two": ("pixel-data-too-short", lambda: frames(CT, b"2")),
    "frames-text": ("no-pixels", lambda: frames(CT, b"many")),
    "frames-beyond": ("pixel-data-too-short", lambda: frames(CT, b"2147483647")),
    "frames-infinite": ("no-pixels", lambda: frames(CT, b"1e400")),
    "frames-huge": ("pixel-data-too-short", lambda: frames(CT, b"1e300")),
    "rle-frames-three": ("too-few-fragments", lambda: frames(RLE2, b"3")),
    "rle-frames-one": ("wrong-number-of-frames", lambda: frames(RLE2, b"1")),
    "rle-no-table": (EXACT, lambda: compressed(RLE2, *fragments_of(RLE2))),
    "rle-wrong-table": (EXACT, lambda: compressed(RLE2, *fragments_of(RLE2), table=b"\xff" * 8)),
    "j2k-fragmented-no-table": (EXACT, lambda: compressed(J2K, *halves(fragments_of(J2K)[0]))),
    "j2k-empty-fragment": ("undecodable-pixels", lambda: compressed(J2K, b"")),
    "fragment-beyond-the-file": ("truncated", lambda: changed(RLE, t7FE00010=ONE_FRAGMENT[:-76] + b"\xff\xff\xff\x7f")),
    "fragments-without-end": ("truncated", lambda: changed(RLE, t7FE00010=ONE_FRAGMENT[:-8], tFFFCFFFC=None)),
    "fragments-by-the-million": ("wrong-number-of-frames", lambda: changed(RLE, t7FE00010=endless_items(PIXELS))),
    # sizes that lie
    "native-beyond-the-bytes": ("pixel-data-too-short", lambda: changed(CT, **size(65535, 65535, b"99999"))),
    "rle-beyond-the-bytes": ("pixel-data-too-short", lambda: changed(RLE, **size(16000, 16000))),
    "j2k-beyond-the-stream": ("undecodable-pixels", lambda: changed(J2K, **size(8000, 8000))),
    "j2k-of-4-gigapixels": ("pixels-too-large", lambda: claimed(J2K, j2k_of_size(65535, 65535), 65535)),
    "j2k-of-a-gigabyte": ("pixels-too-large", lambda: claimed(J2K, j2k_of_size(24000, 24000), 24000)),
    "jpeg-ls-of-a-gigabyte": ("pixels-too-large", lambda: claimed(JLS, jpeg_ls_of_size(24000, 24000), 24000)),
    "value-beyond-the-file": ("truncated", lambda: rebuilt(CT, before_pixels(BEYOND))),
    "pixels-beyond-the-file": ("truncated", lambda: changed(CT, t7FE00010=element(PIXELS, b"OW", b"", 0xFFFFFFF0))),
    "nested-without-end": ("nested-too-deep", lambda: rebuilt(CT, before_pixels(nested(3000)))),
    "nested-defined": ("nested-too-deep", lambda: rebuilt(CT, before_pixels(nested_defined(900)))),
    "items-by-the-million": ("too-many-items", lambda: rebuilt(CT, before_pixels(endless_items(PRIVATE)))),
    "items-defined": ("too-many-items", lambda: changed(CT, t00082112=element(SOURCE, b"SQ", ITEM * 1_000_000))),
    "endless-values": ("too-many-values", lambda: changed(CT, t00100010=element(NAME, b"UT", b"\\" * 4_000_000))),
    "deflate-bomb": ("inflates-too-large", bomb),
    "deflated": (EXACT, lambda: deflated(CT)),
    "not-deflated": ("bad-deflate", lambda: labelled(CT, DEFLATED_LITTLE)),
    "bits-allocated-0": ("pixel-data-too-long", lambda: changed(CT, t00280100=short(0x00280100, 0))),
    "bits-stored-beyond": ("unsupported-bits", lambda: changed(CT, t00280101=short(STORED, 99))),
    "high-bit": ("unsupported-bits", lambda: changed(MR, t00280101=short(STORED, 12), t00280102=short(HIGH, 99))),
}  # fmt: skip
