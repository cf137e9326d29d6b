"""What every proxy is made of, and which part each of its weights plays when the width grows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import nn

Role: TypeAlias = Literal["input", "hidden", "output", "vector"]

PARTS = {"embedding": "params_embedding", "blocks": "params_body", "head": "params_head"}
ROLES: dict[str, Role] = {"embedding": "input", "blocks": "hidden", "head": "output"}


class Model(nn.Module):
    """A network of an input layer, a body as wide and deep as is asked for, and a readout."""

    embedding: nn.Module
    blocks: nn.ModuleList
    head: nn.Linear


@dataclass(frozen=True)
class Weight:
    """The part a parameter plays (Yang et al. 2022, arXiv 2203.03466, table 8).

    Args:
        role: ``input`` has a fixed fan-in and a fan-out that grows with the width, ``hidden`` has both grow,
            ``output`` a growing fan-in and a fixed fan-out; ``vector`` is a bias.
        fan_in: numbers that one output sums over; 1 of a look-up table and of a bias.
    """

    role: Role
    fan_in: int


def groups(model: Model) -> dict[str, int]:
    """Trained numbers by group, named as in ``sweeps.cost.Cost``."""
    parts = {count: getattr(model, part) for part, count in PARTS.items()}
    return {name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()}


def roles(model: Model) -> dict[str, Weight]:
    """The part that each parameter plays, by its name."""
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    found = {}
    for name, weight in model.named_parameters():
        role: Role = "vector" if weight.ndim < 2 else ROLES[name.split(".")[0]]
        single = weight.ndim < 2 or id(weight) in tables
        found[name] = Weight(role, 1 if single else math.prod(weight.shape[1:]))
    return found
