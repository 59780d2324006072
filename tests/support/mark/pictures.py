"""Real pictures by name, as a reader sees them: members of the image sets and frames of DICOM files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from pydicom.filereader import read_file_meta_info

from gateway.mark import MarkRequest
from gateway.mark.profiles import choose_profile
from gateway.mark.visibility.display import DisplayMap, display_of, padding_of, units_of, untouchable_of
from gateway.protect.marking import open_original, requests_of
from gateway.protect.policy import traits_of
from tests.support.network.samples import data_set_bytes


@dataclass(frozen=True)
class Shown:
    """One picture.

    display
        (H, W) or (H, W, 3) float32, the primary window, not cut where it is a ramp.
    padding
        (H, W) bool.
    hidden
        (H, W) bool, what a shutter covers; or None.
    units
        (H, W) float32 modality values; None: not known.
    """

    display: np.ndarray
    padding: np.ndarray
    hidden: np.ndarray | None = None
    units: np.ndarray | None = None


@cache
def _members(path: Path) -> np.ndarray:
    with np.load(path) as held:
        return np.asarray(held["images"])


def shown_in(data: Path, name: str) -> Shown:
    """Return a picture: ``data/SET/FILE.npz#INDEX``, ``open/...`` (beside the data folder) or ``data/dicom/FILE``."""
    path = data / name.removeprefix("data/") if name.startswith("data/") else data.parent / name
    file, _, index = str(path).partition("#")
    if index:
        image = _members(Path(file))[int(index)]
        return Shown((image / 255.0).astype(np.float32), np.zeros(image.shape[:2], bool))
    request = request_in(data, name)
    window = display_of(request, untouchable_of(request))
    display = window.raw(request.image) if isinstance(window, DisplayMap) else window.shown(request.image)
    return Shown(display, padding_of(request), request.hidden, units_of(request))


def request_in(data: Path, name: str) -> MarkRequest:
    """Return the request to mark a picture that is named as in ``shown_in``; of several frames the first."""
    path = data / name.removeprefix("data/") if name.startswith("data/") else data.parent / name
    file, _, index = str(path).partition("#")
    if index:
        return MarkRequest(np.ascontiguousarray(_members(Path(file))[int(index)]), bytes(range(32)))
    received = data_set_bytes(Path(file))
    opened = open_original(received, str(read_file_meta_info(file).TransferSyntaxUID))
    profile = choose_profile(traits_of(opened.header))
    assert profile is not None, name
    return requests_of(opened, profile, bytes(range(32)))[0]
