"""The ``generator`` method: a trained network draws the texture in one forward pass, placements are not searched.

Fast: one surrogate is asked for saliency, all of them once for the direction that the network is shown, and some
optimiser steps may follow from its texture on.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from gateway.errors import MarkError
from gateway.mark.draft import Draft
from gateway.mark.methods.generator_net import generate_texture
from gateway.mark.methods.generator_packs import GeneratorLoader, load_generator_packs
from gateway.mark.methods.method import Batch, Finished, Needs, Setup
from gateway.mark.methods.strong import first_direction, optimise_texture
from gateway.mark.methods.textures import finish_texture, whole_textures
from gateway.mark.randomness import keyed
from gateway.mark.settings import MarkSettings
from gateway.mark.types import ModalityProfile
from gateway.mark.visibility.chroma import limit_chroma


class GeneratorMethod:
    """See the module; ``Method`` says what its functions do."""

    def __init__(self, setup: Setup) -> None:
        self._settings, self._parallel_map = setup.settings, setup.parallel_map
        offered = load_generator_packs().values() if setup.generators is None else setup.generators
        self._generators = GeneratorLoader(offered, setup.settings.generator, setup.device)

    @staticmethod
    def needs(settings: MarkSettings) -> Needs:
        """Letters, unsearched; one network's saliency has to do: each costs as much as the generator."""
        asked = settings.steps > 0
        return Needs(
            letters=True,
            search=False,
            draft_networks=1 if asked else 0,
            draws_with_networks=asked or settings.refine > 0,
        )

    def load(self, profile: ModalityProfile, channels: int) -> None:
        """Read the generator; raises ``no-generator``, ``weights-corrupt``."""
        self._generators.get(profile, channels)

    def licence_warnings(self, profile: ModalityProfile) -> list[str]:
        """Return those of the generator packs."""
        return self._generators.licence_warnings(profile)

    def draw(self, batch: Batch) -> list[np.ndarray | MarkError]:
        """Return the textures; raises ``generator-nan``, ``surrogate-nan``."""
        clean = batch.tensor(lambda canvas: canvas.shown)
        amplitude = batch.tensor(lambda canvas: canvas.amplitude)
        offset = batch.tensor(lambda canvas: canvas.offset)
        constrain = partial(limit_chroma, share=batch.profile.chroma)
        keys = [draft.request.key for draft in batch.filled]
        members = batch.surrogates if self._settings.steps else ()
        tasks, known = batch.profile.tasks, batch.answers
        direction = first_direction(clean, offset, members, tasks, self._parallel_map, known)
        generator = self._generators.get(batch.profile, clean.shape[1])
        texture = optimise_texture(
            clean,
            amplitude,
            offset,
            batch.surrogates,
            tasks,
            [keyed(draft.request.key, "texture", draft.request.position) for draft in batch.filled],
            self._settings.refine,
            constrain,
            generate_texture(generator, clean, amplitude, offset, keys, direction, constrain),
            batch.tensor(lambda canvas: canvas.blanked.astype(np.float32)) if self._settings.refine else None,
            known,
        )
        return [*whole_textures(texture, batch)]

    def finish(self, draft: Draft, drawing: np.ndarray, profile: ModalityProfile) -> Finished:
        """Round the texture into stored values."""
        return finish_texture(draft, drawing, profile)
