"""Trains one cohort at a time in a thread and keeps what came of its runs until that is acknowledged.

Torch is imported inside the functions: the orchestrator imports this module and never trains.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from sweeps.resources import Resources
from sweeps.runs import Point
from workers.executor import CALIBRATION_SECONDS, Attempt, Calibration, Delivery, Device, Subject
from workers.job import Job, Outcome, Provenance, Verdict

if TYPE_CHECKING:
    from workers.team import Meeting, Team

BROKEN_SECONDS = 10.0  # for the process that leads to tell why a training broke
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


@dataclass(frozen=True)
class Mates:
    """The other processes of a worker whose runs are trained by several, as the first one knows them.

    Args:
        others: handles of their hosts.
        address: of this machine, by which they reach it.
        leave: frees what all of them hold, this process included.
    """

    others: Sequence[Any]
    address: Callable[[], str]
    leave: Callable[[], None]


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
        self._turn = threading.Lock()  # a training ends a moment after it has told its outcome
        self._mates: Mates | None = None
        self._ready = threading.Event()
        self._broken: str | None = None  # why the last training that another process led ended early
        self._contact = time.monotonic()

    def prepare(self, mates: Mates | None = None) -> Device:
        """Holds the process to the resources and imports what takes long.

        Matrix products use as many threads as CPUs were asked for; without GPUs asked for it sees none.

        Args:
            mates: that train every run with this process, which leads them.

        Returns:
            What its runs train on.
        """
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        os.environ["OMP_NUM_THREADS"] = str(self._resources.threads)
        self._mates = mates
        if self._resources.gpus == 0:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        from workers.warmup import warm_up

        warm_up(self._resources)
        if self._lonely:
            threading.Thread(target=self._watch, daemon=True).start()
        self._ready.set()
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

    def follow(self, job: Job, meeting: Meeting, rank: int) -> None:
        """Trains a run along with the process that leads; ``watch`` tells if it cannot."""
        with self._news:
            self._contact = time.monotonic()
            self._broken = None
            self._news.notify_all()
        name = f"run-{job.run_id}-{rank}"
        threading.Thread(target=self._follow, args=(job, meeting, rank), daemon=True, name=name).start()

    def watch(self) -> str:
        """Gets ready, then waits until this process breaks while another one leads.

        Returns:
            Why, if no new training has begun with it since.
        """
        if not self._ready.is_set():
            self.prepare()
        with self._news:
            while True:
                self._news.wait_for(lambda: self._broken is not None)
                self._news.wait_for(lambda: self._broken is None, BROKEN_SECONDS)
                if self._broken is not None:
                    return self._broken

    def calibrate(self, subject: Subject, peaks: bool = True) -> Calibration:
        """Times small trainings on this worker's device.

        Args:
            peaks: whether memory is measured, for which nothing else may train in this process.
        """
        from workers import device
        from workers.calibrate import calibrate
        from workers.rehearsal import rehearse

        with self._news:
            self._contact = time.monotonic() + CALIBRATION_SECONDS  # nobody calls meanwhile
        if subject.networks is not None:
            return rehearse(self._resources, subject.kind, subject.networks, peaks)
        name = device.name(device.pick(self._resources))
        return Calibration(name, subject.kind, calibrate(self._resources, subject.kind, peaks=peaks))

    def device(self) -> Device:
        """What its runs train on."""
        from workers import device
        from workers.memory import available

        where = device.pick(self._resources)
        gpus = self._resources.gpus
        base = device.base(where) if gpus >= 1.0 else None
        place = device.place(where) if gpus <= 1.0 else None
        return Device(device.name(where), available(self._resources), base, place)

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

        began, team = time.monotonic(), None
        self._turn.acquire()
        try:
            team = self._gather(jobs[0])
            train(jobs, self, team)
        except BaseException as error:  # a trainer may raise anything, and its thread must tell
            reason, seconds = f"{type(error).__name__}: {error}", (time.monotonic() - began) / len(jobs)
            for job in jobs:
                if not self._done((job.run_id, job.attempt)):
                    self.ended(job.run_id, Outcome("failed", None, 0, 0, seconds, reason))
        finally:
            if team is not None:
                team.close()
            self._turn.release()

    def _gather(self, job: Job) -> Team | None:
        """Calls the other processes to a training; None where this one trains alone."""
        if self._mates is None:
            return None
        from workers.team import Team, hold

        meeting = hold(self._mates.address(), self._resources.processes)
        for rank, other in enumerate(self._mates.others, 1):
            other.follow.remote(job, meeting, rank)
        return Team(meeting, 0, self._resources.gpus > 0)

    def _follow(self, job: Job, meeting: Meeting, rank: int) -> None:
        from workers.team import Team
        from workers.train import follow

        with self._turn:
            try:
                self._ready.wait()
                follow(job, Team(meeting, rank, self._resources.gpus > 0))
            except BaseException as error:  # whatever it is, the run must not wait for this process
                with self._news:
                    self._broken = f"{type(error).__name__}: {error}"
                    self._news.notify_all()

    @property
    def _follows(self) -> bool:
        return self._resources.processes > 1 and self._mates is None

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
            for other in self._mates.others if self._mates is not None else ():
                other.holds.remote()
            if alone > patience and (self._follows or not self._cohort):
                if self._mates is not None:
                    self._mates.leave()
                os._exit(0)
