"""The tables."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, TypeAlias, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    Row,
    String,
    Table,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from store.db import UTCDateTime, current_transaction, now
from sweeps.runs import Role, RunState, SweepState

Json = dict[str, Any]


def _word(values: type[StrEnum]) -> Enum:
    """A column of text that reads as one of these."""
    return Enum(values, native_enum=False, length=16, values_callable=list)


class Base(DeclarativeBase):
    """Every constraint has a name, so that migrations can speak of it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        str: String(),
        float: Double(),
        datetime: UTCDateTime(),
        Json: JSON(),
        SweepState: _word(SweepState),
        RunState: _word(RunState),
        Role: _word(Role),
    }


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    allowed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({allowed})", name=column)


class SweepRow(Base):
    """A sweep.

    ``spec`` carries budget and stop rule as they stand now, ``spec_hash`` is that of the specification as it
    was submitted. ``revision`` counts the changes of the limits.
    """

    __tablename__ = "sweeps"
    __table_args__ = (_one_of("state", SweepState),)

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str | None] = mapped_column(unique=True)
    name: Mapped[str]
    state: Mapped[SweepState] = mapped_column(default=SweepState.RUNNING)
    reason: Mapped[str | None]
    spec: Mapped[Json]
    spec_hash: Mapped[str] = mapped_column(String(64))
    revision: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
    mirror_id: Mapped[str | None]
    mirror_state: Mapped[SweepState | None]
    mirror_fit: Mapped[int] = mapped_column(default=0)


class DecisionRow(Base):
    """A decision; the run that it started points to it."""

    __tablename__ = "decisions"

    id: Mapped[int] = mapped_column(primary_key=True)
    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id"), index=True)
    fit_id: Mapped[int | None] = mapped_column(ForeignKey("fits.id"))
    config: Mapped[Json]
    cost: Mapped[Json]
    score: Mapped[float]
    reason: Mapped[str]
    strategy: Mapped[str]
    expected: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(default=now)


class RunRow(Base):
    """A run. ``attempt`` is the fencing token: whoever holds an older number changes nothing.

    ``granted`` are device seconds that a running attempt may use, where the sweep limits them;
    ``expected_seconds`` what the run was planned to take. ``last_seq`` is its last point's number. Runs of a
    sweep with the same ``shape`` may train together. ``undivided`` needs a whole device. One with a
    ``parent_id`` begins at ``parent_step`` of that run; ``flops`` are those of the steps it trains itself.
    """

    __tablename__ = "runs"
    __table_args__ = (
        UniqueConstraint("sweep_id", "role", "config_hash"),
        Index(None, "state", "id"),
        Index(None, "sweep_id", "state"),
        Index(None, "sweep_id", "shape", "state"),
        _one_of("state", RunState),
        _one_of("role", Role),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id"))
    role: Mapped[Role]
    state: Mapped[RunState] = mapped_column(default=RunState.QUEUED)
    config: Mapped[Json]
    config_hash: Mapped[str] = mapped_column(String(64))
    shape: Mapped[str | None] = mapped_column(String(64))
    cost: Mapped[Json]
    flops: Mapped[float]
    tokens_planned: Mapped[float]
    expected_seconds: Mapped[float | None]
    target: Mapped[str | None]
    decision_id: Mapped[int | None] = mapped_column(ForeignKey("decisions.id"), unique=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    parent_step: Mapped[int | None] = mapped_column(BigInteger)
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    granted: Mapped[float] = mapped_column(default=0.0)
    step: Mapped[int] = mapped_column(BigInteger, default=0)
    tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    loss: Mapped[float | None]
    last_seq: Mapped[int] = mapped_column(default=0)
    seconds: Mapped[float] = mapped_column(default=0.0)
    reason: Mapped[str | None]
    out_of_memory: Mapped[bool] = mapped_column(default=False, server_default=false())
    undivided: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    mirror_id: Mapped[str | None]
    mirror_state: Mapped[RunState | None]
    mirror_seq: Mapped[int] = mapped_column(default=0)


class TrunkRow(Base):
    """A checkpoint of a run that others may begin from."""

    __tablename__ = "trunks"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)


class AttemptRow(Base):
    """One execution of a run: who led it, on which worker, how it ended.

    ``members`` are the runs that trained together, ``sharers`` the workers that fit on the device, ``memory``
    the peak in bytes where it could be measured, ``provenance`` what ran.
    """

    __tablename__ = "attempts"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    worker: Mapped[str | None]
    members: Mapped[int] = mapped_column(default=1, server_default="1")
    sharers: Mapped[int] = mapped_column(default=1, server_default="1")
    device: Mapped[str | None]
    memory: Mapped[float | None]
    provenance: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    reason: Mapped[str | None]
    seconds: Mapped[float | None]


class PointRow(Base):
    """One streamed measurement; a run writes each number of its stream once."""

    __tablename__ = "points"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - the base class declares it as it is

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger)
    tokens: Mapped[int] = mapped_column(BigInteger)
    metric: Mapped[str]
    value: Mapped[float]
    at: Mapped[float]


