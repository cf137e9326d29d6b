"""Bounded laws: between what is had without training and what no training passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import autograd.numpy as anp
import numpy as np

from sweeps.laws.base import Array, Centre, Columns, Law
from sweeps.laws.formula import Constant, floor, law, power, scale


def _rising(p: Mapping[str, Any], x: Columns) -> Any:
    bend = p["B"] * (anp.log(p["C_mid"]) - np.log(x["compute"]))
    return p["R_0"] + p["gap"] * anp.exp(-anp.logaddexp(0.0, bend))


def _falling(p: Mapping[str, Any], x: Columns) -> Any:
    n, t, d = x["params"], x["tokens"], x["unique_tokens"]
    h = p["a"] * n ** -p["alpha"] + p["b"] * t ** -p["beta"] + p["c"] * n ** p["gamma"] * d ** -p["delta"]
    return p["E"] + p["gap"] * h / (1.0 + h)


def _between(own: Law, low: str, high: str) -> Law:
    """The law with its upper bound for a constant instead of the gap to it."""

    def natural(theta: Array, centre: Centre) -> dict[str, Array]:
        found = own.natural(theta, centre)
        upper = found[low] + found.pop("gap")
        return {**found, high: upper}

    def internal(constants: Mapping[str, float], centre: Centre) -> Array:
        return own.internal({**constants, "gap": constants[high] - constants[low]}, centre)

    return replace(own, natural=natural, internal=internal)


def _gap(meaning: str, mean: float) -> Constant:
    return Constant("gap", meaning, mean, 0.8, unit=lambda _, centre: centre["loss"], linear=True)


SIGMOID = _between(
    law(
        "sigmoid",
        "R = R_0 + (A - R_0) / (1 + (C_mid/C)^B)",
        "ScaleRL, arXiv 2510.13786, the law of reward in compute",
        ("compute",),
        (
            Constant(
                "R_0",
                "the score without training",
                -1.0,
                1.0,
                unit=lambda _, centre: centre["loss"],
                linear=True,
            ),
            _gap("the gain that no compute passes", 0.0),
            scale("C_mid", "compute", "the compute of half the gain", 0.0, 1.5),
            Constant("B", "how steeply compute turns into gain", 0.0, 0.6),
        ),
        _rising,
        measures="score",
    ),
    "R_0",
    "A",
)
BOUNDED = _between(
    law(
        "bounded",
        "L = E + (L_0 - E) h / (1 + h), h = a N^-alpha + b T^-beta + c N^gamma U^-delta",
        "arXiv 2605.09189, the law L(N, D, T), with T for tokens seen and U for unique ones",
        ("params", "tokens", "unique_tokens"),
        (
            floor(),
            _gap("what lies between no training and the irreducible loss", 1.2),
            Constant(
                "a",
                "the size of the parameter term",
                -2.5,
                1.2,
                unit=lambda p, centre: p["alpha"] * centre["params"],
            ),
            Constant(
                "b",
                "the size of the data term",
                -2.5,
                1.2,
                unit=lambda p, centre: p["beta"] * centre["tokens"],
            ),
            Constant(
                "c",
                "how much few unique tokens hurt",
                -5.0,
                1.5,
                unit=lambda p, centre: p["delta"] * centre["tokens"] - p["gamma"] * centre["params"],
            ),
            power("alpha", "parameters"),
            power("beta", "tokens"),
            power("gamma", "parameters where they overfit"),
            power("delta", "unique tokens"),
        ),
        _falling,
    ),
    "E",
    "L_0",
)


def midpoint(constants: Mapping[str, float], share: float) -> float:
    """Compute at which a share of the gain of ``sigmoid`` is had: C_mid (s / (1 - s))^(1/B).

    Args:
        constants: natural; A is a recipe's ceiling, B and C_mid its efficiency.
        share: s, between 0 and 1.

    Raises:
        ValueError: the share is not between 0 and 1.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"a share of {share:g} of the gain was asked for; give one between 0 and 1")
    return float(constants["C_mid"] * (share / (1.0 - share)) ** (1.0 / constants["B"]))
