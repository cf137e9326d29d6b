"""What a sweep will cost, before anything starts."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.runs import rest
from sweeps.scheduler import rehearse
from sweeps.space import blocks
from sweeps.spec import SweepSpec, warnings
from sweeps.stacks import Durations


@dataclass(frozen=True)
class TargetCost:
    """What training a target once would cost.

    Args:
        name: of the target.
        params: N total.
        flops, seconds, memory: of that run; seconds on one device, None without a calibration.
        extrapolation: its compute over that of the dearest planned run.
    """

    name: str
    params: float
    flops: float
    seconds: float | None
    memory: float
    extrapolation: float


@dataclass(frozen=True)
class Plan:
    """What a sweep is expected to cost. The budget is hard, so these are upper estimates.

    Args:
        candidates: configurations that may be chosen.
        runs: how many will be trained.
        branches: of these, how many begin at a checkpoint of another one.
        flops: training FLOPs of all runs, of branches those after their checkpoint.
        seconds: device seconds of all runs likewise, each as if it trained alone. None without a calibration.
        seconds_together: as if all of one shape trained together as far as that is quicker, which those that
            are chosen one after the other do in part.
        seconds_error: relative error of the seconds of one run, by cross-validation, None without one.
        memory: peak bytes of the largest run.
        cheapest, dearest: FLOPs of single runs, from their first steps.
        targets: cost of the targets themselves, which the sweep does not train.
        warnings: what is allowed but probably not meant.
    """

    candidates: int
    runs: int
    branches: int
    flops: float
    seconds: float | None
    seconds_together: float | None
    seconds_error: float | None
    memory: float
    cheapest: float
    dearest: float
    targets: tuple[TargetCost, ...]
    warnings: tuple[str, ...]


def plan(spec: SweepSpec, durations: Durations | None = None) -> Plan:
    """Rehearses the choice of runs without training any.

    Args:
        durations: learned from a calibration or from finished runs.
    """
    decisions = rehearse(spec, durations)
    costs, seconds = [decision.cost for decision in decisions], durations and durations.alone
    trained = [rest(decision.branch, decision.cost) for decision in decisions]  # share of each run's steps
    dearest = max(cost.flops for cost in costs)
    targets = []
    for target in spec.targets:
        cost = spec.cost(spec.complete(target.at))
        took = seconds(cost) if seconds else None
        targets.append(
            TargetCost(target.name, cost.params_total, cost.flops, took, cost.memory, cost.flops / dearest)
        )
    notes = warnings(spec)
    if seconds is None:
        notes = [*notes, "seconds are unknown until an orchestrator has calibrated a device"]
    return Plan(
        candidates=sum(len(places) for places, _ in blocks(spec)),
        runs=len(costs),
        branches=sum(decision.branch is not None for decision in decisions),
        flops=sum(share * cost.flops for share, cost in zip(trained, costs, strict=True)),
        seconds=sum(share * seconds(cost) for share, cost in zip(trained, costs, strict=True))
        if seconds
        else None,
        seconds_together=sum(one.expected["seconds"] for one in decisions) if durations else None,
        seconds_error=seconds.error if seconds else None,
        memory=max(cost.memory for cost in costs),
        cheapest=min(cost.flops for cost in costs),
        dearest=dearest,
        targets=tuple(targets),
        warnings=tuple(notes),
    )
