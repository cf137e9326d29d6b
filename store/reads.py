"""What can be read of sweeps, runs, points, observations and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import and_, case, func, or_, select
from sqlalchemy.orm import Session

from store.budget import Totals, totals
from store.db import Sessions, reading
from store.models import DecisionRow, ObservationRow, PointRow, RunRow, SweepRow
from store.provenance import traced
from store.records import to_branch, to_decision, to_observation, to_point, to_run, to_spec
from sweeps.errors import NotFound
from sweeps.runs import TERMINAL, Decision, Observation, Point, Role, Run, RunState, Sweep, SweepState
from sweeps.spec import SweepSpec, warnings


def get_sweep(sessions: Sessions, sweep_id: int) -> Sweep:
    """A sweep by its id.

    Raises:
        NotFound: no such sweep.
    """
    with reading(sessions) as session:
        return read_sweep(session, sweep_id)


@dataclass(frozen=True)
class Standing:
    """What, when it changes, asks for another look at a sweep.

    Args:
        revision: counts changes of its limits and imports of runs.
        ended: proxies that have.
        queued: proxies that are; this alone asks for nothing.
    """

    revision: int
    ended: int
    queued: int = field(default=0, compare=False)


def read_sweep(session: Session, sweep_id: int) -> Sweep:
    """As ``get_sweep``, inside a transaction."""
    row = session.get(SweepRow, sweep_id, populate_existing=True)
    if row is None:
        raise NotFound(f"there is no sweep {sweep_id}")
    return to_sweeps(session, [row])[0]


def to_sweeps(session: Session, rows: Sequence[SweepRow]) -> list[Sweep]:
    """The records of rows, with what their runs have used."""
    ids = [row.id for row in rows]
    found, imported = totals(session, ids), _imported(session, ids)
    sweeps = []
    for row in rows:
        spec, used = to_spec(row.spec), found.get(row.id, Totals())
        sweeps.append(
            Sweep(
                id=row.id,
                name=row.name,
                state=row.state,
                reason=row.reason,
                spec=spec,
                spec_hash=row.spec_hash,
                spent=used.spent,
                reserved=used.reserved,
                counts=used.counts,
                imported=imported.get(row.id, 0),
                warnings=warnings(spec),
                created_at=row.created_at,
                finished_at=row.finished_at,
            )
        )
    return sweeps


def _imported(session: Session, sweep_ids: Sequence[int]) -> dict[int, int]:
    """How many observations each sweep was given from elsewhere."""
    rows = session.execute(
        select(ObservationRow.sweep_id, func.count())
        .where(ObservationRow.sweep_id.in_(sweep_ids), ObservationRow.run_id.is_(None))
        .group_by(ObservationRow.sweep_id)
    )
    return {sweep_id: int(count) for sweep_id, count in rows}


_ENDED, _QUEUED = (
    func.count(case((RunRow.state.in_(states), 1))) for states in (sorted(TERMINAL), [RunState.QUEUED])
)
_STANDINGS = (
    select(SweepRow.id, SweepRow.spec, SweepRow.revision, _ENDED, _QUEUED)
    .outerjoin(RunRow, and_(RunRow.sweep_id == SweepRow.id, RunRow.role == Role.PROXY))
    .where(SweepRow.state == SweepState.RUNNING)
    .group_by(SweepRow.id)
    .order_by(SweepRow.id)
)


def running(sessions: Sessions) -> list[tuple[int, SweepSpec, Standing]]:
    """The sweeps that are running, oldest first, with what of them changes."""
    with reading(sessions) as session:
        return [
            (sweep_id, to_spec(spec), Standing(*standing))
            for sweep_id, spec, *standing in session.execute(_STANDINGS)
        ]


def list_sweeps(
    sessions: Sessions, after: int | None = None, limit: int = 100, state: SweepState | None = None
) -> list[Sweep]:
    """Sweeps, newest first.

    Args:
        after: id of the last sweep already seen.
        limit: at most so many.
        state: only these.
    """
    wanted: list[Any] = []
    if after is not None:
        wanted.append(SweepRow.id < after)
    if state is not None:
        wanted.append(SweepRow.state == state)
    with reading(sessions) as session:
        rows = session.scalars(
            select(SweepRow).where(*wanted).order_by(SweepRow.id.desc()).limit(limit)
        ).all()
        return to_sweeps(session, rows)


def list_runs(
    sessions: Sessions,
    sweep_id: int,
    state: RunState | None = None,
    role: Role | None = None,
    after: int | None = None,
    limit: int = 100,
) -> list[Run]:
    """Runs of a sweep, oldest first.

    Args:
        state, role: only these.
        after: id of the last run already seen.
        limit: at most so many.
    """
    wanted: list[Any] = [RunRow.sweep_id == sweep_id, RunRow.id > (after or 0)]
    if state is not None:
        wanted.append(RunRow.state == state)
    if role is not None:
        wanted.append(RunRow.role == role)
    with reading(sessions) as session:
        return [
            to_run(row)
            for row in session.scalars(select(RunRow).where(*wanted).order_by(RunRow.id).limit(limit))
        ]


def get_run(sessions: Sessions, run_id: int) -> Run:
    """A run by its id.

    Raises:
        NotFound: no such run.
    """
    with reading(sessions) as session:
        row = session.get(RunRow, run_id)
        if row is None:
            raise NotFound(f"there is no run {run_id}")
        return replace(to_run(row), provenance=traced(session, run_id, row.attempt))


def list_points(sessions: Sessions, run_id: int, metric: str | None = None, limit: int = 1000) -> list[Point]:
    """Points of a run in their order, the first and the last of a metric always among them.

    Args:
        metric: only this one; None for all.
        limit: at least 2; a metric with more points is thinned evenly to so many.
    """
    rank = func.row_number().over(partition_by=PointRow.metric, order_by=PointRow.seq)
    count = func.count().over(partition_by=PointRow.metric)
    wanted = [PointRow.run_id == run_id]
    if metric is not None:
        wanted.append(PointRow.metric == metric)
    ranked = select(PointRow.seq, rank.label("rank"), count.label("count")).where(*wanted).subquery()
    # Of n points those are kept at which floor((rank - 1) (limit - 1) / (n - 1)) rises.
    gaps, rest = limit - 1, func.nullif(ranked.c.count - 1, 0)
    rises = ((ranked.c.rank - 1) * gaps) // rest > ((ranked.c.rank - 2) * gaps) // rest
    kept = select(ranked.c.seq).where(or_(ranked.c.count <= limit, ranked.c.rank == 1, rises))
    statement = (
        select(PointRow).where(PointRow.run_id == run_id, PointRow.seq.in_(kept)).order_by(PointRow.seq)
    )
    with reading(sessions) as session:
        return [to_point(row) for row in session.scalars(statement)]


def observations(sessions: Sessions, sweep_id: int) -> list[Observation]:
    """What the laws of a sweep are fitted to."""
    statement = select(ObservationRow).where(ObservationRow.sweep_id == sweep_id).order_by(ObservationRow.id)
    with reading(sessions) as session:
        return [to_observation(row) for row in session.scalars(statement)]


def list_decisions(
    sessions: Sessions, sweep_id: int, after: int | None = None, limit: int = 1000
) -> list[Decision]:
    """Decisions of a sweep, oldest first.

    Args:
        after: id of the last decision already seen.
        limit: at most so many.
    """
    statement = (
        select(DecisionRow, RunRow.id, RunRow.parent_id, RunRow.parent_step)
        .outerjoin(RunRow, RunRow.decision_id == DecisionRow.id)
        .where(DecisionRow.sweep_id == sweep_id, DecisionRow.id > (after or 0))
        .order_by(DecisionRow.id)
        .limit(limit)
    )
    with reading(sessions) as session:
        return [
            to_decision(row, run_id, to_branch(*began)) for row, run_id, *began in session.execute(statement)
        ]
