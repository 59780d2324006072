"""What may be said of a mark: by a route here, and by everyone through `gateway.mark.settings.MarkSettings`, which adds
what no route chooses. One definition, so that whatever the configuration takes, the mark takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.config.base import Lettering, Model, Name, Problem, checked

Steps = Annotated[int, Field(ge=0, le=1000)]


class Mark(Model):
    """How a route marks: the tier, and how much work goes into it. `MarkSettings` says what each key does."""

    tier: Literal["lettered", "discreet"] = "lettered"
    mode: Literal["strong", "paper", "generator"] = "strong"
    steps: Steps | None = None  # None: the mark's own default; 0: plumbing tests only
    refine: Annotated[int, Field(ge=0, le=5)] = 0  # optimiser steps after the generator
    generator: Path | None = None  # a file of train-mark; None: an installed generator
    text: Lettering = "COPY"
    surrogates: tuple[Name, ...] = ()  # names of surrogate packs, the site's or installed; empty: the profile's own
    logo: Path | None = None  # an image file, drawn instead of the text

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        if self.mode == "paper" and self.tier != "lettered":
            yield ("mode",), "mode 'paper' draws a visible mark: it goes with tier 'lettered' only"
        for name in ("refine", "generator"):
            if self.mode != "generator" and getattr(self, name):
                yield (name,), f"{name} goes with mode 'generator' only"
