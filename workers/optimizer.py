"""The optimiser of a run, and its learning rate at every step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sweeps.curves.schedule import trained_share
from sweeps.spec import Trainer

BETA1 = 0.9
MOMENTUM = 0.9


def make(model: nn.Module, config: Mapping[str, float], trainer: Trainer) -> torch.optim.Optimizer:
    """AdamW or SGD over all parameters; only matrices of matrix products decay, not look-up tables.

    Args:
        model: on its device.
        config: lr, beta2 and weight_decay are read.
        trainer: names the optimiser.
    """
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    decayed = [weight for weight in model.parameters() if weight.ndim >= 2 and id(weight) not in tables]
    chosen = {id(weight) for weight in decayed}
    groups = [
        {"params": decayed, "weight_decay": float(config["weight_decay"])},
        {"params": [w for w in model.parameters() if id(w) not in chosen], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if trainer.optimizer == "adamw":
        betas = (BETA1, float(config["beta2"]))
        return torch.optim.AdamW(groups, lr=float(config["lr"]), betas=betas, fused=True)
    return torch.optim.SGD(groups, lr=float(config["lr"]), momentum=MOMENTUM, fused=True)


def rate(trainer: Trainer, step: int, steps: int) -> float:
    """Learning rate of one step as a share of the peak.

    Args:
        trainer: schedule, warmup and decay are read.
        step: counted from 0.
        steps: in all.
    """
    return trained_share(trainer.schedule, step, steps, trainer.warmup, trainer.decay)
