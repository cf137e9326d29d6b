"""What comes of a running attempt: its points, its end, or its place in the queue again.

Each change of state is one guarded UPDATE that says whether it happened, with its event in the same
transaction; the owner of the session commits. A transaction should end one run only: two that change several
in different order would wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import bindparam, case, false, func, insert, select, true, update
from sqlalchemy.orm import Session

from store import db
from store.budget import cut
from store.db import insert_new
from store.events import emit, told
from store.guarded import FREE, UNSYNCED, change, changing, write
from store.models import OBSERVATIONS, POINTS, RUNS, SWEEPS, Json, RunRow
from sweeps.runs import TERMINAL, Point, Ran, Role, RunState

_LAST = bindparam("last", type_=RUNS.c.last_seq.type)
_GO_ON = changing(last_seq=case((RUNS.c.last_seq < _LAST, _LAST), else_=RUNS.c.last_seq))
_END = changing(
    loss=func.coalesce(bindparam("result", type_=RUNS.c.loss.type), RUNS.c.loss),
    seconds=RUNS.c.seconds + bindparam("took", type_=RUNS.c.seconds.type),
)
_OBSERVE = insert(OBSERVATIONS)


def append(session: Session, run_id: int, attempt: int, points: Sequence[Point], metric: str) -> int:
    """Stores points of a running attempt, each number of the run's stream once.

    A value that is not finite is no measurement: it is left out.

    Args:
        points: in ascending order.
        metric: whose last value is the run's loss.

    Returns:
        How many were new; 0 as well when the attempt is no longer the run's.
    """
    if not points:
        return 0
    last = points[-1]
    values: Json = {"last": last.seq, "step": last.step, "tokens": last.tokens}
    kept = [point for point in points if math.isfinite(point.value)]
    losses = [point.value for point in kept if point.metric == metric]
    if losses:
        values["loss"] = losses[-1]
    if change(session, _GO_ON, run_id, attempt, **values) is None:
        return 0
    write(session, run_id, attempt, heartbeat_at=db.now())
    if not kept:
        return 0
    rows = [{"run_id": run_id} | vars(point) for point in kept]  # ten times as fast as asdict
    statement = insert_new(session, POINTS).execution_options(preserve_rowcount=True)
    return session.connection().execute(statement, rows).rowcount


def finish(
    session: Session,
    run_id: int,
    attempt: int,
    state: RunState,
    loss: float | None,
    seconds: float,
    reason: str | None = None,
    out_of_memory: bool = False,
    ran: Ran | None = None,
) -> bool:
    """Ends a run for good. A finished proxy becomes an observation.

    A result that comes after its lease ran out counts, as long as nobody else has taken the run.

    Args:
        state: FINISHED or DIVERGED; FAILED where another attempt is senseless; CANCELLED.
        loss: final value of the sweep's metric; FINISHED needs one.
        seconds: device seconds of this attempt.
        out_of_memory: it FAILED because it needed more memory than there was.
        ran: how this attempt was executed, None where nobody knows.

    Returns:
        False when it has ended before or the attempt is no longer the run's; then nothing changes.

    Raises:
        ValueError: for a state that is no end, or a finished run without a finite loss.
    """
    if state not in TERMINAL:
        raise ValueError(f"given the state {state}; allowed: {', '.join(sorted(TERMINAL))}")
    known = loss if loss is not None and math.isfinite(loss) else None
    if state == RunState.FINISHED and known is None:
        raise ValueError(f"run {run_id} finished with the loss {loss}; give a finite one, or DIVERGED")
    row = change(
        session,
        _END,
        run_id,
        attempt,
        state=state,
        reason=reason,
        out_of_memory=out_of_memory,
        result=known,
        took=seconds,
        finished_at=db.now(),
        **FREE,
    )
    if row is None:
        _settle(session, run_id, attempt, seconds, ran)
        return False
    _end_attempt(session, run_id, attempt, state, reason, seconds, ran)
    if state == RunState.FINISHED and row.role == Role.PROXY:
        what = {"config": row.config, "cost": row.cost, "loss": row.loss, "provenance": "run"}
        session.execute(_OBSERVE, {"sweep_id": row.sweep_id, "run_id": run_id} | what)
    emit(session, row.sweep_id, f"run_{state}", told(row.config, row.loss, reason), run_id)
    cut(session, row.sweep_id)
    return True


def release(
    session: Session,
    run_id: int,
    attempt: int,
    reason: str,
    failed: bool,
    seconds: float,
    out_of_memory: bool = False,
    ran: Ran | None = None,
    undivided: bool = False,
) -> RunState | None:
    """Gives a running run back.

    Args:
        failed: the attempt broke, which counts against the sweep's retries; False where it was preempted,
            reached its grant of device seconds or found no room.
        seconds: device seconds of this attempt.
        out_of_memory: it broke because it needed more memory than there was.
        ran: how this attempt was executed, None where nobody knows.
        undivided: the next attempts are to have a whole device.

    Returns:
        QUEUED, FAILED once the retries are used up, CANCELLED once the device seconds are; None when the
        attempt is no longer the run's, and nothing changed.
    """
    broken = RUNS.c.failures + (1 if failed else 0)
    retries = (
        select(SWEEPS.c.spec["trainer"]["retries"].as_integer())
        .where(SWEEPS.c.id == RUNS.c.sweep_id)
        .scalar_subquery()
    )
    over = broken > retries if failed else false()
    statement = changing(
        state=case((over, RunState.FAILED), else_=RunState.QUEUED),
        failures=broken,
        undivided=true() if undivided else RUNS.c.undivided,
        seconds=RUNS.c.seconds + seconds,
        finished_at=case((over, db.now()), else_=None),
    )
    values: Json = {"reason": reason, "out_of_memory": out_of_memory} | FREE
    row = change(session, statement, run_id, attempt, **values)
    if row is None:
        _settle(session, run_id, attempt, seconds, ran)
        return None
    _end_attempt(session, run_id, attempt, "failed" if failed else "preempted", reason, seconds, ran)
    kind = "run_failed" if row.state == RunState.FAILED else "run_requeued"
    data = told(row.config, row.loss, reason) | {"attempt": attempt, "failed": failed}
    emit(session, row.sweep_id, kind, data, run_id)
    if run_id in cut(session, row.sweep_id):
        return RunState.CANCELLED
    state: RunState = row.state
    return state


def _end_attempt(
    session: Session,
    run_id: int,
    attempt: int,
    outcome: str,
    reason: str | None,
    seconds: float,
    ran: Ran | None,
) -> bool:
    """Closes an attempt's row; False when it was closed before."""
    values: Json = {"ended_at": db.now(), "outcome": outcome, "reason": reason, "seconds": seconds}
    if ran is not None:
        values |= asdict(ran)
    return write(session, run_id, attempt, ended=False, **values)


def _settle(session: Session, run_id: int, attempt: int, seconds: float, ran: Ran | None) -> None:
    """Counts the seconds of an attempt that was cancelled while it trained, once."""
    cancelled_run = select(RunRow.id).where(
        RunRow.id == run_id, RunRow.attempt == attempt, RunRow.state == RunState.CANCELLED
    )
    known = session.scalar(cancelled_run) is not None
    if known and _end_attempt(session, run_id, attempt, "cancelled", None, seconds, ran):
        session.execute(
            update(RunRow)
            .where(RunRow.id == run_id)
            .values(seconds=RunRow.seconds + seconds)
            .execution_options(**UNSYNCED)
        )
