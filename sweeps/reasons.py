"""Decisions in words: what a run is for, what it is expected to narrow, what it costs."""

from __future__ import annotations

import numpy as np

from sweeps.choice import Pick, Situation
from sweeps.design import Prospect
from sweeps.laws.base import Array
from sweeps.runs import Branch
from sweeps.space import Table
from sweeps.spec import SweepSpec

HALF_WIDTH = 1.645  # standard deviations of a 90 % interval
BETWEEN = 0.5  # share of a gain that comes from the laws' disagreement, above which that is the reason
PLAIN = {
    "random": "drawn at random among {n} candidates",
    "grid": "one of even strides over {n} candidates",
    "cheapest": "the cheapest of {n} candidates",
    "cost_random": "drawn among {n} candidates with a probability of 1 / cost",
    "d_optimal": "tells most about the parameters of the likeliest law for its cost among {n} candidates",
    "two_term": "lowers the variance at the targets most for its cost^0.4 among {n} candidates",
}


def explain(pick: Pick, at: Situation, table: Table, spec: SweepSpec, branch: Branch | None = None) -> str:
    """One sentence: subject, place, expected narrowing at the target, cost; and where a branch begins."""
    index, begins = pick.index, ""
    if branch is not None:
        begins = f"; branches from run {branch.run_id} at step {branch.step}: pays for the rest alone"
    if pick.before is None or pick.after is None:
        return PLAIN[spec.strategy.name].format(n=len(table)) + begins
    place = f"{_size(table, index)} on {_length(table, index)} tokens"
    flops = float(at.prices.flops[index])
    cost = (
        f"{flops:.2g} FLOPs"
        if spec.budget.flops is None
        else f"{flops / spec.budget.flops:.1%} of the FLOP budget"
    )
    wide, narrow = (HALF_WIDTH * float(np.sqrt(max(0.0, k.left[0]))) for k in (pick.before, pick.after))
    return (
        f"{_subject(pick.before, index, at)} with {place}: expected to narrow the interval at the target "
        f"from +-{wide:.1%} to +-{narrow:.1%} for {cost}{begins}"
    )


def _subject(before: Prospect, index: int, at: Situation) -> str:
    """What a run pins down most."""
    asked = before.asked
    top = int(np.argmax(before.cross[index] ** 2 * asked.price))
    if asked.subjects[top] == "split":
        return "pins how to split the compute between parameters and tokens"
    if asked.subjects[top] != "loss":
        return f"pins the optimal {asked.subjects[top]} at the target"
    spread = before.covary(before.rows[index])
    products = asked.rows[top] * spread
    laws = len(at.family)
    if abs(products[-laws:].sum()) > BETWEEN * abs(products.sum()):
        return "tells the laws apart"
    return f"pins {_parameter(asked.rows[top], spread, at)}"


def _parameter(answer: Array, spread: Array, at: Situation) -> str:
    """Meaning of the heaviest law's parameter that carries most of the covariance with the target.

    Args:
        answer: (f,) features of the target.
        spread: (f,) covariance of every feature with the run.
    """
    heaviest = int(np.argmax([belief.weight for belief in at.family]))
    begin = sum(len(belief.theta) for belief in at.family[:heaviest])
    belief = at.family[heaviest]
    block = slice(begin, begin + len(belief.theta))
    values, vectors = np.linalg.eigh(belief.covariance)
    sizes = np.sqrt(np.maximum(values, 1e-300))
    # Back from features to parameters, on both sides.
    shares = np.abs(((vectors / sizes) @ answer[block]) * ((vectors * sizes) @ spread[block]))
    model = belief.model
    return model.parameters[int(np.argmax(shares[: model.split]))].meaning


def _size(table: Table, index: int) -> str:
    rank = float(np.mean(table["params_total"] < table["params_total"][index]))
    return "a small model" if rank < 1 / 3 else "a mid-sized model" if rank < 2 / 3 else "a large model"


def _length(table: Table, index: int) -> str:
    rank = float(np.mean(table["tokens_seen"] < table["tokens_seen"][index]))
    return "few" if rank < 1 / 3 else "a middling number of" if rank < 2 / 3 else "many"
