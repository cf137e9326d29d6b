"""Whose a running run is: leases that are prolonged, taken over or lost, and where the attempt is found.

A transaction should renew one run only: two that change several in different order would wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from store import db
from store.guarded import change, changing, write
from store.models import RUNS, AttemptRow, RunRow
from sweeps.runs import RunState


@dataclass(frozen=True)
class Orphan:
    """A running run whose orchestrator may be gone.

    Args:
        worker: name of the actor that trains it, None if none was placed.
        sharers: workers that fit on its device.
    """

    run_id: int
    attempt: int
    owner: str
    lease_until: datetime
    worker: str | None
    sharers: int


def renew(session: Session, run_id: int, attempt: int, owner: str, lease_seconds: float) -> bool:
    """Prolongs a lease; False when the run is someone else's by now, or was cancelled."""
    return _lease(session, run_id, attempt, owner, lease_seconds, RUNS.c.owner == owner)


def adopt(
    session: Session,
    run_id: int,
    attempt: int,
    owner: str,
    lease_seconds: float,
    previous: str | None = None,
) -> bool:
    """Takes over a live attempt whose lease ran out, or whose owner is ``previous``, known to be gone."""
    free = or_(RUNS.c.lease_until < db.now(), RUNS.c.owner.in_([owner, previous or owner]))
    return _lease(session, run_id, attempt, owner, lease_seconds, free)


def _lease(
    session: Session, run_id: int, attempt: int, owner: str, lease_seconds: float, guard: ColumnElement[bool]
) -> bool:
    moment = db.now()
    until = moment + timedelta(seconds=lease_seconds)
    if change(session, changing(guard), run_id, attempt, owner=owner, lease_until=until) is None:
        return False
    write(session, run_id, attempt, owner=owner, heartbeat_at=moment)
    return True


def place(
    session: Session, run_id: int, attempt: int, worker: str, members: int = 1, sharers: int = 1
) -> None:
    """Remembers which worker executes an attempt, so that it can be found again, and with how many others.

    Args:
        members: runs that train together.
        sharers: workers that fit on its device.
    """
    write(session, run_id, attempt, worker=worker, members=members, sharers=sharers)


def orphans(session: Session, now: datetime) -> list[Orphan]:
    """Running runs whose lease runs out before ``now``; a far ``now`` gives all that are running."""
    statement = (
        select(
            RunRow.id,
            RunRow.attempt,
            AttemptRow.owner,
            RunRow.lease_until,
            AttemptRow.worker,
            AttemptRow.sharers,
        )
        .join(AttemptRow, and_(AttemptRow.run_id == RunRow.id, AttemptRow.attempt == RunRow.attempt))
        .where(RunRow.state == RunState.RUNNING, RunRow.lease_until < now)
        .order_by(RunRow.id)
    )
    return [
        Orphan(run_id, attempt, owner, lease_until or now, worker, sharers)
        for run_id, attempt, owner, lease_until, worker, sharers in session.execute(statement)
    ]


def too_many_sharers(session: Session, sweep_id: int) -> int | None:
    """The fewest workers on one device among which a run of a sweep had too little memory; None so far."""
    return session.scalar(
        select(func.min(AttemptRow.sharers))
        .join(RunRow, RunRow.id == AttemptRow.run_id)
        .where(RunRow.sweep_id == sweep_id, RunRow.undivided, AttemptRow.sharers > 1)
    )


def cancelled(session: Session, pairs: Collection[tuple[int, int]]) -> list[int]:
    """Which of these runs (id and attempt) are cancelled, so that their workers can be stopped."""
    statement = select(RunRow.id, RunRow.attempt).where(
        RunRow.id.in_([run_id for run_id, _ in pairs]), RunRow.state == RunState.CANCELLED
    )
    found = {(run_id, attempt) for run_id, attempt in session.execute(statement)}
    return [run_id for run_id, attempt in pairs if (run_id, attempt) in found]
