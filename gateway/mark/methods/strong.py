"""The ``strong`` method: momentum sign steps on a texture against all surrogates at once.

From the feasibility run: a plain sum lets the easy networks eat the budget, so each surrogate's gradient is normalised
before the sum and weighted by how likely it still is to be right; one view a step, the whole image every
second time; momentum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gateway.errors import MarkError
from gateway.mark.draft import Draft
from gateway.mark.grids import working_shape
from gateway.mark.methods.begun import STEPS, continue_texture
from gateway.mark.methods.gradients import ENOUGH, MOMENTUM, balanced_gradient, in_turn
from gateway.mark.methods.method import Batch, Finished, Needs, Setup
from gateway.mark.methods.settled import settle_letters
from gateway.mark.methods.textures import begun_textures, finish_texture, fits, whole_textures
from gateway.mark.randomness import keyed
from gateway.mark.resample import resize
from gateway.mark.settings import MarkSettings
from gateway.mark.surrogates.consensus import Answers, Probabilities, consensus
from gateway.mark.surrogates.objective import Target, draw_views, margins
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.types import ModalityProfile
from gateway.mark.visibility.chroma import limit_chroma

GROUPS = 6
"""View groups that the steps go through in turn."""
VIEWS = 1
"""Views per group, i.e. per step."""
FIRST_RATE, REFINE_RATE = 0.2, 0.5
"""Size of the first step: from noise, and from a texture that a generator drew with most of its amplitude used."""
SETTLING = 16
"""Steps of the letters over the finished anatomy."""
MIN_ROUNDS = 3
"""Times that every surrogate is asked at least."""


class StrongMethod:
    """See the module; ``Method`` says what its functions do."""

    def __init__(self, setup: Setup) -> None:
        self._settings = setup.settings

    @staticmethod
    def needs(settings: MarkSettings) -> Needs:
        """Letters on the best of several placements; all networks, or none when there are no steps."""
        asked = settings.steps > 0
        return Needs(letters=True, search=True, draft_networks=None if asked else 0, draws_with_networks=asked)

    def load(self, profile: ModalityProfile, channels: int) -> None:
        """Nothing of its own to read."""

    def licence_warnings(self, profile: ModalityProfile) -> list[str]:
        """None of its own."""
        return []

    def draw(self, batch: Batch) -> list[np.ndarray | MarkError]:
        """Return the textures; raises ``surrogate-nan``."""
        found: dict[int, np.ndarray] = {}
        for begun in (False, True):
            places = [place for place, draft in enumerate(batch.drafts) if self._begins(draft, batch.profile) is begun]
            if places:
                part = replace(batch, drafts=[batch.drafts[place] for place in places])
                texture = self._continued(part) if begun else self._from_noise(part)
                found.update(zip(places, whole_textures(texture, part), strict=True))
        return [found[place] for place in range(len(batch.drafts))]

    def _begins(self, draft: Draft, profile: ModalityProfile) -> bool:
        """Whether a draft begins from a neighbouring slice's texture: one is given, and it is of this image's grid."""
        image = draft.request.image
        grid = working_shape(image.shape[:2], profile.texture_side)
        return self._settings.steps > 0 and fits(draft.request.begin, grid, 1 if image.ndim == 2 else 3)

    def _from_noise(self, batch: Batch) -> Tensor:
        texture = optimise_texture(
            batch.tensor(lambda canvas: canvas.shown),
            batch.tensor(lambda canvas: canvas.amplitude),
            batch.tensor(lambda canvas: canvas.offset),
            batch.surrogates,
            batch.profile.tasks,
            _random(batch),
            self._settings.steps,
            partial(limit_chroma, share=batch.profile.chroma),
            blanked=batch.tensor(lambda canvas: canvas.blanked.astype(np.float32)),
            known=batch.answers,
        )
        steps = min(SETTLING, self._settings.steps)
        return settle_letters(texture, batch, _random(batch), steps) if steps else texture

    def _continued(self, batch: Batch) -> Tensor:
        return continue_texture(
            batch.tensor(lambda canvas: canvas.shown),
            batch.tensor(lambda canvas: canvas.amplitude),
            batch.tensor(lambda canvas: canvas.offset),
            batch.surrogates,
            batch.profile.tasks,
            _random(batch),
            begun_textures(
                [draft.request.begin for draft in batch.filled if draft.request.begin is not None], batch.device
            ),
            partial(limit_chroma, share=batch.profile.chroma),
            blanked=batch.tensor(lambda canvas: canvas.blanked.astype(np.float32)),
            known=batch.answers,
            most=min(STEPS, self._settings.steps),
        )

    def finish(self, draft: Draft, drawing: np.ndarray, profile: ModalityProfile) -> Finished:
        """Round the texture into stored values."""
        return replace(finish_texture(draft, drawing, profile), has_begun=self._begins(draft, profile))


def _random(batch: Batch) -> list[np.random.Generator]:
    return [keyed(draft.request.key, "texture", draft.request.position) for draft in batch.filled]


def optimise_texture(
    clean: Tensor,
    amplitude: Tensor,
    offset: Tensor,
    surrogates: Sequence[Surrogate],
    tasks: Sequence[str],
    generators: Sequence[np.random.Generator],
    steps: int,
    constrain: Callable[[Tensor], Tensor] = lambda texture: texture,
    begin: Tensor | None = None,
    blanked: Tensor | None = None,
    known: Answers | None = None,
) -> Tensor:
    """Return the texture (B, C, h, w) in -1..1 that misleads the surrogates when it is added to ``clean``.

    Parameters
    ----------
    clean
        (B, C, h, w) float32 in 0..1, display space at working resolution.
    amplitude
        (B, 1, h, w) float32 >= 0, display units.
    offset
        (B, 1, h, w) float32, display units.
    surrogates
        at least one with a head for one of ``tasks``.
    tasks
        heads to mislead; empty: all.
    generators
        one per image, for start and views.
    steps
        0 gives the keyed random start.
    constrain
        puts a texture in -1..1 back where it may be (colour), after every step; for gray images nothing.
    begin
        (B, C, h, w) float32 in -1..1, the texture that the steps begin with; None: keyed noise.
    blanked
        (B, 1, h, w) float32 in 0..1, the background that every second step sees black, so that anatomy and air each
        mislead without the other; None or all 0: there is none.
    known
        what surrogates said of the clean images already.

    Raises
    ------
    MarkError
        ``surrogate-nan`` when a network gives a value that is not finite.
    """
    device = clean.device
    first, texture = REFINE_RATE, begin
    if texture is None:
        start = np.stack([random.choice(np.array([-1.0, 1.0], np.float32), clean.shape[1:]) for random in generators])
        first, texture = FIRST_RATE, torch.from_numpy(start).to(device)
    if steps == 0:
        return constrain(texture)
    if begin is None:
        texture = texture * 0.3
    groups = draw_views(generators, clean.shape[2:], GROUPS, VIEWS, device)[:steps]
    probabilities = consensus(clean, surrogates, tasks, known=known)
    left = None if blanked is None or not bool(blanked.any()) else 1.0 - blanked
    grounds = [(clean, None)] if left is None else [(clean, None), (clean * left, left)]
    turns = [
        [(Target(one, seen, groups, held), kept) for one, held in pair]
        for pair in in_turn(list(zip(surrogates, probabilities, strict=True)))
        for seen, kept in grounds
    ]
    momentum = torch.zeros_like(texture)
    open_ = torch.ones(len(clean), dtype=torch.bool, device=device)
    margins_of: dict[tuple[int, int], Tensor] = {}
    for step in range(steps):
        texture.requires_grad_(True)
        images = (clean + offset + amplitude * texture).clamp(0.0, 1.0)
        total = torch.zeros_like(texture)
        turn, group = step % len(turns), step // len(turns) % len(groups)
        for number, (target, kept) in enumerate(turns[turn]):
            loss, margin = target.loss(images if kept is None else images * kept, group)
            (gradient,) = torch.autograd.grad(loss.sum(), texture, retain_graph=True)
            total += balanced_gradient(gradient, margin.detach(), target.surrogate.name)
            margins_of[turn, number] = margin.detach()
        if step + 1 >= len(turns) * MIN_ROUNDS:
            open_ &= torch.stack([*margins_of.values()]).amax(0) > ENOUGH
        momentum = MOMENTUM * momentum + total
        rate = first * (1.0 - 0.8 * step / steps)  # large steps first, then settle
        moved = constrain((texture.detach() - rate * momentum.sign()).clamp(-1.0, 1.0))
        # an image that is done stays as it is, whatever else is in the batch
        texture = torch.where(open_[:, None, None, None], moved, texture.detach())
        if not bool(open_.any()):
            break
    return texture


def first_direction(
    clean: Tensor,
    offset: Tensor,
    surrogates: Sequence[Surrogate],
    tasks: Sequence[str],
    parallel_map: Callable[..., Iterable] = map,
    known: Answers | None = None,
) -> Tensor:
    """Return (B, C, h, w) float32: the direction that lowers surrogates' margins at the lettered image, any unit.

    One gradient per surrogate, of the whole image upright; balanced and without labels, as in
    ``optimise_texture``.

    Parameters
    ----------
    clean
        (B, C, h, w) float32 in 0..1, display space.
    offset
        (B, 1, h, w) float32, what the letters add.
    surrogates
        none gives zeros.
    tasks
        heads to mislead; empty: all.
    parallel_map
        maps a function over the surrogates, results in order: cores may share them.
    known
        what surrogates said of the clean images already.

    Raises
    ------
    MarkError
        ``surrogate-nan`` when a network gives a value that is not finite.
    """

    def gradient_of(surrogate: Surrogate, probabilities: Probabilities) -> Tensor:
        images = (clean + offset).clamp(0.0, 1.0).requires_grad_(True)
        margin = margins(surrogate.net(resize(images, surrogate.input_size, surrogate.input_size)), probabilities)
        (gradient,) = torch.autograd.grad(margin.sum(), images)
        return balanced_gradient(gradient, margin.detach(), surrogate.name)

    total = torch.zeros_like(clean)
    if surrogates:
        held = consensus(clean, surrogates, tasks, parallel_map, known)
        for gradient in parallel_map(gradient_of, surrogates, held):
            total -= gradient
    return total
