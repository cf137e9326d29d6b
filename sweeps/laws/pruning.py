"""Laws of the data that are kept after pruning: a power of them, or an exponential."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import autograd.numpy as anp
import numpy as np

from sweeps.laws.base import Array, Columns
from sweeps.laws.formula import Constant, floor, law, power, scale, term

Number = float | Array

_SOURCE = "Sorscher et al. 2022, arXiv 2206.14486: a power of random data, up to an exponential of pruned"
_WORTH = Constant("q", "how much of their worth the data lose with the share that is pruned", -0.3, 0.7)


def _by_power(p: Mapping[str, Any], x: Columns) -> Any:
    return p["E"] + p["B"] * (x["tokens"] * x["kept"] ** p["q"]) ** -p["beta"]


def _by_exponential(p: Mapping[str, Any], x: Columns) -> Any:
    return p["E"] + p["B"] * anp.exp(-x["tokens"] * x["kept"] ** p["q"] / p["S"])


PRUNED_POWER = law(
    "pruned_power",
    "L = E + B (D f^q)^-beta",
    _SOURCE,
    ("tokens", "kept"),
    (
        floor(),
        term("B", "tokens", "beta", "the size of the data term"),
        power("beta", "tokens"),
        _WORTH,
    ),
    _by_power,
)
PRUNED_EXPONENTIAL = law(
    "pruned_exponential",
    "L = E + B exp(-D f^q / S)",
    _SOURCE,
    ("tokens", "kept"),
    (
        floor(),
        Constant(
            "B",
            "the error before any data",
            -0.5,
            1.2,
            unit=lambda _, centre: centre["loss"],
            linear=True,
        ),
        scale("S", "tokens", "the tokens over which the error falls by a factor e", sd=1.5),
        _WORTH,
    ),
    _by_exponential,
)


def pool_for(loss: Number, kept: Number, constants: Mapping[str, Number]) -> Array:
    """The pool D that gives a loss when a share of it is kept; infinite at or below E.

    Args:
        loss, kept: any shapes that broadcast.
        constants: of ``PRUNED_POWER`` or, with ``S``, of ``PRUNED_EXPONENTIAL``.

    Returns:
        Data before pruning. What is trained on is ``kept`` times that: with q below 1 it shrinks with the
        share that is kept, and pruning pays where data are plenty.
    """
    share = np.asarray(kept, dtype=float) ** -np.asarray(constants["q"], dtype=float)
    ratio = (np.asarray(loss, dtype=float) - constants["E"]) / constants["B"]
    with np.errstate(invalid="ignore", divide="ignore"):
        if "S" in constants:
            needed = np.maximum(-np.log(ratio), 0.0) * constants["S"]
        else:
            needed = ratio ** (-1.0 / np.asarray(constants["beta"], dtype=float))
    return np.asarray(np.where(ratio > 0, needed, np.inf) * share)
