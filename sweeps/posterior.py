"""What an ensemble believes: draws over laws, noise and parameters, pooled by weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import t as student_t

from sweeps.ensemble import Ensemble, Member
from sweeps.hyperaxis import HyperAxis
from sweeps.laws.base import Array, Columns
from sweeps.model import Frame, Model

INTERVAL = (0.05, 0.95)
MIN_DEGREES = 3.0  # of freedom that the noise is known with


@dataclass(frozen=True)
class Quantiles:
    """Median and 90 % interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Band:
    """Median and 90 % interval at every row, (n,) each."""

    median: Array
    low: Array
    high: Array

    def first(self) -> Quantiles:
        """At the first row."""
        return Quantiles(float(self.median[0]), float(self.low[0]), float(self.high[0]))

    def map(self, change: Callable[[Array], Array]) -> Band:
        """An increasing function of it."""
        return Band(change(self.median), change(self.low), change(self.high))


@dataclass(frozen=True)
class Posterior:
    """An ensemble and the frame it reads columns in."""

    ensemble: Ensemble
    frame: Frame

    @cached_property
    def pairs(self) -> list[tuple[Model, Member]]:
        """Every model with its member."""
        return list(self.ensemble.pairs(self.frame.surface))

    def axis(self, name: str) -> HyperAxis | None:
        """The axis of the surface with this name, if it varies."""
        return next((axis for axis in self.frame.surface.axes if axis.name == name), None)

    def mean_loss(self, x: Columns) -> Band:
        """Loss at rows, averaged over seeds."""
        return self._log_loss(x).map(np.exp)

    def new_loss(self, x: Columns) -> Band:
        """Loss of new runs: the mean's interval and the noise, added in quadrature."""
        mean = self._log_loss(x)
        noise = np.zeros(len(mean.median))
        for model, member in self.pairs:
            one = member.fit
            reach = student_t.ppf(INTERVAL[1], min(max(one.degrees, MIN_DEGREES), one.noise.nu))
            scale = model.scale(one.noise, one.theta, x)
            noise = noise + member.weight * (member.stretch * scale * reach) ** 2
        low = mean.median - np.sqrt((mean.median - mean.low) ** 2 + noise)
        high = mean.median + np.sqrt((mean.high - mean.median) ** 2 + noise)
        return Band(mean.median, low, high).map(np.exp)

    def by_law(self, x: Columns) -> dict[str, Array]:
        """Median loss of each law alone, (n,), by its most probable fit."""
        found: dict[str, Array] = {}
        for model, member in self.pairs:
            if member.fit.law not in found:
                value = model.log_loss(member.fit.draws, x) + member.fit.loss_centre
                found[member.fit.law] = np.exp(np.median(value, axis=0))
        return found

    def pool(self, of: Callable[[Model, Member], Array | None]) -> Band | None:
        """Quantiles of anything over all draws, each member's spread about its median by its stretch.

        Args:
            of: a model and its member -> (b, n) for its draws, positive quantities as logarithms; None
                where it cannot tell.

        Returns:
            (n,); None where no member can tell.
        """
        values, weights = [], []
        for model, member in self.pairs:
            found = of(model, member)
            if found is not None:
                values.append(_stretched(found, member))
                weights.append(np.full(len(found), member.weight / len(found)))
        return quantiles(np.concatenate(values), np.concatenate(weights)) if values else None

    def draws(self, x: Columns, rng: np.random.Generator | None = None) -> tuple[Array, Array]:
        """ln L at rows by every draw, averaged over seeds.

        Args:
            rng: adds the noise of a new run to every row of every draw.

        Returns:
            (b, n) and the weights of the draws, (b,), which sum to 1.
        """
        values, weights = [], []
        for model, member in self.pairs:
            one = member.fit
            value = _stretched(model.log_loss(one.draws, x) + one.loss_centre, member)
            if rng is not None:
                scale = member.stretch * model.scale(one.noise, one.theta, x)
                tails = min(max(one.degrees, MIN_DEGREES), one.noise.nu)
                value = value + scale * rng.standard_t(tails, value.shape)
            values.append(value)
            weights.append(np.full(len(value), member.weight / len(value)))
        return np.concatenate(values), np.concatenate(weights)

    def _log_loss(self, x: Columns) -> Band:
        return quantiles(*self.draws(x))

    def best(self, x: Columns, name: str) -> Array:
        """Centred coordinate of an axis's optimum, (n,): weighted mean of the modes."""
        found = [m.weight * model.optimum(m.fit.theta, x)[name] for model, m in self.pairs]
        return np.asarray(np.sum(found, axis=0))

    def best_interval(self, x: Columns, name: str) -> Band:
        """Centred coordinate of an axis's optimum over the draws."""
        found = self.pool(lambda model, member: model.optimum(member.fit.draws, x)[name])
        assert found is not None
        return found

    def plateau(self, x: Columns, name: str, height: float) -> tuple[float, float]:
        """Centred ends of an axis between which the loss stays within a height of the best, others at
        their best.

        Args:
            x: columns of one row.
        """
        offsets = np.linspace(-5.0, 5.0, 2001)
        bowl = np.zeros(len(offsets))
        for model, member in self.pairs:
            rows = {key: np.repeat(column, len(offsets), axis=0) for key, column in x.items()}
            theta = member.fit.theta
            rows |= {name: model.optimum(theta, rows)[name] + offsets}
            others = model.optimum(theta, rows)
            rows |= {other: column for other, column in others.items() if other != name}
            bowl += member.weight * model.height(theta, rows)
        inside = offsets[bowl <= bowl.min() + height]
        centre = float(self.best(x, name)[0])
        return centre + float(inside.min(initial=0.0)), centre + float(inside.max(initial=0.0))

    def split(self, log_product: float) -> Quantiles | None:
        """ln N of the lowest loss at a given ln(N D); None where no law can tell."""

        def draws(model: Model, member: Member) -> Array | None:
            if model.law.split is None:
                return None
            centre = self.ensemble.centre | {"loss": member.fit.loss_centre}
            theta = member.fit.draws[:, : model.split]
            return model.law.split(theta, centre, np.asarray(log_product))[:, None]

        found = self.pool(draws)
        return None if found is None else found.first()


def _stretched(values: Array, member: Member) -> Array:
    """Draws (b, n) as far from their median as hold-outs say they should be."""
    centre = np.median(values, axis=0)
    return np.asarray(centre + member.stretch * (values - centre))


def quantiles(values: Array, weights: Array) -> Band:
    """Weighted median and 90 % interval of draws (b, n) with weights (b,)."""
    order = np.argsort(values, axis=0)
    heavy = weights[order]
    rank = (np.cumsum(heavy, axis=0) - 0.5 * heavy) / weights.sum()
    ordered = np.take_along_axis(values, order, axis=0)
    at = np.array([INTERVAL[0], 0.5, INTERVAL[1]])
    found = np.array([np.interp(at, rank[:, i], ordered[:, i]) for i in range(values.shape[1])])
    return Band(found[:, 1], found[:, 0], found[:, 2])
