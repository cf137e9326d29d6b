"""Two curves of loss over amounts of compute or time, by every pair of their posterior draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from sweeps.laws.base import Array
from sweeps.paths import Recipe, path
from sweeps.posterior import INTERVAL, Quantiles

Pair: TypeAlias = tuple[Recipe, Recipe]

PAIRED = 256  # equally likely draws of a recipe, each paired with each of the other's
NODES = 65  # amounts at which two curves are compared
RANKED = 5  # amounts at which a ranking is told
WIDE = float(np.log(1e4))  # e-folds of compute within which a multiple is looked for
FINE = 257  # amounts on either side of it, and between
RARE = 0.01  # probability of a crossing below which no place is told


@dataclass(frozen=True)
class Versus:
    """The losses of two recipes at one place.

    Args:
        better: by recipe, the probability that its loss is the lower.
        loss: by recipe, with 90 % intervals.
        difference: the first's loss less the second's.
    """

    better: dict[str, float]
    loss: dict[str, Quantiles]
    difference: Quantiles


@dataclass(frozen=True)
class Rank:
    """Which recipe is the better at an amount: by recipe, the probability that its mean loss is the lower."""

    amount: float
    better: dict[str, float]


@dataclass(frozen=True)
class Crossing:
    """Where the curves cross for the last time in a range.

    Args:
        low, high: the range.
        probability: that they cross in it.
        at: the amount, given that they do; None where they hardly ever do.
        above: by recipe, the probability that they cross and it is the better beyond.
    """

    low: float
    high: float
    probability: float
    at: Quantiles | None
    above: dict[str, float]


@dataclass(frozen=True)
class Gain:
    """What the second recipe is worth.

    Args:
        at: amount that the first is given.
        multiple: that amount over what the second needs for the same mean loss; above 1 where it needs less.
            Within 1e-4 and 1e4; 0 where no amount in that reach is enough.
        local: exp of dL / (gamma (L - E)), the same to first order in the difference dL of the losses at that
            amount; gamma (L - E) is the second's slope -dL/d ln C there.
        unreached: probability that no amount up to 1e4 times as large is enough.
    """

    at: float
    multiple: Quantiles
    local: Quantiles
    unreached: float


@dataclass(frozen=True)
class Race:
    """Two recipes at equal amounts of compute or time.

    Args:
        unit: of the amounts.
        ranking: over the range, and at the target.
    """

    unit: str
    crossing: Crossing
    ranking: tuple[Rank, ...]
    gain: Gain


def even(values: Array, weights: Array) -> Array:
    """Equally likely draws (m, n) out of weighted ones (b, n), the same ones for the same weights."""
    reached = np.cumsum(weights) / weights.sum()
    at = np.searchsorted(reached, (np.arange(PAIRED) + 0.5) / PAIRED)
    return np.asarray(values[np.minimum(at, len(values) - 1)])


def _quantiles(values: Array) -> Quantiles:
    low, middle, high = np.quantile(values, (INTERVAL[0], 0.5, INTERVAL[1]))
    return Quantiles(float(middle), float(low), float(high))


def _better(pair: Pair, difference: Array) -> dict[str, float]:
    """By recipe, the share of pairs in which it is the better; half of those that are equal."""
    second = float(np.mean(difference > 0.0) + 0.5 * np.mean(difference == 0.0))
    return {pair[0].name: 1.0 - second, pair[1].name: second}


def versus(pair: Pair, one: Array, two: Array) -> Versus:
    """From ln L of draws, (m,) each."""
    difference = np.exp(one)[:, None] - np.exp(two)
    loss = {r.name: _quantiles(np.exp(value)) for r, value in zip(pair, (one, two), strict=True)}
    return Versus(_better(pair, difference), loss, _quantiles(difference))


def race(
    pair: Pair,
    unit: str,
    rates: tuple[float, float],
    ends: tuple[float, float],
    at: float,
    along: Mapping[str, float],
) -> Race:
    """Both curves over amounts; ``rates`` are FLOPs by unit of an amount."""

    def curve(which: Literal[0, 1], amounts: Array) -> Array:
        x = path(pair[which], amounts * rates[which], along)
        return even(*pair[which].posterior.draws(x))

    amounts = np.geomspace(*ends, NODES)
    difference = curve(0, amounts)[:, None] - curve(1, amounts)
    shown = np.linspace(0, NODES - 1, RANKED).astype(int)
    ranking = [Rank(float(amounts[k]), _better(pair, difference[..., k])) for k in shown]
    there = np.array([at])
    ranking.append(Rank(at, _better(pair, curve(0, there) - curve(1, there)[:, 0])))
    ranking.sort(key=lambda rank: rank.amount)
    return Race(unit, _crossing(pair, amounts, difference), tuple(ranking), _gain(curve, at))


def _crossing(pair: Pair, amounts: Array, difference: Array) -> Crossing:
    """The last change of sign of differences (m, m, n) for every pair, by linear interpolation in ln."""
    ahead = difference > 0.0  # the second is
    change = ahead[..., 1:] != ahead[..., :-1]
    crosses = change.any(axis=-1)
    last = change.shape[-1] - 1 - np.argmax(change[..., ::-1], axis=-1)
    before, after = (np.take_along_axis(difference, (last + i)[..., None], -1)[..., 0] for i in (0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        part = before / (before - after)
    step = np.log(amounts[1] / amounts[0])
    log_at = (np.log(amounts[0]) + step * (last + part))[crosses]
    share = float(crosses.mean())
    second = float(np.mean(crosses & ahead[..., -1]))
    return Crossing(
        low=float(amounts[0]),
        high=float(amounts[-1]),
        probability=share,
        at=_quantiles(np.exp(log_at)) if share > RARE else None,
        above={pair[0].name: share - second, pair[1].name: second},
    )


def _gain(curve: Callable[[Literal[0, 1], Array], Array], at: float) -> Gain:
    """Solves loss_two(C_2) = loss_one(C_1) for every pair on a fine grid around C_1."""
    one = curve(0, np.array([at]))[:, 0]
    offset = np.linspace(-WIDE, WIDE, FINE)
    two = curve(1, at * np.exp(offset))
    falling = np.minimum.accumulate(two, axis=1)
    needed = np.array([np.interp(-one, -row, offset, left=-WIDE, right=np.inf) for row in falling])
    middle, step = FINE // 2, offset[1] - offset[0]
    slope = np.exp(two[:, middle]) * (two[:, middle + 1] - two[:, middle - 1]) / (2.0 * step)
    drop = np.exp(one) - np.exp(two[:, middle])[:, None]
    local = np.clip(drop / np.maximum(-slope, 1e-300)[:, None], -WIDE, WIDE)
    multiple = _quantiles(np.exp(-needed))
    return Gain(at, multiple, _quantiles(np.exp(local)), float(np.mean(np.isinf(needed))))
