"""What a worker is asked to train, and what it answers. Plain records that travel between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol, TypeAlias

from sweeps.data import Source
from sweeps.runs import Point, Ran
from sweeps.spec import Config, SweepSpec


class Verdict(StrEnum):
    CONTINUE = "continue"  # go on training
    STOP = "stop"  # write a checkpoint and end


# finished: trained to its end. diverged: the loss went to infinity or stayed above its start.
# stopped: ended early with a checkpoint. failed: broke with an error.
Status: TypeAlias = Literal["finished", "diverged", "stopped", "failed"]

Provenance: TypeAlias = Mapping[str, str | int | bool]  # what ran, see ``workers.provenance``


@dataclass(frozen=True)
class Joint:
    """A checkpoint at which runs that differ in length alone part.

    Args:
        step: optimiser steps done there.
        path: of the file, the same on every machine.
    """

    step: int
    path: str


@dataclass(frozen=True)
class Job:
    """One attempt at one run.

    Args:
        run_id: of the run.
        attempt: number of this execution of it.
        spec: of the sweep; says what is trained and how.
        source: of its data, as the operator's settings know it.
        config: value of every axis.
        checkpoint: path of the run's checkpoint, the same for every attempt.
        checkpoint_seconds: at most this much training is lost when a worker dies.
        max_seconds: device seconds this attempt may use, None for no limit.
        begins: from another run's checkpoint, None at its first step.
        leaves: checkpoints that it writes for other runs, and leaves there.
    """

    run_id: int
    attempt: int
    spec: SweepSpec
    source: Source
    config: Config
    checkpoint: str
    checkpoint_seconds: float
    max_seconds: float | None
    begins: Joint | None = None
    leaves: tuple[Joint, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Args:
        status: which of the four.
        loss: final value of the sweep's metric, None unless finished.
        step: optimiser steps done.
        tokens: training tokens seen.
        seconds: device seconds of this attempt; runs that trained together share theirs.
        reason: why it did not finish.
        out_of_memory: it failed because it needed more memory than there was.
        hopeless: another attempt would fail the same way.
        ran: how it was executed, None where it never trained.
    """

    status: Status
    loss: float | None
    step: int
    tokens: int
    seconds: float
    reason: str | None = None
    out_of_memory: bool = False
    hopeless: bool = False
    ran: Ran | None = None


class Listener(Protocol):
    """Whom a training tells of its runs."""

    def began(self, run_id: int, provenance: Provenance) -> None:
        """A run is about to train."""

    def points(self, run_id: int, points: list[Point]) -> Verdict:
        """New points of a run; called without any at least about once a second, to learn of a stop."""

    def ended(self, run_id: int, outcome: Outcome) -> None:
        """A run has ended. Its checkpoint stays: whoever stores the outcome deletes it."""
