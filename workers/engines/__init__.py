"""Two ways to compute the steps of a cohort: one plain module, or all members stacked."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from workers.engines.base import Engine, Plan, State
from workers.engines.single import Single
from workers.engines.stacked import Stacked

__all__ = ["Engine", "Plan", "State", "make_engine"]


def make_engine(plan: Plan, models: Sequence[nn.Module]) -> Engine:
    """The faster one: a plain module for one member, the stack for more."""
    return Single(plan, models[0]) if len(models) == 1 else Stacked(plan, models)
