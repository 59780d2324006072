"""How strong one mark is: how many answers of the networks that it was made against it changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gateway.mark.resample import resize
from gateway.mark.surrogates.consensus import Answers, consensus
from gateway.mark.surrogates.packs import Surrogate


def misled_share(
    clean: Tensor,
    marked: Tensor,
    surrogates: Sequence[Surrogate],
    tasks: Sequence[str],
    known: Answers | None = None,
) -> float:
    """Return the share (0 to 1) of the surrogates' answers that are not what all of them hold the clean image to be.

    It tells of these networks alone, which the mark was made against: others are misled less, and how much less no
    single image can tell.

    Parameters
    ----------
    clean, marked
        (1, C, h, w) float32 in 0..1, display space.
    surrogates
        at least one with a head for one of ``tasks``; asked with the whole image, upright.
    tasks
        heads to ask; empty: all.
    known
        what surrogates said of the clean image already.

    Raises
    ------
    MarkError
        ``surrogate-nan`` when a network gives a value that is not finite.
    """
    held = consensus(clean, surrogates, tasks, known=known)
    other: list[bool] = []
    for surrogate, probabilities in zip(surrogates, held, strict=True):
        with torch.no_grad():
            logits = surrogate.net(resize(marked, surrogate.input_size, surrogate.input_size)).logits
        other += [bool(logits[task].argmax(1) != share.argmax(1)) for task, share in probabilities.items()]
    return sum(other) / len(other)
