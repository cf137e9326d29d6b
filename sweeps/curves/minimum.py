"""Robust least squares for correlated residuals with a normal prior: reweighted steps, then Newton's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sweeps.laws.base import Array

Residuals = Callable[[Array], tuple[Array, Array]]

DELTA = 2.5
LONGEST_STEP = 2.0
SHIFT = 1e-5


@dataclass(frozen=True)
class Minimum:
    """Where the objective is lowest, from one start.

    Args:
        theta: (p,).
        objective: sum of Huber losses plus half the squared distance to the prior.
        trust: weight of every residual in (0, 1], (n,).
        information: Gauss-Newton Hessian, prior included, (p, p).
        converged: whether the last step was negligible.
    """

    theta: Array
    objective: float
    trust: Array
    information: Array
    converged: bool


@dataclass(frozen=True)
class _Point:
    objective: float
    slope: Array
    hessian: Array
    trust: Array


def _at(residuals: Residuals, theta: Array, mean: Array, precision: Array) -> _Point:
    rest, gradient = residuals(theta)
    size = np.abs(rest)
    capped = np.minimum(size, DELTA)
    offset = theta - mean
    trust = np.minimum(1.0, DELTA / np.maximum(size, 1e-300))
    return _Point(
        float(np.sum(capped * (size - 0.5 * capped)) + 0.5 * np.sum(precision * offset**2)),
        gradient.T @ (trust * rest) + precision * offset,
        gradient.T @ (trust[:, None] * gradient) + np.diag(precision),
        trust,
    )


def _curvature(residuals: Residuals, theta: Array, mean: Array, precision: Array) -> Array:
    """Hessian by central differences of the slope, (p, p)."""
    shifts = SHIFT * np.eye(len(theta))
    up, down = (
        np.array([_at(residuals, theta + sign * shift, mean, precision).slope for shift in shifts])
        for sign in (1.0, -1.0)
    )
    hessian = (up - down) / (2 * SHIFT)
    return np.asarray((hessian + hessian.T) / 2)


def minimise(
    residuals: Residuals,
    start: Array,
    mean: Array,
    precision: Array,
    *,
    polish: bool = False,
    iterations: int = 60,
    tolerance: float = 1e-9,
) -> Minimum:
    """Levenberg-Marquardt on whitened residuals with a Huber loss that turns linear at 2.5.

    Args:
        residuals: theta -> whitened residuals (n,) and their gradient (n, p).
        start: (p,).
        mean, precision: of the prior, (p,).
        polish: take Newton's steps.
        tolerance: relative drop of the objective below which a step is negligible.
    """
    theta, damping, converged = start, 1e-3, False
    here = _at(residuals, theta, mean, precision)
    for _ in range(iterations):
        hessian = _curvature(residuals, theta, mean, precision) if polish else here.hessian
        diagonal = np.diag(np.maximum(np.abs(np.diag(hessian)), 1e-12))
        before = here
        for _ in range(12):
            move = -np.linalg.solve(hessian + damping * diagonal, here.slope)
            if here.slope @ move < 0:
                trial = theta + np.clip(move, -LONGEST_STEP, LONGEST_STEP)
                there = _at(residuals, trial, mean, precision)
                if there.objective <= here.objective:
                    theta, here, damping = trial, there, max(damping / 6.0, 1e-12)
                    break
            damping *= 6.0
        if before.objective - here.objective <= tolerance * abs(before.objective):
            converged = True
            break
    return Minimum(theta, here.objective, here.trust, here.hessian, converged)
