"""Every change of state of a run.

Each is one guarded UPDATE that says whether it happened, with its event in the same transaction; the owner of
the session commits. A transaction should end or renew one run only: two that change several in different
order would wait for each other.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, case, false, func, insert, or_, select, update
from sqlalchemy.orm import Session

from store import db
from store.budget import affordable, cut, grant
from store.db import insert_new
from store.events import emit, emit_all, event, told
from store.models import POINTS, AttemptRow, Json, ObservationRow, RunRow, SweepRow, to_run
from store.specs import to_spec
from sweeps.runs import TERMINAL, Point, Ran, Role, Run, RunState, SweepState
from sweeps.spec import SweepSpec

FREE: Json = {"owner": None, "lease_until": None, "granted": 0.0}  # what only a running run has
UNSYNCED = {"synchronize_session": False}


@dataclass(frozen=True)
class Claim:
    """A run that is now ours to execute.

    Args:
        run: with the configuration and the number of the attempt.
        spec: of its sweep.
        attempt: the fencing token every later call must show.
        device_seconds_left: that this attempt may use, None without a limit. An attempt that reaches it is
            to be stopped and released; it goes on where it was as soon as the budget allows.
        created_at: when its sweep was.
    """

    run: Run
    spec: SweepSpec
    attempt: int
    device_seconds_left: float | None
    created_at: datetime


@dataclass(frozen=True)
class Orphan:
    """A running run whose orchestrator may be gone.

    Args:
        worker: name of the actor that trains it, None if none was placed.
    """

    run_id: int
    attempt: int
    owner: str
    lease_until: datetime
    worker: str | None


def enqueue(session: Session, sweep_id: int, runs: Sequence[Json]) -> list[int]:
    """Queues new runs (columns as ``store.models.new_run`` gives them); their ids, in order."""
    if not runs:
        return []
    statement = insert(RunRow).returning(RunRow.id, sort_by_parameter_order=True)
    ids = list(session.scalars(statement, list(runs)))
    queued = [told(run["config"], None) for run in runs]
    emit_all(
        session,
        [event(sweep_id, "run_queued", data, run_id) for run_id, data in zip(ids, queued, strict=True)],
    )
    return ids


def claim(session: Session, owner: str, lease_seconds: float, limit: int = 1) -> list[Claim]:
    """Takes queued runs, oldest first, each under a lease and with the next attempt number.

    Runs of a paused sweep wait; those that verify a target run as long as their sweep is not cancelled.

    Args:
        owner: name of the orchestrator.
        lease_seconds: until others may take the run over, unless the lease is renewed.
        limit: at most so many.
    """
    proxy = and_(RunRow.role == Role.PROXY, SweepRow.state == SweepState.RUNNING, affordable())
    target = and_(RunRow.role == Role.TARGET, SweepRow.state != SweepState.CANCELLED)
    return _take(session, owner, lease_seconds, limit, or_(proxy, target))


def claim_alike(
    session: Session, owner: str, lease_seconds: float, like: Claim, most: int, sharers: int
) -> list[Claim]:
    """Takes further queued runs of the sweep of a claimed one whose tensors have the same shapes.

    Args:
        like: in the same transaction.
        most: at most so many.
        sharers: workers that are to have about equally many of all that are queued.
    """
    shape = session.scalars(select(RunRow.shape).where(RunRow.id == like.run.id)).one()
    if shape is None or most < 1:
        return []
    alike = and_(RunRow.sweep_id == like.run.sweep_id, RunRow.shape == shape)
    queued = session.scalars(
        select(func.count()).select_from(RunRow).where(alike, RunRow.state == RunState.QUEUED)
    ).one()
    limit = min(most, math.ceil((queued + 1) / sharers) - 1)
    if limit < 1:
        return []
    running = and_(SweepRow.state == SweepState.RUNNING, affordable())
    return _take(session, owner, lease_seconds, limit, and_(alike, running))


def _take(
    session: Session, owner: str, lease_seconds: float, limit: int, which: ColumnElement[bool]
) -> list[Claim]:
    chosen = (
        select(RunRow.id)
        .join(SweepRow, SweepRow.id == RunRow.sweep_id)
        .where(RunRow.state == RunState.QUEUED, which)
        .order_by(RunRow.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=RunRow)
        .cte("chosen")
    )
    moment = db.now()
    statement = (
        update(RunRow)
        .where(RunRow.id.in_(select(chosen.c.id)), RunRow.state == RunState.QUEUED)
        .values(
            state=RunState.RUNNING,
            attempt=RunRow.attempt + 1,
            owner=owner,
            lease_until=moment + timedelta(seconds=lease_seconds),
            started_at=func.coalesce(RunRow.started_at, moment),
            reason=None,
            out_of_memory=False,
        )
        .returning(RunRow)
        .execution_options(**UNSYNCED, populate_existing=True)
    )
    rows = sorted(session.scalars(statement), key=lambda row: row.id)
    if not rows:
        return []
    attempts = [
        {
            "run_id": row.id,
            "attempt": row.attempt,
            "owner": owner,
            "started_at": moment,
            "heartbeat_at": moment,
        }
        for row in rows
    ]
    session.execute(insert(AttemptRow), attempts)
    emit_all(session, [_started(row, owner) for row in rows])
    return _claims(session, rows)


def _started(row: RunRow, owner: str) -> Json:
    data = told(row.config, row.loss) | {"attempt": row.attempt, "owner": owner}
    return event(row.sweep_id, "run_started", data, row.id)


def _claims(session: Session, rows: Sequence[RunRow]) -> list[Claim]:
    """The claims of claimed rows, with their share of the device seconds."""
    of = SweepRow.id.in_({row.sweep_id for row in rows})
    found = session.execute(select(SweepRow.id, SweepRow.spec, SweepRow.created_at).where(of)).all()
    specs = {sweep_id: to_spec(spec) for sweep_id, spec, _ in found}
    created = {sweep_id: created_at for sweep_id, _, created_at in found}
    proxies = defaultdict(list)
    for row in rows:
        if row.role == Role.PROXY and specs[row.sweep_id].budget.device_seconds is not None:
            proxies[row.sweep_id].append(row)
    left: dict[int, float] = {}
    for sweep_id, runs in sorted(proxies.items()):
        left |= grant(session, sweep_id, runs)
    return [
        Claim(to_run(row), specs[row.sweep_id], row.attempt, left.get(row.id), created[row.sweep_id])
        for row in rows
    ]


def renew(session: Session, run_id: int, attempt: int, owner: str, lease_seconds: float) -> bool:
    """Prolongs a lease; False when the run is someone else's by now, or was cancelled."""
    return _lease(session, run_id, attempt, owner, lease_seconds, RunRow.owner == owner)


