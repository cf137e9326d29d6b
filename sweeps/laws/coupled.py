"""The coupled law of parameters and tokens; with the outer exponent fixed at 1 it is the additive law."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sweeps.laws.base import FLOOR, LEVEL, Array, Columns, Law, Parameter, exponent, solve_positive

GRID = np.geomspace(0.06, 1.0, 12)
OUTER = Parameter("ln k", "the coupling of parameters and tokens", float(np.log(0.6)), 0.5)
SHARE = Parameter("w", "the balance of parameters and tokens", 0.0, 1.5)


def inner(theta: Array, x: Columns) -> tuple[Array, Array]:
    """ln of (w N^-alpha + (1-w) D^-beta) in centred columns, and its gradient in (w, ln alpha, ln beta).

    Args:
        theta: (..., 3) logit of w, ln alpha, ln beta.
        x: centred ``params`` and ``tokens``, each (n,).

    Returns:
        (..., n) and (..., n, 3).
    """
    balance = theta[..., 0, None]
    alpha, beta = np.exp(theta[..., 1, None]), np.exp(theta[..., 2, None])
    of_params = -np.logaddexp(0.0, -balance) - alpha * x["params"]
    of_tokens = -np.logaddexp(0.0, balance) - beta * x["tokens"]
    value = np.logaddexp(of_params, of_tokens)
    share = np.exp(of_params - value)
    weight = 1.0 / (1.0 + np.exp(-balance))
    gradient = np.stack(
        [share - weight, -share * alpha * x["params"], -(1.0 - share) * beta * x["tokens"]], axis=-1
    )
    return value, gradient


def inner_value(theta: Array, x: Columns) -> Array:
    """``inner`` without its gradient."""
    balance = theta[..., 0, None]
    alpha, beta = np.exp(theta[..., 1, None]), np.exp(theta[..., 2, None])
    of_params = -np.logaddexp(0.0, -balance) - alpha * x["params"]
    of_tokens = -np.logaddexp(0.0, balance) - beta * x["tokens"]
    return np.logaddexp(of_params, of_tokens)


def _value(theta: Array, x: Columns) -> Array:
    outer = np.exp(theta[..., 5, None])
    return np.logaddexp(theta[..., 0, None], theta[..., 1, None] + outer * inner_value(theta[..., 2:5], x))


def _evaluate(theta: Array, x: Columns) -> tuple[Array, Array]:
    floor, level = theta[..., 0, None], theta[..., 1, None]
    k = np.exp(theta[..., 5, None])
    value, gradient = inner(theta[..., 2:5], x)
    term = level + k * value
    log_loss = np.logaddexp(floor, term)
    share = np.exp(term - log_loss)
    outer = (share * k)[..., None] * gradient
    parts = [1.0 - share, share, outer[..., 0], outer[..., 1], outer[..., 2], share * k * value]
    return log_loss, np.stack(parts, axis=-1)


def additive_start(x: Columns, loss: Array, weight: Array, keep: int = 2) -> Array:
    """Starts of the additive law by variable projection (Golub and Pereyra 1973): for each pair of
    exponents on a 12 x 12 grid the loss is linear in E, A and B.

    Returns:
        (keep, 5): floor, level, balance, ln alpha, ln beta, best first.
    """
    relative = np.sqrt(weight / weight.sum()) / loss
    ones = np.ones((1, len(loss))) * relative
    of_params = np.exp(-GRID[:, None] * x["params"]) * relative
    of_tokens = np.exp(-GRID[:, None] * x["tokens"]) * relative
    cells = len(GRID)
    a, b = (index.ravel() for index in np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij"))
    # The basis of a cell is (1, N^-alpha, D^-beta): all products are among 1 + 12 + 12 rows.
    rows = np.concatenate([ones, of_params, of_tokens])
    products, right = rows @ rows.T, rows @ np.sqrt(weight / weight.sum())
    columns = np.stack([np.zeros_like(a), 1 + a, 1 + cells + b], axis=1)
    gram = products[columns[:, :, None], columns[:, None, :]]
    coefficients, error = solve_positive(gram, right[columns], np.full(3, 1e-3 * loss.min()))
    best = np.argsort(error)[:keep]
    e, level_a, level_b = np.log(coefficients[best]).T
    exponents = np.log(GRID)
    return np.column_stack(
        [e, np.logaddexp(level_a, level_b), level_a - level_b, exponents[a[best]], exponents[b[best]]]
    )


def _start(x: Columns, loss: Array, weight: Array) -> Array:
    floor, level, balance, alpha, beta = additive_start(x, loss, weight, keep=1)[0]
    starts = []
    for k in (0.4, 0.7, 1.0):
        lower = floor + np.log(1.0 - 0.5 * (1.0 - k))
        raised = np.log(max(np.exp(level) + np.exp(floor) - np.exp(lower), 1e-3 * float(np.exp(level))))
        starts.append([lower, raised, balance, alpha - np.log(k), beta - np.log(k), np.log(k)])
    return np.array(starts)


def natural_inner(theta: Array, centre: Mapping[str, float], outer: Array) -> dict[str, Array]:
    """A, B, alpha, beta of (A N^-alpha + B D^-beta)^k, and E."""
    alpha, beta = np.exp(theta[..., 3]), np.exp(theta[..., 4])
    level = (theta[..., 1] + centre["loss"]) / outer
    return {
        "E": np.exp(theta[..., 0] + centre["loss"]),
        "A": np.exp(level - np.logaddexp(0.0, -theta[..., 2]) + alpha * centre["params"]),
        "B": np.exp(level - np.logaddexp(0.0, theta[..., 2]) + beta * centre["tokens"]),
        "alpha": alpha,
        "beta": beta,
    }


def internal_inner(constants: Mapping[str, float], centre: Mapping[str, float], outer: float) -> Array:
    """The inverse of ``natural_inner``: floor, level, balance, ln alpha, ln beta."""
    a, b = (
        np.log(constants[level]) - constants[power] * centre[column]
        for level, power, column in (("A", "alpha", "params"), ("B", "beta", "tokens"))
    )
    level = outer * np.logaddexp(a, b) - centre["loss"]
    floor = np.log(constants["E"]) - centre["loss"]
    return np.array([floor, level, a - b, np.log(constants["alpha"]), np.log(constants["beta"])])


def _internal(constants: Mapping[str, float], centre: Mapping[str, float]) -> Array:
    return np.append(internal_inner(constants, centre, constants["k"]), np.log(constants["k"]))


def _natural(theta: Array, centre: Mapping[str, float]) -> dict[str, Array]:
    k = np.exp(theta[..., 5])
    return natural_inner(theta, centre, k) | {"k": k}


def split(theta: Array, centre: Mapping[str, float], log_product: Array) -> Array:
    """ln N* at a given ln(N D): alpha A N^-alpha = beta B D^-beta.

    Hoffmann et al. 2022, arXiv 2203.15556, equation 4; the outer exponent cancels.
    """
    c = natural_inner(theta, centre, np.ones_like(theta[..., 0]))
    total = c["alpha"] + c["beta"]
    balance = np.log(c["alpha"] * c["A"]) - np.log(c["beta"] * c["B"])
    return np.asarray((balance + c["beta"] * log_product) / total)


INNER = (SHARE, exponent("ln alpha", "parameters"), exponent("ln beta", "tokens"))

COUPLED = Law(
    name="coupled",
    formula="L = E + (A N^-alpha + B D^-beta)^k",
    source="arXiv 2608.07222; k = 1 is Hoffmann et al. 2022, E = 0 and beta = 1 is Kaplan et al. 2020 (1.5)",
    columns=("params", "tokens"),
    parameters=(FLOOR, LEVEL, *INNER, OUTER),
    evaluate=_evaluate,
    start=_start,
    natural=_natural,
    internal=_internal,
    split=split,
    value=_value,
)
