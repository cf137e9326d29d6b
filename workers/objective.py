"""What is minimised, by the task of a data set."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sweeps.data import Task


def mean_loss(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over everything predicted: cross-entropy in nats, or the squared error of values.

    Args:
        outputs: logits, (batch, s, vocabulary) of tokens and (batch, classes) of classes, or values,
            (batch, n).
        targets: (batch, s), (batch,) or (batch, n).
    """
    if task == "values":
        return F.mse_loss(outputs.float(), targets)
    return F.cross_entropy(outputs.flatten(0, -2).float(), targets.flatten())


def mean_loss_by_gather(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """As ``mean_loss``; under ``vmap`` this form needs half as many passes over the outputs."""
    if task == "values":
        return mean_loss(task, outputs, targets)
    likely = F.log_softmax(outputs.flatten(0, -2).float(), -1)
    return -likely.gather(1, targets.flatten()[:, None]).mean()


def wrong(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of the classes that are not the likeliest; 0 for other tasks."""
    if task != "classes":
        return outputs.new_zeros(())
    return (outputs.argmax(-1) != targets).float().mean()
