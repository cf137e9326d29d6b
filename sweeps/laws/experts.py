"""Mixtures of experts: N parameters a token passes through, E experts a routed layer holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import autograd.numpy as anp
import numpy as np

from sweeps.laws.base import Array, Centre, Columns
from sweeps.laws.formula import Constant, Kind, floor, law, power, term

Number = float | Array

COLUMNS = ("params", "experts")
_CLARK = "Clark et al. 2022, arXiv 2202.01169"
# A tenfold number of experts is worth less than twice the parameters: smaller exponents than elsewhere.
_GAMMA = Constant("gamma", "the exponent of experts", float(np.log(0.12)), 0.7)
_START = Constant("E_start", "the experts a dense model counts as", 0.5, 0.7)
_MOST = Constant("E_most", "how many times more experts than that ever count", float(np.log(200.0)), 1.5)


def saturated(experts: Any, start: Any, most: Any) -> Any:
    """Ehat: from ``start`` at one expert, like E in between, never beyond ``start * (1 + most)``.

    Clark et al. 2022 (arXiv 2202.01169): 1/Ehat = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max,
    with E_max = E_start (1 + most), which keeps it above E_start.
    """
    limit = start * (1.0 + most)
    return 1.0 / (1.0 / (experts - 1.0 + start * (1.0 + most) / most) + 1.0 / limit)


def _log_experts(p: Mapping[str, Any], x: Columns) -> Any:
    return anp.log(saturated(x["experts"], p["E_start"], p["E_most"]))


def _routed(p: Mapping[str, Any], x: Columns) -> Any:
    log_n, log_e = np.log(x["params"]), _log_experts(p, x)
    return anp.exp(p["a"] * log_n + p["b"] * log_e + p["c"] * log_n * log_e + p["d"])


def _routed_natural(theta: Array, centre: Centre) -> dict[str, Array]:
    a, b, c, d, start, most = np.moveaxis(np.asarray(theta, dtype=float), -1, 0)
    return {
        "a": a,
        "b": b - c * centre["params"],
        "c": c,
        "d": d + centre["loss"] - a * centre["params"],
        "E_start": np.exp(start),
        "E_max": np.exp(start) * (1.0 + np.exp(most)),
    }


def _routed_internal(constants: Mapping[str, float], centre: Centre) -> Array:
    k, start = constants, constants["E_start"]
    b, d = k["b"] + k["c"] * centre["params"], k["d"] - centre["loss"] + k["a"] * centre["params"]
    return np.array([k["a"], b, k["c"], d, np.log(start), np.log(k["E_max"] / start - 1.0)])


ROUTED = law(
    "experts_routed",
    "ln L = a ln N + b ln Ehat + c ln N ln Ehat + d, 1/Ehat = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max",
    f"{_CLARK}, equation 1 and its saturating transform, there in decimal logarithms",
    COLUMNS,
    # Coordinates: b is the slope at the central size, d the level there.
    (
        Constant("a", "the exponent of parameters", -0.1, 0.1, Kind.REAL),
        Constant("b", "the exponent of experts at the central size", -0.05, 0.05, Kind.REAL),
        Constant("c", "how the exponent of experts changes with size", 0.0, 0.02, Kind.REAL),
        Constant("d", "the level of the loss", 0.1, 0.3, Kind.REAL),
        _START,
        _MOST,
    ),
    _routed,
    natural=_routed_natural,
    internal=_routed_internal,
)


def _routed_floor(p: Mapping[str, Any], x: Columns) -> Any:
    rest = x["params"] ** -p["alpha"] * anp.exp(-p["gamma"] * _log_experts(p, x))
    return p["E_0"] + p["A"] * rest


ROUTED_FLOOR = law(
    "experts_routed_floor",
    "L = E_0 + A N^-alpha Ehat^-gamma,"
    " 1/Ehat = 1/(E - 1 + E_start (1 + 1/E_most)) + 1/(E_start (1 + E_most))",
    f"{_CLARK}, the saturating transform, with an irreducible loss in the place of the interaction",
    COLUMNS,
    (
        floor("E_0"),
        term("A", "params", "alpha", "the size of the reducible loss"),
        power("alpha", "parameters"),
        _GAMMA,
        _START,
        _MOST,
    ),
    _routed_floor,
)


def _effective(p: Mapping[str, Any], x: Columns) -> Any:
    return p["E_0"] + p["A"] * (x["params"] * x["experts"] ** p["share"]) ** -p["alpha"]


EFFECTIVE = law(
    "experts_effective",
    "L = E_0 + A (N E^share)^-alpha",
    f"{_CLARK}: effective parameters, here a power of experts above an irreducible loss",
    COLUMNS,
    (
        floor("E_0"),
        term("A", "params", "alpha", "the size of the reducible loss"),
        power("alpha", "parameters"),
        Constant(
            "share", "what an e-fold of experts is worth in e-folds of parameters", 0.0, 1.2, Kind.SHARE
        ),
    ),
    _effective,
)


def _granular(p: Mapping[str, Any], x: Columns, granularity: Any) -> Any:
    return (p["g"] * granularity ** -p["gamma"] + p["a"]) * x["params"] ** -p["alpha"]


def _coefficients(column: str | None) -> tuple[Constant, ...]:
    """g, gamma, a and alpha of (g G^-gamma + a) N^-alpha; G has a unit where it is a centred column."""
    return (
        Constant(
            "g",
            "the size of the loss that more experts lower",
            -1.5,
            1.2,
            unit=lambda p, centre: (
                centre["loss"]
                + p["alpha"] * centre["params"]
                + (p["gamma"] * centre[column] if column else 0.0)
            ),
            linear=True,
        ),
        _GAMMA,
        term("a", "params", "alpha", "the size of the loss of parameters alone"),
        power("alpha", "parameters"),
    )


PARTIAL = law(
    "experts_partial",
    "L = E_0 + (g E^-gamma + a) N^-alpha",
    "Krajewski et al. 2024, arXiv 2402.07871, the term of granularity, with experts in its place",
    COLUMNS,
    (floor("E_0"), *_coefficients(None)),
    lambda p, x: p["E_0"] + _granular(p, x, x["experts"]),
)
FINE_GRAINED = law(
    "experts_fine_grained",
    "L = E_0 + (g G^-gamma + a) N^-alpha + b D^-beta",
    "Krajewski et al. 2024, arXiv 2402.07871, the law of fine-grained mixtures; G is granularity",
    ("params", "tokens", "granularity"),
    (
        floor("E_0"),
        *_coefficients("granularity"),
        term("b", "tokens", "beta", "the size of the data term"),
        power("beta", "tokens"),
    ),
    lambda p, x: p["E_0"] + _granular(p, x, x["granularity"]) + p["b"] * x["tokens"] ** -p["beta"],
)

EXPERTS = (ROUTED, ROUTED_FLOOR, EFFECTIVE, PARTIAL, FINE_GRAINED)


def dense_params(constants: Mapping[str, Number], params: Number, experts: Number) -> Array:
    """The dense model of equal loss: N_eff at which the law with one expert gives L(N, E).

    Clark et al. 2022 (arXiv 2202.01169): with s = Ehat(E) and s_1 = E_start = Ehat(1),
    ln N_eff = [(a + c ln s) ln N + b (ln s - ln s_1)] / (a + c ln s_1).

    Args:
        constants: of ``ROUTED``, each a number or (b,) draws; of ``EFFECTIVE``, where it is N E^share.
        params: active parameters N.
        experts: E.
    """
    c = {name: np.asarray(value, dtype=float) for name, value in constants.items()}
    log_n = np.log(np.asarray(params, dtype=float))
    if "share" in c:
        return np.asarray(np.exp(log_n + c["share"] * np.log(np.asarray(experts, dtype=float))))
    start = c["E_start"]
    log_e = np.log(saturated(np.asarray(experts, dtype=float), start, c["E_max"] / start - 1.0))
    alone = np.log(start)
    top = (c["a"] + c["c"] * log_e) * log_n + c["b"] * (log_e - alone)
    return np.asarray(np.exp(top / (c["a"] + c["c"] * alone)))
