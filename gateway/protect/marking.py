"""From an original's bytes to the bytes of its marked copy: decode, mark, check, derive.

What is checked before anything is emitted: the bytes are those that were received (SHA-256 of the record), the stored
residual gives the original values back, and the derived data set decodes to exactly the marked values.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

from gateway.config.models import Route
from gateway.database import MISLED
from gateway.dicom.copy.derive import DerivationFacts, derive
from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.dicom.encoding.geometry import frame_positions
from gateway.dicom.encoding.parts import Parts, split
from gateway.dicom.pixels.shutter import aspects_of, hidden_of
from gateway.dicom.pixels.stored_values import Pixels, pixels_of
from gateway.dicom.pixels.windows import Display, View
from gateway.errors import DicomError, GatewayError, HoldError, IntegrityError
from gateway.mark import BLANK, UNMARKED, Curve, MarkedImage, MarkRequest, ModalityProfile
from gateway.protect.key_slices import SlicePlace
from gateway.protect.rules import UNKNOWN, Arrival
from gateway.vault import MarkFigures, VaultRecord

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
BLANK_DESCRIPTION = "All pixels have one value: nothing was added. Not for diagnosis."
EMPTY_DESCRIPTION = "No picture but even air: nothing was added. Not for diagnosis."
ADDED = {
    "notice": "Words were written in the air around the anatomy, and on the anatomy outside the region of interest an "
    "adversarial texture below the threshold of visibility was added",
    "lettered": "Words with an adversarial texture were written on the air and the anatomy outside the region of "
    "interest",
    "air": "Words with an adversarial texture were written in the air around the anatomy, which is unchanged",
    "discreet": "An adversarial texture below the threshold of visibility was added to the pixels outside the region "
    "of interest",
}
"""What was done to the pixels, by the tier that they were marked in (Derivation Description)."""
FactsOf = Callable[[VaultRecord], DerivationFacts]
MAX_BYTES = 512 << 20  # worked in memory; larger ones piece by piece (`gateway.protect.large`), unless they are carried


@dataclass(frozen=True)
class MarkJob:
    """One sealed instance that is to be marked.

    open
        Opens the received data set bytes.
    record
        Its vault record: UIDs, digest and key reference of the marked copy.
    arrival
        How it came: what rules made of it when it was sealed, they make of it again.
    """

    open: Callable[[], BinaryIO]
    transfer_syntax_uid: str
    record: VaultRecord
    route: Route
    arrival: Arrival = UNKNOWN


@dataclass(frozen=True)
class Marked:
    """A marked instance that still lacks its header: `derive` gives the bytes under a record's UIDs.

    figures
        For log and protection report.
    begun_from
        As in `VaultRecord`.
    place
        Of a slice of a series; else None.
    texture
        Of a slice that began from itself, for others to begin from once its copy has committed; else None.
    """

    original: bytes
    transfer_syntax_uid: str
    pixels: Pixels
    frames: np.ndarray
    facts_of: Callable[[VaultRecord], DerivationFacts]
    figures: MarkFigures
    parts: Parts | None = None
    begun_from: str = ""
    place: SlicePlace | None = None
    texture: np.ndarray | None = None

    def derive(self, record: VaultRecord) -> tuple[bytes, str]:
        """The derived data set (Explicit VR Little Endian) and its SHA-256.

        The same record gives the same bytes, unless the copy carries its original: that is sealed afresh each time.
        """
        facts = self.facts_of(record)
        data = derive(self.original, self.transfer_syntax_uid, self.frames, facts, self.pixels, self.parts)
        again = pixels_of(split(data, EXPLICIT_LITTLE), self.pixels.displays)  # what they show as says nothing here
        if not np.array_equal(again.frames, self.frames):
            raise HoldError("self-check-failed", "the derived data set does not decode to the marked values")
        return data, hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Opened:
    """An original in memory, its header read and its pixels decoded; with its parts, where it is there as a whole."""

    data: bytes
    header: InstanceHeader
    pixels: Pixels
    parts: Parts | None = None


def read_original(job: MarkJob) -> bytes:
    """The received bytes, checked against the digest of the record.

    Raises
    ------
    IntegrityError
        The spool does not hold what was received.
    HoldError
        Code ``too-large``.
    """
    if job.record.original_size > MAX_BYTES:
        raise HoldError(
            "too-large",
            f"{job.record.original_size} bytes, more than {MAX_BYTES} are not worked in memory",
            'an uncompressed or compressed image is worked in pieces on a route with restoration = "escrow"',
        )
    with job.open() as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != job.record.original_sha256:
        raise IntegrityError("spool-changed", "the spooled bytes are not those that were received")
    return data


def open_original(data: bytes, transfer_syntax_uid: str, parts: Parts | None = None) -> Opened:
    """Decode the pixels; HoldError or DicomError where they cannot be marked."""
    parts = parts or split(data, transfer_syntax_uid)
    if parts.pixels is None:
        raise DicomError("no-pixels", "the object has no pixel data")
    return Opened(data, parts.header, pixels_of(parts), parts)


def requests_of(
    opened: Opened,
    profile: ModalityProfile,
    key: bytes,
    places: Sequence[float | None] | None = None,
    shown: Sequence[Shown] | None = None,
) -> list[MarkRequest]:
    """One mark request for each frame; of a piece of an object with what `places_of` and `how_shown` gave for it.

    The display is the header's first VOI for that frame (table or window), else the profile's preset where the header
    rescales to modality units, else left to the mark (0.5 to 99.5 percentile of the foreground). Slices of a series
    share the series' key and differ in position, frames of an enhanced image as well; frames without a place count as
    neighbouring slices in their order. A single image without geometry has a key of its own.
    """
    header, pixels = opened.header, opened.pixels
    if places is None:
        key, places = places_of(header, key)
    if shown is None:
        shown = how_shown(header)
    requests = []
    for index, frame in enumerate(pixels.frames):
        display = pixels.displays[index]
        is_gray = pixels.photometric != "RGB"
        primary, other = _windows(display, profile, pixels.limits) if is_gray else (None, {})
        requests.append(
            MarkRequest(
                image=np.ascontiguousarray(frame),
                key=key,
                position=places[index],
                valid_range=pixels.limits,
                display=primary,
                other_windows=other,
                inverted=display.inverted != (display.slope < 0),
                padding=None if pixels.padding is None else pixels.padding[index],
                reserved=pixels.reserved,
                slope=display.slope if is_gray and display.has_units else None,
                intercept=display.intercept if is_gray and display.has_units else None,
                hidden=shown[index].hidden,
                aspect=shown[index].aspect,
            )
        )
    return requests


@dataclass(frozen=True)
class Shown:
    """How one frame is shown: (H, W) bool of what a shutter hides, or None; height of a pixel over its width."""

    hidden: np.ndarray | None
    aspect: float


def how_shown(header: InstanceHeader) -> list[Shown]:
    """Shutter and pixel shape of each frame."""
    ds, frames = header.dataset, header.frames
    pairs = zip(hidden_of(ds, frames, header.rows, header.columns), aspects_of(ds, frames), strict=True)
    return [Shown(hidden, aspect) for hidden, aspect in pairs]


def places_of(header: InstanceHeader, series_key: bytes) -> tuple[bytes, list[float | None]]:
    """Key of the marks of one instance, and the position of each of its frames."""
    if found := frame_positions(header.dataset, header.frames):
        return series_key, list(found)
    if header.slice_position is not None:
        return series_key, [header.slice_position + index for index in range(header.frames)]
    own = hmac.new(series_key, b"miad-mark/instance/v1" + header.sop_instance_uid.encode(), hashlib.sha256).digest()
    return own, [float(index) for index in range(header.frames)] if header.frames > 1 else [None]


def marked_frames(opened: Opened, results: Sequence[MarkedImage | GatewayError]) -> np.ndarray:
    """Put marked frames together and check them; returns stored values as `Pixels.frames`.

    Raises
    ------
    GatewayError
        Of the first frame that could not be marked.
    HoldError
        Code ``self-check-failed``.
    """
    frames = marked_piece(opened, results)
    if np.array_equal(frames, opened.pixels.frames) and not all_blank(results):
        raise HoldError("self-check-failed", "the mark changed nothing")
    return frames


def all_blank(results: Iterable[MarkedImage | GatewayError]) -> bool:
    """Whether no frame holds a picture: then there was nothing to be changed, and nothing that must not leave."""
    return all(isinstance(result, MarkedImage) and result.note in UNMARKED for result in results)


def marked_piece(opened: Opened, results: Sequence[MarkedImage | GatewayError]) -> np.ndarray:
    """As `marked_frames`, of some frames of an object: these few may be ones that nothing changed in."""
    marked: list[MarkedImage] = []
    for result in results:
        if isinstance(result, GatewayError):
            raise result
        marked.append(result)
    before = opened.pixels
    # one by one: wide integers of all frames would take eight times the object
    for index, one in enumerate(marked):
        original = before.frames[index]
        exact = one.image.dtype == original.dtype and np.array_equal(
            one.image.astype(np.int64) - one.residual, original.astype(np.int64)
        )
        if not exact:
            raise HoldError("self-check-failed", "marked minus residual is not the original")
        if before.padding is not None and one.residual[before.padding[index]].any():
            raise HoldError("self-check-failed", "padding pixels were changed")
        for low, high in before.reserved:
            if ((one.image >= low) & (one.image <= high) & (one.residual != 0)).any():
                raise HoldError("self-check-failed", "a marked pixel took a value that means padding or a colour")
    return np.stack([one.image for one in marked])


def describe(tiers: Mapping[str, int]) -> str:
    """What was done to the frames of one instance, given how many were marked in each tier."""
    if len(tiers) == 1:
        (tier,) = tiers
        told = f"Tier {tier}: {ADDED[tier]}"
    else:
        total = sum(tiers.values())
        told = "; ".join(f"tier {tier} ({count} of {total} frames): {ADDED[tier]}" for tier, count in tiers.items())
        told = told[0].upper() + told[1:]
    return f"{told}, to mislead unauthorized AI. Not for diagnosis."


def described(facts_of: FactsOf, tally: FigureTally) -> FactsOf:
    """Return what makes the facts of a header, which names the tier, or says that nothing was changed."""
    if tally.is_unmarked:
        description = BLANK_DESCRIPTION if tally.is_blank else EMPTY_DESCRIPTION
    else:
        description = describe(tally.tiers)
    return lambda record: replace(facts_of(record), description=description)


class FigureTally:
    """What a report tells of the marked frames of one instance, gathered as they come.

    PSNR of the worst frame, shares over all of them.
    """

    def __init__(self) -> None:
        self._frames, self._psnr = 0, float("inf")
        self._windows: dict[str, float] = {}
        self._notes: Counter[str] = Counter()
        self._shares = np.zeros(3)
        self._misled: list[float] = []  # of the frames whose networks were asked afterwards
        self.tiers: Counter[str] = Counter()  # of the marked frames

    def add(self, results: Iterable[MarkedImage]) -> None:
        """Count frames in."""
        for result in results:
            self._frames += 1
            self._psnr = min(self._psnr, result.quality.psnr)
            self._notes[result.note] += 1
            if result.tier:
                self.tiers[result.tier] += 1
            for name, psnr in result.quality.psnr_windows.items():
                self._windows[name] = min(psnr, self._windows.get(name, psnr))
            if result.misled_share is not None:
                self._misled.append(result.misled_share)
            self._shares += (result.region.mean(), result.quality.stroke_share, result.roi.mean())

    @property
    def is_blank(self) -> bool:
        """Whether all frames have one value each."""
        return self._notes[BLANK] == self._frames

    @property
    def is_unmarked(self) -> bool:
        """Whether none of the frames holds a picture, and so nothing was added to any."""
        return sum(self._notes[note] for note in UNMARKED) == self._frames

    def figures(self, route: Route, profile: str) -> MarkFigures:
        """What was gathered, with the route's way of marking."""
        mark = route.mark
        region, stroke, roi = (float(share) for share in self._shares / self._frames)
        return MarkFigures(
            route=route.name,
            policy={
                "tier": mark.tier,
                "mode": mark.mode,
                "profile": profile,
                "restoration": route.restoration,
                **{
                    f"{tier} (no air) frames": str(count)
                    for tier, count in sorted(self.tiers.items())
                    if tier != mark.tier
                },
                **{f"{note} frames": str(count) for note, count in sorted(self._notes.items()) if note},
                **({MISLED: f"{sum(self._misled) / len(self._misled):.3f}"} if self._misled else {}),
            },
            frames=self._frames,
            psnr=self._psnr,
            psnr_windows=dict(self._windows),
            region_share=region,
            stroke_share=stroke,
            roi_share=roi,
        )


def _windows(
    display: Display, profile: ModalityProfile, limits: tuple[int, int]
) -> tuple[tuple[float, float] | Curve | None, dict[str, tuple[float, float] | Curve]]:
    """Primary display and further ones (the header's others, the profile's presets), in stored values."""
    views = {name: _view(view, limits[0]) for name, view in display.views(*limits)}
    presets: dict[str, tuple[float, float] | Curve] = {}
    if display.has_units:
        for window in profile.windows:
            low, high = window.limits()
            ends = sorted(((low - display.intercept) / display.slope, (high - display.intercept) / display.slope))
            presets[window.name] = (ends[0], ends[1])
    primary = next(iter([*views.values(), *presets.values()]), None)
    return primary, {**presets, **dict(list(views.items())[1:])}


def _view(view: View, first: int) -> tuple[float, float] | Curve:
    return view if isinstance(view, tuple) else Curve(first, view.astype(np.float32))
