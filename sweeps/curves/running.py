"""The final loss of a run of a sweep under its own schedule, from what it has measured so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.linalg import LinAlgError
from scipy.special import ndtri

from sweeps.curves.fit import LEAST_POINTS
from sweeps.curves.forecast import LEVEL, Forecast, fit_ensemble, forecast
from sweeps.curves.schedule import Curve, Steps, trained
from sweeps.errors import FitError
from sweeps.noise import SIGMA
from sweeps.runs import Observation, Point, Run, RunState
from sweeps.spec import Config, SweepSpec
from sweeps.tables import Warning
from sweeps.trunks import shares, trunk_key

SHAPE = ("width", "depth", "resolution")
APART = {"lr": 2.0, "batch": 2.0, "tokens": 1.0, "weight_decay": 0.5, "init_scale": 0.5}
COMPANIONS = 4
OWN_POINTS, OTHER_POINTS = 100, 40
LONG = 5000  # steps beyond which weighing two laws beside companions would take seconds
EARLY = 0.3
FALLEN = 0.98
AHEAD = 16
BRIEF_RUNS, BRIEF_COMPANIONS = 4, 2  # of a refit, so that it waits for 0.3 s at most
WIDEST = 3.0 * SIGMA  # deviation at which a forecast is worth a tenth of a finished run


@dataclass(frozen=True)
class RunForecast:
    """What a run will end at.

    Args:
        run_id, state: of the run.
        metric: whose value at the last step is forecast.
        step: last measured, of ``steps``.
        steps: of the run.
        points: how many measured losses of the run this rests on.
        last: the latest of them.
        loss: expected at the last step.
        low, high: interval for the value that will be measured there.
        mean_low, mean_high: interval for the curve that measured values scatter about.
        level: probability of the intervals.
        measured: final loss of a finished run, which the forecast knows unless it is told to stop before.
        companions: finished runs of the same shape that were fitted with it.
        laws: weights.
        ahead: steps done, and at each the expected loss with its interval for a measured value.
        warnings: reasons to trust it less.
    """

    run_id: int
    state: RunState
    metric: str
    step: int
    steps: int
    points: int
    last: float
    loss: float
    low: float
    high: float
    mean_low: float
    mean_high: float
    level: float
    measured: float | None
    companions: list[int]
    laws: dict[str, float]
    ahead: dict[str, list[float]]
    warnings: list[Warning]

    @property
    def deviation(self) -> float:
        """Standard deviation of ln loss about the value that will be measured, by the interval's width."""
        return float(np.log(self.high / self.low) / (2.0 * ndtri(0.5 * (1.0 + self.level))))


def nearest(run: Run, finished: Sequence[Run], most: int = COMPANIONS) -> list[Run]:
    """Finished runs of the same shape, nearest in configuration first; a run that differs in learning rate or
    batch tells less about another's curve than one that differs in length."""
    alike = [
        one
        for one in finished
        if one.id != run.id
        and one.state == RunState.FINISHED
        and all(one.config.get(axis) == run.config.get(axis) for axis in SHAPE)
    ]
    return sorted(alike, key=lambda one: (_apart(run.config, one.config), one.id))[:most]


def _apart(a: Config, b: Config) -> float:
    """Distance of two configurations in weighted logarithms."""
    small = 1e-6
    pairs = ((weight, a.get(axis, 0.0), b.get(axis, 0.0)) for axis, weight in APART.items())
    return float(sum(weight * abs(np.log((x + small) / (y + small))) for weight, x, y in pairs))


def curve_of(spec: SweepSpec, run: Run, points: Sequence[Point]) -> Curve | None:
    """The curve of a run with the rate that it was trained with; None without points. A loss measured after
    s steps belongs to step s - 1, counted from 0."""
    trainer, steps = spec.trainer, round(run.cost.steps)
    known = {point.step - 1: point.value for point in points if 0 < point.step <= steps and point.value > 0}
    if not known:
        return None
    at = np.array(sorted(known), dtype=np.int64)
    lr = trained(trainer.schedule, steps, run.config["lr"], trainer.warmup, trainer.decay)
    trunk = f"trunk {trunk_key(run.config)}" if shares(spec) else ""
    return Curve(str(run.id), at, np.array([known[int(step)] for step in at]), lr, trunk)


