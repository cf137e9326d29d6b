"""The outbox of the tracking mirror: what it has not shown yet, and what it has.

The mirror reads from here, writes elsewhere and says what it wrote. Killed in between, it writes the same
again; nothing is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from store import fits
from store.db import Sessions, insert_new, now, reading
from store.models import AttemptRow, DecisionRow, FitRow, LeaderRow, PointRow, RunRow, SweepRow
from store.reads import to_sweeps
from store.records import to_point, to_run
from sweeps.runs import TERMINAL, Point, Run, Sweep, SweepState

_UNSYNCED = {"synchronize_session": False}


@dataclass(frozen=True)
class MirrorSweep:
    """A sweep of which the mirror shows less than there is.

    Args:
        mirror_id: the mirror's name for it, None before it is shown at all.
        fit: the latest, if the mirror has not shown it.
    """

    sweep: Sweep
    mirror_id: str | None
    fit: fits.StoredFit | None


@dataclass(frozen=True)
class MirrorRun:
    """A run of which the mirror shows less than there is.

    Args:
        parent_id: the mirror's name for its sweep.
        mirror_id: the mirror's name for the run, None before it is shown at all.
        points: the next ones to show, in order.
        seq: with them everything up to this number is shown.
        more: there are points after these; the run is not to be closed yet.
        reason: why the scheduler chose it, None for a target.
        expected: what the scheduler expected it to narrow, as in ``Decision``.
        provenance: what ran in its latest attempt, empty as long as that is not known.
    """

    run: Run
    parent_id: str
    mirror_id: str | None
    points: list[Point]
    seq: int
    more: bool
    reason: str | None
    expected: Mapping[str, float]
    provenance: Mapping[str, object]


def lead(sessions: Sessions, work: str, owner: str, lease_seconds: float) -> bool:
    """Takes or keeps the lease on a piece of work that one process alone should do, such as mirroring."""
    moment = now()
    until = moment + timedelta(seconds=lease_seconds)
    with sessions.begin() as session:
        new = insert_new(session, LeaderRow).values(work=work, owner=owner, lease_until=until)
        if session.scalar(new.returning(LeaderRow.work)) is not None:
            return True
        taken = session.scalar(
            update(LeaderRow)
            .where(LeaderRow.work == work, or_(LeaderRow.owner == owner, LeaderRow.lease_until < moment))
            .values(owner=owner, lease_until=until)
            .returning(LeaderRow.work)
            .execution_options(**_UNSYNCED)
        )
        return taken is not None


def unmirrored_sweeps(sessions: Sessions, limit: int = 100) -> list[MirrorSweep]:
    """Sweeps that are new to the mirror, have changed their state or have a newer fit; oldest first."""
    newest = (
        select(func.max(FitRow.id))
        .where(FitRow.sweep_id == SweepRow.id, FitRow.ensemble.is_not(None))
        .correlate(SweepRow)
        .scalar_subquery()
    )
    stale = or_(
        SweepRow.mirror_id.is_(None),
        SweepRow.mirror_state.is_distinct_from(SweepRow.state),
        SweepRow.mirror_fit < newest,
    )
    with reading(sessions) as session:
        rows = session.scalars(select(SweepRow).where(stale).order_by(SweepRow.id).limit(limit)).all()
        return [
            MirrorSweep(sweep, row.mirror_id, fits.newest(session, row.id, after=row.mirror_fit))
            for row, sweep in zip(rows, to_sweeps(session, rows), strict=True)
        ]


def mirrored_sweep(
    sessions: Sessions, sweep_id: int, mirror_id: str, state: SweepState, fit_id: int | None
) -> None:
    """Notes that the mirror shows a sweep in a state, and (unless None) a fit."""
    values = {"mirror_id": mirror_id, "mirror_state": state}
    with sessions.begin() as session:
        session.execute(
            update(SweepRow)
            .where(SweepRow.id == sweep_id)
            .values(values if fit_id is None else values | {"mirror_fit": fit_id})
            .execution_options(**_UNSYNCED)
        )


def unmirrored_runs(sessions: Sessions, limit: int = 100, points: int = 1000) -> list[MirrorRun]:
    """Runs that have started or ended, whose sweep is shown, and of which something is not shown yet.

    Args:
        limit: at most so many runs, oldest first.
        points: at most so many a run.
    """
    begun = or_(RunRow.attempt > 0, RunRow.state.in_(TERMINAL))
    stale = or_(
        RunRow.mirror_id.is_(None),
        RunRow.mirror_state.is_distinct_from(RunRow.state),
        RunRow.mirror_seq < RunRow.last_seq,
    )
    statement = (
        select(RunRow, SweepRow.mirror_id, DecisionRow.reason, DecisionRow.expected, AttemptRow.provenance)
        .join(SweepRow, SweepRow.id == RunRow.sweep_id)
        .outerjoin(DecisionRow, DecisionRow.id == RunRow.decision_id)
        .outerjoin(AttemptRow, and_(AttemptRow.run_id == RunRow.id, AttemptRow.attempt == RunRow.attempt))
        .where(and_(SweepRow.mirror_id.is_not(None), begun, stale))
        .order_by(RunRow.id)
        .limit(limit)
    )
    found = []
    with reading(sessions) as session:
        for row, parent_id, reason, expected, ran in session.execute(statement).all():
            waiting = _points(session, row, points) if row.mirror_seq < row.last_seq else []
            more, shown = len(waiting) > points, waiting[:points]
            seq = shown[-1].seq if more else row.last_seq
            told = (reason, expected or {}, ran or {})
            found.append(MirrorRun(to_run(row), str(parent_id), row.mirror_id, shown, seq, more, *told))
    return found


def _points(session: Session, row: RunRow, limit: int) -> list[Point]:
    """The next points of a run, one more than wanted."""
    statement = select(PointRow).where(
        PointRow.run_id == row.id, PointRow.seq > row.mirror_seq, PointRow.seq <= row.last_seq
    )
    return [to_point(point) for point in session.scalars(statement.order_by(PointRow.seq).limit(limit + 1))]


def mirrored_run(sessions: Sessions, item: MirrorRun, mirror_id: str) -> None:
    """Notes that the mirror shows everything in an item."""
    values = {"mirror_id": mirror_id, "mirror_seq": item.seq}
    with sessions.begin() as session:
        session.execute(
            update(RunRow)
            .where(RunRow.id == item.run.id)
            .values(values if item.more else values | {"mirror_state": item.run.state})
            .execution_options(**_UNSYNCED)
        )
