"""The derived instance: the original's header with what changed, and the marked pixels, as one encoded data set.

Explicit VR Little Endian, uncompressed (architecture, life of an instance, step 5). Elements that need no change keep
their bytes where the original is in the same encoding, private ones always. What of them may ride along says
`gateway.dicom.copy.bulk`.
"""

from __future__ import annotations

import io

import numpy as np
from pydicom import Dataset

from gateway.dicom.copy import derivation
from gateway.dicom.copy.derivation import DerivationFacts
from gateway.dicom.copy.overlay import add_words
from gateway.dicom.copy.overlay_match import Overlays
from gateway.dicom.copy.references import follow
from gateway.dicom.copy.sift import sift
from gateway.dicom.copy.traces import Traces
from gateway.dicom.copy.unused_bits import containers_of_copy
from gateway.dicom.encoding.elements import Layout, skip_value, top_level
from gateway.dicom.encoding.explicit import encode_around
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.parts import Parts, split
from gateway.dicom.encoding.private import write_block
from gateway.dicom.encoding.source import Source
from gateway.dicom.pixels.stored_values import Pixels, pixels_of
from gateway.errors import DicomError, HoldError

__all__ = ["DerivationFacts", "derive"]


def derive(
    original: bytes,
    transfer_syntax_uid: str,
    marked_frames: np.ndarray,
    facts: DerivationFacts,
    pixels: Pixels | None = None,
    parts: Parts | None = None,
) -> bytes:
    """Build the derived data set: the same inputs give the same bytes.

    Parameters
    ----------
    original
        Encoded data set as received (without File Meta), in `transfer_syntax_uid`.
    marked_frames
        As `Pixels.frames` of the original: same shape and type.
    pixels
        What `decode_pixels` gave for `original`, when the caller has it still; else it is decoded again.
    parts
        What `split` gave for `original`, likewise; else it is walked again.

    Raises
    ------
    DicomError
        all of `decode_pixels`, "already-marked", "wrong-marked-frames", "no-free-private-block".
    HoldError
        as `gateway.dicom.copy.overlay.add_words`, when the facts want visible text, and as `sift`; "pixels-outside":
        the original's pixels stand elsewhere in the copy than in its pixel data.
    """
    if parts is None:
        parts = split(original, transfer_syntax_uid)
    if pixels is None:
        pixels = pixels_of(parts)
    extremes = shown_extremes(marked_frames, pixels.padding)
    overlays = overlays_of(parts)
    overlays.look(pixels)
    showing = frozenset(overlays.showing)
    containers = containers_of_copy(pixels, marked_frames, parts.header, showing).tobytes()
    before, behind = derived_around(parts, facts, pixels, extremes, len(containers), len(parts.value), showing)
    outside = Outside(before, behind, facts)
    outside.check(pixels.containers(pixels.frames))
    if parts.syntax.encapsulated or pixels.photometric == "RGB":  # they may stand elsewhere as they were encoded
        outside.check(np.frombuffer(parts.value, np.uint8))
    return before + containers + behind


def derived_around(
    parts: Parts,
    facts: DerivationFacts,
    pixels: Pixels,
    extremes: tuple[int, int],
    native_bytes: int,
    encoded_bytes: int,
    overlays: frozenset[int] = frozenset(),
) -> tuple[bytes, bytes]:
    """Everything of the derived data set before its native pixels, the head of their element included, and behind them.

    Parameters
    ----------
    parts
        Of the original.
    pixels
        Of the original, or of any piece of it.
    extremes
        As `shown_extremes`, of all marked frames.
    native_bytes, encoded_bytes
        Length of the marked pixels, and of the original's encoded ones.
    overlays
        Groups of overlay planes that show the picture; they do not ride along.

    Raises
    ------
    DicomError
        "already-marked", "no-free-private-block", "pixels-too-large", "undecodable-header", "bad-sequence".
    HoldError
        as `sift`.
    """
    header = parts.header
    parts, _ = sift(parts, facts.ride_along, overlays)
    ds = parts.fresh_dataset()
    if header.has_our_private_block:
        raise DicomError("already-marked", "the data set carries a private block of this gateway already")
    with foreign_errors("undecodable-header", "the derived header cannot be made"):
        ds.pop("SourceImageSequence", None)  # replaced as a whole
        done = follow(ds, header, facts, frame_types=True)
        derivation.set_identity(ds, facts, done)
        derivation.describe_derivation(ds, facts)
        derivation.refer_to_source(ds, header.sop_class_uid, header.sop_instance_uid, facts.source_reference)
        derivation.set_lossy_history(ds, pixels.lossy, parts.syntax.method, _ratio(parts, encoded_bytes))
        _describe_pixels(ds, pixels, extremes)
        if facts.visible_text:
            add_words(ds, header.rows, header.columns)
        write_block(ds, facts.token, facts.hint, sealed_key=facts.sealed_key, payload=facts.payload)
        before, behind = encode_around(ds)
        return before + _pixel_head(native_bytes, pixels.bits_allocated), _padding_of(native_bytes) + behind


