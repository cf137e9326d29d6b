"""What is stored of an attempt beside its points: where it trains, and what its outcome makes of its run."""

from __future__ import annotations

from sqlalchemy.orm import Session

from store import attempts, leases
from sweeps.runs import RunState
from workers.held import Held
from workers.job import Outcome

SHARED = "out of memory on a share of a GPU; the next attempt gets a whole one"


def place(session: Session, held: Held) -> None:
    """Stores which worker trains it, so that another orchestrator finds it there.

    Raises:
        ValueError: it has not started.
    """
    if held.worker is None:
        raise ValueError(f"{held.name} has no worker; only a run that has started has a place")
    job = held.job
    leases.place(session, job.run_id, job.attempt, held.worker, held.members, job.spec.resources.sharers)


def record(session: Session, held: Held, outcome: Outcome) -> None:
    """Stores it: the run has ended, or is queued again."""
    attempt = (session, held.job.run_id, held.job.attempt)
    seconds, ran, large = outcome.seconds, outcome.ran, outcome.out_of_memory
    if outcome.status in ("finished", "diverged"):
        state = RunState(outcome.status)
        attempts.finish(*attempt, state, outcome.loss, seconds, outcome.reason, ran=ran)
    elif large and held.job.spec.resources.sharers > 1:
        attempts.release(*attempt, SHARED, False, seconds, ran=ran, undivided=True)
    elif outcome.hopeless:
        attempts.finish(*attempt, RunState.FAILED, None, seconds, outcome.reason, large, ran)
    else:
        reason = held.why_stopped or outcome.reason or "stopped"
        attempts.release(*attempt, reason, outcome.status == "failed", seconds, large, ran)
