"""What the orchestrator needs of whatever executes runs; Ray and this process both offer it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from sweeps.cost import Timing
from sweeps.data import Source
from sweeps.errors import SweepError
from sweeps.resources import Resources
from sweeps.runs import Point
from sweeps.spec import Config, SweepSpec
from workers.job import Job, Outcome, Provenance

Attempt: TypeAlias = tuple[int, int]  # run and number of its execution

CALIBRATION_SECONDS = 120.0  # what takes longer hangs


class Unplaceable(SweepError):
    """No machine of the cluster can ever give what the run asks for."""


@dataclass(frozen=True)
class Delivery:
    """What came of one attempt since the last acknowledgement.

    Args:
        points: with sequence numbers above the acknowledged one, ascending.
        outcome: how the training ended, None while it goes on.
        error: why the worker was lost, None while it lives.
        out_of_memory: the worker was lost because its machine had no memory left.
        begun: False where a warm worker turned out to be gone before it had begun; the run is not to blame.
        provenance: what runs, None before that is known. It is told again and again.
    """

    run_id: int
    attempt: int
    points: list[Point]
    outcome: Outcome | None = None
    error: str | None = None
    begun: bool = True
    out_of_memory: bool = False
    provenance: Provenance | None = None


@dataclass(frozen=True)
class Device:
    """What workers train on.

    Args:
        name: the same for all machines of a kind.
        memory: bytes that one worker may count on.
        base: bytes of a GPU that a worker takes beside its trainings; None where it shares one.
        place: of the GPU in the cluster; None for CPUs and for several.
    """

    name: str
    memory: float
    base: float | None = None
    place: str | None = None


@dataclass(frozen=True)
class Networks:
    """Networks of the user's that are to be timed.

    Args:
        spec: of the sweep that they are of.
        source: of its data, as the operator's settings know it.
        configs: of one optimiser step each, in ascending FLOPs.
        refused: why they cannot be stacked, where that is known.
    """

    spec: SweepSpec
    source: Source
    configs: Sequence[Config]
    refused: str | None = None


@dataclass(frozen=True)
class Subject:
    """What is to be timed.

    Args:
        kind: of proxy; of networks of the user's what ``Proxy.trainer`` gives.
        networks: None for a kind of the service, whose shapes are its own.
    """

    kind: str
    networks: Networks | None = None


@dataclass(frozen=True)
class Calibration:
    """Short measured trainings of one kind of proxy on one device.

    Args:
        timings: none where timing failed.
        code: digest of the user's code that was timed; None for kinds of the service.
        trouble: why nothing was timed, or nothing in stacks.
        lost: the worker died of it, or was ended since it hung.
    """

    device: str
    kind: str
    timings: list[Timing]
    code: str | None = None
    trouble: str | None = None
    lost: bool = False


class Pool(Protocol):
    """Executes runs, one cohort a worker. No call but ``close`` waits for a training."""

    def capacity(self, resources: Resources) -> int:
        """How many cohorts that ask for these resources fit at once when nothing else runs."""

    def room(self) -> bool:
        """Whether anything at all is free."""

    def launch(self, jobs: Sequence[Job]) -> str | None:
        """Starts attempts at runs that train together.

        Returns:
            The worker's name, or None where what they ask for is not free now.

        Raises:
            Unplaceable: when waiting cannot help.
        """

    def poll(self, timeout: float) -> list[Delivery]:
        """Waits at most ``timeout`` seconds for an end or a loss, then says what came of every attempt.

        A worker whose runs have all ended is free for others at once.
        """

    def acknowledge(self, run_id: int, seq: int) -> None:
        """The points up to ``seq`` are stored; the worker may forget them."""

    def forget(self, run_id: int) -> None:
        """The end of the attempt is stored."""

    def abandon(self, run_id: int) -> None:
        """Another orchestrator has the attempt now; its worker is left alone."""

    def stop(self, run_id: int) -> None:
        """Asks an attempt to write a checkpoint and end; its outcome comes by ``poll``."""

    def adopt(self, worker: str, run_id: int, attempt: int) -> bool:
        """Takes over an attempt that a dead orchestrator started; False when it no longer lives."""

    def device(self, resources: Resources) -> Device | None:
        """What workers with these resources train on, None while none has started."""

    def calibrate(self, resources: Resources, subject: Subject) -> Calibration | None:
        """Starts the timing of small trainings on a free worker; None until it is done.

        One subject is timed at a time; the same is asked for until it is done.

        Args:
            resources: of the worker.
        """

    def close(self) -> None:
        """Ends every worker, but where they outlive this process those that train."""

    @property
    def durable(self) -> bool:
        """Whether workers outlive this process."""
