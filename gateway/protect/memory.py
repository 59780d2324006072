"""How much memory marking may take, and about how much an instance needs: known from its header, before it is decoded.

Measured on CPU (peak resident size): the marking of one frame works with up to 200 bytes a pixel, 2.1 GiB for one of
3000x3000; every frame of a batch is kept with its marked values, its change and its masks until the batch is done.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.dicom.pixels.frames import PIECE_BYTES, decoded_bytes
from gateway.errors import HoldError

BASE = 640 << 20  # the process with its networks, before any image
WORKING, WORKING_COLOUR = 240, 400  # bytes a pixel of the frame that is being marked
KEPT = 32  # bytes a sample of every frame that waits for its batch
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def allowed(memory_mib: int) -> int:
    """Bytes that marking may take: as configured; for 0 three quarters of what this machine or its container has."""
    if memory_mib:
        return memory_mib << 20
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
        has = min(has, int(_CGROUP.read_text()))
    return has // 4 * 3


def kept(header: InstanceHeader, *, in_pieces: bool) -> int:
    """Bytes that an instance takes until its batch is done; `in_pieces`: only so many frames of it at a time."""
    frame = header.rows * header.columns * header.samples
    frames = header.frames
    if in_pieces:
        frames = min(frames, max(PIECE_BYTES // max(decoded_bytes(header) // max(frames, 1), 1), 2))
    return frame * frames * KEPT


def working(header: InstanceHeader) -> int:
    """Bytes that the marking of one of its frames takes for a while."""
    return header.rows * header.columns * (WORKING if header.samples == 1 else WORKING_COLOUR)


def check(header: InstanceHeader, limit: int, *, in_pieces: bool) -> None:
    """Raise HoldError "too-large-for-memory" for an instance that alone would take more than `limit` bytes."""
    needed = BASE + working(header) + kept(header, in_pieces=in_pieces)
    if needed > limit:
        raise HoldError(
            "too-large-for-memory",
            f"marking {header.frames} frames of {header.columns}x{header.rows} takes about {needed >> 20} MiB, "
            f"and the worker may take {limit >> 20}",
            "raise memory_mib in [worker] if the machine has more, lower processes, or let another worker do it",
        )
