"""Settings of a mark: what a route or a command line may choose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from gateway.config.base import Device, Problem
from gateway.config.marking import Mark, Steps
from gateway.mark.methods.evolution import LEAST_POPULATION

PSNR_FLOOR = {"notice": 42.0, "lettered": 26.0, "air": 42.0, "discreet": 42.0}
"""Display PSNR (dB, primary window, over the anatomy) that no mark of the tier goes below; letters in air are apart."""
TEXTURE_FLOOR = 42.0
"""The same that what lies outside strokes keeps by itself in every tier."""


class MarkSettings(Mark):
    """How images are marked: what a route may say, and the rest.

    Attributes
    ----------
    tier
        ``notice``: words in the air, and on the anatomy texture below the threshold of visibility. ``lettered``: whole
        words over the anatomy too; the strongest. ``air``: words in the air, and all of the anatomy bit-identical.
        ``discreet``: nothing visible anywhere. The region of interest is bit-identical in all of them.
    without_air
        what ``notice`` and ``air`` do with an image that has no room in its air: mark it as in that tier, or ``hold``
        it; None: as the modality's profile says.
    mode
        ``strong``: per-image optimisation against the surrogates. ``paper``: the paper's family as a baseline,
        one flat logo or text, placed and blended by an evolutionary search; lettered tier only. ``generator``: a
        trained network draws the texture in one forward pass, the placement is keyed and not searched; fast.
    steps
        optimiser steps. 0 is a fast setting for tests of the plumbing: keyed lettering (or keyed noise) without
        optimisation; it misleads next to nothing. The ``generator`` has ``refine`` instead; there 0 only means
        that local detail stands in for saliency, so that no surrogate is read.
    key_slices
        in mode ``strong``: of a series, or of the frames of one image, every 8th begins from noise, and the others
        from the texture of the nearest of those that are marked already. ``False``: each begins from noise. What an
        image begins from is the caller's to give (``MarkRequest.begin``): without it this key has no effect.
    refine
        optimiser steps that follow the ``generator``, from its texture on; each costs as much as one of
        ``strong``.
    generator
        a file that ``miad-gateway train-mark`` wrote; None: an installed generator.
    placements
        how many keyed placements of the lettering are tried on an image that belongs to no series.
    population
        candidates per generation of the ``paper`` mode's search.
    generations
        most generations of that search; each costs ``population`` forward passes of every surrogate.
    text
        what is written where there is air, at most 32 printable ASCII characters; whole, in as many lines as it takes.
    word
        what is written over anatomy, and where the text does not fit: one word of at most 12 such characters.
    logo
        an image file that is drawn instead of the text.
    device
        ``auto`` takes CUDA where there is one.
    min_psnr
        display PSNR floor in dB over the anatomy; None: the tier's own (26 or 42). May be raised, never lowered.
    max_stroke_share
        largest share of the image's pixels that strokes may cover.
    min_free_area
        least share of the foreground that must be free of the region of interest and of padding.
    surrogates
        names of surrogate packs; empty: those that the modality profile names.
    """

    steps: Steps = 80
    placements: Annotated[int, Field(ge=1, le=256)] = 24
    population: Annotated[int, Field(ge=LEAST_POPULATION, le=64)] = 24
    generations: Annotated[int, Field(ge=0, le=100)] = 12
    device: Device = "auto"
    min_psnr: Annotated[float, Field(le=60.0)] | None = None
    max_stroke_share: Annotated[float, Field(gt=0.0, le=0.16)] = 0.16
    min_free_area: Annotated[float, Field(ge=0.05, le=0.9)] = 0.2

    def _disagreements(self) -> Iterator[Problem]:
        yield from super()._disagreements()
        if self.min_psnr is not None and self.min_psnr < PSNR_FLOOR[self.tier]:
            yield ("min_psnr",), f"min_psnr may not be below {PSNR_FLOOR[self.tier]:g} dB in the {self.tier} tier"

    @property
    def psnr_floor(self) -> float:
        """Display PSNR floor in dB that holds for these settings."""
        return self.floor_of(self.tier)

    def floor_of(self, tier: str) -> float:
        """Display PSNR floor in dB of an image that is marked as in ``tier``."""
        return PSNR_FLOOR[tier] if self.min_psnr is None else max(self.min_psnr, PSNR_FLOOR[tier])
