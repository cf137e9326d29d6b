"""Learning rates by step, loss curves, and what the laws of a curve read of a schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeps.errors import FitError, Problem
from sweeps.laws.base import Array

Steps = NDArray[np.int64]

LAST = 0.1  # of the peak, at the end of a cosine that the service trains with

BLOCK = 16
BLOCKS = 1500
BEND = 0.004


def refuse(field: str, given: object, allowed: str) -> FitError:
    """What a caller gets whose curve or schedule cannot be used."""
    return FitError(str(Problem(field, str(given), allowed)))


def _shape(steps: int, peak: float, end: float, warmup: int, since: int) -> tuple[Array, Array]:
    """A schedule that has warmed up and stays at its peak, and the share (0 to 1) of its decay by step.

    Warm-up rises linearly from 0 and is at the peak on step ``warmup`` - 1, as in the public runs of Luo
    et al. 2025.
    """
    for field, given, fits, allowed in (
        ("steps", steps, steps >= 1, "at least 1"),
        ("peak", peak, peak > 0, "a positive learning rate"),
        ("end", end, 0 <= end <= peak, f"0 to the peak, {peak:g}"),
        ("warmup", warmup, 0 <= warmup < steps, f"0 to {steps - 1} steps"),
        ("decay from", since, warmup <= since <= steps, f"step {warmup} to {steps}"),
    ):
        if not fits:
            raise refuse(field, given, allowed)
    lr = np.full(steps, float(peak))
    lr[:warmup] = np.linspace(0.0, peak, warmup)
    return lr, np.clip((np.arange(steps) - since) / max(steps - since, 1), 0.0, 1.0)


def constant(steps: int, peak: float, warmup: int = 0) -> Array:
    """The peak throughout; (steps,)."""
    return _shape(steps, peak, 0.0, warmup, warmup)[0]


def cosine(steps: int, peak: float, end: float, warmup: int = 0) -> Array:
    """Half a cosine from the peak to ``end``; (steps,)."""
    lr, share = _shape(steps, peak, end, warmup, warmup)
    lr[warmup:] = (end + 0.5 * (peak - end) * (1 + np.cos(np.pi * share)))[warmup:]
    return lr


def linear(steps: int, peak: float, end: float, warmup: int = 0) -> Array:
    """A straight line from the peak to ``end``; (steps,)."""
    return wsd(steps, warmup, peak, end, warmup)


def wsd(
    steps: int, decay_from: int, peak: float, end: float, warmup: int = 0, *, exponential: bool = False
) -> Array:
    """Warm-up, stable, decay (Hu et al. 2024, arXiv 2404.06395): linear, or by a constant factor a step."""
    lr, share = _shape(steps, peak, end, warmup, decay_from)
    if exponential and end <= 0:
        raise refuse("end", end, "a positive learning rate where the decay is exponential")
    decay = peak ** (1 - share) * end**share if exponential else peak * (1 - share) + end * share
    lr[decay_from:] = decay[decay_from:]
    return lr


def two_stage(steps: int, change_at: int, peak: float, end: float, warmup: int = 0) -> Array:
    """The peak, then ``end`` from step ``change_at`` on ("wsdcon" in Luo et al. 2025)."""
    lr, _ = _shape(steps, peak, end, warmup, change_at)
    lr[change_at:] = end
    return lr


def rising_steps(steps: int, warmup: float) -> int:
    """Steps of a run's warm-up, which is a number of steps or, below 1, a share of them."""
    return int(warmup) if warmup >= 1 else math.ceil(warmup * steps)


def decays_from(steps: ArrayLike, decay: float) -> Steps:
    """The first step with a falling rate of runs under ``constant``, counted from 0: so many come before it.

    Args:
        steps: in all, whole numbers of any shape.
        decay: share of the steps, as for ``trained_share``.
    """
    total = np.asarray(steps, dtype=np.float64)
    return np.asarray(total - np.ceil(np.maximum(1.0, decay * total)) + 1.0, dtype=np.int64)


def trained_share(schedule: str, step: int, steps: int, warmup: float, decay: float) -> float:
    """Learning rate of one step as a share of the peak, as the service trains its runs.

    Args:
        schedule: ``cosine`` to a tenth of the peak, or ``constant`` and a linear decay at the end.
        step: counted from 0.
        steps: in all.
        warmup: steps with a rising rate, below 1 a share of them.
        decay: share of the steps with a falling rate (``constant`` only).
    """
    rising = rising_steps(steps, warmup)
    if step < rising:
        return (step + 1) / rising
    if schedule == "cosine":
        done = (step - rising) / max(1, steps - 1 - rising)
        return LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * done))
    return min(1.0, (steps - step) / max(1.0, decay * steps))


@lru_cache(maxsize=64)
def _trained(schedule: str, steps: int, warmup: float, decay: float) -> Array:
    shares = np.array([trained_share(schedule, step, steps, warmup, decay) for step in range(steps)])
    shares.flags.writeable = False
    return shares


def trained(schedule: str, steps: int, peak: float, warmup: float, decay: float) -> Array:
    """Learning rate of every step of a run of the service, (steps,); see ``trained_share``."""
    return peak * _trained(schedule, steps, warmup, decay)


