"""The ways to choose the next runs, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from sweeps.baselines import cheapest, cost_random, d_optimal, grid, random, two_term
from sweeps.choice import Pick, Situation, informative

Strategy = Callable[[Situation], Iterator[Pick]]
STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "informative": informative,
        "random": random,
        "grid": grid,
        "cheapest": cheapest,
        "cost_random": cost_random,
        "d_optimal": d_optimal,
        "two_term": two_term,
    }
)
BLIND = frozenset({"random", "grid", "cheapest", "cost_random"})  # no outcome changes what they choose
