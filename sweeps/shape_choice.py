"""Which shape to train at a budget: every strategy's and the best of all, with predicted loss and seconds.

Strategies share out the growth in FLOPs between depth, width and resolution (``sweeps.shapes``). The best of
all shapes follows no strategy: depth and resolution are enumerated, the width spends the rest of the budget,
and the laws say which has the lowest loss. Tokens stay as they are, and the learning rate is taken at its
predicted optimum.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sweeps import answers
from sweeps.cost import SecondsModel
from sweeps.ensemble import Ensemble
from sweeps.errors import FitError, Warning
from sweeps.laws.base import Array
from sweeps.selection import compute
from sweeps.shapes import STRATEGIES, Complexity, Multipliers, Strategy, fit_seconds
from sweeps.space import tabulate
from sweeps.spec import Config, SweepSpec
from sweeps.study import Forecast, Study, predict
from sweeps.wording import choices

BUDGETS = ("flops", "activations")
SHAPE = frozenset({"width", "depth", "resolution"})
DIGITS = 6  # of ln L, beyond which shapes are equals
FREE = "free"  # the best of all shapes
STEPS = 48  # values of depth, and of resolution, that are tried at most
TINY = 1e-9  # relative, of rounding
HALVINGS = 20  # of the widths that may spend a budget
SEARCH = np.exp(np.linspace(-3.0, 3.0, 241))  # around the factor, where a shape's own cost meets the budget


@dataclass(frozen=True)
class Choice:
    """A shape at the budget.

    Args:
        strategy: of ``STRATEGIES``, or ``FREE``.
        by: factors of depth, width and resolution.
        flops, params, activations: times those of the base.
        seconds: of the run; None where nothing was timed.
        at: the configuration.
        loss: median.
        low, high: 90 % interval for a new run.
        mean_low, mean_high: 90 % interval for the mean over seeds.
        extrapolation: compute over that of the largest run.
        best: of the lowest loss; among equals the fastest, or the one of fewest activations.
        best_for_time: none as fast has a lower loss; False where nothing was timed.
    """

    strategy: str
    by: Multipliers
    flops: float
    params: float
    activations: float
    seconds: float | None
    at: dict[str, float]
    loss: float
    low: float
    high: float
    mean_low: float
    mean_high: float
    extrapolation: float
    warnings: tuple[Warning, ...]
    best: bool = False
    best_for_time: bool = False


def choose(
    study: Study,
    factor: float,
    *,
    budget: str = "flops",
    base: Mapping[str, float] | None = None,
    seconds: Array | None = None,
) -> list[Choice]:
    """Every strategy and the best of all shapes by a fitted table, lowest predicted loss first.

    What moves the resolution takes part where the fit knows it, the best of all where laws read the width.

    Args:
        study: whose laws read width and depth, or at least parameters.
        factor: of the budget over the base's.
        budget: ``flops`` or ``activations``.
        base: what is scaled, by quantity; the largest run without.
        seconds: measured, of every run of the table, (n,); the table then needs width and depth.

    Raises:
        FitError: the laws do not read the size of a model, or a quantity is missing.
    """
    _check(factor, budget)
    frame, seen = study.problem.frame, study.problem.table
    read = {*study.scales, *frame.sources} - {"x"} | (SHAPE & {axis.name for axis in frame.surface.axes})
    if not read & {*SHAPE, "params", "active_params"}:
        raise FitError("the laws read nothing of a model's size; map width and depth, or params")
    if base is None:
        largest = int(np.argmax(seen["flops"]))
        base = {name: float(column[largest]) for name, column in seen.items()}
    given = {name: np.array([value]) for name, value in base.items()}
    base = {name: float(column[0]) for name, column in (given | compute(given, seen)).items()}
    tried = {name: one for name, one in STRATEGIES.items() if not one.resolution or "resolution" in read}
    by = {name: one.at(_times(one, factor, budget)) for name, one in tried.items()}
    shown = [name for name in base if name in read | SHAPE]

    def moved(times: Mapping[str, Array]) -> dict[str, Array]:
        return {name: base[name] * np.asarray(times.get(name, 1.0)) for name in shown}

    known = read & {*base}
    if "width" in known:
        free = [name for name in ("depth", "resolution") if name in known]
        reach = _reach(factor, base["flops"], study.ensemble.largest_flops)
        every = _every(seen, base, free, factor, budget, reach)
        asked = {name: column for name, column in moved(_followed(every)).items() if name in read}
        if len(every["width"]):
            lowest = int(np.argmin(study.posterior.mean_loss(study.columns(asked)).median))
            by[FREE] = Multipliers(**{name: float(column[lowest]) for name, column in every.items()})
    found, time = [], None if seconds is None else _seconds(seen, seconds, base)
    times = {name: _followed(vars(one)) for name, one in by.items()}
    at = moved({name: np.array([one[name] for one in times.values()]) for name in times["w"]})
    forecasts = predict(study, {name: column for name, column in at.items() if name in read})
    for i, name in enumerate(by):
        took = None if time is None else time(times[name])
        there = {n: float(np.broadcast_to(column, len(by))[i]) for n, column in at.items()}
        found.append(_choice(name, by[name], times[name], took, there, forecasts[i], read))
    return _ranked(found)


def choose_in_sweep(
    spec: SweepSpec,
    ensemble: Ensemble,
    at: Config,
    factor: float,
    *,
    budget: str = "flops",
    seconds: SecondsModel | None = None,
    diverged: Sequence[Config] = (),
) -> list[Choice]:
    """As ``choose``, by the laws of a sweep and its exact costs, widths and depths rounded to what it trains.

    The batch stays as it is.

    Args:
        at: what is scaled: axes of the proxy, open hyperparameters at their optimum.
        seconds: predicts device seconds.
        diverged: as of ``answers.predict``.
    """
    _check(factor, budget)
    if spec.proxy.scaling:
        raise FitError("proxy.scaling says how shapes grow; leave it out to compare rules")
    view = answers.view_of(spec, ensemble)
    base = answers.with_best(view, at)
    cost, varied = spec.cost(base), {name for name, axis in spec.space.items() if len(axis.values) > 1}
    wanted = factor * float(getattr(cost, budget)) * (1.0 + TINY)
    kept = {name: value for name, value in base.items() if name != "lr" or name not in varied}
    shapes = {
        name: _shape(spec, base, strategy, _times(strategy, factor, budget), budget, wanted)
        for name, strategy in STRATEGIES.items()
        if not strategy.resolution or "resolution" in varied
    }
    if "width" in ensemble.sources:
        free = [name for name in ("depth", "resolution") if name in varied]
        reach = _reach(factor, cost.flops, ensemble.largest_flops)
        shapes[FREE] = _best(view, base, kept, free, reach, budget, wanted)
    found = []
    for name, shape in shapes.items():
        if shape is None:
            continue
        one = answers.predict(spec, ensemble, kept | shape, diverged)
        new = spec.cost(one.at)
        times = {n: float(getattr(new, n) / getattr(cost, n)) for n in (*BUDGETS, ensemble.count)}
        times["params"] = times.pop(ensemble.count)
        by = Multipliers(**{axis: one.at[axis] / base[axis] for axis in SHAPE})
        took = None if seconds is None else seconds(new)
        found.append(_choice(name, by, times, took, one.at, one, ensemble.sources))
    return _ranked(found)


def grown(strategy: Strategy, factor: float, budget: str = "flops") -> tuple[Multipliers, dict[str, float]]:
    """Factors of the shape, and of all that follows, where FLOPs or activations have grown so much."""
    by = strategy.at(_times(strategy, factor, budget))
    return by, _followed(vars(by))


def _followed(by: Mapping[str, Any]) -> dict[str, Any]:
    """Factors of depth, width and resolution, numbers or (n,), with those of all that follows."""
    params, area = by["depth"] * by["width"] ** 2, by["resolution"] ** 2
    follow = {"flops": params * area, "params": params, "active_params": params}
    return {**by, **follow, "activations": by["depth"] * by["width"] * area}


def _reach(factor: float, flops: float, largest: float) -> tuple[float, float]:
    """How far free shapes may go below the least and above the most that was tried, as factors in FLOPs: no
    further than the budget, since laws know little about shapes unlike all that they have seen.

    Args:
        flops: of the base.
        largest: of any run.
    """
    return min(factor, 1.0), max(factor * flops / largest, 1.0)


def _within(name: str, tried: ArrayLike, base: float, reach: tuple[float, float]) -> tuple[float, float]:
    """Ends of depth, width or resolution: of what was tried and the base, moved by all of the reach."""
    known = np.append(np.asarray(tried, dtype=float), base)
    low, high = (getattr(STRATEGIES[name[0]].at(times), name) for times in reach)
    return float(known.min() * low), float(known.max() * high)


def _every(
    seen: Mapping[str, Array],
    base: Mapping[str, float],
    free: Sequence[str],
    factor: float,
    budget: str,
    reach: tuple[float, float],
) -> dict[str, Array]:
    """Factors of depth, width and resolution of shapes that spend the budget, (n,) each.

    Args:
        free: which of depth and resolution may move.
    """
    by = {"depth": np.ones(1), "resolution": np.ones(1)}
    for name in free:
        ends = _within(name, seen[name], base[name], reach)
        by[name] = np.geomspace(*ends, STEPS) / base[name]
    by = dict(zip(by, (one.ravel() for one in np.meshgrid(*by.values())), strict=True))
    width = factor / (by["depth"] * by["resolution"] ** 2)
    by["width"] = np.sqrt(width) if budget == "flops" else width
    low, high = np.array(_within("width", seen["width"], base["width"], reach)) / base["width"]
    inside = (by["width"] >= low * (1.0 - TINY)) & (by["width"] <= high * (1.0 + TINY))
    return {name: one[inside] for name, one in by.items()}


def _check(factor: float, budget: str) -> None:
    if not 0.0 < factor < np.inf:
        raise FitError(f"given factor {factor:g}; allowed: a number above 0")
    if budget not in BUDGETS:
        raise FitError(f"given budget {budget!r}; allowed: {choices(budget, BUDGETS)}")


def _times(strategy: Strategy, factor: float, budget: str) -> float:
    """The FLOPs' factor at which the budget has grown as asked."""
    return factor if budget == "flops" else factor ** (1.0 / strategy.activations)


