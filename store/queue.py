"""What waits to be run, and who gets it: oldest first, and others of its shape with it.

The owner of the session commits. A transaction should claim before it changes anything else: two that change
several runs in different order would wait for each other.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from sqlalchemy import ColumnElement, Update, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.orm import Session

from store import db
from store.budget import affordable, grant
from store.events import emit_all, event, told
from store.models import ATTEMPTS, RUNS, SWEEPS, Fields, Json, RunRow
from store.records import to_run, to_spec
from sweeps.runs import Role, Run, RunState, SweepState
from sweeps.spec import SweepSpec


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


def enqueue(session: Session, sweep_id: int, runs: Sequence[Json]) -> list[int]:
    """Queues new runs (columns as ``store.records.new_run`` gives them); their ids, in order."""
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


def _taking(which: ColumnElement[bool]) -> Update:
    """The statement that claims queued runs, oldest first."""
    chosen = (
        select(RUNS.c.id)
        .join(SWEEPS, SWEEPS.c.id == RUNS.c.sweep_id)
        .where(RUNS.c.state == RunState.QUEUED, which)
        .order_by(RUNS.c.id)
        .limit(bindparam("most", type_=RUNS.c.id.type))
        .with_for_update(skip_locked=True, of=RUNS)
        .cte("chosen")
    )
    moment = bindparam("moment", type_=RUNS.c.started_at.type)
    return (
        update(RUNS)
        .where(RUNS.c.id.in_(select(chosen.c.id)), RUNS.c.state == RunState.QUEUED)
        .values(
            state=RunState.RUNNING,
            attempt=RUNS.c.attempt + 1,
            started_at=func.coalesce(RUNS.c.started_at, moment),
            reason=None,
            out_of_memory=False,
        )
        .returning(*RUNS.c)
    )


_RUNNING = and_(SWEEPS.c.state == SweepState.RUNNING, affordable())
_PROXY = and_(RUNS.c.role == Role.PROXY, _RUNNING)
_TARGET = and_(RUNS.c.role == Role.TARGET, SWEEPS.c.state != SweepState.CANCELLED)
_ALIKE = and_(RUNS.c.sweep_id == bindparam("of_sweep"), RUNS.c.shape == bindparam("alike"), ~RUNS.c.undivided)
_TAKE, _TAKE_ALIKE = _taking(or_(_PROXY, _TARGET)), _taking(and_(_ALIKE, _RUNNING))
_COUNT_ALIKE = select(func.count()).select_from(RUNS).where(_ALIKE, RUNS.c.state == RunState.QUEUED)
_BEGIN = insert(ATTEMPTS)
_SWEEPS_OF = select(SWEEPS.c.id, SWEEPS.c.spec, SWEEPS.c.created_at).where(
    SWEEPS.c.id.in_(bindparam("ids", expanding=True))
)


def claim(session: Session, owner: str, lease_seconds: float, limit: int = 1) -> list[Claim]:
    """Takes queued runs, oldest first, each under a lease and with the next attempt number.

    Runs of a paused sweep wait; those that verify a target run as long as their sweep is not cancelled.

    Args:
        owner: name of the orchestrator.
        lease_seconds: until others may take the run over, unless the lease is renewed.
        limit: at most so many.
    """
    return _take(session, _TAKE, owner, lease_seconds, limit)


def claim_alike(
    session: Session, owner: str, lease_seconds: float, like: Claim, most: int, sharers: int
) -> list[Claim]:
    """Takes further queued runs of the sweep of a claimed one whose tensors have the same shapes.

    Args:
        like: in the same transaction.
        most: at most so many.
        sharers: workers that are to have about equally many of all that are queued.
    """
    if most < 1:
        return []
    shape = session.scalars(select(RUNS.c.shape).where(RUNS.c.id == like.run.id)).one()
    if shape is None:
        return []
    alike = {"of_sweep": like.run.sweep_id, "alike": shape}
    queued = session.scalars(_COUNT_ALIKE, alike).one()
    limit = min(most, math.ceil((queued + 1) / sharers) - 1)
    if limit < 1:
        return []
    return _take(session, _TAKE_ALIKE, owner, lease_seconds, limit, alike)


def _take(
    session: Session,
    statement: Update,
    owner: str,
    lease_seconds: float,
    limit: int,
    which: Mapping[str, object] = MappingProxyType({}),
) -> list[Claim]:
    moment = db.now()
    lease = {"owner": owner, "lease_until": moment + timedelta(seconds=lease_seconds)}
    found = session.execute(statement, {"most": limit, "moment": moment} | lease | dict(which))
    rows = sorted(found, key=lambda row: row.id)
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
    session.execute(_BEGIN, attempts)
    emit_all(session, [_started(row, owner) for row in rows])
    return _claims(session, rows)


def _started(row: Fields, owner: str) -> Json:
    data = told(row.config, row.loss) | {"attempt": row.attempt, "owner": owner}
    return event(row.sweep_id, "run_started", data, row.id)


def _claims(session: Session, rows: Sequence[Fields]) -> list[Claim]:
    """The claims of claimed rows, with their share of the device seconds."""
    found = session.execute(_SWEEPS_OF, {"ids": sorted({row.sweep_id for row in rows})}).all()
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
