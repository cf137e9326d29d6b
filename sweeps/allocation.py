"""How to spend compute: parameters and tokens of the lowest loss, under laws with or without a closed form.

A surface is a function (params, tokens) -> loss. Every answer is an array (b,), one value a draw of a law's
constants, so that intervals are quantiles of what is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sweeps.laws.base import Array, Centre, Law, own

# (params, tokens), both (n,) or both (b, n) -> loss (b, n), or (n,) from a surface of one draw alone.
Surface = Callable[[Array, Array], Array]
Number = float | Array

REACH, STEP = 12.0, 0.25  # of ln D around N = D, in e-folds
FINER = (0.2 * STEP, 0.03 * STEP, 0.005 * STEP)  # thrice, since a law may have a kink at its optimum
STENCIL = np.arange(-2.0, 3.0)
QUARTIC = np.linalg.inv(np.vander(STENCIL, increasing=True))  # values at the stencil -> coefficients
NODES = np.arange(0.0, 101.0, 4.0)  # ln FLOPs a target is first looked for at
ROUNDS, TIGHT = 60, 1e-10  # of the search for a target, in ln L and ln FLOPs


@dataclass(frozen=True)
class Spending:
    """FLOPs of a model: C = N (per_token D + per_served served), the second term for its use afterwards.

    Args:
        per_token: FLOPs a parameter and training token.
        served: tokens it will process once trained.
        per_served: FLOPs a parameter and such token.
    """

    per_token: float = 6.0
    served: float = 0.0
    per_served: float = 2.0

    def log_params(self, log_flops: Array, log_tokens: Array) -> Array:
        """ln N that spends all of C at given tokens."""
        return np.asarray(log_flops - np.log(self.per_token * np.exp(log_tokens) + self.overhead))

    @property
    def overhead(self) -> float:
        """FLOPs a parameter after training."""
        return self.per_served * self.served


TRAINING = Spending()


@dataclass(frozen=True)
class Allocation:
    """What to train, each (b,); all nan where there is no optimum, and ``flops`` inf where none suffices."""

    params: Array
    tokens: Array
    loss: Array
    flops: Array


def surface(
    law: Law, theta: Array, centre: Centre | None = None, others: Mapping[str, float] | None = None
) -> Surface:
    """The loss of a law with constants, as a function of parameters and tokens.

    Args:
        law: that reads ``params`` and ``tokens``.
        theta: (b, p) or (p,) internal coordinates.
        centre: of its columns and the loss; zeros for coordinates from ``law.internal`` with zeros.
        others: the law's other columns, in their own units; ``unique_tokens`` is at most the tokens.

    Raises:
        ValueError: the law reads a column that is not given.
    """
    given, origin = dict(others or {}), centre or dict.fromkeys((*law.columns, "loss"), 0.0)
    missing = [name for name in law.columns if name not in ("params", "tokens", *given)]
    if missing:
        raise ValueError(f"{law.name} also reads {', '.join(missing)}; give a value of each in others")
    draws = np.atleast_2d(np.asarray(theta, dtype=float))

    def columns(params: Array, tokens: Array) -> dict[str, Array]:
        natural = {name: np.full(params.shape, given[name]) for name in law.columns if name in given}
        natural |= {"params": params, "tokens": tokens}
        if "unique_tokens" in natural:
            natural["unique_tokens"] = np.minimum(natural["unique_tokens"], tokens)
        log = {name: np.log(natural[name]) for name in law.columns}
        return {name: value - origin[name] for name, value in log.items()} | {
            own(name): value for name, value in log.items()
        }

    def loss(params: Array, tokens: Array) -> Array:
        return np.exp(law.log_loss(draws, columns(params, tokens)) + origin["loss"])

    return loss


def best(loss: Surface, flops: Number, cost: Spending = TRAINING) -> Allocation:
    """Parameters and tokens of the lowest loss at a cost, found numerically.

    ln D is searched for over 24 e-folds around N = D on a grid, then through five points of finer spacing.

    Args:
        flops: C, a number or (b,).
    """
    log_flops = np.atleast_1d(np.log(np.asarray(flops, dtype=float)))
    log_tokens, log_loss = _minimise(loss, log_flops, cost)
    return _allocation(log_flops, log_tokens, log_loss, cost)


def best_of_law(
    law: Law,
    theta: Array,
    centre: Centre,
    flops: float,
    others: Mapping[str, float] | None = None,
    cost: Spending = TRAINING,
) -> Allocation:
    """As ``best``, in closed form where the law has one and nothing is served."""
    draws = np.atleast_2d(np.asarray(theta, dtype=float))
    found = surface(law, draws, centre, others)
    if law.split is None or cost.served:
        return best(found, flops, cost)
    product = np.full(len(draws), np.log(flops / cost.per_token))
    log_n = law.split(draws, centre, product)
    params, tokens = np.exp(log_n), np.exp(product - log_n)
    return Allocation(
        params, tokens, found(params[:, None], tokens[:, None])[:, 0], np.full(len(draws), flops)
    )


def cheapest(loss: Surface, target: Number, cost: Spending = TRAINING) -> Allocation:
    """The least FLOPs that reach a loss, and how they are spent.

    With ``cost.served`` this is Sardana et al. 2023 (arXiv 2401.00448): the least
    6 N D + 2 N D_inf at L(N, D) = target.

    Args:
        target: the loss, a number or (b,).
    """
    coarse = [_minimise(loss, np.array([node]), cost, finer=0)[1] for node in NODES]
    height = np.stack(coarse, axis=1)
    log_target = np.broadcast_to(np.log(np.asarray(target, dtype=float)), (len(height),))
    below = height <= log_target[:, None]
    reached, at = below.any(axis=1), np.argmax(below, axis=1)
    low, high = NODES[np.maximum(at - 1, 0)] - 1.0, NODES[at] + 1.0

    def excess(log_flops: Array) -> Array:
        found = _minimise(loss, log_flops, cost, finer=1)[1] - log_target
        return np.where(np.isfinite(found) & reached, found, 0.0)

    f_low, f_high, side, middle = excess(low), excess(high), np.zeros(len(low)), high
    for _ in range(ROUNDS):  # the Illinois form of false position
        apart = np.where(f_high != f_low, f_high - f_low, 1.0)
        middle = np.clip(high - f_high * (high - low) / apart, low, high)
        f = excess(middle)
        if np.all((np.abs(f) < TIGHT) | (high - low < TIGHT)):
            break
        up = f > 0
        low, high = np.where(up, middle, low), np.where(up, high, middle)
        f_low = np.where(up, f, np.where(side < 0, 0.5 * f_low, f_low))
        f_high = np.where(up, np.where(side > 0, 0.5 * f_high, f_high), f)
        side = np.where(up, 1.0, -1.0)
    log_tokens, log_loss = _minimise(loss, middle, cost)
    found = _allocation(middle, np.where(reached, log_tokens, np.nan), log_loss, cost)
    return replace(found, flops=np.where(reached, found.flops, np.inf))


def compute_multiple(loss: Surface, flops: float, gain: Number, cost: Spending = TRAINING) -> Array:
    """What a lower loss is worth: ln(C_2 / C_1) of the compute that lowers the best loss at C_1 by a gain.

    Args:
        flops: C_1.
        gain: drop in loss, a number or (b,).

    Returns:
        (b,), inf where no compute lowers it as much.
    """
    target = best(loss, flops, cost).loss - gain
    reachable = target > 0
    found = cheapest(loss, np.where(reachable, target, 1e-300), cost).flops
    return np.asarray(np.log(found) - np.log(flops))


def balance(loss: Surface, params: Number, tokens: Number) -> Array:
    """How much more a relative step in N lowers the loss than one in D: (dL/d ln N) / (dL/d ln D), (b,).

    At the optimum of a ``Spending`` it is 1 + per_served served / (per_token D): 1 + D_inf / (3 D) of Sardana
    et al. 2023 (arXiv 2401.00448), where it reads (alpha A N^-alpha) / (beta B D^-beta).
    """
    log_n, log_d = (np.log(np.atleast_1d(np.asarray(one, dtype=float)))[:, None] for one in (params, tokens))
    step = 0.02 * STENCIL
    slopes = []
    for along in (0.0, 1.0):
        n, d = np.exp(log_n + (1.0 - along) * step), np.exp(log_d + along * step)
        slopes.append((_call(loss, *np.broadcast_arrays(n, d)) @ QUARTIC.T)[:, 1])
    return np.asarray(slopes[0] / slopes[1])


def additive_optimum(constants: Mapping[str, Number], flops: Number, per_token: float = 6.0) -> Allocation:
    """Closed form for L = E + (A N^-alpha + B D^-beta)^k under C = per_token N D.

    Hoffmann et al. 2022 (arXiv 2203.15556), equation 4: N* = G (C/6)^a and D* = (C/6)^b / G, with
    a = beta / (alpha + beta), b = 1 - a and G = (alpha A / (beta B))^(1 / (alpha + beta)).

    Args:
        constants: ``E``, ``A``, ``B``, ``alpha``, ``beta`` and, if it is not 1, ``k``; numbers or (b,).
    """
    c = {name: np.atleast_1d(np.asarray(value, dtype=float)) for name, value in constants.items()}
    total, product = c["alpha"] + c["beta"], np.asarray(flops, dtype=float) / per_token
    g = (c["alpha"] * c["A"] / (c["beta"] * c["B"])) ** (1.0 / total)
    params = g * product ** (c["beta"] / total)
    tokens = product ** (c["alpha"] / total) / g
    inner = c["A"] * params ** -c["alpha"] + c["B"] * tokens ** -c["beta"]
    loss = c["E"] + inner ** c.get("k", np.ones(1))
    return Allocation(params, tokens, loss, np.broadcast_to(np.asarray(flops, dtype=float), loss.shape))


def additive_cheapest(constants: Mapping[str, Number], loss: Number, per_token: float = 6.0) -> Array:
    """FLOPs of the best allocation that reaches a loss of the same law, (b,); inf at or below E.

    C = 6 [r / (A G^-alpha + B G^beta)]^(-1/gamma), r = (L - E)^(1/k) and gamma = alpha beta / (alpha + beta).
    """
    unit = additive_optimum(constants, per_token, per_token)  # where N D = 1
    outer = np.atleast_1d(np.asarray(constants.get("k", 1.0), dtype=float))
    alpha, beta = (np.asarray(constants[name], dtype=float) for name in ("alpha", "beta"))
    rest = np.asarray(loss, dtype=float) - constants["E"]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = rest / (unit.loss - constants["E"])
        needed = per_token * ratio ** (-(alpha + beta) / (outer * alpha * beta))
    return np.asarray(np.where(rest > 0, needed, np.inf))


def power_multiple(gain: Number, reducible: Number, gamma: Number) -> Array:
    """ln(C_2 / C_1) of a gain where the best loss is E + K C^-gamma: -ln(1 - gain / (L - E)) / gamma.

    To first order gain / (gamma (L - E)).
    """
    share = np.asarray(gain, dtype=float) / reducible
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(share < 1, -np.log1p(-share) / gamma, np.inf))


def _call(loss: Surface, params: Array, tokens: Array) -> Array:
    """The loss (b, n) at points (1, n) or (b, n)."""
    if len(params) == 1:
        return np.atleast_2d(loss(params[0], tokens[0]))
    return np.asarray(loss(params, tokens))


def _minimise(loss: Surface, log_flops: Array, cost: Spending, finer: int = 3) -> tuple[Array, Array]:
    """ln D and ln L of the lowest loss at ln C (1,) or (b,); each (b,)."""
    # The middle, N = D, of the positive root of per_token D^2 + overhead D = C.
    half, flops = 0.5 * cost.overhead / cost.per_token, np.exp(log_flops) / cost.per_token
    middle = np.log(flops) - np.log(half + np.sqrt(half**2 + flops))
    grid = middle[:, None] + np.arange(-REACH, REACH + STEP / 2, STEP)

    def values(log_tokens: Array) -> Array:
        log_params = cost.log_params(log_flops[:, None] if len(log_flops) > 1 else log_flops[0], log_tokens)
        return np.log(_call(loss, np.exp(log_params), np.exp(log_tokens)))

    height = values(grid)
    at = np.argmin(np.where(np.isfinite(height), height, np.inf), axis=1)
    centre = np.clip(at, 2, grid.shape[1] - 3)
    around = np.take_along_axis(height, centre[:, None] + STENCIL.astype(int), axis=1)
    begin = np.broadcast_to(grid, height.shape)[np.arange(len(at)), centre]
    found, value = _lowest(begin, STEP, around)
    for step in FINER[:finer]:
        found, value = _lowest(found, step, values(found[:, None] + step * STENCIL))
    edge = (at == 0) | (at == grid.shape[1] - 1)
    return np.where(edge, np.nan, found), np.where(edge, height.min(axis=1), value)


def _lowest(begin: Array, step: float, around: Array) -> tuple[Array, Array]:
    """Minimum of the quartic through five points (b, 5) around ``begin`` (b,), within two steps of it."""
    quartic = around @ QUARTIC.T
    first = quartic[:, 1:] * np.arange(1, 5)
    second = first[:, 1:] * np.arange(1, 4)
    at = np.argmin(around, axis=1) - 2.0
    for _ in range(8):  # Newton's steps
        curve = np.maximum(_polynomial(second, at), 1e-300)
        at = np.clip(at - np.clip(_polynomial(first, at) / curve, -1.0, 1.0), -2.0, 2.0)
    return begin + step * at, _polynomial(quartic, at)


def _polynomial(coefficients: Array, at: Array) -> Array:
    return np.asarray(np.sum(coefficients * at[:, None] ** np.arange(coefficients.shape[1]), axis=1))


def _allocation(log_flops: Array, log_tokens: Array, log_loss: Array, cost: Spending) -> Allocation:
    log_params = cost.log_params(log_flops, log_tokens)
    flops = np.broadcast_to(np.exp(log_flops), log_tokens.shape)
    loss = np.where(np.isfinite(log_tokens), np.exp(log_loss), np.nan)
    return Allocation(np.exp(log_params), np.exp(log_tokens), loss, flops)
