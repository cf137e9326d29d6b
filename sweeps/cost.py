"""What a run costs, and how long it takes on a device that was timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cost:
    """Cost of one run, counted from its shape alone (``sweeps.kinds``).

    The same runs give other exponents under another count of N, so every count is kept.

    Args:
        params_embedding, params_body, params_head: trained numbers by group; they sum to ``params_total``.
        params_total: N with everything.
        params_active: parameters in a matrix product for one token (all but a look-up table).
        tokens_seen: D, training tokens really seen (whole batches), or samples where there are no tokens.
        steps: optimiser steps.
        flops: training FLOPs of every matrix product and convolution, attention included, backward counted
            as twice forward.
        flops_6nd: 6 N_total D, the field's rule of thumb.
        activations: floating-point numbers that autograd keeps for the backward pass of one step.
        memory: peak bytes of a training step in float32 with AdamW, without the data set and the libraries.
    """

    params_embedding: float
    params_body: float
    params_head: float
    params_total: float
    params_active: float
    tokens_seen: float
    steps: float
    flops: float
    flops_6nd: float
    activations: float
    memory: float


@dataclass(frozen=True)
class Timing:
    """A measured training, for learning how long others will take.

    Args:
        cost: of the run (or of the part that was timed).
        seconds: device seconds it took.
    """

    cost: Cost
    seconds: float


@dataclass(frozen=True)
class SecondsModel:
    """Device seconds of a run: a sum of per-step, per-activation and per-FLOP prices, each at least 0.

    Args:
        per_step: seconds a step whatever its size.
        per_activation: seconds per element kept for the backward pass and step.
        per_flop: seconds per training FLOP.
        error: relative root mean square error on the timings it was fitted to.
        timings: how many those were.
    """

    per_step: float
    per_activation: float
    per_flop: float
    error: float
    timings: int

    def __call__(self, cost: Cost) -> float:
        """Predicted device seconds of a run."""
        return float(self.of(vars(cost)))

    def of(self, columns: Mapping[str, ArrayLike]) -> Array:
        """Predicted device seconds of runs given as columns of ``Cost``, each (n,) or a number."""
        steps, activations, flops = (np.asarray(columns[name]) for name in ("steps", "activations", "flops"))
        return np.asarray(
            self.per_step * steps + self.per_activation * activations * steps + self.per_flop * flops
        )


def fit_seconds(timings: Sequence[Timing]) -> SecondsModel | None:
    """Learns prices from timings by non-negative least squares on relative error; None without timings."""
    rows = [timing for timing in timings if timing.seconds > 0]
    if not rows:
        return None
    design = np.array([[t.cost.steps, t.cost.activations * t.cost.steps, t.cost.flops] for t in rows])
    scaled = design / np.array([[t.seconds] for t in rows])
    scale = scaled.max(axis=0)
    prices, residual = nnls(scaled / scale, np.ones(len(rows)))
    per_step, per_activation, per_flop = (float(p) for p in prices / scale)
    return SecondsModel(per_step, per_activation, per_flop, float(residual / np.sqrt(len(rows))), len(rows))
