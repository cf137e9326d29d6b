"""Trains what a worker was given, whatever happens to it: every run ends in an outcome with a reason."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

from sweeps.errors import SweepError
from workers import device, own
from workers.cohort import Cohort
from workers.job import Job, Listener, Outcome
from workers.team import Team

logger = logging.getLogger(__name__)

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # PyTorch, GPU and CPU


def train(jobs: Sequence[Job], listener: Listener, team: Team | None = None) -> None:
    """Trains runs of equal shape together, and those of them apart that cannot be.

    Runs that stand at different steps train one group after the other. Where a cohort breaks, the runs
    that have not ended train alone, so that only the one to blame fails.

    Args:
        jobs: of one sweep, differing in nothing that gives a tensor its shape.
        listener: is told of points and ends. A later attempt reports the points of the earlier ones again,
            under the same sequence numbers.
        team: that the only run is trained by, and that this process leads; None for this process alone.
    """
    if jobs[0].spec.proxy.kind == "own":
        for job in jobs:
            own.train(job, listener)
        return
    ended: set[int] = set()
    once = _Once(listener, ended)
    try:
        cohort = Cohort(jobs, team)
        steps = cohort.resume()
        if len(set(steps)) == 1:
            cohort.run(once)
            return
        groups = defaultdict(list)
        for job, step in zip(jobs, steps, strict=True):
            groups[step].append(job)
        del cohort
        for _, group in sorted(groups.items()):
            train(group, once)
    except Exception as error:
        if team is not None:
            error = team.broke(error)
        left = [job for job in jobs if job.run_id not in ended]
        if len(jobs) == 1:
            logger.info("run %d broke", jobs[0].run_id, exc_info=error)
            for job in left:
                once.ended(job.run_id, broken(error))
            return
        logger.warning("%d runs broke together and go on alone: %s", len(left), error)
        del error
        for job in left:
            train([job], once)


class _Once:
    """Passes news on and remembers who has ended."""

    def __init__(self, listener: Listener, ended: set[int]) -> None:
        self.began = listener.began
        self.points = listener.points
        self._listener = listener
        self._ended = ended

    def ended(self, run_id: int, outcome: Outcome) -> None:
        self._ended.add(run_id)
        self._listener.ended(run_id, outcome)


def follow(job: Job, team: Team) -> None:
    """Trains a run along with the process that leads its team.

    Raises:
        Exception: whatever broke in this process; what broke in others is theirs to tell.
    """
    try:
        cohort = Cohort([job], team)
        cohort.resume()
        cohort.follow()
    except Exception as error:
        told = team.broke(error)
        if told is error:
            raise
        logger.info("run %d ended here: %s", job.run_id, told)
    else:
        team.close()


def broken(error: Exception) -> Outcome:
    """The outcome of a training that raised."""
    reason, too_large = f"{type(error).__name__}: {error}", out_of_memory(error)
    if too_large:
        reason = f"out of memory: {reason}{device.told_peak()}"
    hopeless = too_large or isinstance(error, SweepError)
    return Outcome("failed", None, 0, 0, 0.0, reason, too_large, hopeless)


def out_of_memory(error: Exception) -> bool:
    """Whether a training broke because it needed more memory than there was."""
    told = isinstance(error, RuntimeError) and any(words in str(error).lower() for words in NO_MEMORY)
    return told or isinstance(error, MemoryError)
