"""The loss after some steps of any batch, through the critical batch, which itself depends on the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval

from sweeps.laws.base import Array, Columns
from sweeps.laws.formula import Constant, law, power
from sweeps.laws.kaplan import N_C, S_C

STEPS = 60  # of Newton's method; a handful are taken


def _softplus(value: Any) -> Any:
    return anp.logaddexp(0.0, value)


def _solve(of_size: Array, of_steps: Array, ratio: Array, a_s: Array, a_b: Array) -> Array:
    """y = ln L of L = exp(of_size) + exp(of_steps) (1 + exp(ratio) L^(-1/a_B))^a_S.

    With h = ln of the right-hand side, y - h(y) is concave (h sums exponentials of convex functions) and
    rises with a slope of at least 1, so that Newton's method comes to its root from below without ever
    passing it. It starts where the batch is infinite.
    """
    y = np.logaddexp(of_size, of_steps)
    for _ in range(STEPS):
        step = (y - _right(y, of_size, of_steps, ratio, a_s, a_b)) / _rise(
            y, of_size, of_steps, ratio, a_s, a_b
        )
        y = y - step
        if np.all(np.abs(step) < 1e-14 * np.maximum(np.abs(y), 1.0)):
            break
    return np.asarray(y)


def _right(y: Any, of_size: Any, of_steps: Any, ratio: Any, a_s: Any, a_b: Any) -> Any:
    return anp.logaddexp(of_size, of_steps + a_s * _softplus(ratio - y / a_b))


def _rise(y: Array, of_size: Array, of_steps: Array, ratio: Array, a_s: Array, a_b: Array) -> Array:
    """Derivative of y - h(y)."""
    inner = ratio - y / a_b
    term = of_steps + a_s * np.logaddexp(0.0, inner)
    share = np.exp(term - np.logaddexp(of_size, term))
    return np.asarray(1.0 + share * a_s / a_b * np.exp(inner - np.logaddexp(0.0, inner)))


def _loss(p: Mapping[str, Any], x: Columns) -> Any:
    of_size = p["a_N"] * (anp.log(p["N_c"]) - np.log(x["params"]))
    of_steps = p["a_S"] * (anp.log(p["S_c"]) - np.log(x["steps"]))
    ratio = anp.log(p["B_c"]) - np.log(x["batch"])
    given = (of_size, of_steps, ratio, p["a_S"], p["a_B"])
    plain = tuple(np.asarray(getval(value)) for value in given)
    y = _solve(*plain)
    # One more step of Newton's method, which is differentiated: the implicit function theorem.
    return anp.exp(y - (y - _right(y, *given)) / _rise(y, *plain))


KAPLAN_BATCH = law(
    "kaplan_batch",
    "L = (N_c/N)^a_N + (S_c/S)^a_S (1 + B_crit(L)/B)^a_S, B_crit = B_c / L^(1/a_B)",
    "Kaplan et al. 2020, arXiv 2001.08361, section 5; Su et al. 2024, arXiv 2403.06563, L(N, S, B)",
    ("params", "steps", "batch"),
    (
        N_C,
        S_C,
        Constant(
            "B_c",
            "the critical batch at one unit of loss",
            0.0,
            2.0,
            unit=lambda p, centre: centre["batch"] + centre["loss"] / p["a_B"],
        ),
        power("a_N", "parameters"),
        power("a_S", "steps"),
        power("a_B", "the critical batch"),
    ),
    _loss,
)


def critical_batch(constants: Mapping[str, float], loss: float | Array) -> Array:
    """B_crit(L) = B_c / L^(1/a_B), in the unit of B_c (Kaplan et al. 2020, equation 1.4)."""
    return np.asarray(constants["B_c"] / np.asarray(loss, dtype=float) ** (1.0 / constants["a_B"]))


def allocation(constants: Mapping[str, float]) -> dict[str, float]:
    """Exponents in compute of L and of the best N, B and S of a compute budget.

    1/a_C = 1/a_N + 1/a_B + 1/a_S; N ~ C^(a_C/a_N), B ~ C^(a_C/a_B), S ~ C^(a_C/a_S) and L ~ C^-a_C
    (Kaplan et al. 2020, arXiv 2001.08361, equations 1.7 and 1.8).
    """
    inverse = {key: 1.0 / constants[f"a_{key}"] for key in ("N", "B", "S")}
    a_c = 1.0 / sum(inverse.values())
    return {"L": a_c} | {key: a_c * value for key, value in inverse.items()}


def least_steps(steps: float | Array, batch: float | Array, critical: float | Array) -> Array:
    """S_min = S / (1 + B_crit/B): steps to the same loss with an infinite batch.

    McCandlish et al. 2018, arXiv 1812.06162; Kaplan et al. 2020, section 5.
    """
    return np.asarray(steps / (1.0 + np.asarray(critical, dtype=float) / batch))


def least_examples(examples: float | Array, batch: float | Array, critical: float | Array) -> Array:
    """E_min = E / (1 + B/B_crit): tokens to the same loss with an infinitesimal batch; so for compute.

    McCandlish et al. 2018, arXiv 1812.06162; Kaplan et al. 2020, section 5.
    """
    return np.asarray(examples / (1.0 + batch / np.asarray(critical, dtype=float)))


def hyperbola(steps: Array, examples: Array, weight: Array | None = None) -> tuple[float, float]:
    """S_min and E_min of runs that reach one loss with different batches; B_crit is E_min / S_min.

    (S/S_min - 1)(E/E_min - 1) = 1 (McCandlish et al. 2018, arXiv 1812.06162) is
    S_min/S + E_min/E = 1, which is linear in what is sought: least squares.

    Args:
        steps, examples: (n,), at least two different ratios.

    Raises:
        ValueError: the runs do not determine two positive constants.
    """
    root = np.ones(len(steps)) if weight is None else np.sqrt(weight)
    design = np.column_stack([1.0 / np.asarray(steps), 1.0 / np.asarray(examples)])
    size = design.max(axis=0)
    found, _, rank, _ = np.linalg.lstsq(design / size * root[:, None], root, rcond=1e-9)
    if rank < 2 or np.any(found <= 0):
        raise ValueError(
            f"{len(steps)} runs do not lie on a hyperbola; give runs to one loss with batches on both "
            "sides of the critical one"
        )
    least = found / size
    return float(least[0]), float(least[1])
