"""Repeated data: what tokens are worth when they are seen again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import autograd.numpy as anp
import numpy as np
from scipy.optimize import minimize_scalar

from sweeps.laws.base import LEVEL, Array, Centre, Columns, Law
from sweeps.laws.coupled import COUPLED, OUTER, SHARE
from sweeps.laws.formula import Constant, Formula, Kind, floor, law, power, term

COLUMNS = ("params", "tokens", "unique_tokens")
MUENNIGHOFF = "Muennighoff et al. 2023, arXiv 2305.16264"
FAR = 60.0  # e-folds of parameters beyond use, for which nothing overflows
LOVELACE = "Lovelace et al. 2026, arXiv 2605.01640"


def _saturated(useful: Any, excess: Any, half_life: Any) -> Any:
    """u + u r (1 - exp(-(x/u - 1) / r)): what is beyond ``useful`` is worth less and less."""
    return useful * (1.0 - half_life * anp.expm1(-excess / half_life))


def _tokens(p: Mapping[str, Any], x: Columns) -> Any:
    unique = np.minimum(x["unique_tokens"], x["tokens"])
    return _saturated(unique, x["tokens"] / unique - 1.0, p["R_D"])


def _saturating(p: Mapping[str, Any], x: Columns) -> Any:
    unique, log_n = np.minimum(x["unique_tokens"], x["tokens"]), np.log(x["params"])
    # The size that would be optimal for the unique tokens: alpha A N^-alpha = beta B D^-beta.
    balance = anp.log(p["alpha"] * p["A"]) - anp.log(p["beta"] * p["B"])
    log_useful = anp.minimum(log_n, (balance + p["beta"] * np.log(unique)) / p["alpha"])
    log_useful = anp.maximum(log_useful, log_n - FAR)
    params = _saturated(anp.exp(log_useful), anp.expm1(log_n - log_useful), p["R_N"])
    return p["E"] + p["A"] * params ** -p["alpha"] + p["B"] * _tokens(p, x) ** -p["beta"]


def _reducible(p: Mapping[str, Any], params: Array, tokens: Any) -> Any:
    """Of the additive law, or of the coupled one in its internal coordinates."""
    of_params, of_tokens = params ** -p["alpha"], tokens ** -p["beta"]
    if "k" not in p:
        return p["A"] * of_params + p["B"] * of_tokens
    return p["level"] * (p["share"] * of_params + (1.0 - p["share"]) * of_tokens) ** p["k"]


def _hurting(p: Mapping[str, Any], x: Columns) -> Any:
    unique = np.minimum(x["unique_tokens"], x["tokens"])
    harm = p["P"] * (x["params"] / unique) ** p["kappa"] * np.log(x["tokens"] / unique)
    return p["E"] + _reducible(p, x["params"], _tokens(p, x)) + harm


def _penalised(p: Mapping[str, Any], x: Columns) -> Any:
    unique = np.minimum(x["unique_tokens"], x["tokens"])
    repeats = np.maximum(x["tokens"] / unique - 1.0, 1e-300)  # so that 0 has a logarithm
    harm = p["P"] * repeats ** p["delta"] * (x["params"] / unique) ** p["kappa"]
    return p["E"] + _reducible(p, x["params"], x["tokens"]) + harm


def _worth(name: str, of: str, mean: float) -> Constant:
    return Constant(name, f"how many repeats of {of} are worth something", float(np.log(mean)), 1.0)


_BASE = (
    floor(),
    term("A", "params", "alpha", "the size of the parameter term"),
    term("B", "tokens", "beta", "the size of the data term"),
    power("alpha", "parameters"),
    power("beta", "tokens"),
)
_HARM = Constant(
    "P",
    "how much repetition hurts",
    -4.0,
    1.5,
    unit=lambda p, centre: centre["loss"] + p["kappa"] * (centre["tokens"] - centre["params"]),
    linear=True,
)
_KAPPA = Constant("kappa", "how much more repetition hurts larger models", 0.5, 0.4, Kind.REAL)
_DELTA = Constant("delta", "the exponent of repeats", float(np.log(0.8)), 0.5)


_COUPLED = (
    floor(),
    Constant("level", LEVEL.meaning, LEVEL.mean, LEVEL.sd, linear=True),
    Constant("share", SHARE.meaning, SHARE.mean, SHARE.sd, Kind.SHARE),
    power("alpha", "parameters"),
    power("beta", "tokens"),
    Constant("k", OUTER.meaning, OUTER.mean, OUTER.sd),
)
_D = "D' = U (1 + R_D (1 - exp(-(D/U - 1) / R_D)))"
_TOKENS = _worth("R_D", "tokens", 10.0)


def _coupled(name: str, formula: str, source: str, others: tuple[Constant, ...], loss: Formula) -> Law:
    """A law on the coupled one, whose A and B no unit of their own converts."""
    own, first = law(name, formula, source, COLUMNS, (*_COUPLED, *others), loss), len(_COUPLED)
    names = [one.name for one in others]

    def natural(theta: Array, centre: Centre) -> dict[str, Array]:
        rest = own.natural(theta, centre)
        return COUPLED.natural(theta[..., :first], centre) | {name: rest[name] for name in names}

    def internal(constants: Mapping[str, float], centre: Centre) -> Array:
        base = {one.name: 0.5 for one in _COUPLED}
        rest = own.internal(base | {name: constants[name] for name in names}, centre)
        return np.concatenate([COUPLED.internal(constants, centre), rest[first:]])

    return replace(own, natural=natural, internal=internal)


REPETITION = law(
    "repetition",
    f"L = E + A N'^-alpha + B D'^-beta, {_D}, N' alike with R_N and the size that is optimal for U",
    f"{MUENNIGHOFF}, the law of D' and N'",
    COLUMNS,
    (*_BASE, _TOKENS, _worth("R_N", "parameters", 5.0)),
    _saturating,
)
REPETITION_OVERFIT = law(
    "repetition_overfit",
    f"L = E + A N^-alpha + B D'^-beta + P (N/U)^kappa ln(D/U), {_D}",
    f"{MUENNIGHOFF}, for D'; a harm that grows with N/U after {LOVELACE}, in ln of the epochs",
    COLUMNS,
    (*_BASE, _TOKENS, _HARM, _KAPPA),
    _hurting,
)
REPETITION_OVERFIT_COUPLED = _coupled(
    "repetition_overfit_coupled",
    f"L = E + (A N^-alpha + B D'^-beta)^k + P (N/U)^kappa ln(D/U), {_D}",
    f"the law repetition_overfit on the coupled law, arXiv 2608.07222; {LOVELACE}",
    (_TOKENS, _HARM, _KAPPA),
    _hurting,
)
REPETITION_PENALTY = law(
    "repetition_penalty",
    "L = E + A N^-alpha + B D^-beta + P (D/U - 1)^delta (N/U)^kappa",
    f"{LOVELACE}, the law with an additive overfitting penalty",
    COLUMNS,
    (*_BASE, _HARM, _KAPPA, _DELTA),
    _penalised,
)
REPETITION_PENALTY_COUPLED = _coupled(
    "repetition_penalty_coupled",
    "L = E + (A N^-alpha + B D^-beta)^k + P (D/U - 1)^delta (N/U)^kappa",
    f"the law repetition_penalty on the coupled law, arXiv 2608.07222; {LOVELACE}",
    (_HARM, _KAPPA, _DELTA),
    _penalised,
)
REPETITIONS = (
    REPETITION,
    REPETITION_OVERFIT,
    REPETITION_OVERFIT_COUPLED,
    REPETITION_PENALTY,
    REPETITION_PENALTY_COUPLED,
)


def best_split(
    name: str, constants: Mapping[str, float], flops: float, unique: float, per_token: float = 6.0
) -> tuple[float, float, float]:
    """Parameters, tokens and loss of the lowest loss under C = 6 N D with few unique tokens.

    It has no closed form: ln N is searched for over 16 e-folds around N = D, first on a grid.

    Args:
        name: of a law of this module.
        constants: natural.
        flops: C.
        unique: U.
        per_token: FLOPs a parameter and token.
    """
    chosen = {one.name: one for one in REPETITIONS}[name]
    product = np.log(flops / per_token)

    def loss(log_n: Any) -> Any:
        log_n = np.atleast_1d(log_n)
        n, d = np.exp(log_n), np.exp(product - log_n)
        return chosen.at(constants, {"params": n, "tokens": d, "unique_tokens": np.minimum(unique, d)})

    grid = 0.5 * product + np.linspace(-8.0, 8.0, 161)
    at = int(np.argmin(loss(grid)))
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, 160)]
    found = minimize_scalar(
        lambda v: float(loss(v)[0]), bounds=(low, high), method="bounded", options={"xatol": 1e-9}
    )
    n = float(np.exp(found.x))
    return n, float(np.exp(product)) / n, float(found.fun)
