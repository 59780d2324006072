"""Differential evolution, many problems at once: DE/rand/1/bin (Storn & Price, J. Global Optimization 11, 1997).

Every problem has a random generator of its own and stops by itself, so its course does not depend on its company.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DIFFERENTIAL_WEIGHT = 0.6
"""F: how far a mutant goes along the difference of two others."""
CROSSOVER = 0.9
"""CR: chance of each gene to come from the mutant."""
LEAST_POPULATION = 4
"""A target and three others."""

Evaluate = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Called with problem indexes (A,) int and genes (A, P, D) float64 in 0..1; returns (A, P) values, lower is better."""


@dataclass(frozen=True)
class Evolved:
    """How each of B problems ended.

    Attributes
    ----------
    genes
        (B, D) float64 in 0..1, the best found.
    values
        (B,) float64, their values.
    first
        (B, P) float64, values of the random first population.
    evaluations
        (B,) int, candidates evaluated, the first population included.
    """

    genes: np.ndarray
    values: np.ndarray
    first: np.ndarray
    evaluations: np.ndarray


def minimise(
    evaluate: Evaluate,
    genes: np.ndarray,
    generators: Sequence[np.random.Generator],
    generations: int,
    enough: float,
) -> Evolved:
    """Return the best genes found per problem.

    Parameters
    ----------
    evaluate
        the problems' values; a problem that has stopped is not asked again.
    genes
        (B, P, D) float64 in 0..1, the first populations; P at least ``LEAST_POPULATION``.
    generators
        one per problem (B).
    generations
        after the first population; 0 takes the best of that.
    enough
        a problem stops once its best value is not above this.
    """
    genes = genes.copy()
    population = genes.shape[1]
    active = np.arange(len(generators))
    values = evaluate(active, genes)
    first = values.copy()
    evaluations = np.full(len(generators), population)
    for _ in range(generations):
        active = np.flatnonzero(values.min(axis=1) > enough)
        if active.size == 0:
            break
        trials = np.stack([_trials(genes[index], generators[index]) for index in map(int, active)])
        found = evaluate(active, trials)
        better = found <= values[active]
        genes[active] = np.where(better[:, :, None], trials, genes[active])
        values[active] = np.where(better, found, values[active])
        evaluations[active] += population
    best = values.argmin(axis=1)
    each = np.arange(len(generators))
    return Evolved(genes[each, best], values[each, best], first, evaluations)


def _trials(genes: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return (P, D) trials of one population: mutant of three others, binomial crossover, mirrored back into 0..1."""
    population, dimensions = genes.shape
    each = np.arange(population)
    others = (each[:, None] + np.arange(1, population)) % population
    base, plus, minus = random.permuted(others, axis=1)[:, :3].T
    mutant = genes[base] + DIFFERENTIAL_WEIGHT * (genes[plus] - genes[minus])
    mutant = 1.0 - np.abs(1.0 - np.abs(mutant) % 2.0)
    taken = random.uniform(size=genes.shape) < CROSSOVER
    taken[each, random.integers(dimensions, size=population)] = True
    return np.where(taken, mutant, genes)