@dataclass(frozen=True)
class Curve:
    """Losses of one run as it trained.

    Args:
        name: of the run. Points that branches of one trunk share belong to one curve only.
        steps: (n,), rising, each below ``len(lr)``.
        loss: (n,), positive.
        lr: learning rate of every step from 0, (t,); it may go on beyond the last loss.
        run: name shared by a trunk and its branches, so that their deviations from a law are one run's.
    """

    name: str
    steps: Steps
    loss: Array
    lr: Array
    run: str = ""

    def __post_init__(self) -> None:
        _check_steps(f"{self.name}.steps", self.steps, self.lr)
        for field, given, fits, allowed in (
            ("loss", self.loss.shape, self.loss.shape == self.steps.shape, f"{self.steps.shape}, as steps"),
            ("loss", self.loss, np.all(np.isfinite(self.loss) & (self.loss > 0)), "positive numbers"),
        ):
            if not fits:
                raise refuse(f"{self.name}.{field}", given, allowed)

    def until(self, step: int) -> Curve:
        """What was measured up to and with ``step``, under the same schedule."""
        keep = self.steps <= step
        return Curve(self.name, self.steps[keep], self.loss[keep], self.lr, self.run)

    def since(self, step: int) -> Curve:
        """What was measured from ``step`` on."""
        keep = self.steps >= step
        return Curve(self.name, self.steps[keep], self.loss[keep], self.lr, self.run)


def _check_steps(field: str, steps: Steps, lr: Array) -> None:
    if lr.ndim != 1 or not len(lr) or not np.all(np.isfinite(lr) & (lr >= 0)) or not lr.any():
        raise refuse("lr", lr, "one learning rate a step from step 0, none negative, not all 0")
    rising = steps.ndim == 1 and len(steps) > 0 and bool(np.all(np.diff(steps) > 0))
    if not rising or steps[0] < 0 or steps[-1] >= len(lr):
        raise refuse(field, steps, f"rising whole numbers from 0 to {len(lr) - 1}, the schedule's last step")
    if lr[: steps[0] + 1].sum() <= 0:
        raise refuse(field, steps[0], "steps after the first positive learning rate")


@dataclass(frozen=True)
class Track:
    """What the laws read of a schedule at some steps. Changes of the rate that follow each other closely
    are one block: at most 16 steps or 1/1500 of the schedule, 0.4 % of the highest rate, and never across
    a step asked for.

    Args:
        total: S1, the summed learning rate up to and with a step, (n,).
        rate: learning rate at a step, (n,).
        drop: fall of the learning rate in a block, (m,); negative where it rises.
        before: S1 before the changes of a block (their mean), (m,).
        after: learning rate after the changes of a block (their mean), (m,).
        at: step of a block (the mean of its changes), (m,).
        count: how many blocks lie at or before a step, (n,).
        steps: (n,).
        settled: S1 at the step ``settled``.
        peak: the schedule's highest learning rate.
    """

    total: Array
    rate: Array
    drop: Array
    before: Array
    after: Array
    at: Array
    count: Steps
    steps: Steps
    settled: float
    peak: float


def settled(lr: Array) -> int:
    """Step at which warm-up is over or 2 % of the schedule is done, whichever is later."""
    return max(int(np.argmax(lr)), len(lr) // 50)


def track(lr: Array, steps: Steps, *, warm: bool = True) -> Track:
    """Summarise a schedule; O(steps of the schedule), independent of any law's parameters.

    Args:
        lr: (t,).
        steps: (n,), rising.
        warm: whether the rises before the first fall count as changes; without, warm-up is a part of
            S1 only (Tissue et al. 2024).
    """
    _check_steps("steps", steps, lr)
    total = np.cumsum(lr)
    fall = -np.diff(lr[: steps[-1] + 1])
    if not warm:
        falls = np.flatnonzero(fall > 0)
        fall[: falls[0] if len(falls) else len(fall)] = 0.0
    where = np.flatnonzero(fall) + 1
    drop = fall[where - 1]
    travelled = np.cumsum(np.abs(drop)) / (BEND * lr.max())
    key = np.stack(
        [
            np.floor(travelled),
            where // max(BLOCK, len(lr) // BLOCKS),
            np.searchsorted(steps, where),
            np.signbit(drop),
        ],
        axis=-1,
    )
    first = np.flatnonzero(np.concatenate([[True], np.any(np.diff(key, axis=0) != 0, axis=1)])[: len(where)])
    size = np.add.reduceat(drop, first) if len(first) else np.zeros(0)

    def mean(value: Array) -> Array:
        return np.add.reduceat(drop * value, first) / size if len(first) else np.zeros(0)

    count = np.searchsorted(where[first], steps, side="right").astype(np.int64)
    return Track(
        total=total[steps],
        rate=lr[steps],
        drop=size,
        before=mean(total[where - 1]),
        after=mean(lr[where]),
        at=mean(where.astype(float)),
        count=count,
        steps=steps,
        settled=float(total[settled(lr)]),
        peak=float(lr.max()),
    )