def _seconds(
    seen: Mapping[str, Array], seconds: Array, base: Mapping[str, float]
) -> Callable[[Mapping[str, float]], float]:
    """Learns how long a run takes: factors of the base -> seconds."""
    missing = [name for name in ("width", "depth") if name not in seen or name not in base]
    if missing:
        raise FitError(
            f"seconds follow activations: map {' and '.join(missing)} too, and give them in the base"
        )

    def activations(of: Mapping[str, Array] | Mapping[str, float]) -> Array:
        area = np.asarray(of.get("resolution", 1.0)) ** 2
        return np.asarray(area * of["depth"] * of["width"] * of.get("tokens", 1.0))

    ends = zip(seen["flops"], np.broadcast_to(activations(seen), seconds.shape), seconds, strict=True)
    learned = fit_seconds([(Complexity(f, 0.0, a), t) for f, a, t in ends])
    flops, kept = base["flops"], float(activations(base))
    return lambda times: learned(Complexity(flops * times["flops"], 0.0, kept * times["activations"]))


def _shape(
    spec: SweepSpec, base: Config, strategy: Strategy, times: float, budget: str, wanted: float
) -> Config | None:
    """Width, depth and resolution near the budget by the sweep's own costs; None where none is."""
    grid = times * SEARCH
    moved = {name: base[name] * grid ** getattr(strategy, name) for name in SHAPE}
    costs = np.log(tabulate(spec, base | moved)[budget])
    if not costs[0] < np.log(wanted) < costs[-1]:
        return None
    s = float(np.exp(np.interp(np.log(wanted), costs, np.log(grid))))
    places = _places(spec, base)
    shape = {name: float(max(1, round(base[name] * s ** getattr(strategy, name)))) for name in SHAPE}
    if strategy.resolution:
        shape["resolution"] = places * max(1, round(base["resolution"] * s**strategy.resolution / places))
    if strategy.width:  # the widest that the budget pays for, whatever the others lost to rounding
        step = _step(spec)
        widths = step * np.arange(1.0, 2.0 * shape["width"] / step + 2.0)
        paid = tabulate(spec, base | shape | {"width": widths})[budget] <= wanted
        shape["width"] = float(widths[max(int(np.count_nonzero(paid)), 1) - 1])
    return shape