def overlays_of(parts: Parts) -> Overlays:
    """The overlay planes of an original, to be compared with its frames."""
    header = parts.header
    return Overlays(header.dataset, header.rows, header.columns)  # whose words are little endian, as all of a header


class Outside:
    """All of a derived data set but its pixel data and the payload that it may carry: no pixels may stand there.

    Parameters
    ----------
    before, behind
        As `derived_around` gives them.
    """

    def __init__(self, before: bytes, behind: bytes, facts: DerivationFacts) -> None:
        self._before, self._length = before, len(before)
        outside = before + behind
        if facts.payload:  # sealed, and ours
            at = outside.find(facts.payload)
            outside = outside[:at] + outside[at + len(facts.payload) :]
        self._traces = Traces(outside)

    def check(self, containers: np.ndarray) -> None:
        """Look for some of the original's pixels, as `Traces.find` takes them. Raises HoldError "pixels-outside"."""
        place = self._traces.find(containers)
        if place is not None:
            raise HoldError(
                "pixels-outside",
                f"pixels of the original stand outside its pixel data as well, in {self._name(place)}",
                "the sender has to leave that element out; where it is a private creator that the route names in "
                "private_keep, take it from there",
            )

    def _name(self, place: int) -> str:
        """The top-level element at a byte, as far as the payload has not moved it."""
        layout, name = Layout(implicit=False, little_endian=True), "an element behind them"
        source = Source(io.BytesIO(self._before), self._length)
        for element in top_level(source, layout):
            if element.start > place or element.tag == 0x7FE00010:
                break
            name = f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X})"
            skip_value(source, element, layout)
            if source.position > place:
                return name
        return "an element behind them" if place >= self._length else name


def shown_extremes(frames: np.ndarray, padding: np.ndarray | None) -> tuple[int, int]:
    """Smallest and largest stored value that is no padding; of all, where everything is."""
    shown = frames if padding is None else frames[~padding]
    if shown.size == 0:
        shown = frames
    return int(shown.min()), int(shown.max())


def _padding_of(native_bytes: int) -> bytes:
    """What makes the length of native pixels even (PS3.5 8.1.1)."""
    return b"\0" if native_bytes % 2 else b""


def _ratio(parts: Parts, encoded_bytes: int) -> float | None:
    """Uncompressed to compressed size, for a source that came compressed in a syntax that may be lossy."""
    if parts.syntax.lossy == "never":
        return None
    header = parts.header
    full = header.rows * header.columns * header.samples * header.frames * (header.bits_allocated // 8)
    return full / max(encoded_bytes, 1)


def _describe_pixels(ds: Dataset, pixels: Pixels, extremes: tuple[int, int]) -> None:
    if pixels.photometric == "RGB":
        ds.PhotometricInterpretation = "RGB"
        ds.PlanarConfiguration = 0
        for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue"):
            ds.pop(keyword, None)  # one value cannot stand for three samples
        return
    derivation.smallest_and_largest(ds, *extremes, pixels.signed)


def _pixel_head(native_bytes: int, bits_allocated: int) -> bytes:
    """Head of Pixel Data (7FE0,0010) with native pixels: OB for 8 bits, OW for 16 (PS3.5 8.1.2, A.2)."""
    length = native_bytes + native_bytes % 2
    if length > 0xFFFFFFFE:
        raise DicomError("pixels-too-large", "native pixel data cannot be longer than 4 GiB")
    vr = b"OB" if bits_allocated == 8 else b"OW"
    return b"\xe0\x7f\x10\x00" + vr + b"\0\0" + length.to_bytes(4, "little")
