"""What candidate runs cost, by themselves and beside those that are chosen with them."""

from __future__ import annotations

from collections.abc import Sequence
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

    def room(self) -> NDArray[np.bool_]:
        """Whether others of its shape are chosen that each could train with, (n,)."""
        return np.asarray(self.chosen[self.shape] % self.most != 0)

    def seconds(self) -> Array:
        """What each takes if it is chosen next, (n,)."""
        return np.where(self.room(), self.joining, self.alone)


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
        sharing = self.sharing.take(index)
        return replace(self, seconds=sharing.seconds(), sharing=sharing)

    def joins(self, index: int) -> bool:
        """Whether a candidate would train with others that are chosen, and so takes no slot of its own."""
        return self.sharing is not None and bool(self.sharing.room()[index])

    def spread(self, chosen: Sequence[int]) -> list[float]:
        """Device seconds of each of some candidates, chosen in this order; all of a stack take the same."""
        prices, stacks = self, list[list[float]]()
        latest: dict[int, list[float]] = {}  # stack of each shape
        for index in chosen:
            stack = latest[self.shape(index)] if prices.joins(index) else []
            stack.append(prices.spent(index).device_seconds)
            latest[self.shape(index)] = stack
            stacks.append(stack)
            prices = prices.take(index)
        return [sum(stack) / len(stack) for stack in stacks]

    def shape(self, index: int) -> int:
        """Number of a candidate's shape, or its own where every run trains alone."""
        return index if self.sharing is None else int(self.sharing.shape[index])
