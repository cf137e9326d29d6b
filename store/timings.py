"""What is known of how long trainings take and of the memory they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import and_, delete, insert, select
from sqlalchemy.orm import Session

from store.db import Sessions, reading
from store.models import AttemptRow, Json, RunRow, SweepRow, TimingRow
from sweeps.cost import Cost, Timing
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


def timings(sessions: Sessions) -> list[Timing]:
    """The latest runs that finished at their first attempt, branches left out, then every calibration; the
    latest first."""
    with reading(sessions) as session:
        return read_timings(session)


def read_timings(session: Session) -> list[Timing]:
    """As ``timings``, inside a transaction."""
    first = and_(AttemptRow.run_id == RunRow.id, AttemptRow.attempt == 1)
    runs = session.execute(
        select(
            RunRow.cost,
            RunRow.seconds,
            SweepRow.spec["proxy"]["kind"].as_string(),
            AttemptRow.members,
            AttemptRow.memory,
            AttemptRow.device,
        )
        .join(AttemptRow, first)
        .join(SweepRow, SweepRow.id == RunRow.sweep_id)
        .where(RunRow.state == RunState.FINISHED, RunRow.attempt == 1, RunRow.parent_id.is_(None))
        .order_by(RunRow.id.desc())
        .limit(RECENT)
    )
    return [*(_timing(*row) for row in runs), *_calibration(session)]


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
    cost: Json, seconds: float, kind: str | None, members: int, memory: float | None, device: str | None
) -> Timing:
    return Timing(Cost(**cost), seconds, kind or "gpt", members, memory, device)


def durations(sessions: Sessions, spec: SweepSpec) -> Durations | None:
    """Predicts the device seconds of runs, alone and together; None before anything was timed."""
    with reading(sessions) as session:
        return read_durations(session, spec)


def read_durations(session: Session, spec: SweepSpec) -> Durations | None:
    """As ``durations``, inside a transaction."""
    asked = spec.resources_of(None)
    known = [] if asked.processes > 1 else _calibration(session)  # a run that several train trains alone
    return learn_durations(read_timings(session), known, spec.proxy.kind, asked.gpus > 0)
