"""Answers with intervals: the loss at a target, the best settings there, the compute-optimal split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sweeps.ensemble import Ensemble
from sweeps.errors import FitError, Warning
from sweeps.kinds.base import SCALE
from sweeps.laws.base import Array
from sweeps.posterior import Posterior, Quantiles
from sweeps.scaling import SIZE
from sweeps.space import tabulate, tabulate_configs
from sweeps.spec import Config, SweepSpec, Target
from sweeps.surface import surface

SHAPE = frozenset({*SCALE, "seed", "resolution", "patch", "group_width", "mup"})
PLATEAU = 0.0025  # relative loss above the best that still counts as optimal
FAR = 30.0  # extrapolation in compute beyond which a prediction is flagged
FEW = 8  # runs below which intervals are mostly prior
DISAGREE = 0.5  # spread of the laws over the interval's width beyond which they are said to disagree
SLIGHT = 0.05  # weight of a fit below which its troubles are not worth a warning
NEAR = 2.0  # factor above the learning rate taken within which a run that diverged is told
FURTHER = 1e3  # than the sizes of the space, that models of the best split are sought
SHAPE_WEIGHT = 0.3  # relative to an error in ln N, of an error in ln(width / depth)


@dataclass(frozen=True)
class Prediction:
    """The loss expected at a configuration.

    Args:
        at: the configuration, with predicted settings where none were given.
        loss: median.
        low, high: 90 % interval for a new run.
        mean_low, mean_high: 90 % interval for the mean over seeds.
        extrapolation: compute there over that of the largest observed run.
        flops, params: of the configuration; params by the count the laws read.
        laws: weight of each law.
        by_law: median of each law alone.
        runs: ids it rests on.
        lr_used: the peak learning rate of a training there, where ``trainer.batch_rule`` makes it another one
            than ``lr`` of the configuration, which is that at ``trainer.base_batch``; None where they agree.
    """

    at: Config
    loss: float
    low: float
    high: float
    mean_low: float
    mean_high: float
    extrapolation: float
    flops: float
    params: float
    laws: dict[str, float]
    by_law: dict[str, float]
    runs: tuple[int, ...]
    warnings: tuple[Warning, ...]
    lr_used: float | None = None

    @property
    def relative(self) -> float:
        """Half-width of the interval for a new run over the loss."""
        return (self.high - self.low) / (2.0 * self.loss)


@dataclass(frozen=True)
class Setting:
    """The best value of a hyperparameter.

    Args:
        value: predicted; for a fixed axis its only value.
        low, high: 90 % interval; None for a fixed axis.
        plateau: values between which the loss stays within 0.25 % of the best, others at their best.
    """

    value: float
    low: float | None = None
    high: float | None = None
    plateau: tuple[float, float] | None = None


@dataclass(frozen=True)
class Split:
    """How to spend compute.

    Args:
        flops: to spend.
        params, tokens: that reach the lowest loss, with 90 % intervals.
        width, depth: of a model of about that size.
        size: that sets them; None where the proxy has no scaling.
        loss, low, high: expected there, for a new run.
    """

    flops: float
    params: float
    params_low: float
    params_high: float
    tokens: float
    tokens_low: float
    tokens_high: float
    width: int
    depth: int
    loss: float
    low: float
    high: float
    size: float | None = None

    @property
    def shape(self) -> Config:
        """Its axes of shape and its tokens."""
        shape = {"width": self.width, "depth": self.depth} if self.size is None else {SIZE: self.size}
        return {**shape, "tokens": max(1.0, self.tokens)}


@dataclass(frozen=True)
class Optimum:
    """The best way to train at a target.

    Args:
        prediction: at the target with these settings.
        settings: by axis, every hyperparameter the kind of proxy has.
        split: of the target's compute; None where no law can tell.
    """

    prediction: Prediction
    settings: dict[str, Setting]
    split: Split | None


@dataclass(frozen=True)
class View(Posterior):
    """An ensemble read in the frame of its sweep."""

    spec: SweepSpec

    def columns(self, at: Config) -> dict[str, Array]:
        """Columns of one configuration, each (1,)."""
        return self.frame.columns(tabulate(self.spec, self.spec.complete(at)))


def view_of(spec: SweepSpec, ensemble: Ensemble) -> View:
    """The ensemble of a sweep."""
    return View(ensemble, ensemble.frame(surface(spec)), spec)


def settings(spec: SweepSpec, ensemble: Ensemble, target: Target) -> Config:
    """The full configuration to train a target with: what it leaves open is predicted."""
    return predict(spec, ensemble, target.at).at


def predict(spec: SweepSpec, ensemble: Ensemble, at: Config, diverged: Sequence[Config] = ()) -> Prediction:
    """The loss at a configuration; hyperparameters left out are taken at their predicted optimum.

    Args:
        at: axes of the sweep's proxy; width, depth and tokens at least.
        diverged: configurations that did; a warning tells where one is close.
    """
    view = view_of(spec, ensemble)
    full = with_best(view, at)
    x = view.columns(full)
    mean, new = view.mean_loss(x).first(), view.new_loss(x).first()
    by_law = {law: float(value[0]) for law, value in view.by_law(x).items()}
    cost = spec.cost(full)
    return Prediction(
        at=full,
        loss=mean.median,
        low=new.low,
        high=new.high,
        mean_low=mean.low,
        mean_high=mean.high,
        extrapolation=cost.flops / ensemble.largest_flops,
        flops=cost.flops,
        params=float(getattr(cost, ensemble.count)),
        laws=ensemble.laws,
        by_law=by_law,
        runs=ensemble.runs,
        warnings=(*_warnings(view, full, cost.flops, new, by_law), *_diverged(view, full, diverged)),
        lr_used=float(spec.rates(full)) if spec.batch_power else None,
    )


def optimum(spec: SweepSpec, ensemble: Ensemble, at: Config, diverged: Sequence[Config] = ()) -> Optimum:
    """The best hyperparameters at a configuration, the loss they reach and the best use of its compute.

    Args:
        at, diverged: as of ``predict``.
    """
    view = view_of(spec, ensemble)
    prediction = predict(spec, ensemble, at, diverged)
    names = [name for name in spec.axes if name not in SHAPE]
    found = {name: _setting(view, prediction.at, name) for name in names}
    return Optimum(prediction, found, _split(view, prediction.at, prediction.flops))


def frontier(spec: SweepSpec, ensemble: Ensemble, flops: Sequence[float]) -> list[Split]:
    """The compute-optimal split for each amount of compute.

    Raises:
        FitError: when no law of the sweep tells parameters from tokens.
    """
    view = view_of(spec, ensemble)
    like = spec.complete(spec.targets[0].at)
    found = [split for amount in flops if (split := _split(view, like, amount)) is not None]
    if len(found) < len(flops):
        raise FitError(
            "no law of this sweep tells parameters from tokens; add chinchilla or coupled to laws.names"
        )
    return found


def with_best(view: View, at: Config) -> Config:
    """A configuration with its open hyperparameters at their optimum, rounded to what the trainer takes."""
    full = dict(at)
    for axis in view.frame.surface.axes:
        if axis.name not in at:
            best = view.best(view.columns(full), axis.name)[0]
            full[axis.name] = _usable(view.spec, axis.name, float(axis.value(np.array(best))))
    return view.spec.complete(full)


def mean_losses(view: View, columns: Mapping[str, ArrayLike]) -> Array:
    """The median loss at many configurations, (n,), open hyperparameters at their optimum.

    Args:
        columns: axes of the proxy, each (n,) or a number.
    """
    x = view.frame.columns(tabulate(view.spec, columns))
    for axis in view.frame.surface.axes:
        if axis.name not in columns:
            values = view.spec.space[axis.name].values
            x[axis.name] = np.clip(view.best(x, axis.name), *axis.coordinate(np.array(values))[[0, -1]])
    return view.mean_loss(x).median


def _usable(spec: SweepSpec, name: str, value: float) -> float:
    """A value the trainer takes: within what was tried, since a bowl fitted in one place says little about
    far ones; whole where it must be, else 4 digits."""
    rule, values = spec.axes[name], spec.space[name].values
    bounded = min(max(value, values[0]), values[-1])
    return float(round(bounded)) if rule.integer else float(f"{bounded:.4g}")


def _setting(view: View, at: Config, name: str) -> Setting:
    axis = view.axis(name)
    if axis is None:
        return Setting(at[name])
    x = view.columns(at)
    interval = view.best_interval(x, name).first()
    ends = [view.best(x, name)[0], interval.low, interval.high, *view.plateau(x, name, PLATEAU)]
    value, low, high, first, last = (float(v) for v in axis.value(np.array(ends)))
    return Setting(_usable(view.spec, name, value), low, high, (first, last))


def _split(view: View, like: Config, flops: float) -> Split | None:
    """The compute-optimal split at the FLOPs per parameter and token of the given configuration."""
    spec, cost = view.spec, view.spec.cost(like)
    factor = cost.flops / (getattr(cost, view.ensemble.count) * cost.tokens_seen)
    product = flops / factor
    log_params = None if "tokens" in spec.derived else view.split(float(np.log(product)))
    if log_params is None:
        return None
    params, low, high = (float(np.exp(q)) for q in (log_params.median, log_params.low, log_params.high))
    shape = _shape(spec, view.ensemble.count, params, like["width"] / like["depth"])
    varied = {axis.name for axis in view.frame.surface.axes}
    fixed = {name: value for name, value in like.items() if name not in varied}
    there = with_best(view, fixed | shape | {"tokens": product / params})
    loss = view.new_loss(view.columns(there)).first()
    return Split(
        flops=flops,
        params=params,
        params_low=low,
        params_high=high,
        tokens=product / params,
        tokens_low=product / high,
        tokens_high=product / low,
        width=int(there["width"]),
        depth=int(there["depth"]),
        loss=loss.median,
        low=loss.low,
        high=loss.high,
        size=shape.get(SIZE),
    )


def _shape(spec: SweepSpec, count: str, params: float, aspect: float) -> Config:
    """Width (a multiple of what all widths of the space share) and depth of a model of about this size, or
    what sets them.

    Args:
        aspect: width over depth that is kept, unless only one depth was tried.
    """
    if spec.proxy.scaling:
        first, *_, last = (*spec.space[SIZE].values, spec.space[SIZE].values[-1])
        sizes = np.geomspace(first / FURTHER, last * FURTHER, 1024)
        found = tabulate(spec, spec.complete(spec.targets[0].at) | {SIZE: sizes})
        return {SIZE: float(f"{sizes[np.argmin(np.abs(np.log(found[count] / params)))]:.4g}")}
    tried = spec.space["depth"].values
    step = int(np.gcd.reduce([int(value) for value in spec.space["width"].values]))
    widths, depths = np.meshgrid(
        step * np.arange(1.0, 513.0), np.array(tried) if len(tried) == 1 else np.arange(1.0, 129.0)
    )
    like = spec.complete(spec.targets[0].at)
    table = tabulate(spec, like | {"width": widths.ravel(), "depth": depths.ravel()})
    error = np.abs(np.log(table[count] / params))
    error += SHAPE_WEIGHT * np.abs(np.log(table["width"] / table["depth"] / aspect))
    best = int(np.argmin(error))
    return {"width": float(table["width"][best]), "depth": float(table["depth"][best])}


def _warnings(
    view: View, at: Config, flops: float, new: Quantiles, by_law: dict[str, float]
) -> Iterator[Warning]:
    ensemble = view.ensemble
    if ensemble.n < FEW:
        yield Warning("few_runs", f"only {ensemble.n} runs are finished; the interval is mostly prior")
    distance = flops / ensemble.largest_flops
    if distance > FAR:
        yield Warning("far", f"the target needs {distance:.0f} times the compute of the largest run")
    if distance < 1:
        yield Warning("inside", "a run of more compute is already among the observations")
    spread = max(by_law.values()) - min(by_law.values())
    if spread > DISAGREE * (new.high - new.low):
        laws = ", ".join(f"{name} {value:.4g}" for name, value in by_law.items())
        yield Warning("laws_disagree", f"the laws differ: {laws}")
    for law in sorted({m.fit.law for m in ensemble.members if not m.fit.converged and m.weight > SLIGHT}):
        yield Warning("not_converged", f"the fit of {law} did not settle")
    x = view.columns(at)
    for axis in view.frame.surface.axes:
        values = view.spec.space[axis.name].values if axis.name in view.spec.space else ()
        if values:
            best = float(axis.value(view.best(x, axis.name))[0])
            if not values[0] <= best <= values[-1]:
                yield Warning(
                    f"{axis.name}_outside",
                    f"the optimal {axis.name} there, {best:.3g}, lies outside the values tried, "
                    f"{values[0]:g} to {values[-1]:g}; the nearest of these is taken",
                )


def _diverged(view: View, at: Config, diverged: Sequence[Config]) -> Iterator[Warning]:
    """The run that diverged closest to the learning rate taken, if one is close.

    Its rate is carried here with the predicted optimum, but never upwards to a model as large with a batch
    as small: that would diverge at the same rate too.
    """
    if not diverged:
        return
    table, axis = tabulate_configs(view.spec, [at, *diverged]), view.axis("lr")
    size, batch = table["params_total"], table["batch"]
    rate = view.spec.rates({"lr": table["lr"], "batch": batch})
    best = np.ones(len(table))
    if axis is not None:
        best = view.spec.rates({"lr": axis.value(view.best(view.frame.columns(table), "lr")), "batch": batch})
    moved = best[0] / best[1:]
    harder = (size[0] >= size[1:]) & (batch[0] <= batch[1:])
    limit = rate[1:] * np.where(harder, np.minimum(moved, 1.0), moved)
    i = int(np.argmin(limit))
    if limit[i] < NEAR * rate[0]:
        yield Warning(
            "diverged_near",
            f"a run of {size[1 + i]:.3g} parameters diverged at lr {rate[1 + i]:.3g}, which here is "
            f"{limit[i]:.3g}, {limit[i] / rate[0]:.2g} times the lr taken; take a lower lr of the plateau "
            "or a longer warm-up, and see whether other seeds of the largest runs hold there",
        )