class ObservationRow(Base):
    """What the laws are fitted to; a run gives at most one.

    ``deviation`` is that of ln loss, 0 unless the run was stopped early and its loss is a forecast.
    ``digest`` stands for the content of an imported one, so that importing it again changes nothing; it is
    NULL where ``run_id`` is not.
    """

    __tablename__ = "observations"
    __table_args__ = (Index(None, "sweep_id", "digest", unique=True),)

    id: Mapped[int] = mapped_column(primary_key=True)
    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id"), index=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"), unique=True)
    config: Mapped[Json]
    cost: Mapped[Json]
    loss: Mapped[float]
    deviation: Mapped[float] = mapped_column(default=0.0, server_default=text("0"))
    provenance: Mapped[str]
    digest: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)


class FitRow(Base):
    """One look of the scheduler. ``key`` stands for what it saw, so that no two looks see the same.

    ``ensemble`` is NULL where there were too few observations.
    """

    __tablename__ = "fits"
    __table_args__ = (UniqueConstraint("sweep_id", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id"))
    key: Mapped[str] = mapped_column(String(64))
    n_observations: Mapped[int]
    ensemble: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    predictions: Mapped[Json]
    stop: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class EventRow(Base):
    """One thing that happened. ``transaction`` lets readers wait for those that commit late."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "sweep_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id"))
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    kind: Mapped[str]
    data: Mapped[Json]
    at: Mapped[datetime] = mapped_column(default=now)
    transaction: Mapped[int] = mapped_column(BigInteger, default=current_transaction())


class TimingRow(Base):
    """A part of a training that was timed to learn what a device can do.

    ``seconds`` are those of one of ``members`` that trained together, ``memory`` the peak of all in bytes. Of
    networks of the user's, ``code`` is a digest of what was timed, and ``refused`` why they are not stacked.
    """

    __tablename__ = "timings"

    id: Mapped[int] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(default="gpt", server_default="gpt")
    members: Mapped[int] = mapped_column(default=1, server_default="1")
    cost: Mapped[Json]
    seconds: Mapped[float]
    memory: Mapped[float | None]
    code: Mapped[str | None]
    refused: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class LeaderRow(Base):
    """Who alone does a piece of work (such as mirroring) at the moment."""

    __tablename__ = "leaders"

    work: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    lease_until: Mapped[datetime]


Fields: TypeAlias = Row[*tuple[Any, ...]]  # of a table, read without the mapper

# The same without the mapper, for the statements that every run needs.
SWEEPS = cast(Table, SweepRow.__table__)
RUNS = cast(Table, RunRow.__table__)
ATTEMPTS = cast(Table, AttemptRow.__table__)
POINTS = cast(Table, PointRow.__table__)
OBSERVATIONS = cast(Table, ObservationRow.__table__)
EVENTS = cast(Table, EventRow.__table__)
