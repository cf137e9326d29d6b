"""Checkpoints that runs of a sweep share, and the runs that begin from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from store import attempts
from store.budget import Totals, totals
from store.db import insert_new
from store.guarded import UNSYNCED
from store.lifecycle import LIVE
from store.models import RunRow, SweepRow, TrunkRow
from store.queue import Claim
from store.records import shape_hash
from sweeps.runs import RunState, rest
from sweeps.trunks import Trunk, trunk_key


def keep(session: Session, run_id: int, steps: Iterable[int]) -> None:
    """Notes that there are checkpoints of a run at some steps; it may be told again."""
    rows = [{"run_id": run_id, "step": step} for step in steps]
    if rows:
        session.execute(insert_new(session, TrunkRow), rows)


def trunks(session: Session, sweep_id: int) -> list[Trunk]:
    """Runs of a sweep of which there are checkpoints to begin from."""
    rows = session.execute(
        select(RunRow.id, RunRow.config, TrunkRow.step)
        .join(TrunkRow, TrunkRow.run_id == RunRow.id)
        .where(RunRow.sweep_id == sweep_id)
        .order_by(RunRow.id, TrunkRow.step)
    ).all()
    configs, steps = {run_id: config for run_id, config, _ in rows}, defaultdict(list)
    for run_id, _, step in rows:
        steps[run_id].append(step)
    return [Trunk(run_id, config, tuple(steps[run_id])) for run_id, config in configs.items()]


def uproot(session: Session, claim: Claim) -> bool:
    """Takes a claimed branch whose checkpoint is gone off its trunk: it is queued again to train from its
    first step, and reserves the FLOPs of all its steps; or it is cancelled where these exceed the budget.

    Returns:
        Whether it is queued; False as well when the attempt is no longer the run's.

    Raises:
        ValueError: the run is no branch.
    """
    run, branch, attempt = claim.run, claim.run.branch, claim.attempt
    if branch is None:
        raise ValueError(f"run {run.id} begins at its first step; only a branch can be uprooted")
    own = rest(branch, run.cost)
    # Whoever chooses runs by what was left until now starts over.
    changed = update(SweepRow).where(SweepRow.id == run.sweep_id).values(revision=SweepRow.revision + 1)
    session.execute(changed.execution_options(**UNSYNCED))
    for trunk in trunks(session, run.sweep_id):
        if trunk_key(trunk.config) == trunk_key(run.config):
            gone = (TrunkRow.run_id == trunk.run_id, TrunkRow.step == branch.step)
            session.execute(delete(TrunkRow).where(*gone))
    left = totals(session, [run.sweep_id]).get(run.sweep_id, Totals()).remaining(claim.spec.budget)
    more = (1.0 - own) * run.cost.flops
    reason = f"the checkpoint of run {branch.run_id} at step {branch.step} is gone"
    if more > left.flops:
        reason = f"{reason}, and the {more:.3g} FLOPs up to there exceed what is left of the budget"
        attempts.finish(session, run.id, attempt, RunState.CANCELLED, None, 0.0, reason)
        return False
    session.execute(
        update(RunRow)
        .where(RunRow.id == run.id, RunRow.attempt == attempt, RunRow.state == RunState.RUNNING)
        .values(
            parent_id=None,
            parent_step=None,
            shape=shape_hash(run.config),
            flops=run.cost.flops,
            expected_seconds=RunRow.expected_seconds / own,
            step=0,
            tokens=0,
        )
        .execution_options(**UNSYNCED)
    )
    reason = f"{reason}; it trains from its first step, for {more:.3g} FLOPs more"
    return attempts.release(session, run.id, attempt, reason, False, 0.0) is RunState.QUEUED


def outlived(session: Session) -> list[tuple[int, datetime]]:
    """Sweeps that have ended and still have checkpoints that runs share: id and time of creation."""
    left = select(RunRow.sweep_id).join(TrunkRow, TrunkRow.run_id == RunRow.id)
    which = (SweepRow.state.not_in(LIVE), SweepRow.id.in_(left))
    found = session.execute(select(SweepRow.id, SweepRow.created_at).where(*which))
    return [(sweep_id, created_at) for sweep_id, created_at in found]


def forget(session: Session, sweep_id: int) -> None:
    """Notes that the checkpoints which runs of a sweep share are gone."""
    of = select(RunRow.id).where(RunRow.sweep_id == sweep_id)
    session.execute(delete(TrunkRow).where(TrunkRow.run_id.in_(of)))
