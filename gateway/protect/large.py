"""Marking a large object piece by piece: what is in memory is a few frames, whatever the object has.

The object is read three times: marked once, each piece's change put aside in an encrypted file without a name; then put
together once for the digest and the checks, and once for every time that the derived bytes are read. The marks are
those of `gateway.protect.marking`, frame for frame. A copy that carries its original is worked in memory instead, since
what it carries stands before its pixels, and has a bound (`gateway.protect.marking.MAX_BYTES`).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import zstandard

from gateway.dicom.copy.derive import DerivationFacts, Outside, derived_around, overlays_of, shown_extremes
from gateway.dicom.copy.unused_bits import containers_of_copy
from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.dicom.pixels.frames import FrameReader, decode_piece, decoded_bytes, native_parts
from gateway.dicom.pixels.residual import original_of, residual
from gateway.dicom.pixels.stored_values import Pixels
from gateway.errors import GatewayError, HoldError, IntegrityError, MarkError
from gateway.keys import ChunkedReader, ChunkedWriter
from gateway.keys.envelope import new_dek
from gateway.mark import MarkedImage, Marker, MarkRequest, ModalityProfile
from gateway.protect.key_slices import KeyTextures, mark_frames, uses
from gateway.protect.marking import (
    FigureTally,
    MarkJob,
    Opened,
    described,
    how_shown,
    marked_piece,
    places_of,
    requests_of,
)
from gateway.vault import MarkFigures, VaultRecord

LARGE_BYTES = 64 << 20  # encoded or decoded, from which on an object is worked piece by piece
_READ = 1 << 20
_CONTEXT = b"miad/scratch/1"


def is_large(job: MarkJob, header: InstanceHeader) -> bool:
    """Whether an object is to be worked piece by piece; told by what is declared, nothing is decoded."""
    return max(job.record.original_size, decoded_bytes(header)) > LARGE_BYTES


@dataclass(frozen=True)
class LargeMarked:
    """As `gateway.protect.marking.Marked`; the derived bytes come in pieces."""

    job: MarkJob
    facts_of: Callable[[VaultRecord], DerivationFacts]
    extremes: tuple[int, int]
    sample: Pixels  # of the first frames, for what holds for all of them
    changes: Changes
    figures: MarkFigures
    overlays: frozenset[int] = frozenset()  # groups whose planes show the picture

    def derive(self, record: VaultRecord) -> tuple[DerivedPieces, str]:
        """The derived data set (Explicit VR Little Endian), put together anew whenever it is read, and its SHA-256.

        Raises
        ------
        HoldError
            Code ``self-check-failed``: a piece does not decode to the marked values; as `Outside.check`.
        """
        pieces = DerivedPieces(self, self.facts_of(record))
        digest = hashlib.sha256()
        for data in pieces.checked():
            digest.update(data)
        pieces.sha256 = digest.hexdigest()
        return pieces, pieces.sha256


class DerivedPieces:
    """The bytes of a derived data set, a few MiB at a time; may be iterated over any number of times."""

    def __init__(self, marked: LargeMarked, facts: DerivationFacts) -> None:
        self._marked = marked
        self._facts = facts
        self.sha256 = ""

    def __iter__(self) -> Iterator[bytes]:
        """The bytes; IntegrityError "derived-changed" at the end when they are not those of `sha256`."""
        digest = hashlib.sha256()
        for data in self._bytes(check=False):
            digest.update(data)
            yield data
        if digest.hexdigest() != self.sha256:
            raise IntegrityError("derived-changed", "the derived data set has other bytes than its fixed digest says")

    def checked(self) -> Iterator[bytes]:
        """The bytes, each piece decoded again and compared with the marked values before it is handed out."""
        return self._bytes(check=True)

    def _bytes(self, *, check: bool) -> Iterator[bytes]:
        marked = self._marked
        with marked.job.open() as file, marked.changes.reader() as changes:
            reader = FrameReader(file, marked.job.record.original_size, marked.job.transfer_syntax_uid)
            facts, lengths = self._facts, (reader.native_bytes, reader.encoded_bytes)
            source, overlays = reader.parts, marked.overlays
            before, behind = derived_around(source, facts, marked.sample, marked.extremes, *lengths, overlays)
            yield before
            parts = native_parts(before) if check else None
            outside = Outside(before, behind, facts) if check else None
            for _, pixels in reader.pieces():
                if outside is not None:
                    outside.check(pixels.containers(pixels.frames))
                frames = changes.apply(pixels.frames)
                data = containers_of_copy(pixels, frames, source.header, overlays).tobytes()
                if parts is not None:
                    again = decode_piece(parts, data, len(frames), pixels.displays).frames
                    if not np.array_equal(again, frames):
                        raise HoldError(
                            "self-check-failed", "the derived data set does not decode to the marked values"
                        )
                yield data
            yield behind


class Changes:
    """What the mark changes in each piece, in order; compressed, encrypted, in a file that no one else can open.

    The key is in memory only and the file has no name: whatever ends the process ends both.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - goes when the last reference goes
        self._key = new_dek()
        self._writer = ChunkedWriter(self._file, self._key, _CONTEXT)
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._lengths: list[int] = []

    def add(self, original: np.ndarray, marked: np.ndarray) -> None:
        """Keep what makes `marked` of `original`."""
        data = self._compressor.compress(residual(_flat(marked), _flat(original)))
        self._lengths.append(len(data))
        self._writer.write(data)

    def close(self) -> None:
        """No more will be added; from now on it can be read."""
        self._writer.close()

    def reader(self) -> _ChangesReader:
        """Reads from the first piece on; one reader at a time."""
        self._file.seek(0)
        return _ChangesReader(ChunkedReader(cast(BinaryIO, _Kept(self._file)), self._key, _CONTEXT), self._lengths)


