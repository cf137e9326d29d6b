"""Refits to runs drawn again with replacement: many at once, each to its own minimum.

Refits differ from the fit only in the weights of the runs, so that each starts at its mode. A Huber loss
with a small ``delta`` is linear in most residuals: reweighted steps creep, and the curvature of the law
matters as much as its slopes. Steps are therefore Newton's, with the law's second derivatives taken once,
at the mode: that changes the steps, not the minimum.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeps.laws.base import Array, Columns, Evaluate
from sweeps.robust import Huber, Robust
from sweeps.solve import Data, Prior

BLOCK, ROWS = 64, 64_000  # refits side by side and their rows: gradients stay in the processor's cache
STEP = 1e-4  # of the differences that give second derivatives
ITERATIONS, TOLERANCE = 60, 1e-10  # relative drop of the objective below which a step is negligible
DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-12, 1e12
SMALL_DAMPING = 1.0  # above it a small drop may be due to a short step
LONGEST = 2.0  # step of a coordinate


def bootstrap(
    evaluate: Evaluate,
    theta: Array,
    data: Data,
    prior: Prior,
    rng: np.random.Generator,
    repeats: int,
    groups: ArrayLike | None = None,
) -> Array:
    """Parameters fitted to runs drawn with replacement (Efron 1979).

    Args:
        evaluate: ln L and its gradient.
        theta: (p,), the fit to all runs.
        data: what was fitted; ``y``, ``scale`` and ``weight`` are (n,).
        prior: (p,).
        repeats: refits.
        groups: (n,) labels of runs that are drawn together, such as the points of a curve (block bootstrap;
            Kunsch 1989); None where every run stands alone.

    Returns:
        (repeats, p).

    Raises:
        ValueError: there are not as many labels as runs.
    """
    return refit(evaluate, theta, data, prior, draw(len(data.y), rng, repeats, groups))


def draw(n: int, rng: np.random.Generator, repeats: int, groups: ArrayLike | None = None) -> Array:
    """How often each run is drawn, (repeats, n); runs of a group equally often.

    Args:
        n: runs.
        groups: (n,) labels, or None.

    Raises:
        ValueError: there are not as many labels as runs.
    """
    if groups is None:
        return rng.multinomial(n, np.full(n, 1.0 / n), size=repeats).astype(float)
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups has the shape {labels.shape}; give one label for each of {n} runs")
    names, member = np.unique(labels, return_inverse=True)
    count = len(names)
    return rng.multinomial(count, np.full(count, 1.0 / count), size=repeats)[:, member].astype(float)


def refit(evaluate: Evaluate, theta: Array, data: Data, prior: Prior, weight: Array) -> Array:
    """The minimum near theta for many weightings of the runs.

    Args:
        theta: (p,), where every refit starts.
        prior: its mean is (p,), or (b, p) where refits differ in it.
        weight: (b, n), times ``data.weight``.

    Returns:
        (b, p).
    """
    bend = _second(evaluate, theta, data.x)
    block = max(1, min(BLOCK, ROWS // len(data.y)))
    means = np.broadcast_to(prior.mean, (len(weight), len(theta)))
    blocks = []
    for i in range(0, len(weight), block):
        some = replace(data, weight=data.weight * weight[i : i + block])
        own = replace(prior, mean=means[i : i + block])
        blocks.append(_newton(evaluate, theta, some, own, bend))
    return np.concatenate(blocks) if blocks else np.empty((0, len(theta)))


def _second(evaluate: Evaluate, theta: Array, x: Columns) -> Array:
    """Second derivatives of ln L at theta by central differences of its gradient, (n, q, q); ln L is linear
    in the parameters after the first q."""
    parts, q = [], 0
    for i, shift in enumerate(STEP * np.eye(len(theta)), start=1):
        above, below = evaluate(np.stack([theta + shift, theta - shift]), x)[1]
        part = (above - below) / (2.0 * STEP)
        q = i if part.any() else q
        parts.append(part if part.any() else np.broadcast_to(0.0, part.shape))
    found = np.stack(parts[:q], axis=-1)[:, :q] if q else np.zeros((len(part), 0, 0))
    return np.asarray(0.5 * (found + np.swapaxes(found, -1, -2)))


def _newton(evaluate: Evaluate, start: Array, data: Data, prior: Prior, bend: Array) -> Array:
    """Damped Newton steps on a block of refits; those that are done leave it.

    Args:
        start: (p,).
        data: ``weight`` is (b, n).
        prior: its mean is (b, p).
        bend: (n, q, q), q at most p.
    """
    q, curved = bend.shape[-1], bend.reshape(len(bend), -1)
    found = np.tile(start, (len(data.weight), 1))
    at: NDArray[np.intp] = np.arange(len(found))  # refits that go on
    theta, weight, damping = found, data.weight, np.full(len(found), DAMPING)
    value, residual, slopes = _state(evaluate, theta, data, weight, prior)
    for _ in range(ITERATIONS):
        pull = weight * data.loss.pull(residual)
        slope = np.matmul(pull[:, None, :], slopes)[:, 0] + prior.precision * (theta - prior.mean)
        stiff = weight * _stiffness(data.loss, residual)
        hessian = np.matmul(np.swapaxes(slopes * stiff[..., None], 1, 2), slopes)
        hessian += np.diag(prior.precision)
        hessian[:, :q, :q] += ((pull / data.scale) @ curved).reshape(-1, q, q)
        move = _step(hessian, slope, damping)
        trial = theta + np.clip(move, -LONGEST, LONGEST)
        with np.errstate(all="ignore"):  # a step too far may overflow; it is not taken
            trial_value, trial_residual, trial_slopes = _state(evaluate, trial, data, weight, prior)
        better = trial_value <= value
        drop = np.where(better, value - trial_value, 0.0)
        theta = np.where(better[:, None], trial, theta)
        value = np.where(better, trial_value, value)
        residual = np.where(better[:, None], trial_residual, residual)
        slopes = np.where(better[:, None, None], trial_slopes, slopes)
        done = better & (drop <= TOLERANCE * np.abs(value)) & (damping < SMALL_DAMPING)
        damping = np.clip(np.where(better, damping / 8.0, damping * 8.0), LEAST_DAMPING, MOST_DAMPING)
        found[at] = theta
        going = ~done & (damping < MOST_DAMPING)
        if not going.any():
            break
        if not going.all():
            at, theta, weight, value = at[going], theta[going], weight[going], value[going]
            prior = replace(prior, mean=prior.mean[going])
            damping, residual, slopes = damping[going], residual[going], slopes[going]
    return found


def _state(
    evaluate: Evaluate, theta: Array, data: Data, weight: Array, prior: Prior
) -> tuple[Array, Array, Array]:
    """Objective (b,), residuals (b, n) and gradients of ln L (b, n, p), in units of the scale."""
    value, gradient = evaluate(theta, data.x)
    residual = (value - data.y) / data.scale
    penalty = 0.5 * np.sum(prior.precision * (theta - prior.mean) ** 2, axis=-1)
    objective = np.sum(weight * data.loss.cost(residual), axis=-1) + penalty
    return objective, residual, gradient / data.scale[:, None]


def _stiffness(loss: Robust, residual: Array) -> Array:
    """Second derivative of the loss; where it is not convex, the weight of reweighted least squares."""
    if isinstance(loss, Huber):
        return (np.abs(residual) < loss.delta).astype(float)
    return loss.trust(residual)


def _step(hessian: Array, slope: Array, damping: Array) -> Array:
    """Newton's step with eigenvalues of the scaled Hessian turned positive, (b, p)."""
    size = np.sqrt(np.maximum(np.abs(np.einsum("bii->bi", hessian)), 1e-300))
    values, vectors = np.linalg.eigh(hessian / (size[:, :, None] * size[:, None, :]))
    along = np.einsum("bij,bi->bj", vectors, slope / size)
    along /= np.abs(values) + damping[:, None]
    return np.asarray(-np.einsum("bij,bj->bi", vectors, along) / size)
