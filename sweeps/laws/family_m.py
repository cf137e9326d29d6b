"""The family M1 to M4 of laws in one quantity, of which M4 also bends towards random guessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval

from sweeps.laws.base import Array, Centre, Columns, Law
from sweeps.laws.formula import Constant, floor, law, scale, term
from sweeps.laws.formula import power as exponent
from sweeps.laws.power import plain, power

SOURCE = "Alabdulmohsin et al. 2022, arXiv 2209.06640"
STEPS = 80  # of Newton's method; a handful are taken


def _renamed(law_: Law, name: str, formula: str, names: Mapping[str, str]) -> Law:
    """A power law under this family's names, with c above 0."""
    back = {new: old for old, new in names.items()}

    def natural(theta: Array, centre: Centre) -> dict[str, Array]:
        return {names[key]: value for key, value in law_.natural(theta, centre).items()}

    def internal(constants: Mapping[str, float], centre: Centre) -> Array:
        return law_.internal({back[key]: constants[key] for key in back}, centre)

    return replace(law_, name=name, formula=formula, natural=natural, internal=internal)


def _m3(p: Mapping[str, Any], x: Columns) -> Any:
    return p["beta"] * (1.0 / x["x"] + 1.0 / p["turn"]) ** p["c"]


def _solve(log_ratio: Array, alpha: Array) -> Array:
    """u = logit z of z / (1 - z)^alpha = exp(log_ratio).

    In u the logarithm of the left-hand side rises with a slope between 1 and alpha and bends one way
    only, so that Newton's method passes the root at most once and then comes to it from one side.
    """
    u = np.where(log_ratio < 0, log_ratio, log_ratio / alpha)
    for _ in range(STEPS):
        step = (_left(u, alpha) - log_ratio) / _rise(u, alpha)
        u = u - step
        if np.all(np.abs(step) < 1e-14 * np.maximum(np.abs(u), 1.0)):
            break
    return np.asarray(u)


def _left(u: Any, alpha: Any) -> Any:
    return alpha * anp.logaddexp(0.0, u) - anp.logaddexp(0.0, -u)


def _rise(u: Array, alpha: Array) -> Array:
    return np.asarray(1.0 + (alpha - 1.0) * np.exp(-np.logaddexp(0.0, -u)))


def _m4(p: Mapping[str, Any], x: Columns) -> Any:
    log_ratio = anp.log(p["ratio"]) - p["c"] * np.log(x["x"])
    plain_ratio, plain_alpha = np.asarray(getval(log_ratio)), np.asarray(getval(p["alpha"]))
    u = _solve(plain_ratio, plain_alpha)
    # One more step of Newton's method, which is differentiated: the implicit function theorem.
    u = u - (_left(u, p["alpha"]) - log_ratio) / _rise(u, plain_alpha)
    return p["eps_inf"] + p["gap"] / (1.0 + anp.exp(-u))


def _m4_natural(theta: Array, centre: Centre) -> dict[str, Array]:
    c = _M4.natural(theta, centre)
    return {
        "eps_inf": c["eps_inf"],
        "eps_0": c["eps_inf"] + c["gap"],
        "alpha": c["alpha"],
        "beta": c["ratio"] * c["gap"] ** (1.0 - c["alpha"]),
        "c": c["c"],
    }


def _m4_internal(constants: Mapping[str, float], centre: Centre) -> Array:
    gap, alpha = constants["eps_0"] - constants["eps_inf"], constants["alpha"]
    ratio = constants["beta"] * gap ** (alpha - 1.0)
    return _M4.internal({**constants, "gap": gap, "ratio": ratio}, centre)


_M4 = law(
    "m4",
    "(L - eps_inf) / (eps_0 - L)^alpha = beta x^-c",
    f"{SOURCE}, M4",
    ("x",),
    (
        floor("eps_inf"),
        Constant(
            "gap",
            "what lies between random guessing and the irreducible loss",
            0.5,
            0.8,
            unit=lambda _, centre: centre["loss"],
            linear=True,
        ),
        Constant("alpha", "how the loss leaves random guessing", 0.0, 0.7),
        Constant(
            "ratio",
            "how far from random guessing the centre of the data is",
            -1.0,
            1.5,
            unit=lambda p, centre: p["c"] * centre["x"],
        ),
        exponent("c", "scale"),
    ),
    _m4,
)
M1 = _renamed(plain("x", "m1", f"{SOURCE}, M1"), "m1", "L = beta x^-c", {"A": "beta", "gamma": "c"})
M2 = _renamed(
    power("x", "m2", f"{SOURCE}, M2"),
    "m2",
    "L = eps_inf + beta x^-c",
    {"E": "eps_inf", "A": "beta", "gamma": "c"},
)
_M3 = law(
    "m3",
    "L = beta (1/x + gamma)^c",
    f"{SOURCE}, M3",
    ("x",),
    (
        term("beta", "x", "c", "the size of the loss at small scale"),
        scale("turn", "x", "the scale at which the loss stops falling", 2.0, 2.0),
        exponent("c", "scale"),
    ),
    _m3,
)


def _m3_natural(theta: Array, centre: Centre) -> dict[str, Array]:
    c = _M3.natural(theta, centre)
    return {"beta": c["beta"], "gamma": 1.0 / c["turn"], "c": c["c"]}


def _m3_internal(constants: Mapping[str, float], centre: Centre) -> Array:
    return _M3.internal({**constants, "turn": 1.0 / constants["gamma"]}, centre)


M3 = replace(_M3, natural=_m3_natural, internal=_m3_internal)
M4 = replace(_M4, natural=_m4_natural, internal=_m4_internal)
FAMILY_M = (M1, M2, M3, M4)
