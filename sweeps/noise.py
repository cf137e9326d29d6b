"""How far runs lie from a law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from sweeps.laws.base import Array, Columns

SIGMA, SIGMA_WEIGHT = 0.003, 1.0  # relative noise before any is seen, worth that many runs
LEAST_REPLICATES = 8  # runs from which replicates tell the noise instead
NUS, NORMAL = (3.0, 30.0), 1e6  # tails of the noise that are tried, heavy and next to normal; normal
WALLS, WALL = (0.05, 0.15), 0.1  # tried, and the middle of their prior
MISFITS, MISFIT = (0.0003, 0.001, 0.003, 0.01), 0.002  # by e-fold of compute below the target
SLOPE = 0.2  # standard deviation of the prior of the noise's slope, around none
TAILS = 3.0  # degrees of freedom with which replicates tell the slope, so that one odd run does not
WEIGHT = "weight"  # key among the columns


@dataclass(frozen=True)
class Noise:
    """How far runs lie from the law, relative.

    Independent noise is Student's t of the scale sqrt(s^2 + (wall h)^2) / sqrt(weight) with s = sigma
    (C / C_0)^slope, where C_0 is the centre of the compute and h the height of the bowl at the run: a law is
    only asked to hold near the optimal hyperparameters. The weight of a run is its known precision against
    the others'. The law's own misfit comes on top (see ``sweeps.misfit``).

    Args:
        sigma: of a run at C_0 with the optimal hyperparameters.
        nu: degrees of freedom.
        wall: by height of the bowl.
        misfit: standard deviation by e-fold of compute below the target.
        slope: of ln s by ln C, as replicates tell it.
    """

    sigma: float
    nu: float
    wall: float
    misfit: float
    slope: float = 0.0

    def scale(self, height: Array, x: Columns) -> Array:
        """Scale of ln L for runs at a height of the bowl, (n,)."""
        return scale(height, x, self.sigma, self.wall, self.slope)

    def variance(self, height: Array, x: Columns) -> Array:
        """Variance of ln L as its middle 90 % suggest, (n,)."""
        return np.asarray(self.scale(height, x) ** 2 * (1.0 + 3.0 / self.nu))


def scale(height: Array, x: Columns, sigma: Array | float, wall: Array | float, slope: float) -> Array:
    """Scale of the noise, of the shape of the height (..., n); ``x`` gives compute and weights."""
    own = sigma * np.exp(slope * x["flops"]) if slope else sigma
    return np.asarray(np.hypot(own, wall * height) / np.sqrt(x.get(WEIGHT, 1.0)))


@dataclass(frozen=True)
class Seeds:
    """What is known of sigma before a law is fitted.

    Args:
        deviation: standard deviation of ln L between runs of one configuration, at the centre of the compute.
        worth: so many runs.
        runs: replicates that it rests on; 0 where it is a guess.
        slope: of ln deviation by ln C.
    """

    deviation: float = SIGMA
    worth: float = SIGMA_WEIGHT
    runs: int = 0
    slope: float = 0.0

    def scale(self, nu: Array) -> Array:
        """Middle of sigma's prior, of the shape of ``nu``: the guess, or what replicates say."""
        return np.asarray(self.deviation / np.sqrt(1.0 + 3.0 / nu) if self.runs else np.full_like(nu, SIGMA))


def seeds(x: Columns, y: Array) -> Seeds:
    """Noise between runs that a model cannot tell apart: pooled, worth its degrees of freedom.

    Where there are replicates at several scales they tell how it grows or shrinks with compute. Copies of a
    run, its loss included, count once.

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
    several = count > 1
    square = np.asarray(np.bincount(group, weight * (y - mean[group]) ** 2), dtype=float)
    compute = np.asarray(np.bincount(group, x["flops"][kept]) / count, dtype=float)
    slope = _slope(square[several], np.asarray(count[several] - 1, dtype=float), compute[several])
    pooled = np.sum(square * np.exp(-2.0 * slope * compute)) / degrees
    return Seeds(float(np.sqrt(pooled)), float(degrees), runs, slope)


def _slope(square: Array, degrees: Array, compute: Array) -> float:
    """Slope of ln deviation by ln C, the mode of its posterior.

    Deviations of the replicates of one configuration are taken to be Student's t together, so that a group
    with an odd run tells little.

    Args:
        square: sums of squared deviations of groups, (g,).
        degrees: of freedom of each.
        compute: centred ln C of each.
    """
    if np.ptp(compute) == 0.0 or not square.any():
        return 0.0
    level = 0.5 * np.log(np.sum(square) / np.sum(degrees))

    def minus(at: Array) -> tuple[float, Array]:
        """Minus ln posterior of the level and the slope, and its gradient."""
        variance = np.exp(2.0 * (level + at[0] + at[1] * compute))
        off = square / variance
        value = np.sum(degrees * (at[0] + at[1] * compute) + 0.5 * (degrees + TAILS) * np.log1p(off / TAILS))
        pull = degrees - (degrees + TAILS) * off / (TAILS + off)
        gradient = np.array([pull.sum(), pull @ compute + at[1] / SLOPE**2])
        return float(value + 0.5 * (at[1] / SLOPE) ** 2), gradient

    return float(minimize(minus, np.zeros(2), jac=True, method="BFGS").x[1])
