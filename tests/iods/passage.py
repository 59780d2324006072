"""One object through the gateway's own steps, with what the mark declared on the way."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pytest
from pydicom import Dataset

from gateway.config.models import OptIn, Rule
from gateway.database import InstanceRow
from gateway.flow.ports import Outgoing
from gateway.keys.keyring import OpeningKeys
from gateway.mark import MarkedImage, Marker
from gateway.restore import CopyRestorer
from tests.iods.collection import Made
from tests.support.flow import ROUTE, Flow, decoded

# Copies carry their originals and the vault has them too: one passage shows both ways back.
_BOTH = ROUTE.model_copy(update={"restoration": "both", "destinations": ("outside",)})
# The words stand here in full: that a site must write them, all of them, is what is tested.
_GIVEN_UP = OptIn(
    mammography="marked mammograms are not lossless originals and must not be interpreted",
    quantitative="marked values are wrong: no SUV, count or parameter may be measured in them",
    for_processing="marked For Processing images must not be processed into images for presentation",
)
_RADIOTHERAPY = tuple(Rule(modality=modality, action="remap") for modality in ("RTSTRUCT", "RTPLAN", "RTRECORD"))
ROUTES = {
    "default": _BOTH,
    "opted": _BOTH.model_copy(update={"name": "opted", "called_ae": "OPTED", "opt_in": _GIVEN_UP}),
    "ruled": _BOTH.model_copy(update={"name": "ruled", "called_ae": "RULED", "rules": _RADIOTHERAPY}),
}


@dataclass(frozen=True)
class Passed:
    """What became of one object: its row, what was sent, and what the mark said of each frame."""

    row: InstanceRow
    item: Outgoing | None
    copy: bytes
    marks: tuple[MarkedImage, ...]

    def dataset(self) -> Dataset:
        """The copy as pydicom reads it."""
        return decoded(self.copy, self.item.transfer_syntax_uid)

    def stacked(self, what: str, shape: tuple[int, ...]) -> np.ndarray:
        """`residual`, `roi` or `region` of all frames, in the shape of a pixel array."""
        planes = np.stack([getattr(mark, what) for mark in self.marks])
        if planes.ndim == 3 and shape[-1] == 3:  # (H, W) of an image in colour
            planes = np.repeat(planes[..., None], 3, axis=3)
        return planes.reshape(shape)


class Passage:
    """Sends objects through one flow; the same object on the same route goes through once.

    The marker is the real one; it is only listened to.
    """

    def __init__(self, flow: Flow, patch: pytest.MonkeyPatch) -> None:
        self._flow = flow
        self._known: dict[tuple[str, str], Passed] = {}
        self._heard: list[MarkedImage] = []
        mark = Marker.mark

        def listening(marker: Marker, *arguments: object, **more: object) -> list:
            results = mark(marker, *arguments, **more)
            self._heard += results
            return results

        patch.setattr(Marker, "mark", listening)

    def through(self, one: Made, route: str = "default") -> Passed:
        """Receive, seal, mark and deliver one object."""
        key = (one.name, route)
        if key not in self._known:
            self._known[key] = self._send(one, ROUTES[route].called_ae)
        return self._known[key]

    def _send(self, one: Made, called_ae: str) -> Passed:
        self._heard.clear()
        before = len(self._flow.sender.received)
        instance = self._flow.receive(one.ds, one.transfer_syntax_uid, called_ae, one.data)
        self._flow.run()
        sent = self._flow.sender.received[before:]
        _, item, copy = sent[0] if sent else ("", None, b"")
        return Passed(self._flow.row(instance), item, copy, tuple(self._heard))

    def escrowed(self, uid: str) -> bytes:
        """The original out of the vault, by derived or original UID."""
        return self._flow.restored(uid)

    def carried(self, passed: Passed) -> bytes:
        """The original out of the copy, with the private key and without a vault."""
        keys = OpeningKeys.load(self._flow.config.keys)
        with CopyRestorer(keys).by_copy(io.BytesIO(passed.copy), passed.item.transfer_syntax_uid) as original:
            original.verify()
            return b"".join(original.stream())