def _step(spec: SweepSpec) -> int:
    """What widths are multiples of."""
    return int(np.gcd.reduce([int(value) for value in spec.space["width"].values]))


def _places(spec: SweepSpec, base: Config) -> float:
    """What resolutions are multiples of."""
    return 1.0 if spec.kind.places is None else float(np.asarray(spec.kind.places(base)))


def _best(
    view: answers.View,
    base: Config,
    kept: Config,
    free: Sequence[str],
    reach: tuple[float, float],
    budget: str,
    wanted: float,
) -> Config | None:
    """The shape of the lowest predicted loss among those that cost no more than the budget; None where none
    does.

    Args:
        kept: the rest of the configuration, without what is taken at its optimum.
        free: which of depth and resolution may move.
        wanted: the budget.
    """
    spec, step = view.spec, _step(view.spec)

    def ends(name: str) -> tuple[float, float]:
        return _within(name, spec.space[name].values, base[name], reach)

    grid = {"depth": np.array([base["depth"]]), "resolution": np.array([base["resolution"]])}
    for name in free:
        unit = 1.0 if name == "depth" else _places(spec, base)
        grid[name] = np.unique(np.maximum(1.0, np.round(np.geomspace(*ends(name), STEPS) / unit)) * unit)
    rows = dict(zip(grid, (one.ravel() for one in np.meshgrid(*grid.values())), strict=True))

    def spent(times: Array) -> Array:
        return tabulate(spec, base | rows | {"width": step * times})[budget]

    low, high = (np.full(len(rows["depth"]), max(1.0, np.floor(end / step))) for end in ends("width"))
    fitting = spent(low) <= wanted
    for _ in range(HALVINGS):  # the widest that the budget pays for
        middle = np.ceil(0.5 * (low + high))
        low, high = np.where(spent(middle) <= wanted, (middle, high), (low, middle - 1.0))
        high = np.maximum(low, high)
    if not fitting.any():
        return None
    shapes = {name: one[fitting] for name, one in (rows | {"width": step * low}).items()}
    lowest = int(np.argmin(answers.mean_losses(view, kept | shapes)))
    return {name: float(one[lowest]) for name, one in shapes.items()}


