"""What every method of drawing a mark has in common: the ``Method`` protocol, and what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from gateway.errors import MarkError
from gateway.mark.draft import Draft
from gateway.mark.grids import to_tensor, working_shape
from gateway.mark.methods.generator_packs import GeneratorPack
from gateway.mark.resample import resize
from gateway.mark.settings import MarkSettings
from gateway.mark.surrogates.consensus import Answers
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.types import ModalityProfile
from gateway.mark.visibility.budget import Canvas


@dataclass(frozen=True)
class Needs:
    """What a method needs before it draws.

    Attributes
    ----------
    letters
        letters are placed for it (in the tiers that have letters); a method without them places strokes of its own.
    search
        of several keyed placements of the letters the one that misleads most is taken; else the first with room.
    draft_networks
        how many surrogates find saliency and judge placements; None: all of them, 0: local detail stands in.
    draws_with_networks
        whether the method is given the surrogates when it draws.
    """

    letters: bool
    search: bool
    draft_networks: int | None
    draws_with_networks: bool

    @property
    def networks(self) -> bool:
        """Whether any surrogate has to be read."""
        return self.draft_networks != 0 or self.draws_with_networks


@dataclass(frozen=True)
class Setup:
    """What a method is made of, once per marker.

    Attributes
    ----------
    settings
        of the mark.
    device
        where networks run.
    logo
        (h, w) bool ink that is drawn instead of the text; or None.
    generators
        generator packs to choose from; None: the installed ones.
    parallel_map
        maps a function over parts of one frame, results in order: cores may share them.
    """

    settings: MarkSettings
    device: torch.device
    logo: np.ndarray | None
    generators: Sequence[GeneratorPack] | None
    parallel_map: Callable[..., Iterable[Any]]


@dataclass(frozen=True)
class Batch:
    """Drafts of images of one shape that are drawn on together.

    Attributes
    ----------
    drafts
        1 to ``size`` of them.
    size
        tensors are filled up to it, so that the number of drafts cannot change a result.
    profile
        the images' modality profile.
    surrogates
        the networks to mislead; empty where the method's needs say so.
    device
        of the tensors.
    """

    drafts: Sequence[Draft]
    size: int
    profile: ModalityProfile
    surrogates: Sequence[Surrogate]
    device: torch.device

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the images."""
        height, width = self.drafts[0].canvas.stored.shape[:2]
        return height, width

    @property
    def working_shape(self) -> tuple[int, int]:
        """Height and width of the grid that textures are made on."""
        return working_shape(self.shape, self.profile.texture_side)

    @property
    def filled(self) -> list[Draft]:
        """``size`` drafts: the last one repeated where there are fewer."""
        return [*self.drafts, *[self.drafts[-1]] * (self.size - len(self.drafts))]

    @property
    def answers(self) -> Answers:
        """What networks said of the clean images already, those that were asked of every one of them."""
        all_of_them = [draft.answers for draft in self.filled]
        return {
            name: {task: torch.cat([answers[name][task] for answers in all_of_them]) for task in tasks}
            for name, tasks in all_of_them[0].items()
            if all(name in answers for answers in all_of_them)
        }

    def tensor(self, plane: Callable[[Canvas], np.ndarray]) -> Tensor:
        """Return (size, C, h, w) float32 at the working resolution.

        Parameters
        ----------
        plane
            (H, W) or (H, W, 3) of a canvas, as ``lambda canvas: canvas.shown``.
        """
        return self.stacked([plane(draft.canvas) for draft in self.drafts])

    def stacked(self, planes: Sequence[np.ndarray]) -> Tensor:
        """Return (size, C, h, w) float32 at the working resolution of a plane (H, W) or (H, W, 3) per draft."""
        found: list[Tensor] = []
        for one in planes:
            if not one.any():
                channels = 1 if one.ndim == 2 else one.shape[2]
                found.append(torch.zeros((1, channels, *self.working_shape), device=self.device))
            else:
                found.append(resize(to_tensor(one, self.device), *self.working_shape))
        return torch.cat(found + [found[-1]] * (self.size - len(found)))


@dataclass(frozen=True)
class Finished:
    """A mark in stored values.

    Attributes
    ----------
    canvas
        with the strokes that were drawn.
    stored
        int32, shape of the image.
    cut
        pixels whose change the valid range or a reserved value cut.
    queries
        images that a search without gradients showed to every surrogate.
    texture, has_begun
        as in ``MarkedImage``.
    """

    canvas: Canvas
    stored: np.ndarray
    cut: int
    queries: int = 0
    texture: np.ndarray | None = None
    has_begun: bool = False


Drawing = TypeVar("Drawing")
"""What a method draws on one draft: a texture, a flat mark, whatever its ``finish`` understands."""


class Method(Protocol[Drawing]):
    """One way to draw marks; made once per marker from a ``Setup``, used by several threads at once."""

    def __init__(self, setup: Setup) -> None:
        """Take what is needed of the setup; raises ``ConfigError`` for what can never work."""

    @staticmethod
    def needs(settings: MarkSettings) -> Needs:
        """Return what the method needs under these settings."""

    def load(self, profile: ModalityProfile, channels: int) -> None:
        """Read what the method has of its own for such images, once; called before work is put into a frame.

        Raises
        ------
        MarkError
            when it cannot mark such images.
        """

    def licence_warnings(self, profile: ModalityProfile) -> list[str]:
        """Return the warnings of what ``load`` would read for images of this profile; to be logged at start."""

    def draw(self, batch: Batch) -> list[Drawing | MarkError]:
        """Return a drawing per draft of the batch, or why there is none.

        The same draft gives the same drawing whatever else is in the batch.

        Raises
        ------
        MarkError
            for the batch as a whole: each of its drafts is then drawn on alone.
        torch.OutOfMemoryError
            the batch is too large for the device: it is halved.
        """

    def finish(self, draft: Draft, drawing: Drawing, profile: ModalityProfile) -> Finished:
        """Round a drawing into stored values within the budget.

        Raises
        ------
        MarkError
            ``over-budget`` when no change keeps the floor, or all of the mark rounds to nothing.
        """
