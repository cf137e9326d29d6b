"""What every proxy is made of, and which part each of its weights plays when the width grows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from sweeps.proxy import Proxy

Role: TypeAlias = Literal["input", "hidden", "output", "vector"]

PARTS = {"embedding": "params_embedding", "blocks": "params_body", "head": "params_head"}
ROLES: dict[str, Role] = {"embedding": "input", "blocks": "hidden", "head": "output"}


class Model(nn.Module):
    """A network of an input layer, a body as wide and deep as is asked for, and a readout."""

    embedding: nn.Module
    blocks: nn.ModuleList
    head: Readout


class Readout(nn.Linear):
    """The last layer; its product is multiplied by a constant, its bias is not (Yang et al. 2022,
    arXiv 2203.03466, table 8)."""

    multiplier: float = 1.0

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) to (..., outputs)."""
        if self.multiplier == 1.0:
            return super().forward(hidden)
        read = F.linear(hidden, self.weight) * self.multiplier
        return read if self.bias is None else read + self.bias


class Branch(nn.Module):
    """Adds updates to a stream, each multiplied by a constant.

    Args:
        grows: whether the fan-in of its weights grows with the width.
    """

    multiplier: float = 1.0
    grows: bool = True


@dataclass(frozen=True)
class Multiples:
    """Of the shape at which the two parametrisations are one; all 1 under the standard one."""

    width: float = 1.0
    depth: float = 1.0


@dataclass(frozen=True)
class Weight:
    """The part a parameter plays (Yang et al. 2022, arXiv 2203.03466, table 8).

    Args:
        role: ``input`` has a fixed fan-in and a fan-out that grows with the width, ``hidden`` has both grow,
            ``output`` a growing fan-in and a fixed fan-out; ``vector`` is a bias. Convolutions in groups of
            a fixed width are ``input``: more width is more groups, and none has a larger fan-in.
        fan_in: numbers that one output sums over; 1 of a look-up table and of a bias.
        branch: whether it lies in a residual branch.
    """

    role: Role
    fan_in: int
    branch: bool = False


def groups(model: Model) -> dict[str, int]:
    """Trained numbers by group, named as in ``sweeps.cost.Cost``."""
    parts = {count: getattr(model, part) for part, count in PARTS.items()}
    return {name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()}


def roles(model: Model) -> dict[str, Weight]:
    """The part that each parameter plays, by its name."""
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    branches = [part for part in model.modules() if isinstance(part, Branch)]
    grows = {id(weight): part.grows for part in branches for weight in part.parameters()}
    found = {}
    for name, weight in model.named_parameters():
        role: Role = "vector" if weight.ndim < 2 else ROLES[name.split(".")[0]]
        if role == "hidden" and not grows.get(id(weight), True):
            role = "input"
        single = weight.ndim < 2 or id(weight) in tables
        fan_in = 1 if single else math.prod(weight.shape[1:])
        found[name] = Weight(role, fan_in, id(weight) in grows)
    return found


def multiples(config: Mapping[str, float], proxy: Proxy) -> Multiples:
    """How many times as wide and deep as its base a configuration is, where its axis ``mup`` is 1."""
    if not config.get("mup", 0):
        return Multiples()
    return Multiples(config["width"] / proxy.base_width, config["depth"] / proxy.base_depth)


def parametrise(model: Model, times: Multiples) -> None:
    """Sets the constants of the forward pass, in place.

    The readout is multiplied by base width over width, and residual branches by sqrt(base depth over depth)
    (Bordelon et al. 2023, arXiv 2309.16620), so that a sum over depth branches stays of order one.
    """
    model.head.multiplier = 1.0 / times.width
    for part in model.modules():
        if isinstance(part, Branch):
            part.multiplier = times.depth**-0.5
