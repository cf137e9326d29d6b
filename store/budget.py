"""What sweeps have used of their budgets, and the hard limit on device seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, bindparam, case, func, select, update
from sqlalchemy.orm import Session

from store.db import lock, now
from store.events import emit_all, event, told
from store.models import RUNS, SWEEPS, Fields, RunRow
from sweeps.runs import TERMINAL, Role, RunState, Spent
from sweeps.spec import Budget

MIN_GRANT = 1.0  # device seconds below which an attempt is not worth its start
SLACK = 3.0  # times the expected duration that an attempt may take before it must ask again
SPENT = "the sweep's budget of device seconds is spent"

_proxies = RUNS.alias("proxies")


@dataclass
class Totals:
    """A sweep's proxies: what they used, what is reserved for those queued or running, how many are where."""

    spent: Spent = field(default_factory=Spent)
    reserved: Spent = field(default_factory=Spent)
    counts: dict[RunState, int] = field(default_factory=lambda: dict.fromkeys(RunState, 0))

    def remaining(self, budget: Budget) -> Spent:
        """What is left of a budget, infinite where it sets no limit. Device seconds that are too few for
        another attempt are none."""
        used = self.spent + self.reserved
        unlimited = float("inf")
        seconds = (
            unlimited if budget.device_seconds is None else budget.device_seconds
        ) - used.device_seconds
        return Spent(
            runs=budget.runs - used.runs,
            flops=(unlimited if budget.flops is None else budget.flops) - used.flops,
            device_seconds=seconds if seconds >= MIN_GRANT else min(0.0, seconds),
        )


def totals(session: Session, sweep_ids: Collection[int]) -> dict[int, Totals]:
    """Totals of each sweep.

    A run that did not finish has used the share of its FLOPs that it had trained for; one that never
    started has used nothing. A run in hand reserves the seconds it was expected to take. A branch trains, and
    uses, what comes after its beginning.
    """
    began = func.coalesce(RunRow.parent_step / RunRow.cost["steps"].as_float(), 0.0)
    share = (RunRow.tokens / RunRow.tokens_planned - began) / (1.0 - began)
    used = case(
        (RunRow.state == RunState.FINISHED, RunRow.flops),
        (share < 1.0, RunRow.flops * share),
        else_=RunRow.flops,
    )
    expected = func.coalesce(RunRow.expected_seconds, 0.0)
    rows = session.execute(
        select(
            RunRow.sweep_id,
            RunRow.state,
            func.count(),
            func.sum(case((RunRow.attempt > 0, 1), else_=0)),
            func.sum(used),
            func.sum(RunRow.flops),
            func.sum(RunRow.seconds),
            func.sum(case((expected > RunRow.seconds, expected), else_=RunRow.seconds)),
        )
        .where(RunRow.sweep_id.in_(sweep_ids), RunRow.role == Role.PROXY)
        .group_by(RunRow.sweep_id, RunRow.state)
    )
    found: dict[int, Totals] = defaultdict(Totals)
    for sweep_id, state, count, started, flops_used, flops, seconds, seconds_expected in rows:
        one = found[sweep_id]
        one.counts[state] = count
        if state in TERMINAL:
            one.spent += Spent(int(started), float(flops_used), float(seconds))
        else:
            one.reserved += Spent(count, float(flops), float(seconds_expected))
    return found


def _limit() -> ColumnElement[float]:
    limit: ColumnElement[float] = SWEEPS.c.spec["budget"]["device_seconds"].as_float()
    return limit


def _used(with_grants: bool) -> ScalarSelect[Any]:
    """Device seconds of the proxies of the sweep of the enclosing statement."""
    per_run = _proxies.c.seconds + _proxies.c.granted if with_grants else _proxies.c.seconds
    return (
        select(func.coalesce(func.sum(per_run), 0.0))
        .where(_proxies.c.sweep_id == SWEEPS.c.id, _proxies.c.role == Role.PROXY)
        .correlate(SWEEPS)
        .scalar_subquery()
    )


def affordable() -> ColumnElement[bool]:
    """Of the sweep in the statement: another attempt can be granted device seconds."""
    return _limit().is_(None) | (_limit() - _used(with_grants=True) >= MIN_GRANT)


def grant(session: Session, sweep_id: int, runs: Sequence[Fields]) -> dict[int, float]:
    """Grants device seconds to proxies, just claimed, of a sweep that limits them.

    The grants in hand and the seconds used never add up to more than the budget, whatever the expectations
    were worth: an attempt that needs more than its grant ends, is queued again and asks again, for as much as
    it has used at least.

    Returns:
        Seconds by run.
    """
    lock(session, sweep_id)
    free = session.scalars(select(_limit() - _used(with_grants=True)).where(SWEEPS.c.id == sweep_id)).one()
    share = max(0.0, free) / len(runs)
    granted = {}
    for run in runs:
        expected = run.expected_seconds
        wanted = share / 2 if expected is None else max(SLACK * expected + MIN_GRANT, run.seconds)
        granted[run.id] = min(share, wanted)
        session.execute(update(RUNS).where(RUNS.c.id == run.id).values(granted=granted[run.id]))
    return granted


_SPENT = select(SWEEPS.c.id).where(
    SWEEPS.c.id == bindparam("sweep"), _limit() - _used(with_grants=False) < MIN_GRANT
)
_CUT = (
    update(RUNS)
    .where(
        RUNS.c.sweep_id == _SPENT.scalar_subquery(),
        RUNS.c.state == RunState.QUEUED,
        RUNS.c.role == Role.PROXY,
    )
    .values(state=RunState.CANCELLED, reason=SPENT)
    .returning(RUNS.c.id, RUNS.c.config, RUNS.c.loss)
)


def cut(session: Session, sweep_id: int) -> list[int]:
    """Cancels the queued proxies of a sweep whose device seconds are spent.

    Returns:
        Their ids.
    """
    rows = session.execute(_CUT, {"sweep": sweep_id, "finished_at": now()}).all()
    emit_all(
        session,
        [
            event(sweep_id, "run_cancelled", told(config, loss, SPENT), run_id)
            for run_id, config, loss in rows
        ],
    )
    return [run_id for run_id, _, _ in rows]
