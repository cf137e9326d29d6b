"""Watches the losses of a run for divergence and spikes."""

from __future__ import annotations

import math
from dataclasses import dataclass

DIVERGED_STEPS = 20  # so many in a row above the limit
DIVERGED_MARGIN = 0.5  # above what guessing loses, in the loss's unit
SMOOTHING = 0.95
SPIKE_MARGIN = 0.25  # of what guessing loses


@dataclass
class Vigil:
    """What is remembered of the losses of one run; it goes into the checkpoint.

    Args:
        loss_sum, loss_count: since the last evaluation.
        above: consecutive steps above the limit.
        smooth: exponential mean of the loss, None before the first.
        spikes: so far; a spike is a step whose loss leaves the mean by a quarter of what guessing loses.
    """

    loss_sum: float = 0.0
    loss_count: int = 0
    above: int = 0
    smooth: float | None = None
    spikes: int = 0

    def see(self, loss: float, step: int, steps: int, warm: bool, guessing: float) -> str | None:
        """Takes note of the loss of a step.

        Args:
            step: counted from 1.
            warm: the learning rate has risen; before, a loss above the limit says nothing.
            guessing: loss of whoever knows nothing.

        Returns:
            Why the run has diverged, None as long as it has not.
        """
        self.loss_sum += loss
        self.loss_count += 1
        if not math.isfinite(loss):
            return f"the training loss is {loss} at step {step} of {steps}"
        limit = guessing + DIVERGED_MARGIN
        self.above = self.above + 1 if warm and loss > limit else 0
        if self.above >= DIVERGED_STEPS:
            return (
                f"the training loss is {loss:.3g} at step {step} of {steps}, "
                f"and has been above {limit:.3g} for {DIVERGED_STEPS} steps; guessing loses {guessing:.3g}"
            )
        if self.smooth is not None and loss > self.smooth + SPIKE_MARGIN * guessing:
            self.spikes += 1
        self.smooth = loss if self.smooth is None else SMOOTHING * self.smooth + (1.0 - SMOOTHING) * loss
        return None

    def mean(self) -> float:
        """Training loss since it was last asked for."""
        mean = self.loss_sum / self.loss_count
        self.loss_sum, self.loss_count = 0.0, 0
        return mean
