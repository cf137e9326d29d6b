"""Running runs that are not worth their remaining cost. How good their loss is plays no part in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.choice import Pick, Situation
from sweeps.design import Prospect, features, question
from sweeps.prices import Prices
from sweeps.reasons import HALF_WIDTH
from sweeps.runs import Observation
from sweeps.spec import SweepSpec


@dataclass(frozen=True)
class Halt:
    """A running run that is to be stopped.

    Args:
        run_id: of the run.
        reason: in words.
    """

    run_id: int
    reason: str


def halts(at: Situation, coming: Sequence[Observation], rest: Prices, spec: SweepSpec) -> list[Halt]:
    """Running runs whose remaining information is not worth their remaining cost, the least worth first.

    The same rule as for new runs: a run is stopped when what it can still tell narrows the question by less
    than ``spec.stop.patience``, and its remaining cost buys more among the candidates that are affordable,
    if any are. A stopped run brings nothing more to the others: of two that tell the same one goes on.

    Where neither FLOPs nor device seconds are limited, going on costs nothing, and no run is stopped.

    Args:
        at: what new runs are chosen from; the last of its pending rows are the coming runs.
        coming: runs that still train, as they are forecast.
        rest: what each of them is still to cost.
    """
    found: list[Halt] = []
    if not coming or not np.isfinite([at.budget.flops, at.budget.device_seconds]).any():
        return found
    known, going = _known(at, len(coming)), set(range(len(coming)))
    while True:
        idle = [
            pick
            for pick in _picks(known, going)
            if rest.flops[pick.index] > 0 and pick.worth < spec.stop.patience and _dear(at, rest, pick)
        ]
        if not idle:
            return found
        least = min(idle, key=lambda pick: pick.worth)
        going.remove(least.index)
        one, flops = coming[least.index], float(rest.flops[least.index])
        assert one.run_id is not None
        found.append(Halt(one.run_id, _reason(spec, one, least.worth, flops)))


def _known(at: Situation, n: int) -> Prospect:
    """What the last n pending runs would tell; those before them count as observed."""
    assert at.pending is not None and at.left is not None
    rows, noise = features(at.family, at.frame, at.pending)
    noise = noise / at.left
    first = len(rows) - n
    asked = question(at.family, at.frame, at.targets, at.weights)
    known = Prospect.of(rows[first:], noise[first:], asked)
    for row, variance in zip(rows[:first], noise[:first], strict=True):
        known = known.observe(row, float(variance))
    return known


def _picks(known: Prospect, going: set[int]) -> Iterator[Pick]:
    """Each run that goes on, with what is known once all the others are through."""
    for index in sorted(going):
        before = known
        for other in sorted(going - {index}):
            before = before.take(other)
        yield Pick(index, float(before.gain()[index]), before, before.take(index))


def _dear(at: Situation, rest: Prices, pick: Pick) -> bool:
    """Whether the best affordable candidate drops more variance for a share of the budget."""
    open_ = at.prices.affordable(at.budget)
    if not open_.any():
        return True
    best = float(np.max(at.prospect.gain()[open_] / at.prices.share(at.budget)[open_]))
    flops, seconds = rest.flops[pick.index], rest.seconds[pick.index]
    return pick.score < best * float(flops / at.budget.flops + seconds / at.budget.device_seconds)


def _reason(spec: SweepSpec, one: Observation, worth: float, flops: float) -> str:
    cost = f"{flops:.2g} FLOPs"
    if spec.budget.flops is not None:
        cost = f"{flops / spec.budget.flops:.1%} of the FLOP budget"
    return (
        f"stopped early: what it could still tell narrows the answer by {worth:.2%}, less than "
        f"{spec.stop.patience:.2%}, for another {cost}; "
        f"it was forecast to end at {one.loss:.4f} +-{HALF_WIDTH * one.deviation:.1%}"
    )