def forecast_run(
    spec: SweepSpec,
    run: Run,
    points: Mapping[int, Sequence[Point]],
    companions: Sequence[Run] = (),
    *,
    until: int | None = None,
    level: float = LEVEL,
    brief: bool = False,
) -> RunForecast:
    """Forecasts the loss that a run ends at.

    Args:
        run: with some points; it may run, be finished, or have been stopped.
        points: of the sweep's metric, by run id: of the run and its companions.
        companions: finished runs of the same shape, see ``nearest``.
        until: steps done after which the run's own points are left out, to see what would have been said.
        level: probability of the intervals.
        brief: fit the multi-power law alone beside companions, a third of the time; long runs always are.

    Raises:
        FitError: too few points; the run diverged.
    """
    if run.state == RunState.DIVERGED:
        raise FitError(f"run {run.id} diverged, so that it has no final loss: {run.reason}")
    seen = [point for point in points.get(run.id, ()) if until is None or point.step <= until]
    own = curve_of(spec, run, _thinned(seen, OWN_POINTS))
    if own is None:
        said = f" up to step {until}" if until is not None else ""
        raise FitError(
            f"run {run.id} is {run.state} and has no {spec.metric.name}{said}; wait for its first evaluation"
        )
    pairs = [(one, curve_of(spec, one, _thinned(points.get(one.id, ()), OTHER_POINTS))) for one in companions]
    known = [(one, curve) for one, curve in pairs if curve is not None]
    others = [curve for _, curve in known]
    total = len(own.steps) + sum(len(curve.steps) for curve in others)
    if total < LEAST_POINTS:
        with_others = f" with {len(others)} finished runs of its shape" if others else ""
        raise FitError(
            f"run {run.id} has {len(own.steps)} points of {spec.metric.name}{with_others}, {total} in all; "
            f"allowed: at least {LEAST_POINTS}; wait for more, or raise trainer.evaluations"
        )
    brief = brief or max(len(curve.lr) for curve in (own, *others)) > LONG
    laws = ("multipower",) if others and brief else ("multipower", "annealing")
    ensemble = fit_ensemble([own, *others], run=own.name, laws=laws)
    found = forecast(ensemble, own.lr, _ahead(own), level=level)
    last = int(own.steps[-1])
    return RunForecast(
        run_id=run.id,
        state=run.state,
        metric=spec.metric.name,
        step=last + 1,
        steps=len(own.lr),
        points=len(seen),
        last=float(own.loss[-1]),
        loss=float(found.loss[-1]),
        low=float(found.point_low[-1]),
        high=float(found.point_high[-1]),
        mean_low=float(found.low[-1]),
        mean_high=float(found.high[-1]),
        level=level,
        measured=run.loss if run.state == RunState.FINISHED else None,
        companions=[one.id for one, _ in known],
        laws={name: weight for name, weight in found.weights.items() if weight > 0},
        ahead=_table(found),
        warnings=list(_warnings(own, others)),
    )


def furthest(running: Sequence[Run], finished: Sequence[Run]) -> list[tuple[Run, list[Run]]]:
    """Runs whose forecast may join the observations of their sweep, with their companions: a few of those
    past their beginning that are not alone in their shape, furthest on first."""
    far = [run for run in running if run.step >= EARLY * run.cost.steps]
    far.sort(key=lambda run: (-run.step / run.cost.steps, run.id))
    pairs = ((run, nearest(run, finished, BRIEF_COMPANIONS)) for run in far)
    return list(islice((pair for pair in pairs if pair[1]), BRIEF_RUNS))


def observe(
    spec: SweepSpec, run: Run, points: Mapping[int, Sequence[Point]], companions: Sequence[Run]
) -> Observation | None:
    """A run that still trains as an observation of what it will end at; None where that tells too little.

    It has at least six points of its own, its forecast comes with no warning, and is worth at least a tenth
    of a finished run: the laws of a sweep know as much by themselves.

    The deviation holds what the law of curves gets wrong. The forecasts of several runs have some of that
    error in common; a refit takes all of it as each run's own, see docs/curves.md.
    """
    if len(points.get(run.id, ())) < LEAST_POINTS:
        return None
    try:
        found = forecast_run(spec, run, points, companions, brief=True)
    except (FitError, LinAlgError):
        return None  # a curve that cannot be fitted does not hold up its sweep
    if found.warnings or not 0.0 < found.deviation <= WIDEST:
        return None
    return Observation(run.config, run.cost, found.loss, run.id, "forecast", found.deviation)


def _thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many, evenly, the first and the last among them."""
    places = np.linspace(0, len(points) - 1, min(most, len(points))).round().astype(int)
    return [points[place] for place in np.unique(places)]


def _ahead(own: Curve) -> Steps:
    """Steps from the last measured one to the end."""
    return np.unique(np.linspace(own.steps[-1], len(own.lr) - 1, AHEAD).round().astype(np.int64))


def _table(found: Forecast) -> dict[str, list[float]]:
    columns = {
        "step": found.steps + 1.0,
        "loss": found.loss,
        "low": found.point_low,
        "high": found.point_high,
    }
    return {name: [float(value) for value in column] for name, column in columns.items()}


def _warnings(own: Curve, others: Sequence[Curve]) -> Iterator[Warning]:
    done = (int(own.steps[-1]) + 1) / len(own.lr)
    if done < EARLY:
        words = f"{done:.0%} of the run is done; below {EARLY:.0%} a curve says little about its end"
        yield Warning("early", f"{words}, and intervals have proved too narrow")
    if not others:
        words = "no finished run of its shape: the run is continued alone"
        yield Warning("alone", f"{words}, with the priors of the laws for what it has not yet shown")
    falls = any(curve.lr[curve.steps[-1]] < FALLEN * curve.lr.max() for curve in (own, *others))
    if not falls and own.lr[-1] < FALLEN * own.lr.max():
        words = "nothing fitted has seen the learning rate fall yet, and this run's will"
        yield Warning("no_decay", f"{words}; what that gains comes from the priors of the laws")
