"""Trains one run at a time in a thread and keeps what came of it until it is acknowledged.

Torch is imported inside the functions: the orchestrator imports this module and never trains.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque

from sweeps.runs import Point
from sweeps.spec import Resources
from workers.executor import Calibration, Delivery
from workers.job import Job, Outcome, Verdict

LONELY_IDLE = 30.0
LONELY_WITH_RESULT = 3600.0
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # PyTorch, GPU and CPU


class Host:
    """What lives in a worker process. Every method returns at once, ``drain`` after its wait.

    A finished attempt stays until ``forget`` or the next ``launch``, so that an orchestrator which dies
    between reading the outcome and storing it costs nothing: the next one reads it again.
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
        self._job: Job | None = None
        self._points: deque[Point] = deque()
        self._outcome: Outcome | None = None
        self._stopping = False
        self._contact = time.monotonic()

    def prepare(self) -> str:
        """Holds the process to the resources, imports what takes long and reads the data.

        Matrix products use as many threads as CPUs were asked for; without GPUs asked for it sees none.

        Returns:
            Name of the device.
        """
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        threads = max(1, int(self._resources.cpus))
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if self._resources.gpus == 0:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        import torch

        from workers.train import DATASETS

        torch.set_num_threads(threads)
        for load in DATASETS.values():
            load()  # kept in memory, so that no run's seconds hold the reading of its data
        if self._lonely:
            threading.Thread(target=self._watch, daemon=True).start()
        return self.device()

    def launch(self, job: Job) -> bool:
        """Starts an attempt; False when another one is training."""
        with self._news:
            self._contact = time.monotonic()
            if self._job is not None and self._outcome is None:
                return (self._job.run_id, self._job.attempt) == (job.run_id, job.attempt)
            self._job, self._outcome, self._stopping = job, None, False
            self._points.clear()
        threading.Thread(target=self._train, args=(job,), daemon=True, name=f"run-{job.run_id}").start()
        return True

    def drain(self, run_id: int, attempt: int, after: int, wait: float) -> Delivery:
        """Points with a sequence number above ``after``, and the outcome.

        Waits at most ``wait`` seconds for the outcome. Points up to ``after`` are dropped for good.
        """
        with self._news:
            self._contact = time.monotonic()
            if not self._holds(run_id, attempt):
                return Delivery(run_id, attempt, [], error="the worker no longer knows this attempt")
            self._news.wait_for(lambda: self._outcome is not None or not self._holds(run_id, attempt), wait)
            while self._points and self._points[0].seq <= after:
                self._points.popleft()
            return Delivery(run_id, attempt, list(self._points), self._outcome)

    def stop(self, run_id: int, attempt: int) -> None:
        """Has the attempt write a checkpoint and end."""
        with self._news:
            if self._holds(run_id, attempt):
                self._stopping = True

    def forget(self, run_id: int, attempt: int) -> None:
        """The outcome of the attempt is stored."""
        with self._news:
            if self._holds(run_id, attempt) and self._outcome is not None:
                self._job = None

    def holds(self) -> tuple[tuple[int, int] | None, Resources]:
        """Run and attempt in hand (training, or ended and not yet stored), and the worker's resources."""
        with self._news:
            self._contact = time.monotonic()
            held = None if self._job is None else (self._job.run_id, self._job.attempt)
            return held, self._resources

    def calibrate(self) -> Calibration:
        """Times small trainings on this worker's device."""
        from workers.calibrate import calibrate

        return Calibration(self.device(), calibrate())

    def device(self) -> str:
        """What its runs train on."""
        from workers.calibrate import device

        return device()

    def _holds(self, run_id: int, attempt: int) -> bool:
        return self._job is not None and (self._job.run_id, self._job.attempt) == (run_id, attempt)

    def _train(self, job: Job) -> None:
        started = time.monotonic()
        try:
            from workers.train import train

            outcome = train(job, self._report)
        except Exception as error:
            reason, too_large = f"{type(error).__name__}: {error}", out_of_memory(error)
            if too_large:
                reason = f"out of memory: {reason}"
            outcome = Outcome("failed", None, 0, 0, time.monotonic() - started, reason, too_large)
        with self._news:
            self._outcome = outcome
            self._news.notify_all()

    def _report(self, points: list[Point]) -> Verdict:
        with self._news:
            self._points.extend(points)
            return Verdict.STOP if self._stopping else Verdict.CONTINUE

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            with self._news:
                alone = time.monotonic() - self._contact
                training = self._job is not None and self._outcome is None
                patience = LONELY_WITH_RESULT if self._job is not None else LONELY_IDLE
            if not training and alone > patience:
                os._exit(0)


def out_of_memory(error: Exception) -> bool:
    """Whether a training broke because it needed more memory than there was."""
    told = isinstance(error, RuntimeError) and any(words in str(error).lower() for words in NO_MEMORY)
    return told or isinstance(error, MemoryError)
