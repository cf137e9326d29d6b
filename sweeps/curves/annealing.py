"""The annealing law of a loss curve: a power of the summed rate less the area of a momentum of its falls."""

from __future__ import annotations

import itertools

import numpy as np

from sweeps.curves.law import EXPONENT, FADING, FLOOR, LEVEL, Centre, CurveLaw, natural_terms, with_gain
from sweeps.curves.schedule import Track
from sweeps.laws.base import Array, Parameter


def area(memory: float, at: Track) -> tuple[Array, Array]:
    """(1 - lambda) S2 with lambda = exp(-1 / memory): the falls of the rate, each by how far it is felt.

    Tissue et al. 2024, arXiv 2408.11029, equation 1: m_i = lambda m_i-1 + eta_i-1 - eta_i and S2 = sum of m,
    so that a fall at step k adds 1 - lambda^(t - k + 1) of itself by step t.

    Args:
        memory: steps.
        at: n steps.

    Returns:
        (n,), in units of the learning rate, and its slope by ln memory (n,).
    """
    inside = np.arange(len(at.drop)) < at.count[:, None]
    age = np.maximum(at.steps[:, None] - at.at + 1.0, 0.0) / memory
    left = np.where(inside, at.drop * np.exp(-age), 0.0)
    return np.where(inside, at.drop, 0.0).sum(axis=1) - left.sum(axis=1), -(left * age).sum(axis=1)


def _relax(theta: Array, at: Track, peak: float) -> tuple[Array, Array]:
    value, slope = area(float(np.exp(theta[0])), at)
    return value / peak, slope[:, None] / peak


def _natural(theta: Array, centre: Centre) -> dict[str, float]:
    found, decay = natural_terms(theta, centre), float(np.exp(-np.exp(-theta[5])))
    return {"L0": found["L0"], "A": found["A"], "alpha": found["alpha"]} | {
        "C": found["gain"] * (1.0 - decay),
        "lambda": decay,
        "kappa": found["kappa"],
    }


def published_loss(constants: tuple[float, ...], decay: float, at: Track) -> Array:
    """The law as published.

    Args:
        constants: (L0, A, alpha, C).
        decay: lambda.
        at: ``track(..., warm=False)`` of n steps.

    Returns:
        Loss (n,).
    """
    floor, level, alpha, gain = constants
    felt = area(-1.0 / np.log(decay), at)[0]
    return np.asarray(floor + level * at.total**-alpha - gain * felt / (1.0 - decay))


GRID = [
    (np.log(alpha), 0.1, np.log(memory))
    for alpha, memory in itertools.product((0.2, 0.35, 0.5, 0.7), (100.0, 300.0, 1000.0))
]

ANNEALING = CurveLaw(
    name="annealing",
    formula="L = L0 + A S1^-alpha - C S1^-kappa S2, S2 = sum of m, m_i = lambda m_i-1 + eta_i-1 - eta_i",
    source="Tissue et al. 2024, arXiv 2408.11029, equation 1, which has kappa = 0 and fixes lambda",
    parameters=(
        FLOOR,
        LEVEL,
        Parameter("ln C", "the gain from a full decay of the learning rate", float(np.log(0.035)), 0.7),
        EXPONENT,
        FADING,
        Parameter("ln memory", "how many steps a decay takes to be felt", float(np.log(300.0)), 1.0),
    ),
    linear=3,
    evaluate=with_gain(_relax),
    grid=np.array(GRID),
    natural=_natural,
)