def adopt(
    session: Session,
    run_id: int,
    attempt: int,
    owner: str,
    lease_seconds: float,
    previous: str | None = None,
) -> bool:
    """Takes over a live attempt whose lease ran out, or whose owner is ``previous``, known to be gone."""
    free = or_(RunRow.lease_until < db.now(), RunRow.owner.in_([owner, previous or owner]))
    return _lease(session, run_id, attempt, owner, lease_seconds, free)


def _lease(session: Session, run_id: int, attempt: int, owner: str, lease_seconds: float, guard: Any) -> bool:
    moment = db.now()
    until = moment + timedelta(seconds=lease_seconds)
    if _change(session, run_id, attempt, guard, owner=owner, lease_until=until) is None:
        return False
    _attempt(session, run_id, attempt, owner=owner, heartbeat_at=moment)
    return True


def place(session: Session, run_id: int, attempt: int, worker: str, members: int = 1) -> None:
    """Remembers which worker executes an attempt, so that it can be found again, and with how many others."""
    _attempt(session, run_id, attempt, worker=worker, members=members)


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
    values: Json = {
        "step": last.step,
        "tokens": last.tokens,
        "last_seq": case((RunRow.last_seq < last.seq, last.seq), else_=RunRow.last_seq),
    }
    kept = [point for point in points if math.isfinite(point.value)]
    losses = [point.value for point in kept if point.metric == metric]
    if losses:
        values["loss"] = losses[-1]
    if _change(session, run_id, attempt, **values) is None:
        return 0
    _attempt(session, run_id, attempt, heartbeat_at=db.now())
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
    row = _change(
        session,
        run_id,
        attempt,
        state=state,
        reason=reason,
        out_of_memory=out_of_memory,
        loss=func.coalesce(known, RunRow.loss),
        seconds=RunRow.seconds + seconds,
        finished_at=db.now(),
        **FREE,
    )
    if row is None:
        _settle(session, run_id, attempt, seconds, ran)
        return False
    _end_attempt(session, run_id, attempt, state, reason, seconds, ran)
    if state == RunState.FINISHED and row.role == Role.PROXY:
        session.execute(
            insert(ObservationRow).values(
                sweep_id=row.sweep_id,
                run_id=run_id,
                config=row.config,
                cost=row.cost,
                loss=row.loss,
                provenance="run",
            )
        )
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
) -> RunState | None:
    """Gives a running run back.

    Args:
        failed: the attempt broke, which counts against the sweep's retries; False where it was preempted,
            reached its grant of device seconds or found no room.
        seconds: device seconds of this attempt.
        out_of_memory: it broke because it needed more memory than there was.
        ran: how this attempt was executed, None where nobody knows.

    Returns:
        QUEUED, FAILED once the retries are used up, CANCELLED once the device seconds are; None when the
        attempt is no longer the run's, and nothing changed.
    """
    broken = RunRow.failures + (1 if failed else 0)
    retries = (
        select(SweepRow.spec["trainer"]["retries"].as_integer())
        .where(SweepRow.id == RunRow.sweep_id)
        .scalar_subquery()
    )
    over = broken > retries if failed else false()
    row = _change(
        session,
        run_id,
        attempt,
        state=case((over, RunState.FAILED), else_=RunState.QUEUED),
        failures=broken,
        reason=reason,
        out_of_memory=out_of_memory,
        seconds=RunRow.seconds + seconds,
        finished_at=case((over, db.now()), else_=None),
        **FREE,
    )
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


