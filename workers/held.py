"""A run whose lease this orchestrator holds."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from store.queue import Claim
from sweeps.resources import Resources
from workers.executor import Delivery
from workers.job import Job
from workers.titles import title
from workers.trunks import joints_of


@dataclass
class Held:
    """A run whose lease this orchestrator holds.

    Args:
        started: None while it waits for room.
        worker: that trains it.
        placed: which worker that is is stored.
        members: runs that train together, this one among them.
        why_stopped: None as long as it was not asked to stop.
        news: not stored yet.
        traced: what runs is stored.
    """

    claim: Claim
    job: Job
    started: float | None = None
    worker: str | None = None
    placed: bool = False
    members: int = 1
    why_stopped: str | None = None
    news: Delivery | None = None
    traced: bool = False

    @property
    def name(self) -> str:
        """For log lines."""
        run = self.claim.run
        return f"run {run.id} ({title(self.claim.spec, run.config)})"

    @property
    def seconds(self) -> float:
        """Device seconds since the start, for attempts that cannot tell themselves any more."""
        asked = self.job.spec.resources
        elapsed = 0.0 if self.started is None else time.monotonic() - self.started
        return elapsed * (asked.gpus or asked.cpus) / self.members


def make_job(claim: Claim, given: Resources, checkpoints: Path, checkpoint_seconds: float) -> Job:
    """What a worker is to be told of a claimed run.

    Args:
        given: what its worker gets of the resources that the run asks for.
        checkpoints: folder of checkpoints, the same on every machine of the cluster.
        checkpoint_seconds: between two checkpoints.
    """
    run = claim.run
    begins, leaves = joints_of(claim, checkpoints)
    # The time of creation keeps runs of different databases apart that share the folder and the number.
    path = checkpoints / f"run-{run.id}-{int(run.created_at.timestamp())}.pt"
    return Job(
        run_id=run.id,
        attempt=claim.attempt,
        spec=replace(claim.spec, resources=given),
        source=claim.spec.source,
        config=run.config,
        checkpoint=str(path),
        checkpoint_seconds=checkpoint_seconds,
        max_seconds=claim.device_seconds_left,
        begins=begins,
        leaves=leaves,
    )


def discard(job: Job) -> None:
    """Deletes a run's checkpoint, which is a folder where the trainer is the user's own."""
    path = Path(job.checkpoint)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
