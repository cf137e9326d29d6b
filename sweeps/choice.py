"""Spends what is left of a budget on the runs that tell most about the question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sweeps.design import Belief, Prospect, features, question
from sweeps.laws.base import Array, Columns
from sweeps.model import Frame
from sweeps.prices import Prices
from sweeps.runs import Spent

EXPONENTS = (0.25, 0.5, 0.75, 1.0)  # of cost in the score that are rehearsed
HORIZON = 20  # picks of a rehearsal
SCREENED = 192  # candidates that each exponent rehearses with


@dataclass(frozen=True)
class Situation:
    """What a strategy chooses from.

    Args:
        family: the laws as they are believed.
        frame: of all columns.
        candidates: columns of the runs that may be chosen, (n,).
        prices: of them.
        targets: columns of what is asked about, with the settings expected to be best.
        pending: columns of the runs under way, whose outcomes are not known.
        left: (q,) share of its information that each of these will still bring; 1 for all where None.
        budget: for the runs to be chosen and all later ones.
        wanted: runs at most.
        rng: of strategies that draw.
        weights: of the question's parts (see ``sweeps.design.question``).
        patience: the least by which a run must narrow the question, relative, for ``informative``.
    """

    family: Sequence[Belief]
    frame: Frame
    candidates: Columns
    prices: Prices
    targets: Columns
    pending: Columns | None
    left: Array | None
    budget: Spent
    wanted: int
    rng: np.random.Generator
    weights: Mapping[str, float] = field(default_factory=dict)
    patience: float = 0.0

    @cached_property
    def prospect(self) -> Prospect:
        """What the candidates would tell, pending runs counting as observed."""
        found = Prospect.of(
            *features(self.family, self.frame, self.candidates),
            question(self.family, self.frame, self.targets, self.weights),
        )
        if self.pending is not None:
            rows, variance = features(self.family, self.frame, self.pending)
            left = np.ones(len(rows)) if self.left is None else self.left
            for row, noise, part in zip(rows, variance, left, strict=True):
                found = found.observe(row, float(noise / part))
        return found


@dataclass(frozen=True)
class Pick:
    """One run that was chosen.

    Args:
        index: of the candidate.
        score: by which it was chosen, in the strategy's own unit.
        before, after: what is known without it and with it; None where the strategy does not ask.
    """

    index: int
    score: float
    before: Prospect | None = None
    after: Prospect | None = None

    @property
    def worth(self) -> float:
        """By how much it narrows the question, relative."""
        if self.before is None or self.after is None:
            return 0.0
        return _narrowing(self.before.total, self.after.total)


def informative(at: Situation) -> Iterator[Pick]:
    """The runs that narrow the question most by the time the budget is spent, one after the other.

    A run's score is the drop of the question's variance over its share of the budget to some exponent. With
    the exponent 1 cheap runs win that can only tell so much; with 0 one dear run takes all. Neither is best
    (Khuller et al. 1999 take the better of the two), so that a few are rehearsed to the end of the budget and
    the one with the least variance left is taken.
    """
    if at.wanted > 0:
        exponent = _best_exponent(at)
        yield from greedy(at.prospect, at.prices, at.budget, at.wanted, exponent, at.patience)


def worth(at: Situation) -> float:
    """By how much the best affordable run would narrow the question, relative."""
    gain = np.where(at.prices.affordable(at.budget), at.prospect.gain(), 0.0)
    total = at.prospect.total
    return _narrowing(total, total - float(gain.max(initial=0.0)))


def _narrowing(before: float, after: float) -> float:
    """By how much a standard deviation falls, relative; 0 where nothing is left to know."""
    return 1.0 - float(np.sqrt(max(0.0, after) / before)) if before > 0.0 else 0.0


def _best_exponent(at: Situation) -> float:
    """The exponent whose picks leave the least variance."""
    prospect, prices, budget = at.prospect, at.prices, at.budget
    open_ = np.flatnonzero(prices.affordable(budget))
    if len(open_) == 0:
        return EXPONENTS[-1]
    gain, share = prospect.gain()[open_], prices.share(budget)[open_]
    most = min(SCREENED, len(open_))
    left = []
    for exponent in EXPONENTS:
        best = open_[np.argpartition(-gain / share**exponent, most - 1)[:most]]
        # Beside the best by themselves some of every kind: what tells most changes with every run taken.
        best = np.union1d(best, open_[:: max(1, len(open_) // SCREENED)])
        total = prospect.total
        some = prospect.among(best), prices.among(best)
        for pick in greedy(*some, budget, HORIZON, exponent, at.patience):
            assert pick.after is not None
            total = pick.after.total
        left.append(total)
    return EXPONENTS[int(np.argmin(left))]


def greedy(
    prospect: Prospect, prices: Prices, budget: Spent, wanted: int, exponent: float, patience: float = 0.0
) -> Iterator[Pick]:
    """Picks by score among the affordable runs that are worth it."""
    free, whole = np.ones(len(prices.flops), dtype=bool), budget
    cost = prices.share(whole) ** exponent
    for _ in range(wanted):
        gain, least = prospect.gain(), (1.0 - (1.0 - patience) ** 2) * prospect.total
        open_ = free & prices.affordable(budget) & (gain >= least)
        if not open_.any():
            return
        score = np.where(open_, gain / cost, -np.inf)
        best = int(np.argmax(score))
        after = prospect.take(best)
        yield Pick(best, float(score[best]), prospect, after)
        prospect, free[best], budget = after, False, budget - prices.spent(best)
        before, prices = prices, prices.take(best)
        if prices is not before:
            cost = prices.share(whole) ** exponent
