"""Decisions in words: what a run is for, what it is expected to narrow, what it costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sweeps.design import Belief, Question
from sweeps.laws.base import Array
from sweeps.space import Table
from sweeps.spec import Budget

HALF_WIDTH = 1.645  # standard deviations of a 90 % interval
BETWEEN = 0.5  # share of a gain that comes from the laws' disagreement, above which that is the reason


@dataclass(frozen=True)
class Insight:
    """A pick and the knowledge it was made with.

    Args:
        covariance: (f, f) of the knowledge before the pick.
        row: (f,) features of the pick.
        asked: the question.
        family: laws in the order of the features.
        targets: how many of the question's rows are ln L at a target.
    """

    covariance: Array
    row: Array
    asked: Question
    family: list[Belief]
    targets: int

    def subject(self) -> str:
        """What the pick pins down most."""
        spread = self.covariance @ self.row
        cross = self.asked.rows @ spread
        by_row = cross**2 * self.asked.price
        top = int(np.argmax(by_row))
        if top >= self.targets:
            names = [axis.name for axis in self.family[0].model.surface.axes]
            return f"pins the optimal {names[(top - self.targets) // self.targets]} at the target"
        products = self.asked.rows[top] * spread
        laws = len(self.family)
        if abs(products[-laws:].sum()) > BETWEEN * abs(products.sum()):
            return "tells the laws apart"
        return f"pins {self._parameter(top)}"

    def _parameter(self, top: int) -> str:
        """Meaning of the heaviest law's parameter that carries most of the covariance with the target."""
        at = 0
        shares = []
        for belief in self.family:
            p = len(belief.theta)
            block = slice(at, at + p)
            values, vectors = np.linalg.eigh(belief.covariance)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            inverse = vectors / np.sqrt(np.maximum(values, 1e-300))
            gradient = inverse @ self.asked.rows[top, block]  # back from features to parameters
            moved = root @ (self.covariance[block, block] @ self.row[block])
            shares.append(np.abs(gradient * moved))
            at += p
        heaviest = int(np.argmax([belief.weight for belief in self.family]))
        model = self.family[heaviest].model
        law_share = shares[heaviest][: model.split]
        return model.parameters[int(np.argmax(law_share))].meaning


def explain(seen: Insight, table: Table, index: int, before: float, after: float, budget: Budget) -> str:
    """One sentence: subject, place, expected narrowing at the target, cost.

    Args:
        table, index: the candidates and the one picked.
        before, after: variance of ln L at the first target.
    """
    place = f"{_size(table, index)} on {_length(table, index)} tokens"
    cost = f"{float(table['flops'][index]):.2g} FLOPs"
    if budget.flops is not None:
        cost = f"{float(table['flops'][index]) / budget.flops:.1%} of the FLOP budget"
    wide, narrow = (HALF_WIDTH * float(np.sqrt(v)) for v in (before, after))
    return (
        f"{seen.subject()} with {place}: expected to narrow the interval at the target "
        f"from +-{wide:.1%} to +-{narrow:.1%} for {cost}"
    )


def _size(table: Table, index: int) -> str:
    rank = float(np.mean(table["params_total"] < table["params_total"][index]))
    return "a small model" if rank < 1 / 3 else "a mid-sized model" if rank < 2 / 3 else "a large model"


def _length(table: Table, index: int) -> str:
    rank = float(np.mean(table["tokens_seen"] < table["tokens_seen"][index]))
    return "few" if rank < 1 / 3 else "a middling number of" if rank < 2 / 3 else "many"
