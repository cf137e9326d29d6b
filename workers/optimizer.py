"""The optimiser of a run as PyTorch has it, and its learning rate at every step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sweeps.curves.schedule import trained_share
from sweeps.trainer import Trainer
from workers.parametrisation import Rule

BETA1 = 0.9
MOMENTUM = 0.9
EPSILON = 1e-8


def make(
    model: nn.Module, config: Mapping[str, float], trainer: Trainer, rules: Mapping[str, Rule]
) -> torch.optim.Optimizer:
    """AdamW or SGD over all parameters, those that follow the same rule in one group.

    Args:
        model: on its device.
        config: lr, beta2 and weight_decay are read.
        trainer: names the optimiser.
        rules: by name of the parameter.
    """
    by_rule: dict[Rule, list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        by_rule.setdefault(rules[name], []).append(weight)
    decay = float(config["weight_decay"])
    groups = [
        {"params": weights, "weight_decay": decay * rule.decay, "multiplier": rule.rate}
        for rule, weights in by_rule.items()
    ]
    if trainer.optimizer == "adamw":
        betas = (BETA1, float(config["beta2"]))
        return torch.optim.AdamW(groups, lr=float(config["lr"]), betas=betas, eps=EPSILON, fused=True)
    return torch.optim.SGD(groups, lr=float(config["lr"]), momentum=MOMENTUM, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives every group its learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]


def rate(trainer: Trainer, step: int, steps: int) -> float:
    """Learning rate of one step as a share of the peak.

    Args:
        trainer: schedule, warmup and decay are read.
        step: counted from 0.
        steps: in all.
    """
    return trained_share(trainer.schedule, step, steps, trainer.warmup, trainer.decay)
