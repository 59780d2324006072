"""What may be said of a mark: by a route here, and by everyone through `gateway.mark.settings.MarkSettings`, which adds
what no route chooses. One definition, so that whatever the configuration takes, the mark takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gateway.config.base import Lettering, Model, Name, Problem, Word, checked

Steps = Annotated[int, Field(ge=0, le=1000)]


AIR_TIERS = ("notice", "air")
"""Tiers that need air to write on."""
Tier = Literal["notice", "lettered", "air", "discreet"]


def _usual_tier(given: dict[str, Any]) -> Tier:
    """The paper's kind of mark lies on the anatomy: where no tier is named, it has the one that allows that."""
    return "lettered" if given.get("mode") == "paper" else "notice"


class Mark(Model):
    """How a route marks: the tier, and how much work goes into it. `MarkSettings` says what each key does."""

    mode: Literal["strong", "paper", "generator"] = "strong"
    tier: Tier = Field(default_factory=_usual_tier)
    without_air: Literal["lettered", "discreet", "hold"] | None = None  # None: as the modality's profile says
    steps: Steps | None = None  # None: the mark's own default; 0: plumbing tests only
    key_slices: bool = True  # mode strong: slices of a series begin from their key slice's texture
    refine: Annotated[int, Field(ge=0, le=5)] = 0  # optimiser steps after the generator
    generator: Path | None = None  # a file of train-mark; None: an installed generator
    text: Lettering = "COPY - NOT FOR DIAGNOSIS"  # where there is air
    word: Word = "COPY"  # over anatomy, and where the text does not fit
    surrogates: tuple[Name, ...] = ()  # names of surrogate packs, the site's or installed; empty: the profile's own
    logo: Path | None = None  # an image file, drawn instead of the text

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        if self.mode == "paper" and self.tier != "lettered":
            yield ("mode",), "mode 'paper' draws a visible mark: it goes with tier 'lettered' only"
        if self.without_air is not None and self.tier not in AIR_TIERS:
            yield ("without_air",), "without_air goes with tier 'notice' or 'air' only: the others need no air"
        for name in ("refine", "generator"):
            if self.mode != "generator" and getattr(self, name):
                yield (name,), f"{name} goes with mode 'generator' only"
