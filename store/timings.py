"""What is known of how long training takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from store.db import Sessions, reading
from store.models import RunRow, TimingRow
from sweeps.cost import Cost, SecondsModel, Timing, fit_seconds
from sweeps.runs import RunState

RECENT = 500  # finished runs that teach


def record_timings(sessions: Sessions, device: str, timings: Sequence[Timing]) -> None:
    """Stores the calibration of a device, in place of its last one."""
    rows = [{"device": device, "cost": asdict(one.cost), "seconds": one.seconds} for one in timings]
    with sessions.begin() as session:
        session.execute(delete(TimingRow).where(TimingRow.device == device))
        if rows:
            session.execute(insert(TimingRow), rows)


def calibrated(sessions: Sessions, device: str) -> bool:
    """Whether a device has a calibration."""
    with reading(sessions) as session:
        return session.scalar(select(TimingRow.id).where(TimingRow.device == device).limit(1)) is not None


def timings(sessions: Sessions) -> list[Timing]:
    """Every device's calibration, and the latest runs that finished at their first attempt."""
    with reading(sessions) as session:
        return read_timings(session)


def read_timings(session: Session) -> list[Timing]:
    """As ``timings``, inside a transaction."""
    calibration = session.execute(select(TimingRow.cost, TimingRow.seconds)).all()
    runs = session.execute(
        select(RunRow.cost, RunRow.seconds)
        .where(RunRow.state == RunState.FINISHED, RunRow.attempt == 1)
        .order_by(RunRow.id.desc())
        .limit(RECENT)
    ).all()
    return [Timing(Cost(**cost), seconds) for cost, seconds in (*calibration, *runs)]


def seconds_model(sessions: Sessions) -> SecondsModel | None:
    """Predicts a run's device seconds; None before anything was timed."""
    return fit_seconds(timings(sessions))
