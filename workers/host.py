"""Trains one cohort at a time in a thread and keeps what came of its runs until that is acknowledged.

Torch is imported inside the functions: the orchestrator imports this module and never trains.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sweeps.runs import Point
from sweeps.spec import Resources
from workers.executor import Attempt, Calibration, Delivery
from workers.job import Job, Outcome, Provenance, Verdict

LONELY_IDLE = 30.0
LONELY_WITH_RESULT = 3600.0

Acknowledged: TypeAlias = Mapping[Attempt, int]  # attempts to tell of, each with the last point stored


@dataclass
class Work:
    """An attempt in hand: training, or ended and not yet stored."""

    points: deque[Point] = field(default_factory=deque)
    outcome: Outcome | None = None
    stopping: bool = False
    provenance: Provenance | None = None


class Host:
    """What lives in a worker process. Every method returns at once, ``drain`` after its wait.

    An attempt that has ended stays until ``forget``, so that an orchestrator which dies between reading the
    outcome and storing it costs nothing: the next one reads it again.
    """

    def __init__(self, resources: Resources, lonely: bool) -> None:
        """Without preparation a host trains as its process is.

        Args:
            resources: what its runs ask for.
            lonely: whether the process ends when no orchestrator has called for a while; a detached worker
                would otherwise hold its resources for ever.
        """
        self._resources = resources
        self._lonely = lonely
        self._news = threading.Condition()
        self._work: dict[Attempt, Work] = {}
        self._cohort: tuple[Attempt, ...] = ()  # in training
        self._contact = time.monotonic()

    def prepare(self) -> str:
        """Holds the process to the resources and imports what takes long.

        Matrix products use as many threads as CPUs were asked for; without GPUs asked for it sees none.

        Returns:
            Name of the device.
        """
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        threads = max(1, int(self._resources.cpus))
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if self._resources.gpus == 0:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        from workers.warmup import warm_up

        warm_up(self._resources)
        if self._lonely:
            threading.Thread(target=self._watch, daemon=True).start()
        return self.device()

    def launch(self, jobs: Sequence[Job]) -> bool:
        """Starts attempts at runs that train together; False when others are training."""
        attempts = tuple((job.run_id, job.attempt) for job in jobs)
        with self._news:
            self._contact = time.monotonic()
            if self._cohort:
                return self._cohort == attempts
            self._cohort = attempts
            self._work |= {attempt: Work() for attempt in attempts}
        name = f"run-{jobs[0].run_id}"
        threading.Thread(target=self._train, args=(list(jobs),), daemon=True, name=name).start()
        return True

    def drain(self, acknowledged: Acknowledged, wait: float) -> list[Delivery]:
        """What came of attempts: points after the acknowledged ones, and outcomes.

        Waits at most ``wait`` seconds for an outcome. Points that are acknowledged are dropped for good.
        """
        with self._news:
            self._contact = time.monotonic()
            self._news.wait_for(lambda: self._ended(acknowledged), wait)
            return [self._deliver(attempt, after) for attempt, after in acknowledged.items()]

    def stop(self, run_id: int, attempt: int) -> None:
        """Has the attempt write a checkpoint and end."""
        with self._news:
            if (run_id, attempt) in self._work:
                self._work[run_id, attempt].stopping = True

    def forget(self, run_id: int, attempt: int) -> None:
        """The outcome of the attempt is stored."""
        with self._news:
            work = self._work.get((run_id, attempt))
            if work is not None and work.outcome is not None:
                del self._work[run_id, attempt]

    def holds(self) -> tuple[list[Attempt], Resources]:
        """The attempts in hand, and the worker's resources."""
        with self._news:
            self._contact = time.monotonic()
            return list(self._work), self._resources

    def calibrate(self) -> Calibration:
        """Times small trainings on this worker's device."""
        from workers.calibrate import calibrate

        return Calibration(self.device(), calibrate(self._resources))

    def device(self) -> str:
        """What its runs train on."""
        from workers import device

        return device.name()

    def began(self, run_id: int, provenance: Provenance) -> None:
        """Takes what runs from the training of a run."""
        with self._news:
            self._work[self._training(run_id)].provenance = provenance

    def points(self, run_id: int, points: list[Point]) -> Verdict:
        """Takes points from the training of a run, and tells whether it is to stop."""
        with self._news:
            work = self._work[self._training(run_id)]
            work.points.extend(points)
            return Verdict.STOP if work.stopping else Verdict.CONTINUE

    def ended(self, run_id: int, outcome: Outcome) -> None:
        """Takes the end of a run from its training."""
        with self._news:
            self._work[self._training(run_id)].outcome = outcome
            if all(self._done(one) for one in self._cohort):
                self._cohort = ()
            self._news.notify_all()

    def _train(self, jobs: list[Job]) -> None:
        from workers.train import train

        began = time.monotonic()
        try:
            train(jobs, self)
        except BaseException as error:  # a trainer may raise anything, and its thread must tell
            reason, seconds = f"{type(error).__name__}: {error}", (time.monotonic() - began) / len(jobs)
            for job in jobs:
                if not self._done((job.run_id, job.attempt)):
                    self.ended(job.run_id, Outcome("failed", None, 0, 0, seconds, reason))

    def _training(self, run_id: int) -> Attempt:
        return next(attempt for attempt in self._cohort if attempt[0] == run_id)

    def _done(self, attempt: Attempt) -> bool:
        work = self._work.get(attempt)
        return work is None or work.outcome is not None

    def _ended(self, acknowledged: Acknowledged) -> bool:
        return any(self._done(attempt) for attempt in acknowledged)

    def _deliver(self, attempt: Attempt, after: int) -> Delivery:
        work = self._work.get(attempt)
        if work is None:
            return Delivery(*attempt, [], error="the worker no longer knows this attempt")
        while work.points and work.points[0].seq <= after:
            work.points.popleft()
        return Delivery(*attempt, list(work.points), work.outcome, provenance=work.provenance)

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            with self._news:
                alone = time.monotonic() - self._contact
                patience = LONELY_WITH_RESULT if self._work else LONELY_IDLE
            if not self._cohort and alone > patience:
                os._exit(0)
