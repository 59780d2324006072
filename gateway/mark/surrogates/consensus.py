"""What the surrogates together hold an image to be: the answer that a mark leads away from, without any label.

A network that is wrong on the clean image would, led away from its own answer, often end at the right one. The mean
of all networks that know the same classes is right more often; and as it is a probability for every class, the mark
also leads away from the second most likely answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from gateway.errors import MarkError
from gateway.mark.resample import resize
from gateway.mark.surrogates.packs import Surrogate

Probabilities = dict[str, Tensor]
"""Task -> (B, classes) float32 probabilities that sum to 1."""
Answers = dict[str, dict[str, Tensor]]
"""Name of a surrogate -> task -> its (B, classes) logits of the clean images."""


def consensus(
    clean: Tensor,
    surrogates: Sequence[Surrogate],
    tasks: Sequence[str],
    parallel_map: Callable[..., Iterable] = map,
    known: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> list[Probabilities]:
    """Return per surrogate the mean probabilities of all surrogates that know the same classes of a task.

    Parameters
    ----------
    clean
        (B, C, h, w) float32 in 0..1, whole images.
    surrogates
        at least one.
    tasks
        heads to ask; empty: all.
    parallel_map
        maps a function over the surrogates, results in order.
    known
        ``Answers`` of surrogates that need not be asked again.

    Raises
    ------
    MarkError
        ``surrogate-nan`` when a network gives a value that is not finite.
    """

    def ask(surrogate: Surrogate) -> Mapping[str, Tensor]:
        if known and surrogate.name in known:
            return known[surrogate.name]
        with torch.no_grad():
            return surrogate.net(resize(clean, surrogate.input_size, surrogate.input_size)).logits

    kinds: dict[tuple[str, tuple[str, ...]], list[Tensor]] = {}
    for surrogate, logits in zip(surrogates, parallel_map(ask, surrogates), strict=True):
        for task in surrogate.asked(tasks):
            if not bool(torch.isfinite(logits[task]).all()):
                raise MarkError("surrogate-nan", f"surrogate {surrogate.name} gives values that are not finite")
            kinds.setdefault((task, surrogate.net.tasks[task]), []).append(logits[task].softmax(1))
    means = {kind: torch.stack(found).mean(0) for kind, found in kinds.items()}
    return [
        {task: means[task, surrogate.net.tasks[task]] for task in surrogate.asked(tasks)} for surrogate in surrogates
    ]
