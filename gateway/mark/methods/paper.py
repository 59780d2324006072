"""The ``paper`` method: the family of MIAD-MARK and Adv-watermark re-implemented as the honest baseline.

A flat mark (``gateway.mark.methods.flat``) whose position, size, rotation, opacity and polarity are searched by
differential evolution with forward passes only, outside the region of interest: Wei et al. 2023 (arXiv 2303.09858),
whose first version names position and transparency of a logo kept off the lesion, and Jia et al. 2020 (Adv-watermark),
who search them by evolution. Their figures' exact protocol is not public, so this is the family, not the paper's
program.

What is lowered needs no label: the surrogates' belief in their own first answer, i.e. the probability of the class
that each predicts on the clean image, mean over surrogates and tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gateway.errors import MarkError
from gateway.mark.draft import Draft
from gateway.mark.methods.evolution import minimise
from gateway.mark.methods.flat import (
    GENES,
    OVERSAMPLE,
    SIZES,
    Placements,
    affordable_opacity,
    blend_change,
    decode,
    ink_masks,
    least_size,
    text_ink,
)
from gateway.mark.methods.method import Batch, Finished, Needs, Setup
from gateway.mark.placement.letters import most_strokes
from gateway.mark.placement.logo import scale_ink
from gateway.mark.randomness import keyed
from gateway.mark.resample import resize
from gateway.mark.settings import MarkSettings
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.types import ModalityProfile
from gateway.mark.visibility.budget import Canvas, apply_change, largest_scale

ENOUGH = 0.05
"""Belief at which the search for an image ends early."""
LEAST_INSIDE = 0.65
"""Candidates with less of their ink in the region are worse than any that show more: a fragment reads as no mark."""
DRAWS = 8
"""Random draws for each candidate of the first population; the first that is nearest to being allowed is taken."""
MOST_ROWS = 128
"""Candidates shown to a surrogate at once."""
_MARGIN = 0.98  # of the stroke share at working resolution, since the full one may differ by a little


@dataclass(frozen=True)
class FlatMark:
    """What the search found for one image.

    Attributes
    ----------
    strokes
        (H, W) bool, inside the region.
    change
        float32, shape of the image, display units; 0 outside strokes.
    opacity
        of the blend.
    belief
        the surrogates' belief under it at working resolution, 0..1 (0 without surrogates).
    first_belief
        mean of the same over the allowed candidates of the random first population.
    queries
        candidates shown to every surrogate, and the clean image once.
    """

    strokes: np.ndarray
    change: np.ndarray
    opacity: float
    belief: float
    first_belief: float
    queries: int


class PaperMethod:
    """See the module; ``Method`` says what its functions do."""

    def __init__(self, setup: Setup) -> None:
        self._settings = setup.settings
        self._ink = text_ink(setup.settings.word) if setup.logo is None else setup.logo

    @staticmethod
    def needs(settings: MarkSettings) -> Needs:
        """No letters: it places the flat mark itself; all networks, or none when there are no steps."""
        asked = settings.steps > 0
        return Needs(letters=False, search=False, draft_networks=None if asked else 0, draws_with_networks=asked)

    def load(self, profile: ModalityProfile, channels: int) -> None:
        """Nothing of its own to read."""

    def licence_warnings(self, profile: ModalityProfile) -> list[str]:
        """None of its own."""
        return []

    def draw(self, batch: Batch) -> list[FlatMark | MarkError]:
        """Return the flat marks, ``no-free-area`` where none fits; raises ``surrogate-nan``, ``logo-too-fine``."""
        settings, canvases = self._settings, [draft.canvas for draft in batch.drafts]
        return search_flat_marks(
            batch.tensor(lambda canvas: canvas.shown)[: len(canvases)],
            canvases,
            self._ink,
            batch.surrogates,
            batch.profile.tasks,
            [keyed(draft.request.key, "paper", draft.request.position) for draft in batch.drafts],
            population=settings.population,
            generations=settings.generations,
            most_strokes=[most_strokes(settings, canvas.region) for canvas in canvases],
            floor=settings.psnr_floor,
            together=batch.size,
        )

    def finish(self, draft: Draft, drawing: FlatMark, profile: ModalityProfile) -> Finished:
        """Lay the flat mark into stored values."""
        canvas, marked, cut = fit_flat_mark(draft.canvas, drawing, self._settings.psnr_floor)
        return Finished(canvas, marked, cut, drawing.queries)


class Believers:
    """Surrogates and what each answers on clean images.

    Parameters
    ----------
    clean
        (B, C, h, w) float32 in 0..1.
    surrogates
        may be empty: then every belief is 0.
    tasks
        heads to ask; empty: all.
    rows
        images shown at once; every batch is filled up to it, so that an image's company changes nothing.

    Raises
    ------
    MarkError
        ``surrogate-nan`` when a network gives a value that is not finite (also from ``belief``).
    """

    def __init__(self, clean: Tensor, surrogates: Sequence[Surrogate], tasks: Sequence[str], rows: int) -> None:
        self._rows = rows
        self._members = [(surrogate, surrogate.asked(tasks)) for surrogate in surrogates]
        self._answers = [
            {task: one.argmax(1) for task, one in self._probabilities(clean, surrogate, asked).items()}
            for surrogate, asked in self._members
        ]

    def belief(self, images: Tensor, owners: Tensor) -> Tensor:
        """Return the (R,) belief in the clean image's answers.

        Parameters
        ----------
        images
            (R, C, h, w) float32 in 0..1.
        owners
            (R,) int, which clean image each belongs to.
        """
        total = torch.zeros(len(images), device=images.device)
        for (surrogate, asked), answers in zip(self._members, self._answers, strict=True):
            found = self._probabilities(images, surrogate, asked)
            each = [found[task].gather(1, answers[task][owners][:, None])[:, 0] for task in asked]
            total += torch.stack(each).mean(0)
        return total / max(1, len(self._members))

    @torch.no_grad()
    def _probabilities(self, images: Tensor, surrogate: Surrogate, asked: Sequence[str]) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {task: [] for task in asked}
        for part in images.split(self._rows):
            filled = torch.cat([part, part[-1:].expand(self._rows - len(part), -1, -1, -1)])
            logits = surrogate.net(resize(filled, surrogate.input_size, surrogate.input_size)).logits
            for task in asked:
                parts[task].append(logits[task][: len(part)].softmax(1))
        found = {task: torch.cat(of_task) for task, of_task in parts.items()}
        if not all(bool(torch.isfinite(one).all()) for one in found.values()):
            raise MarkError("surrogate-nan", f"surrogate {surrogate.name} gives values that are not finite")
        return found


def search_flat_marks(
    clean: Tensor,
    canvases: Sequence[Canvas],
    ink: np.ndarray,
    surrogates: Sequence[Surrogate],
    tasks: Sequence[str],
    generators: Sequence[np.random.Generator],
    *,
    population: int,
    generations: int,
    most_strokes: Sequence[int],
    floor: float,
    together: int,
) -> list[FlatMark | MarkError]:
    """Return the best flat mark per image, or why there is none.

    Parameters
    ----------
    clean
        (B, C, h, w) float32 in 0..1, display space at working resolution.
    canvases
        the B images at full resolution, all of one shape.
    ink
        bool, the logo or text.
    surrogates
        empty: no search; a keyed random placement that is allowed.
    tasks
        heads to mislead; empty: all.
    generators
        one per image.
    population
        candidates per image.
    generations
        most generations after the first population.
    most_strokes
        pixels that strokes may cover, per image.
    floor
        display PSNR in dB.
    together
        images computed together; fixes the shape of every batch, so it may change the last bit of a result,
        as the number of images may not.

    Raises
    ------
    MarkError
        ``surrogate-nan``; ``logo-too-fine`` for images of this size.
    """
    search = _Search(clean, canvases, ink, surrogates, tasks, population, most_strokes, floor, together)
    found = minimise(search.values, search.first(generators, population), generators, generations, ENOUGH)
    results: list[FlatMark | MarkError] = []
    for index, (genes, value) in enumerate(zip(found.genes, found.values, strict=True)):
        if value > 1.0:
            results.append(MarkError("no-free-area", "no place for the logo or text was found in the free area"))
            continue
        strokes, change, opacity = search.full(index, genes)
        allowed = found.first[index][found.first[index] <= 1.0]
        results.append(
            FlatMark(
                strokes,
                change,
                opacity,
                belief=float(value),
                first_belief=float(allowed.mean()) if allowed.size else 1.0,
                queries=int(found.evaluations[index]) + 1 if surrogates else 0,
            )
        )
    return results


class _Search:
    """Values of candidates for a batch of images: all images x population in one tensor, in chunks of fixed shape."""

    def __init__(
        self,
        clean: Tensor,
        canvases: Sequence[Canvas],
        ink: np.ndarray,
        surrogates: Sequence[Surrogate],
        tasks: Sequence[str],
        population: int,
        most_strokes: Sequence[int],
        floor: float,
        together: int,
    ) -> None:
        self._clean, self._canvases, self._ink, self._floor = clean, canvases, ink, floor
        self._most = list(most_strokes)
        self._device = clean.device
        height, width = clean.shape[2:]
        shape = canvases[0].region.shape
        rows = (np.arange(height) * 2 + 1) * shape[0] // (2 * height)
        columns = (np.arange(width) * 2 + 1) * shape[1] // (2 * width)
        regions = np.stack([canvas.region[rows][:, columns] for canvas in canvases])
        self._regions = torch.from_numpy(regions).to(self._device)
        self._boxes = torch.tensor(
            [_bounds(canvas.region) for canvas in canvases], dtype=torch.float32, device=self._device
        )
        # on empty ground the mark is what the ground is not, black or white; elsewhere (nan) the search chooses
        ground = [float(canvas.shown[canvas.region].mean()) if canvas.is_bare else np.nan for canvas in canvases]
        self._ground = torch.tensor(ground, dtype=torch.float32, device=self._device)
        most = np.asarray(most_strokes) * _MARGIN / canvases[0].region.size
        self._share = torch.from_numpy(most.astype(np.float32)).to(self._device)
        self._smallest = least_size(ink, min(shape))
        self._small_ink = self._scaled(min(height, width))
        self._per_chunk = max(1, min(together, MOST_ROWS // population))
        self._believers = Believers(clean, surrogates, tasks, self._per_chunk * population)

    def values(self, images: np.ndarray, genes: np.ndarray) -> np.ndarray:
        """Return (A, P) values: the belief (0..1) where a candidate is allowed, else 1 plus how far it is from it."""
        found = []
        for start in range(0, len(images), self._per_chunk):
            part = slice(start, start + self._per_chunk)
            owners = torch.from_numpy(np.repeat(images[part], genes.shape[1])).to(self._device)
            placements = self._placements(owners, genes[part].reshape(-1, GENES))
            masks, lacking = self._masks(owners, placements)
            clean = self._clean[owners]
            opacity = affordable_opacity(clean, masks, placements, self._floor)
            belief = self._believers.belief(clean + blend_change(clean, masks, placements.level, opacity), owners)
            found.append(torch.where(lacking > 0.0, 1.0 + lacking, belief.clamp(max=1.0)))
        return torch.cat(found).cpu().numpy().astype(np.float64).reshape(genes.shape[:2])

    def first(self, generators: Sequence[np.random.Generator], population: int) -> np.ndarray:
        """Return the (B, P, 6) random first populations; no surrogate is asked."""
        chosen = []
        for index, random in enumerate(generators):
            draws = random.uniform(size=(DRAWS, population, GENES))
            owners = torch.full((population,), index, device=self._device)
            lacking = np.stack([self._masks(owners, self._placements(owners, d))[1].cpu().numpy() for d in draws])
            chosen.append(draws[lacking.argmin(axis=0), np.arange(population)])
        return np.stack(chosen)

    def _masks(self, owners: Tensor, placements: Placements) -> tuple[Tensor, Tensor]:
        """Return (R, h, w) bool masks inside the regions and (R,) how far each is from being allowed, 0 if it is."""
        masks, whole = ink_masks(self._small_ink, placements, *self._clean.shape[2:])
        masks = masks & self._regions[owners]
        inside = masks.sum((1, 2)) / whole
        share = masks.float().mean((1, 2))
        lacking = (LEAST_INSIDE - inside).clamp(min=0.0) + (share / self._share[owners] - 1.0).clamp(min=0.0)
        return masks, lacking

    def _placements(self, owners: Tensor, genes: np.ndarray) -> Placements:
        tensor = torch.from_numpy(genes.astype(np.float32)).to(self._device)
        smallest = torch.full((len(genes),), self._smallest, device=self._device)
        found, ground = decode(tensor, self._boxes[owners], smallest), self._ground[owners]
        return replace(found, level=torch.where(ground.isnan(), found.level, (ground < 0.5).float()))

    def _scaled(self, shorter: int) -> Tensor:
        """Return the ink for images of this shorter side, ``OVERSAMPLE`` times as fine as its largest size."""
        return torch.from_numpy(scale_ink(self._ink, SIZES[-1] * shorter * OVERSAMPLE)[0]).to(self._device)

    def full(self, index: int, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Return strokes (H, W), change (shape of the image) and opacity of one candidate at full resolution."""
        canvas = self._canvases[index]
        height, width = canvas.region.shape
        shown = np.atleast_3d(canvas.shown).transpose(2, 0, 1)
        clean = torch.from_numpy(np.ascontiguousarray(shown))[None].to(self._device)
        region = torch.from_numpy(canvas.region).to(self._device)
        placements = self._placements(torch.tensor([index], device=self._device), genes[None])
        ink = self._scaled(min(height, width))
        masks = ink_masks(ink, placements, height, width)[0] & region
        while int(masks.sum()) > self._most[index]:  # hard limit; working resolution may have missed it by a little
            placements = replace(placements, size=placements.size * _MARGIN)
            masks = ink_masks(ink, placements, height, width)[0] & region
        opacity = affordable_opacity(clean, masks, placements, self._floor + canvas.penalty)
        change = blend_change(clean, masks, placements.level, opacity)[0].cpu().numpy()
        flat = change[0] if canvas.stored.ndim == 2 else change.transpose(1, 2, 0)
        return masks[0].cpu().numpy(), np.ascontiguousarray(flat), float(opacity[0])


def _bounds(region: np.ndarray) -> list[float]:
    """Return top, bottom, left, right of a (H, W) bool region as shares of the sides."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    height, width = region.shape
    return [rows[0] / height, (rows[-1] + 1) / height, columns[0] / width, (columns[-1] + 1) / width]


def fit_flat_mark(canvas: Canvas, flat: FlatMark, floor: float) -> tuple[Canvas, np.ndarray, int]:
    """Return the canvas with the mark's strokes, the marked stored image (int32) and how many pixels were cut.

    The opacity is lowered where rounding to stored values would cost more than the budget.

    Raises
    ------
    MarkError
        ``over-budget`` when all of the mark rounds to nothing.
    """
    canvas = replace(canvas, strokes=flat.strokes, outside=np.zeros_like(canvas.outside))
    scale = largest_scale(lambda s: canvas.psnr_of(apply_change(canvas, flat.change * s)[0]) >= floor, 1.0)
    marked, cut = apply_change(canvas, flat.change * scale)
    if np.array_equal(marked, canvas.stored):
        raise MarkError("over-budget", f"no mark keeps {floor:g} dB display PSNR: the window has too few stored values")
    return canvas, marked, cut
