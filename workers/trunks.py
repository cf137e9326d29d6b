"""Files of the checkpoints that runs share: one for each trunk and step, whichever run wrote it."""

from __future__ import annotations

import logging
import shutil
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from store import trunks
from store.db import Sessions, reading
from store.queue import Claim
from sweeps.runs import Role
from sweeps.trunks import joints, trunk_key
from workers.job import Job, Joint

log = logging.getLogger(__name__)


def joints_of(claim: Claim, checkpoints: Path) -> tuple[Joint | None, tuple[Joint, ...]]:
    """Where a run begins, None at its first step, and what it is to leave for others.

    Args:
        checkpoints: folder of checkpoints, the same on every machine of the cluster.
    """
    run, branch = claim.run, claim.run.branch
    folder, key = _folder(checkpoints, run.sweep_id, claim.created_at), trunk_key(run.config)
    steps = joints(claim.spec, run.config) if run.role is Role.PROXY else ()
    first = 0 if branch is None else branch.step
    leaves = tuple(Joint(step, str(folder / f"{key}-{step}.pt")) for step in steps if step > first)
    if branch is None:
        return None, leaves
    return Joint(branch.step, str(folder / f"{key}-{branch.step}.pt")), leaves


def rooted(session: Session, claim: Claim, job: Job) -> bool:
    """Whether a claimed run can go on or begin; a branch whose checkpoint is gone is given back."""
    if job.begins is None or Path(job.begins.path).exists() or Path(job.checkpoint).exists():
        return True
    again = trunks.uproot(session, claim)
    what = "trains from its first step" if again else "is not trained"
    log.warning("run %d %s: %s is gone", job.run_id, what, job.begins.path)
    return False


def left(job: Job) -> list[int]:
    """Steps of which a run, or another one of its trunk, has left a checkpoint."""
    return [joint.step for joint in job.leaves if Path(joint.path).exists()]


def clear(sessions: Sessions, checkpoints: Path) -> None:
    """Deletes the checkpoints of sweeps that have ended."""
    with reading(sessions) as session:
        found = trunks.outlived(session)
    for sweep_id, created_at in found:
        # First: a crash in between leaves a note that has this done again.
        shutil.rmtree(_folder(checkpoints, sweep_id, created_at), ignore_errors=True)
        with sessions.begin() as session:
            trunks.forget(session, sweep_id)
        log.info("sweep %d has ended; the checkpoints that its runs shared are deleted", sweep_id)


def _folder(checkpoints: Path, sweep_id: int, created_at: datetime) -> Path:
    """Of one sweep; the time keeps those of different databases apart that have the same number."""
    return checkpoints / f"sweep-{sweep_id}-{int(created_at.timestamp())}"
