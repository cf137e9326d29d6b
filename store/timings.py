"""What is known of how long trainings take and of the memory they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import and_, delete, insert, select
from sqlalchemy.orm import Session

from store.db import Sessions, reading
from store.models import AttemptRow, Json, RunRow, SweepRow, TimingRow
from sweeps.cost import Cost, Timing
from sweeps.proxy import trainer_of
from sweeps.runs import RunState
from sweeps.spec import SweepSpec
from sweeps.stacks import Durations, learn_durations

RECENT = 500  # finished runs that teach


def record_timings(sessions: Sessions, device: str, timings: Sequence[Timing]) -> None:
    """Stores the calibration of a device for the kinds of proxy in it, in place of its last one."""
    rows = [
        {
            "device": device,
            "kind": one.kind,
            "members": one.members,
            "cost": asdict(one.cost),
            "seconds": one.seconds,
            "memory": one.memory,
        }
        for one in timings
    ]
    kinds = {one.kind for one in timings}
    with sessions.begin() as session:
        session.execute(delete(TimingRow).where(TimingRow.device == device, TimingRow.kind.in_(kinds)))
        if rows:
            session.execute(insert(TimingRow), rows)


def calibrated(sessions: Sessions, device: str, kind: str) -> bool:
    """Whether a device has a calibration for a kind of proxy."""
    found = select(TimingRow.id).where(TimingRow.device == device, TimingRow.kind == kind).limit(1)
    with reading(sessions) as session:
        return session.scalar(found) is not None


def calibration(sessions: Sessions) -> list[Timing]:
    """Of every device and kind, the latest first."""
    with reading(sessions) as session:
        return _calibration(session)


def finished(sessions: Sessions) -> list[Timing]:
    """The latest runs that finished at their first attempt, branches left out; the latest first."""
    with reading(sessions) as session:
        return _finished(session)


def timings(sessions: Sessions) -> list[Timing]:
    """Finished runs, then every calibration; the latest first."""
    with reading(sessions) as session:
        return _timings(session)


def _timings(session: Session) -> list[Timing]:
    return [*_finished(session), *_calibration(session)]


def _finished(session: Session) -> list[Timing]:
    first = and_(AttemptRow.run_id == RunRow.id, AttemptRow.attempt == 1)
    runs = session.execute(
        select(
            RunRow.cost,
            RunRow.seconds,
            SweepRow.spec["proxy"]["kind"].as_string(),
            SweepRow.spec["proxy"]["entry"].as_string(),
            AttemptRow.members,
            AttemptRow.memory,
            AttemptRow.device,
            AttemptRow.sharers,
        )
        .join(AttemptRow, first)
        .join(SweepRow, SweepRow.id == RunRow.sweep_id)
        .where(RunRow.state == RunState.FINISHED, RunRow.attempt == 1, RunRow.parent_id.is_(None))
        .order_by(RunRow.id.desc())
        .limit(RECENT)
    )
    return [
        _timing(cost, seconds, trainer_of(kind or "gpt", entry), *ran)
        for cost, seconds, kind, entry, *ran in runs
    ]


def _calibration(session: Session) -> list[Timing]:
    rows = session.execute(
        select(
            TimingRow.cost,
            TimingRow.seconds,
            TimingRow.kind,
            TimingRow.members,
            TimingRow.memory,
            TimingRow.device,
        ).order_by(TimingRow.id.desc())
    )
    return [_timing(*row) for row in rows]


def _timing(
    cost: Json,
    seconds: float,
    kind: str,
    members: int,
    memory: float | None,
    device: str | None,
    sharers: int = 1,
) -> Timing:
    return Timing(Cost(**cost), seconds, kind, members, memory, device, sharers)


def durations(sessions: Sessions, spec: SweepSpec) -> Durations | None:
    """Predicts the device seconds of runs, alone and together; None before anything was timed."""
    with reading(sessions) as session:
        return read_durations(session, spec)


def read_durations(session: Session, spec: SweepSpec) -> Durations | None:
    """As ``durations``, inside a transaction."""
    asked = spec.resources_of(None)
    known = _calibration(session)
    # What several processes train together trains alone.
    stacked = [] if asked.processes > 1 else known
    return learn_durations([*_finished(session), *known], stacked, spec.proxy.trainer, asked.gpus > 0)
