"""Power law in compute with an irreducible loss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sweeps.laws.base import FLOOR, LEVEL, Array, Columns, Law, exponent, solve_positive

GRID = np.geomspace(0.02, 1.0, 24)


def _evaluate(theta: Array, x: Columns) -> tuple[Array, Array]:
    floor, level, log_gamma = (theta[..., i, None] for i in range(3))
    gamma = np.exp(log_gamma)
    term = level - gamma * x["flops"]
    log_loss = np.logaddexp(floor, term)
    share = np.exp(term - log_loss)
    gradient = np.stack([1.0 - share, share, -gamma * x["flops"] * share], axis=-1)
    return log_loss, gradient


def _start(x: Columns, loss: Array, weight: Array) -> Array:
    relative = np.sqrt(weight / weight.sum()) / loss
    term = np.exp(-GRID[:, None] * x["flops"]) * relative
    basis = np.stack([np.broadcast_to(relative, term.shape), term], axis=1)
    right = basis @ np.sqrt(weight / weight.sum())
    coefficients, error = solve_positive(
        basis @ np.swapaxes(basis, 1, 2), right, np.full(2, 1e-3 * loss.min())
    )
    order = np.argsort(error)[:2]
    return np.column_stack([np.log(coefficients[order]), np.log(GRID[order])])


def _natural(theta: Array, centre: Mapping[str, float]) -> dict[str, Array]:
    gamma, unit = np.exp(theta[..., 2]), centre["loss"]
    return {
        "E": np.exp(theta[..., 0] + unit),
        "A": np.exp(theta[..., 1] + unit + gamma * centre["flops"]),
        "gamma": gamma,
    }


POWER = Law(
    name="power",
    formula="L = E + A C^-gamma",
    source="Henighan et al. 2020, arXiv 2010.14701, equation 1.1 (with x = C)",
    columns=("flops",),
    parameters=(FLOOR, LEVEL, exponent("ln gamma", "compute")),
    evaluate=_evaluate,
    start=_start,
    natural=_natural,
    split=None,
)
