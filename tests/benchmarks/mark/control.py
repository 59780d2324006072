"""Positive control of the evaluation itself (mark, evaluation rules, 3): a fixed weak logo must be undone.

One logo at one place, blended lightly into every image. Averaging and the pair-trained remover, the very code that is
turned on the real mark, must bring the images back: most of the logo's energy gone, accuracy as on clean images after
the same. If one cannot, it is too weak to say anything about a real mark, and the run stops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.mark.placement.stamps import text_stamp

OPACITY = 0.25
LEVEL = 0.9  # display value of the logo
LEAST_GONE = 0.8
"""Share of the logo's energy that must be gone."""
MOST_LOST = 0.05
"""Accuracy that may lie between the freed images and clean images after the same removal; one answer always may."""


class EvaluationTooWeak(SystemExit):
    """The removal pipeline cannot even undo a fixed weak logo."""


@dataclass(frozen=True)
class ControlResult:
    """What one removal did to the weak logo: share of its energy gone, two accuracies in 0..1 of so many answers."""

    removal: str
    gone: float
    accuracy: float
    clean_accuracy: float
    answers: int

    @property
    def passed(self) -> bool:
        """Whether the logo counts as undone."""
        lost = max(MOST_LOST, 1.0 / self.answers) + 1e-9
        return self.gone >= LEAST_GONE and self.accuracy >= self.clean_accuracy - lost


def weak_logo(images: np.ndarray) -> np.ndarray:
    """Return display images float32 (N, H, W[, 3]) with the weak logo, rounded to 8 bit."""
    height, width = images.shape[1:3]
    ink = text_stamp(("LOGO",), height // 8, 0).ink
    mask = np.zeros((height, width), np.float32)
    rows, columns = min(ink.shape[0], height // 2), min(ink.shape[1], width // 2)
    top, left = height // 2 - rows // 2, width // 2 - columns // 2
    mask[top : top + rows, left : left + columns] = ink[:rows, :columns]
    alpha = OPACITY * (mask if images.ndim == 3 else mask[..., None])
    blended = images * (1.0 - alpha) + alpha * LEVEL
    return (np.rint(blended * 255.0) / 255.0).astype(np.float32)


def energy_gone(clean: np.ndarray, logo: np.ndarray, freed: np.ndarray) -> float:
    """Return which share of the logo's energy is gone: 1 - |freed - clean|^2 / |logo - clean|^2, over all images."""
    left = float(np.mean((freed.astype(np.float64) - clean) ** 2))
    before = float(np.mean((logo.astype(np.float64) - clean) ** 2))
    return 1.0 - left / before


def check(results: list[ControlResult], every: bool = True) -> None:
    """Raise when the logo is not undone.

    Parameters
    ----------
    results
        of all removals.
    every
        each removal must undo it; False: one of them is enough (CI's remover is too small to learn).

    Raises
    ------
    EvaluationTooWeak
        with the figures.
    """
    passed = [result.passed for result in results]
    if passed and (all(passed) if every else any(passed)):
        return
    told = "; ".join(
        f"{one.removal}: {one.gone:.0%} of its energy gone, accuracy {one.accuracy:.2f}, clean {one.clean_accuracy:.2f}"
        for one in results
    )
    raise EvaluationTooWeak(f"positive control failed: the removal pipeline does not undo a fixed weak logo ({told})")
