"""Every change of state of a sweep: one guarded UPDATE each, with its event in the same transaction.

Here are also the ends of runs that no worker reports.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, case, insert, select, update
from sqlalchemy.orm import Session

from store import db
from store.events import emit, emit_all, event, told
from store.guarded import FREE, UNSYNCED
from store.models import Json, ObservationRow, RunRow, SweepRow
from sweeps.errors import IllegalTransition, NotFound
from sweeps.runs import Observation, RunState, SweepState
from sweeps.spec import SweepSpec, to_dict

LIVE = (SweepState.RUNNING, SweepState.PAUSED)
ACTIVE = (RunState.QUEUED, RunState.RUNNING)


def pause(session: Session, sweep_id: int) -> None:
    """Lets running runs go on and starts no queued one.

    Raises:
        NotFound: no such sweep.
        IllegalTransition: unless it is running.
    """
    _move(session, sweep_id, (SweepState.RUNNING,), "paused", state=SweepState.PAUSED)
    emit(session, sweep_id, "sweep_paused", {})


def resume(session: Session, sweep_id: int) -> None:
    """Starts queued runs of a paused sweep again.

    Raises:
        NotFound: no such sweep.
        IllegalTransition: unless it is paused.
    """
    _move(session, sweep_id, (SweepState.PAUSED,), "resumed", state=SweepState.RUNNING)
    emit(session, sweep_id, "sweep_resumed", {})


def cancel(session: Session, sweep_id: int) -> None:
    """Ends a sweep with everything of it that is queued or running.

    Raises:
        NotFound: no such sweep.
        IllegalTransition: when it has ended already.
    """
    reason = "cancelled by a user"
    ended = {"state": SweepState.CANCELLED, "reason": reason, "finished_at": db.now()}
    _move(session, sweep_id, LIVE, "cancelled", **ended)
    _cancel_runs(session, sweep_id, reason, RunRow.state.in_(ACTIVE))
    emit(session, sweep_id, "sweep_cancelled", {"reason": reason})


def halt(session: Session, sweep_id: int, known: Observation, reason: str) -> bool:
    """Ends a running run and keeps what it was forecast to end at as an observation.

    Its worker is told as for any other cancelled run.

    Args:
        known: the run as it is forecast.

    Returns:
        False when it is not running any more; then nothing changes.
    """
    running = (RunRow.id == known.run_id, RunRow.state == RunState.RUNNING)
    if not _cancel_runs(session, sweep_id, reason, *running):
        return False
    session.execute(
        insert(ObservationRow).values(
            sweep_id=sweep_id,
            run_id=known.run_id,
            config=known.config,
            cost=asdict(known.cost),
            loss=known.loss,
            deviation=known.deviation,
            provenance=known.provenance,
        )
    )
    return True


def _cancel_runs(session: Session, sweep_id: int, reason: str, *which: ColumnElement[bool]) -> int:
    """Ends runs of a sweep, and says how many."""
    rows = session.execute(
        update(RunRow)
        .where(RunRow.sweep_id == sweep_id, *which)
        .values(state=RunState.CANCELLED, reason=reason, finished_at=db.now(), **FREE)
        .returning(RunRow.id, RunRow.config, RunRow.loss)
        .execution_options(**UNSYNCED)
    ).all()
    emit_all(
        session,
        [event(sweep_id, "run_cancelled", told(config, loss, reason), id_) for id_, config, loss in rows],
    )
    return len(rows)


def extend(session: Session, sweep_id: int, spec: SweepSpec, reopen: bool) -> None:
    """Gives a sweep new limits.

    Args:
        spec: with the new budget and stop rule.
        reopen: a finished sweep runs again.

    Raises:
        NotFound: no such sweep.
        IllegalTransition: when it is cancelled.
    """
    values: Json = {"spec": to_dict(spec), "revision": SweepRow.revision + 1}
    if reopen:
        finished = SweepRow.state == SweepState.FINISHED
        values["state"] = case((finished, SweepState.RUNNING), else_=SweepRow.state)
        values |= {"reason": None, "finished_at": None}
    _move(session, sweep_id, (*LIVE, SweepState.FINISHED), "extended", **values)
    data = {"budget": asdict(spec.budget), "tolerance": spec.stop.tolerance}
    emit(session, sweep_id, "sweep_extended", data)


def look_again(session: Session, sweep_id: int) -> None:
    """Has the scheduler look again, since observations came from elsewhere; a finished sweep goes on.

    Raises:
        NotFound: no such sweep.
        IllegalTransition: when it is cancelled.
    """
    state = case((SweepRow.state == SweepState.FINISHED, SweepState.RUNNING), else_=SweepRow.state)
    values: Json = {"state": state, "reason": None, "finished_at": None, "revision": SweepRow.revision + 1}
    _move(session, sweep_id, (*LIVE, SweepState.FINISHED), "given observations", **values)


def finish(session: Session, sweep_id: int, reason: str) -> None:
    """Ends a running sweep because nothing further is to be run.

    Raises:
        NotFound: no such sweep.
        IllegalTransition: unless it is running.
    """
    ended = {"state": SweepState.FINISHED, "reason": reason, "finished_at": db.now()}
    _move(session, sweep_id, (SweepState.RUNNING,), "finished", **ended)
    emit(session, sweep_id, "sweep_finished", {"reason": reason})


def _move(session: Session, sweep_id: int, allowed: tuple[SweepState, ...], verb: str, **values: Any) -> None:
    """The one guarded UPDATE of a sweep."""
    moved = session.scalar(
        update(SweepRow)
        .where(SweepRow.id == sweep_id, SweepRow.state.in_(allowed))
        .values(**values)
        .returning(SweepRow.id)
        .execution_options(**UNSYNCED)
    )
    if moved is None:
        state = session.scalar(select(SweepRow.state).where(SweepRow.id == sweep_id))
        if state is None:
            raise NotFound(f"there is no sweep {sweep_id}")
        wanted = " or ".join(allowed)
        raise IllegalTransition(f"sweep {sweep_id} is {state}; only a {wanted} sweep can be {verb}")
