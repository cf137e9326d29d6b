"""What an ensemble believes about one configuration: draws over laws and parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from sweeps.ensemble import Ensemble
from sweeps.laws.base import Array, Columns
from sweeps.model import Frame
from sweeps.space import tabulate
from sweeps.spec import Config, SweepSpec
from sweeps.surface import HyperAxis

INTERVAL = (0.05, 0.95)
MIN_DEGREES = 3.0  # of freedom that the noise is known with


@dataclass(frozen=True)
class Quantiles:
    """Median and 90 % interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Posterior:
    """An ensemble read in the frame of its sweep. Draws of all laws are pooled by the laws' weights."""

    spec: SweepSpec
    ensemble: Ensemble
    frame: Frame

    def columns(self, at: Config) -> dict[str, Array]:
        """Centred columns of one configuration, each (1,)."""
        return self.frame.columns(tabulate(self.spec, self.spec.complete(at)))

    def axis(self, name: str) -> HyperAxis | None:
        """The axis of the surface with this name, if it varies."""
        return next((axis for axis in self.frame.surface.axes if axis.name == name), None)

    def mean_loss(self, x: Columns) -> Quantiles:
        """Loss at a configuration, averaged over seeds."""
        values, weights = self._log_loss(x)
        return _exp(_quantiles(values, weights))

    def new_loss(self, x: Columns) -> Quantiles:
        """Loss of a new run at a configuration: the mean's interval and the noise, added in quadrature."""
        values, weights = self._log_loss(x)
        mean = _quantiles(values, weights)
        noise = 0.0
        for _, member in self.ensemble.pairs(self.spec):
            reach = student_t.ppf(INTERVAL[1], max(member.fit.degrees, MIN_DEGREES))
            noise += member.weight * float(member.stretch * member.fit.noise.sigma * reach) ** 2
        low = mean.median - float(np.hypot(mean.median - mean.low, np.sqrt(noise)))
        high = mean.median + float(np.hypot(mean.high - mean.median, np.sqrt(noise)))
        return _exp(Quantiles(mean.median, low, high))

    def by_law(self, x: Columns) -> dict[str, float]:
        """Median loss of each law alone."""
        return {
            member.fit.law: float(
                np.exp(np.median(model.evaluate(member.fit.draws, x)[0]) + member.fit.loss_centre)
            )
            for model, member in self.ensemble.pairs(self.spec)
        }

    def _log_loss(self, x: Columns) -> tuple[Array, Array]:
        """Draws of the mean ln L over all laws, with each law's misfit, and their weights, (b,) each."""
        rng = np.random.default_rng(0)  # common random numbers: intervals move with the data alone
        values, weights = [], []
        for model, member in self.ensemble.pairs(self.spec):
            one, b = member.fit, len(member.fit.draws)
            value = model.evaluate(one.draws, x)[0][:, 0] + one.loss_centre
            value += one.noise.misfit * one.noise.sigma * rng.standard_normal(b)
            centre, spread = np.median(value), float(np.std(value))
            wider = max(member.stretch, member.drift / spread)
            values.append(centre + wider * (value - centre))
            weights.append(np.full(b, member.weight / b))
        return np.concatenate(values), np.concatenate(weights)

    def best(self, x: Columns, name: str) -> float:
        """Centred coordinate of an axis's optimum: weighted mean of the laws' modes."""
        return float(
            sum(
                member.weight * model.surface.optimum(member.fit.theta[model.split :], x)[name][0]
                for model, member in self.ensemble.pairs(self.spec)
            )
        )

    def best_interval(self, x: Columns, name: str) -> Quantiles:
        """Centred coordinate of an axis's optimum over the draws."""
        values, weights = [], []
        for model, member in self.ensemble.pairs(self.spec):
            values.append(model.surface.optimum(member.fit.draws[:, model.split :], x)[name][:, 0])
            weights.append(np.full(len(member.fit.draws), member.weight / len(member.fit.draws)))
        return _quantiles(np.concatenate(values), np.concatenate(weights))

    def plateau(self, x: Columns, name: str, height: float) -> tuple[float, float]:
        """Centred ends of an axis between which the bowl stays below a height, others at their best."""
        offsets = np.linspace(-5.0, 5.0, 2001)
        bowl = np.zeros(len(offsets))
        for model, member in self.ensemble.pairs(self.spec):
            rows = {key: np.broadcast_to(column, offsets.shape) for key, column in x.items()}
            theta = member.fit.theta
            best = model.surface.optimum(theta[model.split :], rows)
            rows |= {name: best[name] + offsets}
            others = model.surface.optimum(theta[model.split :], rows)
            rows |= {other: column for other, column in others.items() if other != name}
            bowl += member.weight * model.height(theta, rows)
        inside = offsets[bowl <= height]
        centre = self.best(x, name)
        return centre + float(inside.min(initial=0.0)), centre + float(inside.max(initial=0.0))

    def split(self, log_product: float) -> Quantiles | None:
        """ln N of the lowest loss at a given ln(N D); None where no law can tell."""
        values, weights = [], []
        product = np.asarray(log_product)
        for model, member in self.ensemble.pairs(self.spec):
            if model.law.split is not None:
                centre = self.ensemble.centre | {"loss": member.fit.loss_centre}
                values.append(model.law.split(member.fit.draws[:, : model.split], centre, product))
                weights.append(np.full(len(member.fit.draws), member.weight / len(member.fit.draws)))
        return _quantiles(np.concatenate(values), np.concatenate(weights)) if values else None


def posterior(spec: SweepSpec, ensemble: Ensemble) -> Posterior:
    """The ensemble in the frame of its sweep."""
    return Posterior(spec, ensemble, ensemble.frame(spec))


def _quantiles(values: Array, weights: Array) -> Quantiles:
    order = np.argsort(values)
    total = weights.sum()
    rank = (np.cumsum(weights[order]) - 0.5 * weights[order]) / total
    low, median, high = np.interp((INTERVAL[0], 0.5, INTERVAL[1]), rank, values[order])
    return Quantiles(float(median), float(low), float(high))


def _exp(log: Quantiles) -> Quantiles:
    return Quantiles(float(np.exp(log.median)), float(np.exp(log.low)), float(np.exp(log.high)))
