"""How far measured losses lie from a law, and together: deviations of neighbouring points are alike.

A law is wrong in ways that runs share (misfit) and a run is its own self (run); both change smoothly with
ln S1 and with how far the learning rate has fallen. Early in training both are larger, until warm-up is
forgotten, and so they are just after an abrupt change of the rate. What is left is the scatter of single
points. All sizes are standard deviations of ln L.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize

from sweeps.curves.schedule import Curve, Track
from sweeps.laws.base import Array

MISFIT_LENGTH, RUN_LENGTH, FRESH_LENGTH, FALL_LENGTH = 1.0, 0.2, 0.02, 0.2
EARLY_LENGTH, EARLY_POWER, EARLY_SHARED = 1.0, 2.0, 0.5
FRESH_SHARE = 0.04
WIDEST = 4.0
SPREAD = 1.0
SCATTER, LEAST_SCATTER = 4e-4, 1e-5


@dataclass(frozen=True)
class Noise:
    """Sizes of the deviations; the defaults are the least that is assumed.

    A law with eight parameters follows three curves more closely than it predicts others, so what is seen
    where it was fitted says no more than how large a misfit is at least. The published laws miss curves
    under other schedules by 0.11 to 0.17 % on average (Luo et al. 2025, table 2).

    Args:
        misfit: of all runs alike.
        run: of one run.
        early: of a run when its warm-up is over; falls with the square of S1.
        fresh: of all runs alike, where the rate has just fallen from its peak to 0.
        scatter: factor on every point's own scatter.
    """

    misfit: float = 0.002
    run: float = 0.001
    early: float = 0.006
    fresh: float = 0.02
    scatter: float = 1.0

    def logs(self) -> Array:
        return np.log([getattr(self, field.name) for field in fields(self)])


@dataclass(frozen=True)
class Where:
    """Where points lie, as far as their deviations go; every field is (n,).

    Args:
        log_total: ln S1.
        fall: how far the learning rate is below its peak, 0 to 1.
        early: share of the early deviations that is left, 0 to 1.
        fresh: changes of the rate over its peak, each less the longer ago it is (in 4 % of the steps).
        run: number of the run.
    """

    log_total: Array
    fall: Array
    early: Array
    fresh: Array
    run: Array


def freshness(at: Track) -> Array:
    """Changes of the learning rate over its peak, each less the longer ago it is; (n,)."""
    inside = np.arange(len(at.drop)) < at.count[:, None]
    age = np.maximum(at.steps[:, None] - at.at, 0.0) / (FRESH_SHARE * (at.steps[:, None] + 1.0))
    return np.asarray(np.where(inside, np.abs(at.drop) * np.exp(-age), 0.0).sum(axis=1) / at.peak)


def where(tracks: Sequence[Track], runs: Sequence[int]) -> Where:
    """Of the points of several tracks, one after the other."""
    early = [np.minimum(1.0, at.settled / at.total) ** EARLY_POWER for at in tracks]
    return Where(
        np.log(np.concatenate([at.total for at in tracks])),
        np.concatenate([1.0 - at.rate / at.peak for at in tracks]),
        np.concatenate(early),
        np.concatenate([freshness(at) for at in tracks]),
        np.concatenate([np.full(len(at.total), float(run)) for at, run in zip(tracks, runs, strict=True)]),
    )


def shapes(a: Where, b: Where) -> Array:
    """Covariances of unit size between n and m points, of misfit, run, early and fresh, (4, n, m)."""
    along = np.abs(a.log_total[:, None] - b.log_total)
    across = (a.fall[:, None] - b.fall) / FALL_LENGTH
    same = a.run[:, None] == b.run
    far = np.sqrt(3.0) * np.hypot(along / MISFIT_LENGTH, across)
    return np.stack(
        [
            (1.0 + far) * np.exp(-far),
            np.where(same, np.exp(-np.hypot(along / RUN_LENGTH, across)), 0.0),
            a.early[:, None] * b.early * np.exp(-along / EARLY_LENGTH) * np.where(same, 1.0, EARLY_SHARED),
            a.fresh[:, None] * b.fresh * np.exp(-along / FRESH_LENGTH),
        ]
    )


def covariance(noise: Noise, shape: Array) -> Array:
    """Of the deviations without the scatter of single points, (n, m)."""
    sizes = np.array([noise.misfit, noise.run, noise.early, noise.fresh])
    return np.asarray(np.tensordot(sizes**2, shape, axes=1))


def scatter(curve: Curve) -> float:
    """Standard deviation of single points about their neighbours, in ln L, from third differences: a cubic
    in between leaves none. The default where there are fewer than 8 points."""
    if len(curve.loss) < 8:
        return SCATTER
    third = np.diff(np.log(curve.loss), 3) / np.sqrt(20.0)
    return max(float(1.4826 * np.median(np.abs(third))), LEAST_SCATTER)


def estimate(residual: Array, gradient: Array, prior_sd: Array, shape: Array, points: Array) -> Noise:
    """Most likely sizes, the law's parameters integrated out where they are near a minimum.

    Args:
        residual: ln L measured less the law at the mean of its prior, linearised at the minimum (n,).
        gradient: of the law's ln L there, (n, p).
        prior_sd: of the law's parameters, (p,).
        shape: between the points, (4, n, n).
        points: scatter of every point, (n,).
    """
    loose = gradient * prior_sd
    of_law = loose @ loose.T
    parts = np.concatenate([shape, np.diag(points**2)[None]])
    start = Noise().logs()

    def objective(theta: Array) -> tuple[float, Array]:
        size = np.exp(2.0 * theta)
        try:
            factor = cho_factor(np.tensordot(size, parts, axes=1) + of_law, lower=True, check_finite=False)
        except LinAlgError:
            return 1e12, np.zeros_like(theta)
        inverse = cho_solve(factor, np.eye(len(residual)), check_finite=False)
        scaled = inverse @ residual
        offset = (theta - start) / SPREAD
        value = 0.5 * residual @ scaled + np.log(np.diag(factor[0])).sum() + 0.5 * offset @ offset
        pull = np.einsum("kij,ij->k", parts, inverse - np.outer(scaled, scaled))
        return float(value), size * pull + offset / SPREAD

    bounds = [(v, v + WIDEST) for v in start[:-1]] + [(start[-1] - WIDEST, start[-1] + WIDEST)]
    found = minimize(objective, start, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": 30})
    return Noise(*(float(v) for v in np.exp(found.x)))
