"""The scheduler's turn: read what is known, think with no transaction open, write what follows once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from store import fits, forecasts, lifecycle, queue
from store.budget import Totals, totals
from store.db import Sessions, insert_new, reading
from store.events import emit, emit_all, event
from store.models import DecisionRow, FitRow, Json, ObservationRow, RunRow, SweepRow
from store.records import from_decision, new_run, to_observation, to_spec
from store.timings import read_durations
from store.trunks import trunks
from sweeps.errors import NotFound
from sweeps.runs import TERMINAL, Decision, Role, RunState, SweepState
from sweeps.scheduler import MIN_FIT, Look, Step, step
from sweeps.spec import Config, SweepSpec


@dataclass(frozen=True)
class Known:
    """What the scheduler's turn rests on.

    Args:
        key: stands for the ended runs, the imported observations, the budget and the stop rule.
        revision: of the sweep's limits.
        n_runs: proxies there were, in whatever state.
        n_terminal: of them that had ended.
    """

    look: Look
    key: str
    revision: int
    n_runs: int
    n_terminal: int


def advance(sessions: Sessions, sweep_id: int, slots: int, work: float = 0.0) -> bool:
    """Refits a running sweep, starts the runs that are worth it, stops those that are not worth their
    remaining cost, and ends the sweep when there is nothing left to run.

    Doing it twice, or at once in two processes, changes nothing: what follows from a set of ended runs is
    written once, and only if no other turn has started runs in the meantime. Running runs take part by what
    they are forecast to end at when the turn is taken.

    Args:
        slots: how many runs may be queued or running at once.
        work: device seconds of runs that should be queued or running, see ``sweeps.scheduler.Look``.

    Returns:
        Whether anything was written.

    Raises:
        NotFound: no such sweep.
    """
    with reading(sessions) as session:
        known = _know(session, sweep_id, slots, work)
    if known is None:
        return False
    known = replace(known, look=_foresee(sessions, sweep_id, known.look))
    result = step(known.look, np.random.default_rng([known.look.spec.seed, known.n_terminal]))
    with sessions.begin() as session:
        return _write(session, sweep_id, known, result)


def start(
    session: Session,
    sweep_id: int,
    spec: SweepSpec,
    decisions: Sequence[Decision],
    fit_id: int | None,
) -> None:
    """Stores decisions and queues their runs."""
    if not decisions:
        return
    stored = insert(DecisionRow).returning(DecisionRow.id, sort_by_parameter_order=True)
    ids = list(session.scalars(stored, [from_decision(one, sweep_id, fit_id) for one in decisions]))
    runs = [
        new_run(
            sweep_id,
            Role.PROXY,
            spec.complete(one.config),
            one.cost,
            expected_seconds=one.expected.get("seconds"),
            decision_id=id_,
            branch=one.branch,
        )
        for one, id_ in zip(decisions, ids, strict=True)
    ]
    run_ids = queue.enqueue(session, sweep_id, runs)
    told = [
        {
            "decision_id": id_,
            "run_id": run_id,
            "reason": one.reason,
            "score": one.score,
            "expected": one.expected,
        }
        for one, id_, run_id in zip(decisions, ids, run_ids, strict=True)
    ]
    emit_all(
        session,
        [event(sweep_id, "decision", data, run_id) for data, run_id in zip(told, run_ids, strict=True)],
    )


def _know(session: Session, sweep_id: int, slots: int, work: float) -> Known | None:
    """Reads what the turn rests on; None when it is not the sweep's turn, or had already been taken."""
    sweep = session.get(SweepRow, sweep_id)
    if sweep is None:
        raise NotFound(f"there is no sweep {sweep_id}")
    if sweep.state != SweepState.RUNNING:
        return None
    # One statement, so that the ended runs and their observations belong together.
    rows = session.execute(
        select(RunRow.id, RunRow.state, RunRow.config, RunRow.out_of_memory, ObservationRow)
        .outerjoin(ObservationRow, ObservationRow.run_id == RunRow.id)
        .where(RunRow.sweep_id == sweep_id, RunRow.role == Role.PROXY)
        .order_by(RunRow.id)
    ).all()
    imported = session.scalars(
        select(ObservationRow)
        .where(ObservationRow.sweep_id == sweep_id, ObservationRow.run_id.is_(None))
        .order_by(ObservationRow.id)
    ).all()
    observed = [row for *_, row in rows if row is not None]
    known = {row.run_id for row in observed}
    spec = to_spec(sweep.spec)
    ended = [run_id for run_id, state, *_ in rows if state in TERMINAL]
    key = _key(spec, ended, [row.id for row in imported])
    if session.scalar(select(FitRow.id).where(FitRow.sweep_id == sweep_id, FitRow.key == key)) is not None:
        return None
    by_state: dict[RunState, list[Config]] = {state: [] for state in RunState}
    for run_id, state, config, *_ in rows:
        if run_id not in known:
            by_state[state].append(config)
    used = totals(session, [sweep_id]).get(sweep_id, Totals())
    look = Look(
        spec=spec,
        observations=[to_observation(row) for row in (*observed, *imported)],
        diverged=by_state[RunState.DIVERGED],
        barred=by_state[RunState.FAILED] + by_state[RunState.CANCELLED],
        pending=by_state[RunState.QUEUED] + by_state[RunState.RUNNING],
        remaining=used.remaining(spec.budget),
        slots=slots,
        durations=read_durations(session, spec),
        work=work,
        out_of_memory=[
            config for _, state, config, too_large, _ in rows if too_large and state == RunState.FAILED
        ],
        trunks=trunks(session, sweep_id),
    )
    return Known(look, key, sweep.revision, len(rows), len(ended))


