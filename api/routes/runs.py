"""Runs and what they measured."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import After, Id, Limit, Page, Store, page
from store import service
from sweeps.curves.running import RunForecast
from sweeps.errors import NotFound
from sweeps.runs import Point, Role, Run, RunState

router = APIRouter(prefix="/v1", tags=["runs"])

MAX_POINTS = 10_000
Metric = Annotated[str | None, Query(max_length=250, description="only this metric")]
Points = Annotated[int, Query(ge=2, le=MAX_POINTS, description="at most so many, evenly thinned")]


@router.get("/sweeps/{id}/runs")
def list_runs(
    id: Id,
    store: Store,
    after: After = None,
    limit: Limit = 100,
    state: RunState | None = None,
    role: Role | None = None,
) -> Page[Run]:
    """Runs of a sweep, oldest first."""
    service.get_sweep(store, id)
    return page(service.list_runs(store, id, state, role, after, limit + 1), limit, lambda run: run.id)


@router.get("/runs/{run}")
def get_run(run: Id, store: Store) -> Run:
    """A run: its configuration, cost, state and last loss."""
    return service.get_run(store, run)


@router.get("/runs/{run}/points")
def list_points(run: Id, store: Store, metric: Metric = None, limit: Points = 1000) -> Page[Point]:
    """The curves of a run; thinned ones keep their first and last point."""
    service.get_run(store, run)
    return Page(service.list_points(store, run, metric, limit))


@router.get("/sweeps/{id}/runs/{run}/points")
def list_sweep_points(
    id: Id, run: Id, store: Store, metric: Metric = None, limit: Points = 1000
) -> Page[Point]:
    """The curves of a run of this sweep."""
    if service.get_run(store, run).sweep_id != id:
        raise NotFound(f"sweep {id} has no run {run}")
    return Page(service.list_points(store, run, metric, limit))


@router.get("/sweeps/{id}/runs/{run}/forecast")
def forecast(
    id: Id,
    run: Id,
    store: Store,
    until: Annotated[
        int | None, Query(ge=1, description="leaves out what the run measured after so many steps")
    ] = None,
    level: Annotated[float, Query(gt=0, lt=1, description="probability of the interval")] = 0.9,
) -> RunForecast:
    """The final loss of a run under its own learning-rate schedule, from its curve so far.

    A law of loss curves is fitted to the run together with the nearest finished runs of its shape, or to the
    run alone where there are none.
    """
    return service.forecast(store, id, run, until, level)
