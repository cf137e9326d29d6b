"""Which way to scale a shape: every strategy at a budget, with the loss and the seconds predicted for it.

Strategies share out the growth in FLOPs between depth, width and resolution (``sweeps.shapes``). Tokens stay
as they are, and the learning rate is taken at its predicted optimum.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

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
SEARCH = np.exp(np.linspace(-3.0, 3.0, 241))  # around the factor, where a shape's own cost meets the budget


@dataclass(frozen=True)
class Choice:
    """A strategy at the budget.

    Args:
        strategy: of ``STRATEGIES``.
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
    """Every strategy by a fitted table, lowest predicted loss first.

    Strategies that move the resolution take part where the fit knows it.

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
    by, times = zip(*(grown(one, factor, budget) for one in tried.values()), strict=True)
    shown = [name for name in base if name in read | SHAPE]
    at = {name: base[name] * np.array([one.get(name, 1.0) for one in times]) for name in shown}
    forecasts = predict(study, {name: column for name, column in at.items() if name in read})
    time = None if seconds is None else _seconds(seen, seconds, base)
    found = []
    for i, name in enumerate(tried):
        took = None if time is None else time(times[i])
        there = {n: float(column[i]) for n, column in at.items()}
        found.append(_choice(name, by[i], times[i], took, there, forecasts[i], read))
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
    base = answers.with_best(answers.view_of(spec, ensemble), at)
    cost, varied = spec.cost(base), {name for name, axis in spec.space.items() if len(axis.values) > 1}
    wanted = factor * float(getattr(cost, budget))
    kept = {name: value for name, value in base.items() if name != "lr" or name not in varied}
    found = []
    for name, strategy in STRATEGIES.items():
        shape = None
        if not strategy.resolution or "resolution" in varied:
            shape = _shape(spec, base, strategy, _times(strategy, factor, budget), budget, wanted)
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
    params, area = by.depth * by.width**2, by.resolution**2
    follow = {"flops": params * area, "params": params, "active_params": params}
    return by, {**vars(by), **follow, "activations": by.depth * by.width * area}


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
    shape = {name: float(max(1, round(base[name] * s ** getattr(strategy, name)))) for name in SHAPE}
    if strategy.width:  # width makes up for what the others lost to rounding
        step = int(np.gcd.reduce([int(value) for value in spec.space["width"].values]))
        widths = step * np.arange(1.0, 2.0 * shape["width"] / step + 2.0)
        costs = np.log(tabulate(spec, base | shape | {"width": widths})[budget])
        shape["width"] = float(widths[np.argmin(np.abs(costs - np.log(wanted)))])
    return shape


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
