"""Runs in threads of this process: the same executor without Ray."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from sweeps.resources import Resources
from workers.executor import Attempt, Calibration, Delivery, Device, Subject, Unplaceable
from workers.host import Host
from workers.job import Job

STOP_SECONDS = 30.0


class InProcessPool:
    """The executor without processes. Resources are not enforced; more GPUs than none are refused.

    Args:
        slots: how many runs at once.
    """

    def __init__(self, slots: int = 1) -> None:
        self._slots = slots
        self._hosts: dict[Attempt, Host] = {}
        self._training: set[Attempt] = set()
        self._acknowledged: dict[Attempt, int] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="calibrate")
        self._calibrations: dict[str, Future[Calibration]] = {}

    @property
    def durable(self) -> bool:
        """Threads end with the process."""
        return False

    def capacity(self, resources: Resources) -> int:
        """The number of slots, whatever a run asks for, but no GPU and no second process."""
        return 0 if resources.gpus > 0 or resources.processes > 1 else self._slots

    def room(self) -> bool:
        """Whether a slot is free."""
        return len({id(self._hosts[attempt]) for attempt in self._training}) < self._slots

    def launch(self, jobs: Sequence[Job]) -> str | None:
        """Starts attempts in a thread."""
        asked = jobs[0].spec.resources
        if asked.processes > 1:
            raise Unplaceable(f"the run asks for {asked.processes} processes; this executor has one")
        if self.capacity(asked) == 0:
            raise Unplaceable("the run asks for a GPU; runs in this process use the CPU")
        if not self.room():
            return None
        host = Host(asked, lonely=False)
        host.launch(jobs)
        for attempt in [(job.run_id, job.attempt) for job in jobs]:
            self._hosts[attempt] = host
            self._training.add(attempt)
            self._acknowledged[attempt] = 0
        return f"thread-{jobs[0].run_id}-{jobs[0].attempt}"

    def poll(self, timeout: float) -> list[Delivery]:
        """What came of every attempt, after at most ``timeout`` seconds."""
        by_host: dict[int, dict[Attempt, int]] = {}
        for attempt, seq in self._acknowledged.items():
            by_host.setdefault(id(self._hosts[attempt]), {})[attempt] = seq
        if not by_host:
            time.sleep(timeout)
        found: list[Delivery] = []
        for acknowledged in by_host.values():
            host = self._hosts[next(iter(acknowledged))]
            found += host.drain(acknowledged, timeout / len(by_host))
        self._training -= {(one.run_id, one.attempt) for one in found if one.outcome is not None}
        return found

    def acknowledge(self, run_id: int, seq: int) -> None:
        """The points up to ``seq`` are stored."""
        for attempt in self._of(run_id):
            self._acknowledged[attempt] = max(self._acknowledged[attempt], seq)

    def forget(self, run_id: int) -> None:
        """The outcome need not be kept."""
        for attempt in self._of(run_id):
            self._hosts.pop(attempt).forget(*attempt)
            self._training.discard(attempt)
            del self._acknowledged[attempt]

    def abandon(self, run_id: int) -> None:
        """Nobody else can have it: its thread is stopped."""
        self.stop(run_id)
        self.forget(run_id)

    def stop(self, run_id: int) -> None:
        """Asks an attempt to write a checkpoint and end."""
        for attempt in self._of(run_id):
            self._hosts[attempt].stop(*attempt)

    def adopt(self, worker: str, run_id: int, attempt: int) -> bool:  # noqa: ARG002
        """Threads of a dead process are dead."""
        return False

    def device(self, resources: Resources) -> Device | None:
        """What this process trains on, None for a GPU."""
        return None if resources.gpus > 0 else Host(resources, lonely=False).device()

    def calibrate(self, resources: Resources, subject: Subject) -> Calibration | None:
        """Times small trainings in a thread of their own."""
        kind = subject.kind
        if kind not in self._calibrations:
            host = Host(resources, lonely=False)
            self._calibrations[kind] = self._thread.submit(host.calibrate, subject, peaks=False)
        if not self._calibrations[kind].done():
            return None
        found = self._calibrations.pop(kind)
        if (error := found.exception()) is not None:
            return Calibration("unknown", kind, [], trouble=f"{type(error).__name__}: {error}")
        return found.result()

    def close(self) -> None:
        """Stops every thread and waits for it."""
        for attempt, host in self._hosts.items():
            host.stop(*attempt)
        for attempt, host in self._hosts.items():
            host.drain({attempt: 0}, STOP_SECONDS)
        self._hosts.clear()
        self._training.clear()
        self._acknowledged.clear()
        self._thread.shutdown()

    def _of(self, run_id: int) -> list[Attempt]:
        return [attempt for attempt in self._hosts if attempt[0] == run_id]
