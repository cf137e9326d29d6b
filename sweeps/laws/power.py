"""Power laws in one quantity, with and without an irreducible loss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sweeps.laws.base import FLOOR, LEVEL, Array, Columns, Law, Parameter, exponent, solve_positive

GRID = np.geomspace(0.02, 1.0, 24)
MEANINGS = {"flops": "compute", "params": "parameters", "tokens": "tokens", "x": "scale"}
ALONE = Parameter("c", "the loss at the centre of the data", 0.0, 0.5)
SYMBOLS = {"flops": "C", "params": "N", "tokens": "D", "x": "x"}


def power(column: str, name: str, source: str) -> Law:
    """L = E + A x^-gamma in a column."""

    def evaluate(theta: Array, x: Columns) -> tuple[Array, Array]:
        floor, level, log_gamma = (theta[..., i, None] for i in range(3))
        slope = np.exp(log_gamma) * x[column]
        term = level - slope
        log_loss = np.logaddexp(floor, term)
        share = np.exp(term - log_loss)
        return log_loss, np.stack([1.0 - share, share, -slope * share], axis=-1)

    def start(x: Columns, loss: Array, weight: Array) -> Array:
        relative = np.sqrt(weight / weight.sum()) / loss
        term = np.exp(-GRID[:, None] * x[column]) * relative
        basis = np.stack([np.broadcast_to(relative, term.shape), term], axis=1)
        right = basis @ np.sqrt(weight / weight.sum())
        coefficients, error = solve_positive(
            basis @ np.swapaxes(basis, 1, 2), right, np.full(2, 1e-3 * loss.min())
        )
        order = np.argsort(error)[:2]
        return np.column_stack([np.log(coefficients[order]), np.log(GRID[order])])

    def natural(theta: Array, centre: Mapping[str, float]) -> dict[str, Array]:
        gamma, unit = np.exp(theta[..., 2]), centre["loss"]
        return {
            "E": np.exp(theta[..., 0] + unit),
            "A": np.exp(theta[..., 1] + unit + gamma * centre[column]),
            "gamma": gamma,
        }

    def internal(constants: Mapping[str, float], centre: Mapping[str, float]) -> Array:
        gamma, unit = constants["gamma"], centre["loss"]
        level = np.log(constants["A"]) - unit - gamma * centre[column]
        return np.array([np.log(constants["E"]) - unit, level, np.log(gamma)])

    return Law(
        name=name,
        formula=f"L = E + A {SYMBOLS[column]}^-gamma",
        source=source,
        columns=(column,),
        parameters=(FLOOR, LEVEL, exponent("ln gamma", MEANINGS[column])),
        evaluate=evaluate,
        start=start,
        natural=natural,
        internal=internal,
    )


def plain(column: str, name: str, source: str) -> Law:
    """L = A x^-gamma in a column: a straight line in logarithms."""

    def evaluate(theta: Array, x: Columns) -> tuple[Array, Array]:
        level, slope = theta[..., 0, None], np.exp(theta[..., 1, None]) * x[column]
        return level - slope, np.stack([np.ones_like(slope), -slope], axis=-1)

    def start(x: Columns, loss: Array, weight: Array) -> Array:
        share, y = weight / weight.sum(), np.log(loss)
        apart, mean = x[column] - share @ x[column], share @ y
        gamma = max(-(share @ (apart * y)) / max(share @ apart**2, 1e-12), 1e-3)
        return np.array([[mean + gamma * (share @ x[column]), np.log(gamma)]])

    def natural(theta: Array, centre: Mapping[str, float]) -> dict[str, Array]:
        gamma = np.exp(theta[..., 1])
        return {"A": np.exp(theta[..., 0] + centre["loss"] + gamma * centre[column]), "gamma": gamma}

    def internal(constants: Mapping[str, float], centre: Mapping[str, float]) -> Array:
        gamma = constants["gamma"]
        return np.array([np.log(constants["A"]) - centre["loss"] - gamma * centre[column], np.log(gamma)])

    return Law(
        name=name,
        formula=f"L = A {SYMBOLS[column]}^-gamma",
        source=source,
        columns=(column,),
        parameters=(ALONE, exponent("ln gamma", MEANINGS[column])),
        evaluate=evaluate,
        start=start,
        natural=natural,
        internal=internal,
    )


def reached_at(constants: Mapping[str, float], loss: float) -> float:
    """The scale at which a power law reaches a loss: x = (A / (L - E))^(1 / gamma).

    Henighan et al. 2020 (arXiv 2010.14701), equation 1.1 solved for x; ``E`` is 0 where it is not given.

    Raises:
        ValueError: the loss is not above the irreducible one.
    """
    reducible = loss - constants.get("E", 0.0)
    if reducible <= 0:
        floor = constants.get("E", 0.0)
        raise ValueError(f"a loss of {loss:g} is never reached; give one above the floor {floor:g}")
    return float((constants["A"] / reducible) ** (1.0 / constants["gamma"]))


_HENIGHAN = "Henighan et al. 2020, arXiv 2010.14701, equation 1.1"
_KAPLAN = "Kaplan et al. 2020, arXiv 2001.08361, equations 1.1 to 1.3; Hestness et al. 2017, arXiv 1712.00409"

POWER = power("flops", "power", f"{_HENIGHAN} (with x = C)")
POWERS = (
    POWER,
    *(power(column, f"power_{column}", _HENIGHAN) for column in ("params", "tokens", "x")),
    *(plain(column, f"plain_{column}", _KAPLAN) for column in ("flops", "params", "tokens", "x")),
)