def orphans(session: Session, now: datetime) -> list[Orphan]:
    """Running runs whose lease runs out before ``now``; a far ``now`` gives all that are running."""
    statement = (
        select(RunRow.id, RunRow.attempt, AttemptRow.owner, RunRow.lease_until, AttemptRow.worker)
        .join(AttemptRow, and_(AttemptRow.run_id == RunRow.id, AttemptRow.attempt == RunRow.attempt))
        .where(RunRow.state == RunState.RUNNING, RunRow.lease_until < now)
        .order_by(RunRow.id)
    )
    return [
        Orphan(run_id, attempt, owner, lease_until or now, worker)
        for run_id, attempt, owner, lease_until, worker in session.execute(statement)
    ]


def cancelled(session: Session, pairs: Collection[tuple[int, int]]) -> list[int]:
    """Which of these runs (id and attempt) are cancelled, so that their workers can be stopped."""
    statement = select(RunRow.id, RunRow.attempt).where(
        RunRow.id.in_([run_id for run_id, _ in pairs]), RunRow.state == RunState.CANCELLED
    )
    found = {(run_id, attempt) for run_id, attempt in session.execute(statement)}
    return [run_id for run_id, attempt in pairs if (run_id, attempt) in found]


def _change(
    session: Session, run_id: int, attempt: int, *guards: Any, **values: Any
) -> Row[*tuple[Any, ...]] | None:
    """The one guarded UPDATE of a running attempt; None when it is no longer the run's."""
    return session.execute(
        update(RunRow)
        .where(RunRow.id == run_id, RunRow.attempt == attempt, RunRow.state == RunState.RUNNING, *guards)
        .values(**values)
        .returning(RunRow.sweep_id, RunRow.role, RunRow.state, RunRow.config, RunRow.cost, RunRow.loss)
        .execution_options(**UNSYNCED)
    ).one_or_none()


def _attempt(session: Session, run_id: int, attempt: int, *guards: Any, **values: Any) -> bool:
    """Writes into an attempt's row."""
    statement = (
        update(AttemptRow)
        .where(AttemptRow.run_id == run_id, AttemptRow.attempt == attempt, *guards)
        .values(**values)
        .returning(AttemptRow.run_id)
        .execution_options(**UNSYNCED)
    )
    return session.scalar(statement) is not None


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
    ended: Json = {"ended_at": db.now(), "outcome": outcome, "reason": reason, "seconds": seconds}
    if ran is not None:
        ended |= asdict(ran)
    return _attempt(session, run_id, attempt, AttemptRow.ended_at.is_(None), **ended)


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
