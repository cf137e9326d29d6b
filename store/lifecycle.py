"""Every change of state of a sweep: one guarded UPDATE each, with its event in the same transaction."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import case, select, update
from sqlalchemy.orm import Session

from store import db
from store.events import emit, emit_all, event, told
from store.models import Json, RunRow, SweepRow
from store.queue import FREE, UNSYNCED
from sweeps.errors import IllegalTransition, NotFound
from sweeps.runs import RunState, SweepState
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
    moment, reason = db.now(), "cancelled by a user"
    _move(session, sweep_id, LIVE, "cancelled", state=SweepState.CANCELLED, reason=reason, finished_at=moment)
    rows = session.execute(
        update(RunRow)
        .where(RunRow.sweep_id == sweep_id, RunRow.state.in_(ACTIVE))
        .values(state=RunState.CANCELLED, reason=reason, finished_at=moment, **FREE)
        .returning(RunRow.id, RunRow.config, RunRow.loss)
        .execution_options(**UNSYNCED)
    ).all()
    ended = [
        event(sweep_id, "run_cancelled", told(config, loss, reason), run_id) for run_id, config, loss in rows
    ]
    emit_all(session, [*ended, event(sweep_id, "sweep_cancelled", {"reason": reason})])


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
