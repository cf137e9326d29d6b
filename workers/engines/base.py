"""What the training loop needs of whatever computes its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from sweeps.data import Task
from sweeps.spec import Config
from sweeps.trainer import Trainer
from workers.optimizer import BETA1, rate
from workers.parametrisation import Rule
from workers.team import Team

State: TypeAlias = dict[str, Any]  # one member's weights and what its optimiser knows of each, by name


@dataclass(frozen=True)
class Plan:
    """What the members of a cohort train, the same for every engine.

    Args:
        task: of their data.
        trainer: of their sweep.
        configs: value of every axis, by member.
        steps: each trains for.
        rules: by name of the parameter.
        device: they train on.
        team: processes that train the only member together, None where this one does alone.
    """

    task: Task
    trainer: Trainer
    configs: Sequence[Config]
    steps: Sequence[int]
    rules: Mapping[str, Rule]
    device: torch.device
    team: Team | None = None

    @cached_property
    def rates(self) -> Tensor:
        """Learning rate of every step and member, 0 after a member's last: (steps, members), on the CPU."""
        table = torch.zeros(max(self.steps), len(self.configs), dtype=torch.float64)
        shares = {
            steps: torch.tensor(
                [rate(self.trainer, step, steps) for step in range(steps)], dtype=torch.float64
            )
            for steps in set(self.steps)
        }
        for member, (config, steps) in enumerate(zip(self.configs, self.steps, strict=True)):
            peak = float(self.trainer.rates(config["lr"], config["batch"]))
            table[:steps, member] = peak * shares[steps]
        return table

    def betas(self, member: int) -> tuple[float, float]:
        """Of AdamW."""
        return BETA1, float(self.configs[member]["beta2"])

    def precision(self) -> AbstractContextManager[None]:
        """What matrix products are computed in."""
        enabled = self.trainer.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


class Engine(Protocol):
    """Steps of the members of a cohort, all at the same step. Nothing here waits for the device.

    Members are the first axis of every tensor that goes in or out.
    """

    norms: Tensor  # of the last step's gradients before clipping, (members,)

    def step(self, step: int, inputs: Tensor, targets: Tensor) -> Tensor:
        """One optimiser step.

        Args:
            step: counted from 0.
            inputs, targets: (members, batch, ...).

        Returns:
            Losses before it, (members,).
        """

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss and share of wrong classes of every member on the same examples, each (members,)."""

    def state(self, member: int) -> State:
        """What training goes on from, the same whichever engine gives or takes it."""

    def load(self, member: int, state: State) -> None:
        """Takes a member to where a state stands."""

    def keep(self, members: Sequence[int]) -> None:
        """Goes on with some of the members only, in this order."""

    def model(self, member: int) -> nn.Module:
        """A member as a plain module."""
