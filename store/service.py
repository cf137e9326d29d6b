"""The store's use cases, one transaction each. The one door for ``api`` and ``workers``, reads included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from store import lifecycle, queue
from store.advance import advance, start
from store.budget import Totals, totals
from store.db import Sessions, insert_new, reading
from store.events import emit, list_events
from store.fits import FitHeader, StoredFit, get_fit, latest_fit, list_fits
from store.forecasts import forecast
from store.imports import Received, StoredObservation, import_observations, list_observations
from store.models import RunRow, SweepRow
from store.reads import (
    Standing,
    get_run,
    get_sweep,
    list_decisions,
    list_points,
    list_runs,
    list_sweeps,
    observations,
    read_sweep,
    running,
    to_sweeps,
)
from store.records import new_run, to_run, to_spec
from store.timings import (
    calibrated,
    calibration,
    durations,
    finished,
    record_timings,
    rehearsed,
    timings,
)
from sweeps.answers import settings
from sweeps.errors import Conflict, IllegalTransition, NotFound
from sweeps.runs import Role, Run, Sweep, SweepState
from sweeps.scheduler import Look, Step, step
from sweeps.spec import Budget, Config, SweepSpec, parse, spec_hash, to_dict

__all__ = [
    "FitHeader",
    "Received",
    "Standing",
    "StoredFit",
    "StoredObservation",
    "advance",
    "calibrated",
    "calibration",
    "cancel",
    "create_sweep",
    "durations",
    "extend",
    "finished",
    "forecast",
    "get_fit",
    "get_run",
    "get_sweep",
    "import_observations",
    "latest_fit",
    "list_decisions",
    "list_events",
    "list_fits",
    "list_observations",
    "list_points",
    "list_runs",
    "list_sweeps",
    "observations",
    "pause",
    "record_timings",
    "rehearsed",
    "resume",
    "running",
    "timings",
    "verify",
]


def create_sweep(sessions: Sessions, spec: SweepSpec, key: str | None = None) -> tuple[Sweep, bool]:
    """Stores a sweep with its first runs.

    Args:
        key: chosen by whoever submits; the same key and specification give the same sweep again.

    Returns:
        The sweep, and whether it is new.

    Raises:
        Conflict: the key stands for a sweep with another specification.
    """
    digest = spec_hash(spec)
    if key is not None:
        with reading(sessions) as session:
            row = session.scalar(select(SweepRow).where(SweepRow.key == key))
            if row is not None:
                return _again(session, row, digest), False
    first = _first_runs(sessions, spec)
    with sessions.begin() as session:
        columns = {"key": key, "name": spec.name, "spec": to_dict(spec), "spec_hash": digest}
        sweep_id = session.scalar(insert_new(session, SweepRow).values(columns).returning(SweepRow.id))
        if sweep_id is None:  # somebody else was first with this key
            return _again(
                session, session.scalars(select(SweepRow).where(SweepRow.key == key)).one(), digest
            ), False
        emit(session, sweep_id, "sweep_created", {"name": spec.name, "spec_hash": digest})
        start(session, sweep_id, spec, first.decisions, None)
        if not first.decisions:
            lifecycle.finish(session, sweep_id, first.stop or "there is nothing to run")
        return read_sweep(session, sweep_id), True


def _first_runs(sessions: Sessions, spec: SweepSpec) -> Step:
    """The first batch, chosen without any observation."""
    look = Look(
        spec=spec,
        observations=[],
        diverged=[],
        barred=[],
        pending=[],
        remaining=Totals().remaining(spec.budget),
        slots=spec.strategy.first_batch,
        durations=durations(sessions, spec),
    )
    return step(look, np.random.default_rng([spec.seed, 0]))


def _again(session: Session, row: SweepRow, digest: str) -> Sweep:
    """The sweep a key stands for already."""
    if row.spec_hash != digest:
        raise Conflict(
            f"the key {row.key!r} stands for sweep {row.id} with another specification; "
            "submit this one with a key of its own"
        )
    return to_sweeps(session, [row])[0]


def pause(sessions: Sessions, sweep_id: int) -> Sweep:
    """Starts no further run until ``resume``; see ``store.lifecycle``."""
    with sessions.begin() as session:
        lifecycle.pause(session, sweep_id)
        return read_sweep(session, sweep_id)


def resume(sessions: Sessions, sweep_id: int) -> Sweep:
    """Goes on after ``pause``; see ``store.lifecycle``."""
    with sessions.begin() as session:
        lifecycle.resume(session, sweep_id)
        return read_sweep(session, sweep_id)


def cancel(sessions: Sessions, sweep_id: int) -> Sweep:
    """Ends a sweep and its runs; see ``store.lifecycle``."""
    with sessions.begin() as session:
        lifecycle.cancel(session, sweep_id)
        return read_sweep(session, sweep_id)


def extend(
    sessions: Sessions, sweep_id: int, budget: Budget | None = None, tolerance: float | None = None
) -> Sweep:
    """Sets new limits. A finished sweep goes on if they leave anything to spend.

    Args:
        budget: in place of the old one; None keeps it.
        tolerance: in place of the old one; None keeps it.

    Raises:
        NotFound: no such sweep.
        IllegalTransition: it is cancelled.
        SpecError: the limits make no sense.
    """
    with sessions.begin() as session:
        old = to_spec(_locked(session, sweep_id).spec)
        stop = old.stop if tolerance is None else replace(old.stop, tolerance=tolerance)
        new = parse(replace(old, budget=budget or old.budget, stop=stop))
        left = totals(session, [sweep_id]).get(sweep_id, Totals()).remaining(new.budget)
        reopen = left.runs >= 1 and left.flops > 0 and left.device_seconds > 0
        lifecycle.extend(session, sweep_id, new, reopen)
        return read_sweep(session, sweep_id)


def verify(sessions: Sessions, sweep_id: int, target: str, overrides: Config) -> Run:
    """Queues one training of a target with the settings the latest fit predicts.

    It takes nothing from the budget and is never fitted. Asked again for the same configuration, it is the
    same run.

    Args:
        target: its name in the specification.
        overrides: values of axes to use instead.

    Raises:
        NotFound: no such sweep or target.
        IllegalTransition: there is no fit yet, or the sweep is cancelled.
        SpecError: the overrides make no sense.
    """
    spec = get_sweep(sessions, sweep_id).spec
    asked = next((one for one in spec.targets if one.name == target), None)
    if asked is None:
        names = ", ".join(one.name for one in spec.targets)
        raise NotFound(f"sweep {sweep_id} has no target {target!r}; it has {names}")
    asked = replace(asked, at=asked.at | overrides)
    parse(replace(spec, targets=(asked,)))
    fit = latest_fit(sessions, sweep_id)
    if fit is None:
        raise IllegalTransition(f"sweep {sweep_id} has no fit yet; wait for more of its runs to finish")
    config = spec.complete(settings(spec, fit.ensemble, asked))
    with sessions.begin() as session:
        if _locked(session, sweep_id).state == SweepState.CANCELLED:
            raise IllegalTransition(f"sweep {sweep_id} is cancelled; nothing of it can be trained")
        run = new_run(sweep_id, Role.TARGET, config, spec.cost(config), target=target)
        same = (
            RunRow.sweep_id == sweep_id,
            RunRow.role == Role.TARGET,
            RunRow.config_hash == run["config_hash"],
        )
        if session.scalar(select(RunRow.id).where(*same)) is None:
            queue.enqueue(session, sweep_id, [run])
        return to_run(session.scalars(select(RunRow).where(*same)).one())


def _locked(session: Session, sweep_id: int) -> SweepRow:
    """A sweep's row; whoever else wants to change it waits for this transaction to end."""
    row = session.get(SweepRow, sweep_id, with_for_update={"key_share": True})
    if row is None:
        raise NotFound(f"there is no sweep {sweep_id}")
    return row
