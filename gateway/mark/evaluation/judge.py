"""The packaged held-out classifier: a family that no pack may hold, trained on images that no surrogate saw.

No mark is ever optimised against it; what it says before and after is what ``demo`` and the benchmark show. Card, data
and accuracy: ``judge.md`` beside this file. It is no diagnostic device.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gateway.errors import MarkError
from gateway.mark.randomness import keyed
from gateway.mark.resample import resize
from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.mark.surrogates.store import load_net
from gateway.mark.types import MarkRequest
from gateway.mark.visibility.budget import psnr
from gateway.mark.visibility.display import display_of, untouchable_of, valid_range_of

JUDGE_FILE = Path(__file__).parent / "judge.safetensors"
_TASKS = {1: ("brain_tumor", "breast_us", "chest_xray"), 3: ("breast_us", "dermoscopy", "fundus_dr")}
"""Channels -> the questions that it is asked: ultrasound comes in gray and in colour."""
_BATCH = 32


@dataclass(frozen=True)
class Verdict:
    """What the judge says of one image.

    Attributes
    ----------
    task
        the head that was asked, e.g. ``brain_tumor``.
    class_index
        index of the most probable class.
    class_name
        its name.
    probability
        0..1.
    margin
        its logit minus the best other logit, > 0.
    """

    task: str
    class_index: int
    class_name: str
    probability: float
    margin: float


class Judge:
    """The held-out classifier for one channel count; get one from ``load_judge``."""

    def __init__(self, net: MultiTaskNet, input_size: int, channels: int, device: torch.device) -> None:
        self._net, self._input_size, self._channels, self._device = net, input_size, channels, device

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Task name -> class names."""
        return dict(self._net.tasks)

    def logits(self, images: np.ndarray, task: str) -> np.ndarray:
        """Return float32 logits (N, classes) of images (N, H, W) or (N, H, W, 3), float32 in 0..1 (display space).

        Raises
        ------
        ValueError
            unknown task, or images of the wrong shape.
        """
        if task not in self._net.tasks:
            raise ValueError(f"the judge has no task {task!r}; it has {', '.join(self._net.tasks)}")
        if images.ndim != (3 if self._channels == 1 else 4):
            raise ValueError(f"the judge takes {self._channels}-channel images, not shape {images.shape}")
        stack = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        with torch.no_grad():
            parts = [self._forward(part, task) for part in torch.from_numpy(np.ascontiguousarray(stack)).split(_BATCH)]
        return torch.cat(parts).cpu().numpy()

    def _forward(self, images: Tensor, task: str) -> Tensor:
        small = resize(images.to(self._device, torch.float32), self._input_size, self._input_size)
        return self._net(small).logits[task]

    def judge(self, images: np.ndarray, task: str | None = None) -> list[Verdict]:
        """Return a verdict per image (shapes and range as for ``logits``).

        Parameters
        ----------
        images
            display images.
        task
            which head to ask; None: per image the head that is surest of itself.
        """
        per_task = [self._verdicts(self.logits(images, name), name) for name in ([task] if task else self._net.tasks)]
        return [max(options, key=lambda verdict: verdict.probability) for options in zip(*per_task, strict=True)]

    def _verdicts(self, logits: np.ndarray, task: str) -> list[Verdict]:
        names = self._net.tasks[task]
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        best = logits.argmax(1)
        margins = _margins(logits, best)
        return [
            Verdict(task, int(index), names[index], float(share[index]), float(margin))
            for index, share, margin in zip(best, shares, margins, strict=True)
        ]

    def margin_for(self, images: np.ndarray, class_index: np.ndarray, task: str) -> np.ndarray:
        """Return (N,) float: logit of the given class minus the best other logit.

        Parameters
        ----------
        images
            as for ``logits``.
        class_index
            (N,) int, usually the class predicted on the clean images.
        task
            which head to ask.
        """
        return _margins(self.logits(images, task), np.asarray(class_index))


def _margins(logits: np.ndarray, class_index: np.ndarray) -> np.ndarray:
    rows = np.arange(len(logits))
    others = logits.copy()
    others[rows, class_index] = -np.inf
    return logits[rows, class_index] - others.max(1)


def load_judge(channels: int, device: torch.device | str = "cpu") -> Judge:
    """Return the packaged judge for gray (1) or RGB (3) images.

    Raises
    ------
    MarkError
        ``no-judge`` for another channel count, ``weights-corrupt`` when its file is damaged.
    """
    if channels not in _TASKS:
        raise MarkError("no-judge", f"there is no judge for {channels}-channel images")
    where = torch.device(device)
    net, side = load_net(JUDGE_FILE, where, tasks=_TASKS[channels])
    return Judge(net, side, channels, where)


def display_image(request: MarkRequest, stored: np.ndarray | None = None) -> np.ndarray:
    """Return the display image float32 in 0..1 of a request's frame, or of other stored values in the same window."""
    window = display_of(request, untouchable_of(request))
    return window.shown(request.image if stored is None else stored)


def equal_energy_noise(request: MarkRequest, marked: np.ndarray, key: bytes) -> np.ndarray:
    """Return stored values with random sign noise where the mark lies, of the mark's energy as displayed: the control.

    Parameters
    ----------
    request
        what was marked.
    marked
        its stored values with the mark.
    key
        32 bytes for the noise.

    The noise has the mark's own magnitude pixel by pixel, and random signs; its scale is then fitted so that its
    display PSNR over the whole image, words in the air included, comes within about 0.1 dB of the mark's (as far as
    whole stored values allow).
    """
    window = display_of(request, untouchable_of(request))
    before = window.shown(request.image)
    target = psnr(before, window.shown(marked))
    signs = keyed(key, "noise", request.position).choice(np.array([-1.0, 1.0]), request.image.shape)
    noise = signs * np.abs(marked.astype(np.int64) - request.image)
    low, high = 0.0, 4.0
    for _ in range(14):
        middle = (low + high) / 2.0
        enough = psnr(before, window.shown(_added(request, noise * middle))) >= target
        low, high = (middle, high) if enough else (low, middle)
    return _added(request, noise * low)


def _added(request: MarkRequest, change: np.ndarray) -> np.ndarray:
    limits = valid_range_of(request)
    return np.clip(request.image.astype(np.int64) + np.rint(change).astype(np.int64), *limits).astype(
        request.image.dtype
    )


__all__ = ["Judge", "Verdict", "display_image", "equal_energy_noise", "load_judge"]
