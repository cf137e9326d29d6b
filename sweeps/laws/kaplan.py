"""The laws of Kaplan et al. of parameters with tokens and with steps, which have no irreducible loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import autograd.numpy as anp
import numpy as np

from sweeps.laws.base import Array, Centre, Columns
from sweeps.laws.formula import Constant, law, power


def _loss(p: Mapping[str, Any], x: Columns) -> Any:
    of_params = p["a_N"] / p["a_D"] * (anp.log(p["N_c"]) - np.log(x["params"]))
    return anp.exp(p["a_D"] * anp.logaddexp(of_params, anp.log(p["D_c"]) - np.log(x["tokens"])))


def _by_steps(p: Mapping[str, Any], x: Columns) -> Any:
    return (p["N_c"] / x["params"]) ** p["a_N"] + (p["S_c"] / x["steps"]) ** p["a_S"]


def critical(name: str, column: str, power_: str, meaning: str) -> Constant:
    """x_c of a term (x_c/x)^a: where that term alone costs one unit of loss."""
    return Constant(
        name,
        meaning,
        -3.0,
        6.0,
        unit=lambda p, centre: centre[column] + centre["loss"] / p[power_],
    )


N_C = critical("N_c", "params", "a_N", "the size at which parameters alone cost one unit of loss")
S_C = critical("S_c", "steps", "a_S", "the steps at which training alone costs one unit of loss")


def _split(theta: Array, centre: Centre, log_product: Array) -> Array:
    """ln N* at a given ln(N D): r (N_c/N)^r = D_c/D with r = a_N/a_D."""
    c = KAPLAN.natural(theta, centre)
    r = c["a_N"] / c["a_D"]
    return np.asarray((np.log(r) + r * np.log(c["N_c"]) - np.log(c["D_c"]) + log_product) / (1.0 + r))


KAPLAN = law(
    "kaplan",
    "L = [(N_c/N)^(a_N/a_D) + D_c/D]^a_D",
    "Kaplan et al. 2020, arXiv 2001.08361, equation 1.5",
    ("params", "tokens"),
    (
        N_C,
        critical("D_c", "tokens", "a_D", "the tokens at which data alone cost one unit of loss"),
        power("a_N", "parameters"),
        power("a_D", "tokens"),
    ),
    _loss,
    split=_split,
)
KAPLAN_STEPS = law(
    "kaplan_steps",
    "L = (N_c/N)^a_N + (S_c/S_min)^a_S, with the steps of a batch far above the critical one",
    "Kaplan et al. 2020, arXiv 2001.08361, equation 1.6",
    ("params", "steps"),
    (N_C, S_C, power("a_N", "parameters"), power("a_S", "steps")),
    _by_steps,
)
