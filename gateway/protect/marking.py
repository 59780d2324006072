"""From an original's bytes to the bytes of its marked copy: decode, mark, check, derive.

What is checked before anything is emitted: the bytes are those that were received (SHA-256 of the record), the stored
residual gives the original values back, and the derived data set decodes to exactly the marked values.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from gateway.config.models import Route
from gateway.dicom.derive import DerivationFacts, derive
from gateway.dicom.encoded import InstanceHeader
from gateway.dicom.pixels import Pixels, decode_pixels
from gateway.errors import GatewayError, HoldError, IntegrityError
from gateway.mark import MarkedImage, MarkRequest, ModalityProfile
from gateway.vault import MarkFigures, VaultRecord

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
MAX_BYTES = 512 << 20  # encoded; what is larger waits for frame-by-frame marking
MAX_FRAMES = 64


@dataclass(frozen=True)
class MarkJob:
    """One sealed instance that is to be marked.

    open
        Opens the received data set bytes.
    record
        Its vault record: UIDs, digest and key reference of the marked copy.
    """

    open: Callable[[], BinaryIO]
    transfer_syntax_uid: str
    record: VaultRecord
    route: Route


@dataclass(frozen=True)
class Marked:
    """A marked instance that still lacks its header: `derive` gives the bytes under a record's UIDs.

    psnr
        Display PSNR in dB of the worst frame, primary window.
    figures
        For the protection report.
    """

    original: bytes
    transfer_syntax_uid: str
    pixels: Pixels
    frames: np.ndarray
    psnr: float
    facts_of: Callable[[VaultRecord], DerivationFacts]
    figures: MarkFigures | None = None

    def derive(self, record: VaultRecord) -> tuple[bytes, str]:
        """The derived data set (Explicit VR Little Endian) and its SHA-256.

        The same record gives the same bytes, unless the copy carries its original: that is sealed afresh each time.
        """
        data = derive(self.original, self.transfer_syntax_uid, self.frames, self.facts_of(record), self.pixels)
        if not np.array_equal(decode_pixels(data, EXPLICIT_LITTLE).frames, self.frames):
            raise HoldError("self-check-failed", "the derived data set does not decode to the marked values")
        return data, hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Opened:
    """An original in memory, its header read and its pixels decoded."""

    data: bytes
    header: InstanceHeader
    pixels: Pixels


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
        raise HoldError("too-large", f"{job.record.original_size} bytes, more than {MAX_BYTES} are not marked at once")
    with job.open() as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != job.record.original_sha256:
        raise IntegrityError("spool-changed", "the spooled bytes are not those that were received")
    return data


def open_original(data: bytes, header: InstanceHeader, transfer_syntax_uid: str) -> Opened:
    """Decode the pixels; HoldError or DicomError where they cannot be marked."""
    pixels = decode_pixels(data, transfer_syntax_uid)
    if len(pixels.frames) > MAX_FRAMES:
        raise HoldError(
            "too-many-frames", f"{len(pixels.frames)} frames, more than {MAX_FRAMES} are not marked at once"
        )
    return Opened(data, header, pixels)


def requests_of(opened: Opened, profile: ModalityProfile, key: bytes) -> list[MarkRequest]:
    """One mark request for each frame.

    The display range is the header's first VOI window, else the profile's preset in modality units, else left to the
    mark (0.5 to 99.5 percentile of the foreground). Slices of a series share the series' key and differ in position;
    frames of one instance count as neighbouring slices. A single image without geometry has a key of its own.
    """
    header, pixels = opened.header, opened.pixels
    display, other = _windows(pixels, profile)
    position = header.slice_position
    if position is None:
        key = hmac.new(key, b"miad-mark/instance/v1" + header.sop_instance_uid.encode(), hashlib.sha256).digest()
        position = 0.0 if len(pixels.frames) > 1 else None
    return [
        MarkRequest(
            image=np.ascontiguousarray(frame),
            key=key,
            position=None if position is None else position + index,
            valid_range=pixels.limits,
            display=display,
            other_windows=other,
            inverted=pixels.inverted != (pixels.slope < 0),
            padding=None if pixels.padding is None else pixels.padding[index],
            padding_value=None if pixels.padding_range is None else pixels.padding_range[0],
            slope=None if pixels.photometric == "RGB" else pixels.slope,
        )
        for index, frame in enumerate(pixels.frames)
    ]


def marked_frames(opened: Opened, results: Sequence[MarkedImage | GatewayError]) -> tuple[np.ndarray, float]:
    """Put marked frames together and check them; returns stored values as `Pixels.frames`, and the lowest PSNR.

    Raises
    ------
    GatewayError
        Of the first frame that could not be marked.
    HoldError
        Code ``self-check-failed``.
    """
    for result in results:
        if isinstance(result, GatewayError):
            raise result
    frames = np.stack([result.image for result in results])
    residual = np.stack([result.residual for result in results])
    before = opened.pixels
    exact = frames.dtype == before.frames.dtype and np.array_equal(
        frames.astype(np.int64) - residual, before.frames.astype(np.int64)
    )
    if not exact:
        raise HoldError("self-check-failed", "marked minus residual is not the original")
    if before.padding is not None and residual[before.padding].any():
        raise HoldError("self-check-failed", "padding pixels were changed")
    if not residual.any():
        raise HoldError("self-check-failed", "the mark changed nothing")
    return frames, min(result.quality.psnr for result in results)


def figures_of(results: Sequence[MarkedImage], route: Route, profile: str) -> MarkFigures:
    """What a report tells of the marked frames of one instance: PSNR of the worst frame, shares over all of them."""
    windows: dict[str, float] = {}
    for result in results:
        for name, psnr in result.quality.psnr_windows.items():
            windows[name] = min(psnr, windows.get(name, psnr))
    mark = route.mark
    return MarkFigures(
        route=route.name,
        policy={"tier": mark.tier, "mode": mark.mode, "profile": profile, "restoration": route.restoration},
        frames=len(results),
        psnr=min(result.quality.psnr for result in results),
        psnr_windows=windows,
        region_share=float(np.mean([result.region.mean() for result in results])),
        stroke_share=float(np.mean([result.quality.stroke_share for result in results])),
        roi_share=float(np.mean([result.roi.mean() for result in results])),
    )


def _windows(pixels: Pixels, profile: ModalityProfile) -> tuple[tuple[float, float] | None, dict]:
    """Primary display range and further windows (the header's others, the profile's presets), in stored values."""
    if pixels.photometric == "RGB":
        return None, {}
    others = enumerate(pixels.display.windows[1:], 2)
    further = {f"header {number}": pixels.display.stored(window) for number, window in others}
    presets = {}
    for window in profile.windows:
        low, high = window.limits()
        ends = sorted(((low - pixels.intercept) / pixels.slope, (high - pixels.intercept) / pixels.slope))
        presets[window.name] = (ends[0], ends[1])
    primary = pixels.primary
    if primary is None and presets:
        primary = next(iter(presets.values()))
    return primary, {**presets, **further}