def _foresee(sessions: Sessions, sweep_id: int, look: Look) -> Look:
    """The look with the forecasts of running runs among the observations.

    They ride along where there is a fit anyway. A run that is forecast keeps its slot and what it reserves of
    the budget, but no longer counts as pending: the fit knows of it.
    """
    if len(look.observations) < MIN_FIT:
        return look
    pending = list(look.pending)
    # A run that has started or ended since the look was taken stays what it was then.
    known = forecasts.forecasts(sessions, sweep_id, look.spec)
    found = [(one, ahead) for one, ahead in known if one.config in pending]
    for one, _ in found:
        pending.remove(one.config)
    return replace(
        look,
        observations=[*look.observations, *(one for one, _ in found)],
        pending=pending,
        slots=look.slots - len(found),
        ahead={one.run_id: ahead for one, ahead in found if one.run_id is not None},
    )


def _write(session: Session, sweep_id: int, known: Known, result: Step) -> bool:
    """Writes what follows, unless the sweep has moved on."""
    spec = known.look.spec
    unchanged = session.scalar(
        select(SweepRow.id)
        .where(
            SweepRow.id == sweep_id,
            SweepRow.state == SweepState.RUNNING,
            SweepRow.revision == known.revision,
        )
        .with_for_update(key_share=True)
    )
    n_runs = session.scalar(
        select(func.count()).where(RunRow.sweep_id == sweep_id, RunRow.role == Role.PROXY)
    )
    if unchanged is None or n_runs != known.n_runs:
        return False
    n = len(known.look.observations)
    row = fits.columns(sweep_id, known.key, n, result)
    fit_id = session.scalar(insert_new(session, FitRow).values(row).returning(FitRow.id))
    if fit_id is None:
        return False
    if result.ensemble is not None:
        told = {"fit_id": fit_id, "n_observations": n, "predictions": fits.summary(result.predictions)}
        emit(session, sweep_id, "fit", told)
    reasons = {one.run_id: one.reason for one in result.halts}
    for one in known.look.coming:
        if one.run_id in reasons:  # unless it has just ended by itself
            lifecycle.halt(session, sweep_id, one, reasons[one.run_id])
    start(session, sweep_id, spec, result.decisions, fit_id)
    if result.stop is not None and known.n_runs == known.n_terminal and not result.decisions:
        lifecycle.finish(session, sweep_id, result.stop)
    return True


def _key(spec: SweepSpec, ended: Sequence[int], imported: Sequence[int]) -> str:
    """Stands for everything that may lead to another result, but the forecasts of running runs: they change
    with every point, and a fit rests on those of the first turn after a run has ended.
    """
    seen: Json = {"ended": list(ended), "budget": asdict(spec.budget), "stop": asdict(spec.stop)}
    if imported:
        seen["imported"] = list(imported)
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()
