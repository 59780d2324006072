"""What a mark did to one image: seen from outside, in the marked copy that arrived there.

Nothing of the gateway's own account is used but the display range, which is chosen as the gateway chooses it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch

from gateway.config.models import Route
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import GatewayError
from gateway.mark import MarkRequest, ModalityProfile, load_profiles
from gateway.mark.drafting import zones_of
from gateway.mark.evaluation.judge import Judge, display_image, equal_energy_noise, load_judge
from gateway.mark.evaluation.picture import Pair
from gateway.mark.visibility.budget import psnr
from gateway.mark.visibility.display import display_of, untouchable_of
from gateway.protect.marking import Opened, requests_of
from gateway.protect.policy import decide

UNUSED_KEY = bytes(32)  # nothing is marked here
# Fixed: the same marks are shown beside the same noise; a single draw of noise moves the margin of a small image a lot.
NOISE_KEYS = tuple(bytes([number]) * 32 for number in range(4))

# Which of the classifier's questions is asked of the kinds of images that it learnt; of other kinds it is the one that
# it is surest about, and the answer means nothing. None of it says anything of a patient.
HEADS = {"brain-mr": "brain_tumor", "cr-dx": "chest_xray", "fundus": "fundus_dr", "dermoscopy": "dermoscopy"}


@dataclass(frozen=True)
class Measured:
    """Figures of one marked copy; margins are of the class that was predicted on the original (noise: their mean)."""

    changed: bool  # in every frame
    psnr: float  # dB, display range, worst frame
    task: str
    learnt: bool  # whether the classifier learnt this kind of image
    before: str
    after: str
    under_noise: str  # of the same energy in the same pixels, one draw
    margin_before: float
    margin_after: float
    margin_noise: float
    original: np.ndarray  # the frame that was judged, as displayed: float 0..1
    marked: np.ndarray

    def pair(self, title: str) -> Pair:
        """This image's row in the picture."""
        answer = "stays" if self.after == self.before else self.after
        told = f"{self.before} → {answer}".replace("_", " ") if self.learnt else "no kind that the classifier learnt"
        return Pair(title, f"{self.psnr:.1f} dB; {told}", self.original, self.marked)


def _over_anatomy(request: MarkRequest, frame: np.ndarray, profile: ModalityProfile) -> float:
    """Display PSNR in dB of a marked frame over what is no air: words there have a budget of their own."""
    anatomy = zones_of(request, display_of(request, untouchable_of(request)), profile).anatomy
    return psnr(display_image(request)[anatomy], display_image(request, frame)[anatomy])


class Measurer:
    """Compares originals with their marked copies, and asks the held-out classifier about both."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._profiles = load_profiles()
        self._judges: dict[int, Judge] = {}

    def measure(self, original: bytes, transfer_syntax_uid: str, marked_file: bytes) -> Measured:
        """Compare an original (data set bytes) with its marked copy (a DICOM file, PS3.10).

        Raises
        ------
        GatewayError
            One of the two cannot be decoded, or they do not fit each other (``demo-wrong-copy``).
        """
        header = read_header(io.BytesIO(original), transfer_syntax_uid)
        profile = decide(header, self._route, self._profiles).profile
        if profile is None:
            raise GatewayError("demo-wrong-copy", "the policy does not mark this kind of image")
        opened = Opened(original, header, decode_pixels(original, transfer_syntax_uid))
        copy = _decode_file(marked_file)
        if copy.shape != opened.pixels.frames.shape or copy.dtype != opened.pixels.frames.dtype:
            raise GatewayError("demo-wrong-copy", "the marked copy has another shape than its original")
        requests = requests_of(opened, profile, UNUSED_KEY)
        pairs = list(zip(requests, copy, strict=True))
        changed = all(not np.array_equal(request.image, frame) for request, frame in pairs)
        worst = min(_over_anatomy(request, frame, profile) for request, frame in pairs)
        return self._judged(*pairs[len(pairs) // 2], changed, worst, profile)

    def _judged(
        self, request: MarkRequest, frame: np.ndarray, changed: bool, worst: float, profile: ModalityProfile
    ) -> Measured:
        before, after = display_image(request), display_image(request, frame)
        noise = [display_image(request, equal_energy_noise(request, frame, key)) for key in NOISE_KEYS]
        judge = self._judge_for(3 if request.image.ndim == 3 else 1)
        task = HEADS.get(profile.name)
        verdict = judge.judge(before[None], task)[0]
        shown = np.stack([before, after, *noise])
        answers = judge.judge(shown, verdict.task)
        margins = judge.margin_for(shown, np.full(len(shown), verdict.class_index), verdict.task)
        return Measured(
            changed=changed,
            psnr=worst,
            task=verdict.task,
            learnt=task is not None,
            before=verdict.class_name,
            after=answers[1].class_name,
            under_noise=answers[2].class_name,
            margin_before=float(margins[0]),
            margin_after=float(margins[1]),
            margin_noise=float(margins[2:].mean()),
            original=before,
            marked=after,
        )

    def _judge_for(self, channels: int) -> Judge:
        if channels not in self._judges:
            self._judges[channels] = load_judge(channels, torch.device("cpu"))
        return self._judges[channels]


def _decode_file(file: bytes) -> np.ndarray:
    """Stored values of a DICOM file, (N, H, W) or (N, H, W, 3)."""
    meta, offset = split_part10(io.BytesIO(file))
    return decode_pixels(file[offset:], meta.transfer_syntax_uid).frames
