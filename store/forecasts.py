"""The final losses of runs from the curves they have streamed; laws are fitted with no transaction open."""

from __future__ import annotations

from collections.abc import Sequence

from store.db import Sessions
from store.reads import get_run, get_sweep, list_points, list_runs
from sweeps.curves import running
from sweeps.curves.forecast import LEVEL
from sweeps.curves.running import RunForecast
from sweeps.errors import NotFound
from sweeps.runs import Observation, Point, Role, Run, RunState
from sweeps.spec import SweepSpec

MOST_RUNS = 5_000  # among which the nearest are looked for
MOST_POINTS, BRIEF_POINTS = 300, 24  # of one run that a forecast reads, alone and for a refit


def forecast(
    sessions: Sessions, sweep_id: int, run_id: int, until: int | None = None, level: float = LEVEL
) -> RunForecast:
    """Forecasts the final loss of a run; see ``sweeps.curves.running.forecast_run``.

    Raises:
        NotFound: the sweep has no such run.
        FitError: too few points; the run diverged.
    """
    run = get_run(sessions, run_id)
    if run.sweep_id != sweep_id:
        raise NotFound(f"sweep {sweep_id} has no run {run_id}")
    spec = get_sweep(sessions, sweep_id).spec
    others = running.nearest(run, list_runs(sessions, sweep_id, RunState.FINISHED, limit=MOST_RUNS))
    points = _points(sessions, spec, [run, *others], MOST_POINTS)
    return running.forecast_run(spec, run, points, others, until=until, level=level)


def forecasts(sessions: Sessions, sweep_id: int, spec: SweepSpec) -> list[tuple[Observation, float]]:
    """Running proxies as observations of what they will end at, as far as their curves allow, each with the
    share of its steps that is still ahead."""
    active = list_runs(sessions, sweep_id, RunState.RUNNING, Role.PROXY, limit=MOST_RUNS)
    finished = list_runs(sessions, sweep_id, RunState.FINISHED, limit=MOST_RUNS) if active else []
    found = []
    for run, others in running.furthest(active, finished):
        points = _points(sessions, spec, [run, *others], BRIEF_POINTS)
        one = running.observe(spec, run, points, others)
        if one is not None:
            found.append((one, max(0.0, 1.0 - run.step / run.cost.steps)))
    return found


def _points(sessions: Sessions, spec: SweepSpec, runs: Sequence[Run], most: int) -> dict[int, list[Point]]:
    """Points of the sweep's metric by run id."""
    return {run.id: list_points(sessions, run.id, spec.metric.name, most) for run in runs}
