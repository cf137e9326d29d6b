"""What is known of how long trainings take and of the memory they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import and_, delete, insert, not_, select
from sqlalchemy.orm import Session

from store.db import Sessions, reading
from store.models import AttemptRow, Json, RunRow, SweepRow, TimingRow
from sweeps.cost import Cost, Timing
from sweeps.proxy import trainer_of
from sweeps.runs import RunState
from sweeps.spec import SweepSpec
from sweeps.stacks import Durations, learn_durations

RECENT = 500  # finished runs that teach


@dataclass(frozen=True)
class Rehearsed:
    """What is known of networks of the user's on a device, as long as their code is as it was.

    Args:
        costs: of one step of the shapes that were timed.
        refused: why they are not stacked, None where they may be.
    """

    costs: Sequence[Cost] = ()
    refused: str | None = None


def record_timings(
    sessions: Sessions,
    device: str,
    timings: Sequence[Timing],
    code: str | None = None,
    refused: str | None = None,
) -> None:
    """Stores the calibration of a device for the kinds of proxy in it, in place of its last one.

    Args:
        code: digest of the user's code that was timed. Timings of the same stay: they are of other shapes.
        refused: why no stacks are among them; those of this code go then.
    """
    rows = [
        {
            "device": device,
            "kind": one.kind,
            "members": one.members,
            "cost": asdict(one.cost),
            "seconds": one.seconds,
            "memory": one.memory,
            "code": code,
            "refused": refused,
        }
        for one in timings
    ]
    kinds = {one.kind for one in timings}
    with sessions.begin() as session:
        stays = and_(TimingRow.code.is_not(None), TimingRow.code == code)
        if refused is not None:
            stays = and_(stays, TimingRow.members == 1)
        session.execute(
            delete(TimingRow).where(TimingRow.device == device, TimingRow.kind.in_(kinds), not_(stays))
        )
        if rows:
            session.execute(insert(TimingRow), rows)


def calibrated(sessions: Sessions, device: str, kind: str) -> bool:
    """Whether a device has a calibration for a kind of proxy."""
    found = select(TimingRow.id).where(TimingRow.device == device, TimingRow.kind == kind).limit(1)
    with reading(sessions) as session:
        return session.scalar(found) is not None


def rehearsed(sessions: Sessions, device: str, kind: str, code: str | None) -> Rehearsed:
    """What is known of the user's networks on a device; nothing of another digest of the code."""
    found = select(TimingRow.cost, TimingRow.refused).where(
        TimingRow.device == device, TimingRow.kind == kind, TimingRow.code == code
    )
    with reading(sessions) as session:
        rows = session.execute(found).all()
    reasons = [refused for _, refused in rows if refused is not None]
    return Rehearsed([Cost(**cost) for cost, _ in rows], next(iter(reasons), None))


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
