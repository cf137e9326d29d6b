"""What candidate runs cost, by themselves and beside those that are chosen with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sweeps.laws.base import Array
from sweeps.runs import Spent

Places: TypeAlias = NDArray[np.intp]  # of candidates or shapes


@dataclass(frozen=True)
class Sharing:
    """What candidates take that train with others of their shape.

    Args:
        shape: (n,) number of the shape of each, from 0.
        most: (n,) runs of it that train together; 1 where they train alone.
        alone: (n,) device seconds of each by itself.
        joining: (n,) those that it adds to others that train.
        chosen: (shapes,) runs of each so far.
    """

    shape: Places
    most: Places
    alone: Array
    joining: Array
    chosen: Places

    def take(self, index: int) -> Sharing:
        """After one of the candidates is chosen."""
        chosen = self.chosen.copy()
        chosen[self.shape[index]] += 1
        return replace(self, chosen=chosen)

    def among(self, some: Places) -> Sharing:
        """Of some of the candidates."""
        return Sharing(self.shape[some], self.most[some], self.alone[some], self.joining[some], self.chosen)

    def seconds(self, rows: NDArray[np.bool_]) -> Array:
        """What each of some rows takes if it is chosen next."""
        room = self.chosen[self.shape[rows]] % self.most[rows] != 0
        return np.where(room, self.joining[rows], self.alone[rows])


@dataclass(frozen=True)
class Prices:
    """What candidates cost.

    Args:
        flops: (n,) training FLOPs.
        seconds: (n,) predicted device seconds of each if it is chosen next, 0 where unknown.
        sharing: None where every run trains alone.
    """

    flops: Array
    seconds: Array
    sharing: Sharing | None = None

    def share(self, budget: Spent) -> Array:
        """Share of a budget that each takes, summed over its limits, (n,)."""
        runs = 1.0 / max(budget.runs, 1)
        return np.asarray(runs + self.flops / budget.flops + self.seconds / budget.device_seconds)

    def affordable(self, budget: Spent) -> Array:
        """Whether each fits into a budget, (n,)."""
        fits = (self.flops <= budget.flops) & (self.seconds <= budget.device_seconds)
        return np.asarray(fits & (budget.runs >= 1))

    def spent(self, index: int) -> Spent:
        """What one candidate takes."""
        return Spent(1, float(self.flops[index]), float(self.seconds[index]))

    def among(self, some: Places) -> Prices:
        """Of some of the candidates."""
        sharing = None if self.sharing is None else self.sharing.among(some)
        return Prices(self.flops[some], self.seconds[some], sharing)

    def take(self, index: int) -> Prices:
        """What the others cost once one is chosen: those of its shape may train with it, until they are as
        many as train together."""
        if self.sharing is None or self.sharing.most[index] == 1:
            return self
        sharing, seconds = self.sharing.take(index), self.seconds.copy()
        same = sharing.shape == sharing.shape[index]
        seconds[same] = sharing.seconds(same)
        return replace(self, seconds=seconds, sharing=sharing)
