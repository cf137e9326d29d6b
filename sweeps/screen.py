"""Large spaces: the few thousand candidates that an exact choice is then made from.

Every candidate is scored once, block by block, so that memory does not grow with the space. The score is that
of ``sweeps.choice.informative``, by the heaviest law alone. What tells most changes with every run taken, so
that picks are rehearsed on an even cover of the space first, and candidates are scored as they would be after
none, some and many of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sweeps.choice import EXPONENTS, Situation
from sweeps.design import Belief, features
from sweeps.laws.base import Array
from sweeps.model import Frame
from sweeps.prices import Prices
from sweeps.space import Places, Table

Single: TypeAlias = NDArray[np.float32]

AHEAD = (2, 8, 20)  # picks after which candidates are scored, beside those before any
BEST = 256  # candidates kept for each of these and each exponent of cost
REHEARSED = 2048  # candidates that the picks are rehearsed with
EVEN, CHEAPEST = 2048, 64  # kept whatever they tell: an even cover of all that are affordable, the cheapest
GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0  # its multiples fill the unit interval evenly


def screen(
    blocks: Iterable[tuple[Places, Table]],
    at: Situation,
    priced: Callable[[Table], Prices],
    evenly: Table | None,
) -> Places:
    """Places in the grid, ascending, of the candidates worth a closer look.

    Args:
        blocks: of candidates that may be chosen, with their places.
        at: the question, the runs under way and the budget; its candidates and prices are not read.
        priced: prices of candidates.
        evenly: an even cover of all candidates to rehearse with; None keeps no candidate for what it tells.
    """
    outlook = None if evenly is None else Outlook.of(at, evenly, priced(evenly))
    tops = [[_Top(BEST) for _ in (0, *AHEAD)] for _ in EXPONENTS]
    even, cheapest = _Top(EVEN), _Top(CHEAPEST)
    for places, table in blocks:
        prices = priced(table)
        cheapest.add(places, -prices.share(at.budget))
        open_ = np.flatnonzero(prices.affordable(at.budget))
        if len(open_) == 0:
            continue
        places, share = places[open_], prices.among(open_).share(at.budget)
        even.add(places, -(places * GOLDEN % 1.0))
        if outlook is None:
            continue
        gains = outlook.gains(table if len(open_) == len(table) else table.take(open_))
        for exponent, row, gain in zip(EXPONENTS, tops, gains, strict=True):
            cost = _single(share**exponent)
            for top, one in zip(row, gain, strict=True):
                top.add(places, one / cost)
    kept = [even, cheapest, *(top for row in tops for top in row)]
    return np.unique(np.concatenate([top.places for top in kept]))


@dataclass(frozen=True)
class Outlook:
    """How one law sees candidates, now and after picks to come. Single precision is enough.

    Args:
        belief: the law.
        frame: of its columns.
        asked, price: the question with the runs under way, (r, f) and (r,).
        pending: what these have told, (f, t).
        ahead: for each exponent of cost, what the rehearsed picks have told, (f, picks).
    """

    belief: Belief
    frame: Frame
    asked: Single
    price: Single
    pending: Single
    ahead: tuple[Single, ...]

    @classmethod
    def of(cls, at: Situation, evenly: Table, prices: Prices) -> Outlook:
        """As the heaviest law sees it; picks are rehearsed with some of an even cover."""
        belief = replace(max(at.family, key=lambda belief: belief.weight), weight=1.0)
        some = np.unique(np.linspace(0, len(evenly) - 1, min(REHEARSED, len(evenly))).astype(np.intp))
        prices = prices.among(some)
        alone = replace(at, family=[belief], candidates=at.frame.columns(evenly.take(some)))
        known, ahead = alone.prospect, []
        asked, pending = known.asked.rows, known.taken
        for exponent in EXPONENTS:
            state, budget, cost = known, at.budget, prices.share(at.budget) ** exponent
            for _ in range(AHEAD[-1]):
                open_ = prices.affordable(budget)
                if not open_.any():
                    break
                pick = int(np.argmax(np.where(open_, state.gain() / cost, -np.inf)))
                state, budget = state.take(pick), budget - prices.spent(pick)
            ahead.append(_single(state.taken[:, pending.shape[1] :]))
        return cls(
            belief,
            at.frame,
            _single(asked - (asked @ pending) @ pending.T),
            _single(known.asked.price),
            _single(pending),
            tuple(ahead),
        )

    def gains(self, table: Table) -> list[list[NDArray[Any]]]:
        """Drop of the question's variance by each row, (n,): for every exponent, before and after picks."""
        exact, noise = features([self.belief], self.frame, self.frame.columns(table))
        rows = _single(exact)
        now = rows @ self.asked.T
        known = _single(noise) + _square(rows) - _square(rows @ self.pending)
        first = (now**2 @ self.price) / known
        found = []
        for ahead in self.ahead:
            told, answers, gain = rows @ ahead, self.asked @ ahead, [first]
            cross, spread = now, known
            for begin, end in pairwise((0, *AHEAD)):
                cross = cross - told[:, begin:end] @ answers[:, begin:end].T
                spread = spread - _square(told[:, begin:end])
                gain.append((cross**2 @ self.price) / spread)
            found.append(gain)
        return found


def _single(values: Array) -> Single:
    return np.asarray(values, dtype=np.float32)


def _square(rows: NDArray[Any]) -> NDArray[Any]:
    """Squared length of each row, (n,)."""
    return np.asarray(np.einsum("nf,nf->n", rows, rows))


class _Top:
    """The places with the highest scores so far, ``most`` at most."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.places, self.scores = np.zeros(0, dtype=np.intp), np.zeros(0)
        self.least = -np.inf

    def add(self, places: Places, scores: NDArray[Any]) -> None:
        """Takes in more of them."""
        better = np.flatnonzero(scores > self.least)
        if len(better) == 0:
            return
        self.places = np.concatenate([self.places, places[better]])
        self.scores = np.concatenate([self.scores, scores[better]])
        if len(self.scores) >= self.most:
            kept = np.argpartition(-self.scores, self.most - 1)[: self.most]
            self.places, self.scores = self.places[kept], self.scores[kept]
            self.least = float(self.scores.min())
