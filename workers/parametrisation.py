"""How fast each parameter learns and how it decays, relative to what a run asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Rule:
    """Of one parameter.

    Args:
        rate: times the run's learning rate.
        decay: times the run's weight decay.
    """

    rate: float = 1.0
    decay: float = 1.0


def rules(model: nn.Module) -> Mapping[str, Rule]:
    """Of every parameter by name: matrices of matrix products decay, look-up tables and vectors do not."""
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    return {
        name: Rule(decay=float(weight.ndim >= 2 and id(weight) not in tables))
        for name, weight in model.named_parameters()
    }
