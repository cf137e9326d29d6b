"""How far runs lie from a law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sweeps.laws.base import Array, Columns

SIGMA, SIGMA_WEIGHT = 0.003, 1.0  # relative noise before any is seen, worth that many runs
LEAST_REPLICATES = 8  # runs from which replicates tell the noise instead
NUS, NORMAL = (3.0, 30.0), 1e6  # tails of the noise that are tried, heavy and next to normal; normal
WALLS, WALL = (0.05, 0.15), 0.1  # tried, and the middle of their prior
MISFITS, MISFIT = (0.0003, 0.001, 0.003, 0.01), 0.002  # by e-fold of compute below the target
WEIGHT = "weight"  # key among the columns


@dataclass(frozen=True)
class Noise:
    """How far runs lie from the law, relative.

    Independent noise is Student's t of the scale sqrt(sigma^2 + (wall h)^2) / sqrt(weight), with h the height
    of the bowl at the run: a law is only asked to hold near the optimal hyperparameters. The weight of a run
    is its known precision against the others'. The law's own misfit comes on top (see ``sweeps.misfit``).

    Args:
        sigma: of a run with the optimal hyperparameters.
        nu: degrees of freedom.
        wall: by height of the bowl.
        misfit: standard deviation by e-fold of compute below the target.
    """

    sigma: float
    nu: float
    wall: float
    misfit: float

    def scale(self, height: Array, weight: Array | float = 1.0) -> Array:
        """Scale of ln L for runs at a height of the bowl, (n,)."""
        return np.asarray(np.hypot(self.sigma, self.wall * height) / np.sqrt(weight))

    def variance(self, height: Array, weight: Array | float = 1.0) -> Array:
        """Variance of ln L as its middle 90 % suggest, (n,)."""
        return np.asarray(self.scale(height, weight) ** 2 * (1.0 + 3.0 / self.nu))


@dataclass(frozen=True)
class Seeds:
    """What is known of sigma before a law is fitted.

    Args:
        deviation: standard deviation of ln L between runs of one configuration.
        worth: so many runs.
        runs: replicates that it rests on; 0 where it is a guess.
    """

    deviation: float = SIGMA
    worth: float = SIGMA_WEIGHT
    runs: int = 0

    def scale(self, nu: Array) -> Array:
        """Middle of sigma's prior, of the shape of ``nu``: the guess, or what replicates say."""
        return np.asarray(self.deviation / np.sqrt(1.0 + 3.0 / nu) if self.runs else np.full_like(nu, SIGMA))


def seeds(x: Columns, y: Array) -> Seeds:
    """Noise between runs that a model cannot tell apart: pooled, worth its degrees of freedom.

    Copies of a run, its loss included, count once.

    Args:
        x: columns of a frame.
        y: ln L, (n,).
    """
    places = [column for name, column in x.items() if column.ndim == 1 and name != WEIGHT]
    place = np.zeros(len(y))
    for i, column in enumerate(places):  # a number for each configuration; far quicker than unique rows
        place += np.sqrt(i + 2.7) * column
    group = np.unique(place, return_inverse=True)[1]
    order = np.lexsort((y, group))
    new = np.append(True, (np.diff(group[order]) > 0) | (np.diff(y[order]) > 0.0))
    kept = order[new]
    group, y, weight = group[kept], y[kept], x.get(WEIGHT, np.ones(len(y)))[kept]
    count = np.bincount(group)
    shared = count[group] > 1
    runs, degrees = int(shared.sum()), int(np.sum(np.maximum(count - 1, 0)))
    if runs < LEAST_REPLICATES:
        return Seeds()
    mean = np.bincount(group, weight * y) / np.bincount(group, weight)
    square = float(np.sum(weight * (y - mean[group]) ** 2))
    return Seeds(float(np.sqrt(square / degrees)), float(degrees), runs)
