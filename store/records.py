"""How rows become the records of the core, and these become rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import lru_cache

from store.models import (
    DecisionRow,
    EventRow,
    Fields,
    Json,
    ObservationRow,
    PointRow,
    RunRow,
)
from sweeps.cost import Cost
from sweeps.runs import Branch, Decision, Event, Observation, Point, Role, Run, rest
from sweeps.spec import OWN_OF_MEMBERS, Config, SweepSpec, parse

SPECS = 64  # that are not parsed again, which takes a millisecond each


def to_spec(stored: Json) -> SweepSpec:
    """The specification in a row."""
    return _parsed(json.dumps(stored))


@lru_cache(SPECS)
def _parsed(text: str) -> SweepSpec:
    return parse(json.loads(text), stored=True)


def config_hash(config: Config) -> str:
    """Hash of a complete configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def shape_hash(config: Config, branch: Branch | None = None) -> str:
    """Hash of what gives the tensors of a training their shapes, and of the step at which it begins: runs
    that agree in it may train together."""
    shape = {name: value for name, value in config.items() if name not in OWN_OF_MEMBERS}
    return config_hash(shape if branch is None else shape | {"begins": branch.step})


def to_branch(parent_id: int | None, parent_step: int | None) -> Branch | None:
    """Where a run begins."""
    return None if parent_id is None or parent_step is None else Branch(parent_id, parent_step)


def to_run(row: RunRow | Fields) -> Run:
    """The record of a row, read with the mapper or without."""
    return Run(
        id=row.id,
        sweep_id=row.sweep_id,
        role=row.role,
        state=row.state,
        config=row.config,
        cost=Cost(**row.cost),
        attempt=row.attempt,
        step=row.step,
        tokens=row.tokens,
        loss=row.loss,
        seconds=row.seconds,
        reason=row.reason,
        target=row.target,
        decision_id=row.decision_id,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        out_of_memory=row.out_of_memory,
        undivided=row.undivided,
        branch=to_branch(row.parent_id, row.parent_step),
    )


def to_observation(row: ObservationRow) -> Observation:
    """The record of a row."""
    return Observation(row.config, Cost(**row.cost), row.loss, row.run_id, row.provenance, row.deviation)


def to_point(row: PointRow) -> Point:
    """The record of a row."""
    return Point(row.seq, row.step, row.tokens, row.metric, row.value, row.at)


def to_event(row: EventRow) -> Event:
    """The record of a row."""
    return Event(row.id, row.sweep_id, row.run_id, row.kind, row.data, row.at)


def to_decision(row: DecisionRow, run_id: int | None, branch: Branch | None) -> Decision:
    """The record of a row, with the run that it started and where that begins."""
    return Decision(
        config=row.config,
        cost=Cost(**row.cost),
        score=row.score,
        reason=row.reason,
        strategy=row.strategy,
        expected=row.expected,
        branch=branch,
        id=row.id,
        sweep_id=row.sweep_id,
        run_id=run_id,
        fit_id=row.fit_id,
        created_at=row.created_at,
    )


def from_decision(decision: Decision, sweep_id: int, fit_id: int | None) -> Json:
    """The columns of a decision that is not stored yet."""
    return {
        "sweep_id": sweep_id,
        "fit_id": fit_id,
        "config": decision.config,
        "cost": asdict(decision.cost),
        "score": decision.score,
        "reason": decision.reason,
        "strategy": decision.strategy,
        "expected": decision.expected,
    }


def new_run(
    sweep_id: int,
    role: Role,
    config: Config,
    cost: Cost,
    *,
    expected_seconds: float | None = None,
    decision_id: int | None = None,
    target: str | None = None,
    branch: Branch | None = None,
) -> Json:
    """The columns of a run that is to be queued.

    Args:
        expected_seconds: of the steps that it trains itself.
        branch: where it begins, None at its first step.
    """
    step = 0 if branch is None else branch.step
    return {
        "sweep_id": sweep_id,
        "role": role,
        "config": config,
        "config_hash": config_hash(config),
        "shape": shape_hash(config, branch) if role == Role.PROXY else None,
        "cost": asdict(cost),
        "flops": cost.flops * rest(branch, cost),
        "tokens_planned": cost.tokens_seen,
        "expected_seconds": expected_seconds,
        "decision_id": decision_id,
        "target": target,
        "parent_id": None if branch is None else branch.run_id,
        "parent_step": None if branch is None else branch.step,
        "step": step,
        "tokens": round(step * cost.tokens_seen / cost.steps),
    }
