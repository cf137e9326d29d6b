"""The nouns of a sweep's life, one record each: the same record serves SQL mapping, HTTP and Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sweeps.cost import Cost
from sweeps.spec import Config, SweepSpec


class SweepState(StrEnum):
    RUNNING = "running"  # runs are queued, training or about to be chosen
    PAUSED = "paused"  # running runs go on, no queued one starts
    FINISHED = "finished"  # the budget is spent, the tolerance is met or no run is worth its cost
    CANCELLED = "cancelled"  # ended by a user


class RunState(StrEnum):
    QUEUED = "queued"  # waits for a slot
    RUNNING = "running"  # an attempt holds the lease
    FINISHED = "finished"  # trained to its end
    DIVERGED = "diverged"  # a result: it bounds the learning rate
    FAILED = "failed"  # every attempt broke
    CANCELLED = "cancelled"  # ended by a user, by the budget, or for telling too little


TERMINAL = frozenset({RunState.FINISHED, RunState.DIVERGED, RunState.FAILED, RunState.CANCELLED})


class Role(StrEnum):
    PROXY = "proxy"  # feeds the laws
    TARGET = "target"  # verifies a prediction; never fitted


@dataclass(frozen=True)
class Ran:
    """How an attempt was executed.

    Args:
        device: its name.
        members: runs that trained together, this one among them.
        memory: peak bytes of all of them, None where it was not measured.
    """

    device: str
    members: int = 1
    memory: float | None = None


@dataclass(frozen=True)
class Point:
    """One streamed measurement of a run.

    Args:
        seq: position in the run's stream, counted from 1 without gaps.
        step: optimiser steps done.
        tokens: training tokens (or samples) seen.
        metric: such as ``val_loss``.
        value: in the metric's unit.
        at: seconds since the epoch.
    """

    seq: int
    step: int
    tokens: int
    metric: str
    value: float
    at: float


@dataclass(frozen=True)
class Observation:
    """What a law is fitted to: a finished run, or one that trains or was stopped, with its loss forecast.

    Args:
        config: value of every axis.
        cost: parameter counts, FLOPs and the rest, from the shape.
        loss: final value of the sweep's metric.
        run_id: the run it came from, None when it was imported.
        provenance: where it comes from, in words; ``forecast`` for a run that has not finished.
        deviation: standard deviation of ln loss beyond that of a finished run, 0 for a finished one.
    """

    config: Config
    cost: Cost
    loss: float
    run_id: int | None = None
    provenance: str = "run"
    deviation: float = 0.0


@dataclass(frozen=True)
class Branch:
    """Where a run begins that shares its first steps with another one; it pays for the steps after them.

    Args:
        run_id: of the other run.
        step: optimiser steps that are done there.
    """

    run_id: int
    step: int


def rest(branch: Branch | None, cost: Cost) -> float:
    """Share of a run's steps that it trains itself."""
    return 1.0 if branch is None else 1.0 - branch.step / cost.steps


@dataclass(frozen=True)
class Decision:
    """What the scheduler chose, and why.

    Args:
        config: the chosen configuration.
        cost: of that run, from its first step.
        score: expected drop of the target's variance per cost (0 where the strategy has no score).
        reason: in words.
        strategy: that chose.
        expected: the interval's half-width before and after this run, relative, the share of what was left of
            the budget, and the device seconds, of what is known of these.
        branch: where the run begins, None at its first step.
        id, sweep_id, run_id, fit_id, created_at: set once stored.
    """

    config: Config
    cost: Cost
    score: float
    reason: str
    strategy: str
    expected: dict[str, float] = field(default_factory=dict)
    branch: Branch | None = None
    id: int | None = None
    sweep_id: int | None = None
    run_id: int | None = None
    fit_id: int | None = None
    created_at: datetime | None = None


@dataclass(frozen=True)
class Spent:
    """What a sweep's proxies have used, what is reserved for those queued or running, or what remains."""

    runs: float = 0
    flops: float = 0.0
    device_seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.runs + other.runs,
            self.flops + other.flops,
            self.device_seconds + other.device_seconds,
        )

    def __sub__(self, other: Spent) -> Spent:
        return Spent(
            self.runs - other.runs,
            self.flops - other.flops,
            self.device_seconds - other.device_seconds,
        )


@dataclass(frozen=True)
class Sweep:
    """One question with its space, budget and state; ``spec`` has budget and stop rule as they stand now.

    ``imported`` counts the past runs that its laws are fitted to beside its own.
    """

    id: int
    name: str
    state: SweepState
    reason: str | None
    spec: SweepSpec
    spec_hash: str
    spent: Spent
    reserved: Spent
    counts: dict[RunState, int]
    warnings: list[str]
    created_at: datetime
    finished_at: datetime | None
    imported: int = 0


@dataclass(frozen=True)
class Run:
    """One training of one configuration with one seed.

    Args:
        cost: counted from its first step, wherever it begins.
        attempt: number of the latest execution, 0 before the first.
        step, tokens: progress of the latest attempt.
        loss: last value of the sweep's metric, None before the first evaluation.
        seconds: device seconds used over all attempts.
        reason: why it diverged, failed or was cancelled.
        target: name of the target a run of role ``target`` verifies.
        out_of_memory: its latest attempt broke because it needed more memory than there was.
        undivided: an attempt needed more memory than a share of a GPU had; the next ones get a whole one.
        provenance: what ran in the latest attempt (versions, device, commit), where one run is asked for.
        branch: where it begins, None at its first step.
    """

    id: int
    sweep_id: int
    role: Role
    state: RunState
    config: Config
    cost: Cost
    attempt: int
    step: int
    tokens: int
    loss: float | None
    seconds: float
    reason: str | None
    target: str | None
    decision_id: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    out_of_memory: bool = False
    undivided: bool = False
    provenance: dict[str, object] | None = None
    branch: Branch | None = None


@dataclass(frozen=True)
class Event:
    """One thing that happened, in the order it happened."""

    id: int
    sweep_id: int
    run_id: int | None
    kind: str
    data: dict[str, object]
    at: datetime