def _choice(
    name: str,
    by: Multipliers,
    times: Mapping[str, float],
    seconds: float | None,
    at: Mapping[str, float],
    one: Forecast | answers.Prediction,
    read: Collection[str],
) -> Choice:
    unread = Warning(
        "shape_unread",
        "no law here reads width or depth, so that shapes of as many params are equals; map both columns, or "
        "name laws such as gemstones",
    )
    return Choice(
        strategy=name,
        by=by,
        flops=times["flops"],
        params=times["params"],
        activations=times["activations"],
        seconds=seconds,
        at=dict(at),
        loss=one.loss,
        low=one.low,
        high=one.high,
        mean_low=one.mean_low,
        mean_high=one.mean_high,
        extrapolation=one.extrapolation,
        warnings=one.warnings if SHAPE & set(read) else (unread, *one.warnings),
    )


def _ranked(found: list[Choice]) -> list[Choice]:
    """Lowest loss first, with the marks."""
    if not found:
        raise FitError("no strategy reaches this budget; ask for one nearer to the base's")

    def order(one: Choice) -> tuple[float, float]:
        spent = one.activations if one.seconds is None else one.seconds
        return round(float(np.log(one.loss)), DIGITS), spent

    ranked, fastest = [], np.inf
    for i, one in enumerate(sorted(found, key=order)):
        quick = one.seconds is not None and one.seconds < fastest
        ranked.append(replace(one, best=i == 0, best_for_time=quick))
        fastest = fastest if one.seconds is None else min(fastest, one.seconds)
    return ranked
