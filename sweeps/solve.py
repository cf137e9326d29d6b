"""Robust nonlinear least squares with a normal prior, for one data set or many at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sweeps.laws.base import Array, Columns, Evaluate
from sweeps.robust import Robust

NEGLIGIBLE = 1e-8  # drop of an objective, relative, below which a step made no difference


@dataclass(frozen=True)
class Prior:
    """Independent normal prior; ``precision`` 0 is flat.

    Args:
        mean, precision: (p,), or (b, p) for b data sets.
    """

    mean: Array
    precision: Array


@dataclass(frozen=True)
class Data:
    """What is fitted.

    Args:
        x: columns, each (n,).
        y: ln L, (n,) or (b, n).
        scale: of an observation's noise, (n,) or (b, n).
        weight: of an observation, (n,) or (b, n).
        loss: of a residual over its scale.
    """

    x: Columns
    y: Array
    scale: Array
    weight: Array
    loss: Robust


@dataclass(frozen=True)
class Solution:
    """A minimum.

    Args:
        theta: (p,).
        objective: sum of weighted losses plus half the squared prior distance.
        information: (p, p) Gauss-Newton Hessian, prior included.
        converged: whether the last step was negligible.
        iterations: taken.
    """

    theta: Array
    objective: float
    information: Array
    converged: bool
    iterations: int


def scaled(data: Data, value: Array, gradient: Array) -> tuple[Array, Array]:
    """Residuals of ln L (..., n) and its gradient (..., n, p), in units of the scale."""
    return (value - data.y) / data.scale, gradient / data.scale[..., None]


def objective(value: Array, theta: Array, data: Data, prior: Prior) -> Array:
    """Sum of weighted losses and half the squared prior distance, (...).

    Args:
        value: ln L at theta, (..., n).
    """
    residual = (value - data.y) / data.scale
    loss = np.sum(data.weight * data.loss.cost(residual), axis=-1)
    return np.asarray(loss + 0.5 * np.sum(prior.precision * (theta - prior.mean) ** 2, axis=-1))


def _objective(evaluate: Evaluate, theta: Array, data: Data, prior: Prior) -> tuple[Array, Array, Array]:
    """Objective (...), scaled residuals (..., n) and scaled gradient of ln L (..., n, p)."""
    residual, gradient = scaled(data, *evaluate(theta, data.x))
    loss = np.sum(data.weight * data.loss.cost(residual), axis=-1)
    penalty = 0.5 * np.sum(prior.precision * (theta - prior.mean) ** 2, axis=-1)
    return loss + penalty, residual, gradient


def _slope(theta: Array, residual: Array, gradient: Array, data: Data, prior: Prior) -> Array:
    """Gradient of the objective, (..., p)."""
    pull = data.weight * data.loss.pull(residual)
    data_part = np.matmul(pull[..., None, :], gradient)[..., 0, :]
    return np.asarray(data_part + prior.precision * (theta - prior.mean))


def _gauss_newton(residual: Array, gradient: Array, data: Data, prior: Prior) -> Array:
    """Hessian with reweighted residuals (iteratively reweighted least squares), (..., p, p)."""
    weighted = gradient * (data.weight * data.loss.trust(residual))[..., None]
    hessian = np.matmul(np.swapaxes(weighted, -1, -2), gradient)
    at = np.arange(hessian.shape[-1])
    hessian[..., at, at] += prior.precision
    return np.asarray(hessian)


def _newton(evaluate: Evaluate, theta: Array, data: Data, prior: Prior) -> Array:
    """Hessian by central differences of the analytic gradient, all directions in one call; (p, p)."""
    step = 1e-5
    shifts = step * np.eye(len(theta))
    points = np.concatenate([theta + shifts, theta - shifts])
    _, residual, gradient = _objective(evaluate, points, data, prior)
    slopes = _slope(points, residual, gradient, data, prior)
    hessian = (slopes[: len(theta)] - slopes[len(theta) :]) / (2 * step)
    return np.asarray((hessian + hessian.T) / 2)


def minimise(
    evaluate: Evaluate,
    start: Array,
    data: Data,
    prior: Prior,
    *,
    second_order: bool = False,
    iterations: int = 60,
    tolerance: float = 1e-9,
) -> Solution:
    """Levenberg-Marquardt from one start.

    Reweighted Gauss-Newton steps come first. With ``second_order`` the true Hessian takes over, which
    is what a Huber loss needs whose residuals mostly lie in its linear part.

    Args:
        evaluate: ln L and its gradient.
        start: (p,).
        tolerance: relative drop of the objective below which a step is negligible.
    """
    theta = start
    objective, residual, gradient = _objective(evaluate, theta, data, prior)
    damping, converged, newton, done = 1e-3, False, False, 0
    while done < iterations:
        done += 1
        if newton:
            hessian = _newton(evaluate, theta, data, prior)
        else:
            hessian = _gauss_newton(residual, gradient, data, prior)
        slope = _slope(theta, residual, gradient, data, prior)
        diagonal = np.maximum(np.abs(np.diag(hessian)), 1e-12)
        accepted = False
        for _ in range(12):
            move = -np.linalg.solve(hessian + np.diag(damping * diagonal), slope)
            if slope @ move < 0:
                trial = theta + np.clip(move, -2.0, 2.0)
                with np.errstate(all="ignore"):  # a step too far may overflow; it is not taken
                    value, next_residual, next_gradient = _objective(evaluate, trial, data, prior)
                if value <= objective:
                    accepted = True
                    break
            damping *= 6.0
        drop = float(objective - value) if accepted else 0.0
        if accepted:
            theta, objective, residual, gradient = trial, value, next_residual, next_gradient
            damping = max(damping / 6.0, 1e-12)
        negligible = drop <= tolerance * abs(float(objective))
        if second_order and not newton and (drop <= 1e-2 * abs(float(objective))):
            newton, damping = True, 1e-3
        elif negligible:
            converged = True
            break
    information = _gauss_newton(residual, gradient, data, prior)
    return Solution(theta, float(objective), information, converged, done)


def minimise_many(
    evaluate: Evaluate,
    start: Array,
    data: Data,
    prior: Prior,
    *,
    iterations: int = 8,
) -> tuple[Array, Array]:
    """Damped Gauss-Newton on many data sets at once; a step that does not help is not taken.

    Args:
        start: (b, p).
        data: ``y``, ``scale`` and ``weight`` are (n,) or (b, n).
        prior: (p,) or (b, p).

    Returns:
        theta (b, p) and its objective (b,).
    """
    theta = start.copy()
    objective, residual, gradient = _objective(evaluate, theta, data, prior)
    damping = np.full(len(theta), 1e-3)
    p = theta.shape[1]
    for _ in range(iterations):
        hessian = _gauss_newton(residual, gradient, data, prior)
        slope = _slope(theta, residual, gradient, data, prior)
        diagonal = np.maximum(np.abs(np.einsum("bii->bi", hessian)), 1e-12)
        damped = hessian + (damping[:, None] * diagonal)[:, :, None] * np.eye(p)
        move = -np.linalg.solve(damped, slope[..., None])[..., 0]
        trial = theta + np.clip(move, -2.0, 2.0)
        with np.errstate(all="ignore"):  # a step too far may overflow; it is not taken
            value, next_residual, next_gradient = _objective(evaluate, trial, data, prior)
        better = value <= objective
        settled = better & (objective - value <= NEGLIGIBLE * np.maximum(np.abs(objective), 1.0))
        theta = np.where(better[:, None], trial, theta)
        objective = np.where(better, value, objective)
        residual = np.where(better[:, None], next_residual, residual)
        gradient = np.where(better[:, None, None], next_gradient, gradient)
        damping = np.where(better, damping / 6.0, damping * 10.0)
        if settled.all():
            break
    return theta, objective