class _ChangesReader:
    def __init__(self, file: ChunkedReader, lengths: list[int]) -> None:
        self._file = file
        self._lengths = iter(lengths)

    def __enter__(self) -> _ChangesReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def apply(self, original: np.ndarray) -> np.ndarray:
        """The marked values of the next piece, whose original ones are given."""
        data = self._file.read(next(self._lengths)) or b""
        planes = zstandard.ZstdDecompressor().decompress(data, max_output_size=original.nbytes)
        return original_of(planes, _flat(original)).view(original.dtype).reshape(original.shape)


class _Kept:
    """A file that stays open when its reader closes."""

    def __init__(self, file: Any) -> None:
        self.read, self.seek, self.tell, self.readinto = file.read, file.seek, file.tell, file.readinto

    def close(self) -> None:
        """Nothing: the file is needed again."""


def mark_large(
    job: MarkJob,
    profile: ModalityProfile,
    key: bytes,
    marker: Marker,
    facts_of: Callable[[VaultRecord], DerivationFacts],
    folder: Path,
) -> LargeMarked:
    """Mark all frames of an object, a few at a time.

    Parameters
    ----------
    key
        The series' mark key.
    folder
        Where the changes are put aside, some percent of the decoded pixels.

    Raises
    ------
    IntegrityError
        The spool does not hold what was received.
    DicomError
        As `FrameReader`.
    GatewayError
        Of the first frame that could not be marked; HoldError ``self-check-failed``.
    """
    _check_digest(job)
    changes, tally, textures = Changes(folder), FigureTally(), KeyTextures()
    begins = uses(marker.settings)

    def mark(requests: Sequence[MarkRequest]) -> list[MarkedImage | MarkError]:
        return marker.mark(requests, profile)

    extremes: tuple[int, int] | None = None
    real: tuple[int, int] | None = None
    sample: Pixels | None = None
    changed = False
    with job.open() as file:
        reader = FrameReader(file, job.record.original_size, job.transfer_syntax_uid)
        key, places = places_of(reader.header, key)
        shown = how_shown(reader.header)
        overlays = overlays_of(reader.parts)
        for first, pixels in reader.pieces():
            opened = Opened(b"", reader.header, pixels)
            piece = slice(first, first + len(pixels.frames))
            requests = requests_of(opened, profile, key, places[piece], shown[piece])
            numbers = range(first, first + len(requests))
            results = mark_frames(mark, requests, numbers, textures) if begins else mark(requests)
            frames = marked_piece(opened, results)
            tally.add(result for result in results if not isinstance(result, GatewayError))
            changes.add(pixels.frames, frames)
            overlays.look(pixels, first)
            changed = changed or not np.array_equal(frames, pixels.frames)
            extremes = _wider(extremes, shown_extremes(frames, None))
            if pixels.padding is None or not pixels.padding.all():
                real = _wider(real, shown_extremes(frames, pixels.padding))
            sample = sample or _few(pixels)
    changes.close()
    if (not changed and not tally.is_blank) or extremes is None or sample is None:
        raise HoldError("self-check-failed", "the mark changed nothing")
    figures = tally.figures(job.route, profile.name)
    return LargeMarked(
        job, described(facts_of, tally), real or extremes, sample, changes, figures, frozenset(overlays.showing)
    )


def _check_digest(job: MarkJob) -> None:
    digest = hashlib.sha256()
    with job.open() as file:
        while data := file.read(_READ):
            digest.update(data)
    if digest.hexdigest() != job.record.original_sha256:
        raise IntegrityError("spool-changed", "the spooled bytes are not those that were received")


def _few(pixels: Pixels) -> Pixels:
    """The facts of some pixels without the pixels."""
    return replace(pixels, frames=pixels.frames[:0].copy(), raw=None, padding=None)


def _wider(range_: tuple[int, int] | None, other: tuple[int, int]) -> tuple[int, int]:
    return other if range_ is None else (min(range_[0], other[0]), max(range_[1], other[1]))


def _flat(frames: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frames).reshape(-1).view(np.uint8 if frames.dtype == np.uint8 else np.uint16)
