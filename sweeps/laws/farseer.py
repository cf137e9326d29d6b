"""Farseer: every size has a power law in tokens of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import autograd.numpy as anp
import numpy as np

from sweeps.laws.base import Array, Centre, Columns, own
from sweeps.laws.formula import Constant, Kind, law


def _bend(log_n: Any, power: Any) -> Any:
    """(n^power - 1) / power: ln n at the centre, bent away from it."""
    return anp.expm1(power * log_n) / power


def _loss(p: Mapping[str, Any], x: Columns) -> Any:
    log_n, log_d = np.log(x["params"]), np.log(x["tokens"])
    own_d = np.log(x[own("tokens")])
    origin = own_d - log_d  # ln of the centre of tokens: a power D^-A(N) with a varying A has no unit
    floor = p["floor"] * anp.exp(p["floor_slope"] * _bend(log_n, p["gamma"]))
    exponent = p["exponent"] * anp.exp(p["exponent_slope"] * _bend(log_n, p["alpha"]))
    # The level's own slope is what is left of the slope at the centre of tokens.
    slope = p["level_slope"] + p["exponent"] * p["exponent_slope"] * origin
    level = slope * _bend(log_n, -p["beta"]) - exponent * own_d + p["exponent"] * origin
    return floor + p["level"] * anp.exp(level)


def _natural(theta: Array, centre: Centre) -> dict[str, Array]:
    floor, floor_slope, gamma, level, level_slope, beta, exponent, exponent_slope, alpha = np.moveaxis(
        np.asarray(theta, dtype=float), -1, 0
    )
    log_n, log_d = centre["params"], centre["tokens"]
    gamma, beta, alpha, exponent = (np.exp(value) for value in (gamma, beta, alpha, exponent))
    slope = level_slope + exponent * exponent_slope * log_d
    return {
        "a1": exponent_slope / alpha * np.exp(-alpha * log_n),
        "b1": np.log(exponent) - exponent_slope / alpha,
        "alpha": alpha,
        "a2": -slope / beta * np.exp(beta * log_n),
        "b2": level + centre["loss"] + exponent * log_d + slope / beta,
        "beta": -beta,
        "a3": floor_slope / gamma * np.exp(-gamma * log_n),
        "b3": floor + centre["loss"] - floor_slope / gamma,
        "gamma": gamma,
    }


def _internal(constants: Mapping[str, float], centre: Centre) -> Array:
    c, log_n, log_d = constants, centre["params"], centre["tokens"]
    of_exponent, of_level, of_floor = (
        c[level] * np.exp(c[power] * log_n)
        for level, power in (("a1", "alpha"), ("a2", "beta"), ("a3", "gamma"))
    )
    log_exponent, exponent_slope = of_exponent + c["b1"], c["alpha"] * of_exponent
    exponent = np.exp(log_exponent)
    return np.array(
        [
            of_floor + c["b3"] - centre["loss"],
            c["gamma"] * of_floor,
            np.log(c["gamma"]),
            of_level + c["b2"] - exponent * log_d - centre["loss"],
            c["beta"] * of_level - exponent * exponent_slope * log_d,
            np.log(-c["beta"]),
            log_exponent,
            exponent_slope,
            np.log(c["alpha"]),
        ]
    )


FARSEER = law(
    "farseer",
    "L = exp(a3 N^gamma + b3) + exp(a2 N^beta + b2) D^-exp(a1 N^alpha + b1), beta below 0",
    "Farseer, arXiv 2506.10972, equations 3 and 15",
    ("params", "tokens"),
    # Each exponent function by its value and slope in ln N at the centre of the data, and its bend.
    (
        Constant("floor", "the irreducible loss at the central size", -0.5, 0.7, linear=True),
        Constant("floor_slope", "how the irreducible loss changes with size", -0.1, 0.15, Kind.REAL),
        Constant("gamma", "the bend of the irreducible loss", float(np.log(0.15)), 0.7),
        Constant("level", "the size of the data term at the centre", -1.5, 1.2, linear=True),
        Constant("level_slope", "how the data term changes with size", 0.0, 0.3, Kind.REAL),
        Constant("beta", "the bend of the data term", float(np.log(0.15)), 0.7),
        Constant("exponent", "the exponent of tokens at the central size", float(np.log(0.35)), 0.6),
        Constant("exponent_slope", "how the exponent of tokens changes with size", -0.1, 0.15, Kind.REAL),
        Constant("alpha", "the bend of the exponent of tokens", float(np.log(0.1)), 0.7),
    ),
    _loss,
    natural=_natural,
    internal=_internal,
)
