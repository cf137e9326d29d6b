"""A worker as the pool sees it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from sweeps.resources import Resources
from workers.crew import Crew
from workers.executor import Attempt
from workers.job import Job

Call: TypeAlias = Literal["prepare", "launch", "drain", "holds", "calibrate"]


@dataclass
class Slot:
    """A worker with what it is doing, and the one call to it that is under way.

    Args:
        place: of its GPU, where it has one or a share of one.
        training: attempts that have not ended.
        acknowledged: the last point stored of every attempt that is not forgotten.
        waiting: to be launched as soon as the worker is ready.
        busy: calibrating.
        stopped: when attempts were asked to stop.
    """

    name: str
    crew: Crew
    resources: Resources
    ready: bool = False
    place: str | None = None
    training: set[Attempt] = field(default_factory=set)
    acknowledged: dict[Attempt, int] = field(default_factory=dict)
    waiting: list[Job] = field(default_factory=list)
    busy: bool = False
    stopped: dict[Attempt, float] = field(default_factory=dict)
    call: Call | None = None
    ref: Any = None
    called_at: float = 0.0
    idle_since: float = field(default_factory=time.monotonic)

    def ask(self, call: Call, ref: Any) -> None:
        """Remembers the call that is under way."""
        self.call, self.ref, self.called_at = call, ref, time.monotonic()

    @property
    def actor(self) -> Any:
        """The process that is talked to."""
        return self.crew.first

    @property
    def idle(self) -> bool:
        """Whether runs could start here."""
        return not self.training and not self.busy

    @property
    def spare(self) -> bool:
        """Whether nothing would be lost with it."""
        return self.idle and not self.acknowledged

    def end(self, attempt: Attempt) -> None:
        """An attempt trains no more."""
        self.training.discard(attempt)
        self.stopped.pop(attempt, None)
        self.idle_since = time.monotonic()
