"""Runs in threads of this process: the same executor without Ray."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from sweeps.spec import Resources
from workers.executor import Calibration, Delivery, Unplaceable
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
        self._hosts: dict[int, tuple[Host, int]] = {}  # by run: its host and attempt
        self._acknowledged: dict[int, int] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="calibrate")
        self._calibration: Future[Calibration] | None = None

    @property
    def durable(self) -> bool:
        """Threads end with the process."""
        return False

    def capacity(self, resources: Resources) -> int:
        """The number of slots, whatever a run asks for, but no GPU."""
        return 0 if resources.gpus > 0 else self._slots

    def room(self) -> bool:
        """Whether a slot is free."""
        return len(self._hosts) < self._slots

    def launch(self, job: Job) -> str | None:
        """Starts an attempt in a thread."""
        if self.capacity(job.spec.resources) == 0:
            raise Unplaceable("the run asks for a GPU; runs in this process use the CPU")
        if not self.room():
            return None
        host = Host(job.spec.resources, lonely=False)
        host.launch(job)
        self._hosts[job.run_id] = host, job.attempt
        self._acknowledged[job.run_id] = 0
        return f"thread-{job.run_id}-{job.attempt}"

    def poll(self, timeout: float) -> list[Delivery]:
        """What came of every attempt, after at most ``timeout`` seconds."""
        if not self._hosts:
            time.sleep(timeout)
        wait = timeout / max(1, len(self._hosts))
        return [
            host.drain(run_id, attempt, self._acknowledged[run_id], wait)
            for run_id, (host, attempt) in self._hosts.items()
        ]

    def acknowledge(self, run_id: int, seq: int) -> None:
        """The points up to ``seq`` are stored."""
        self._acknowledged[run_id] = max(self._acknowledged.get(run_id, 0), seq)

    def forget(self, run_id: int) -> None:
        """The slot is free."""
        self._hosts.pop(run_id, None)

    def abandon(self, run_id: int) -> None:
        """Nobody else can have it: its thread is stopped."""
        self.stop(run_id)
        self.forget(run_id)

    def stop(self, run_id: int) -> None:
        """Asks an attempt to write a checkpoint and end."""
        if run_id in self._hosts:
            host, attempt = self._hosts[run_id]
            host.stop(run_id, attempt)

    def adopt(self, worker: str, run_id: int, attempt: int) -> bool:  # noqa: ARG002
        """Threads of a dead process are dead."""
        return False

    def device(self) -> str:
        """What this process trains on."""
        return Host(Resources(), lonely=False).device()

    def calibrate(self) -> Calibration | None:
        """Times small trainings in a thread of their own."""
        if self._calibration is None:
            self._calibration = self._thread.submit(Host(Resources(), lonely=False).calibrate)
        return self._calibration.result() if self._calibration.done() else None

    def close(self) -> None:
        """Stops every thread and waits for it."""
        for run_id, (host, attempt) in self._hosts.items():
            host.stop(run_id, attempt)
        for run_id, (host, attempt) in self._hosts.items():
            host.drain(run_id, attempt, 0, STOP_SECONDS)
        self._hosts.clear()
        self._thread.shutdown()
