"""What a run costs, and how long it takes on a device that was timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
        memory: peak bytes of a training step in float32 with AdamW, with its batch, without the data set and
            the libraries.
        layers: that follow one another, each of which costs time whatever its size.
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
    layers: float = 1.0


@dataclass(frozen=True)
class Timing:
    """A measured training, for learning what others will take.

    Args:
        cost: of the run (or of the part that was timed).
        seconds: device seconds it took; of one member where several trained together.
        kind: of proxy; of one's own code with its entry (``Proxy.trainer``).
        members: runs that trained together.
        memory: peak bytes of all of them, None where it was not measured.
        device: name of what it ran on, None where that was not stored.
        sharers: processes that the device was shared among, each with its own runs; ``seconds`` are then its
            share of the time.
    """

    cost: Cost
    seconds: float
    kind: str = "gpt"
    members: int = 1
    memory: float | None = None
    device: str | None = None
    sharers: int = 1


@dataclass(frozen=True)
class SecondsModel:
    """Device seconds of a run: a sum of prices, each at least 0.

    Runs that train together share what a step costs whatever its size: prices by step and by layer.

    Args:
        per_step: seconds a step whatever its size.
        per_activation: seconds per element kept for the backward pass and step.
        per_flop: seconds per training FLOP.
        error: relative root mean square error on timings that the prices were not fitted to; on those that
            they were fitted to where there are too few to leave some out.
        timings: how many it was fitted to.
        per_layer: seconds a step and layer whatever its size.
        per_parameter: seconds per parameter and step.
    """

    per_step: float
    per_activation: float
    per_flop: float
    error: float
    timings: int
    per_layer: float = 0.0
    per_parameter: float = 0.0

    def __call__(self, cost: Cost, members: int = 1) -> float:
        """Predicted device seconds of a run, or of one of ``members`` that train together."""
        return float(self.of(vars(cost), members))

    def of(self, columns: Mapping[str, ArrayLike], members: ArrayLike = 1) -> Array:
        """Predicted device seconds of runs given as columns of ``Cost``, each (n,) or a number."""
        prices = (self.per_step, self.per_layer, self.per_activation, self.per_parameter, self.per_flop)
        return np.asarray(
            sum(price * part for price, part in zip(prices, _parts(columns, members), strict=True))
        )


FOLDS = 10
LEAST = 6  # timings from which every price is learned; from fewer, those of other kinds are scaled


def fit_seconds(timings: Sequence[Timing], others: Sequence[Timing] = ()) -> SecondsModel | None:
    """Learns prices from timings by non-negative least squares on relative error; None without timings.

    The error is that of a cross-validation.

    Args:
        timings: of the kind in question.
        others: of further kinds. Where ``timings`` are few, prices come from all and are scaled to them.
    """
    rows = [timing for timing in timings if timing.seconds > 0]
    rest = [timing for timing in others if timing.seconds > 0]
    if not rows and not rest:
        return None
    found = _learn(rows, rest)
    if len(rows) < 2:
        tests = [(found, rows or rest)]
    else:
        folds = range(min(FOLDS, len(rows)))
        kept = [[row for i, row in enumerate(rows) if i % FOLDS != fold] for fold in folds]
        tests = [(_learn(kept[fold], rest), rows[fold::FOLDS]) for fold in folds]
    errors = [model(row.cost, row.members) / row.seconds - 1.0 for model, part in tests for row in part]
    return replace(found, error=float(np.sqrt(np.mean(np.square(errors)))))


def _learn(rows: Sequence[Timing], others: Sequence[Timing]) -> SecondsModel:
    if len(rows) >= LEAST or not others:
        return _solve(rows)
    pooled = _solve([*rows, *others])
    if not rows:
        return pooled
    scale = float(np.exp(np.mean([np.log(row.seconds / pooled(row.cost, row.members)) for row in rows])))
    prices = {name: scale * getattr(pooled, name) for name in PRICES}
    return replace(pooled, timings=len(rows), **prices)


def _solve(rows: Sequence[Timing]) -> SecondsModel:
    parts = [np.array([float(p) for p in _parts(vars(t.cost), t.members)]) / t.seconds for t in rows]
    design = np.array(parts)
    scale = design.max(axis=0)
    scale[scale == 0.0] = 1.0
    found = nnls(design / scale, np.ones(len(rows)))[0] / scale
    prices = dict(zip(PRICES, map(float, found), strict=True))
    return SecondsModel(error=0.0, timings=len(rows), **prices)


PRICES = ("per_step", "per_layer", "per_activation", "per_parameter", "per_flop")


def _parts(columns: Mapping[str, ArrayLike], members: ArrayLike) -> tuple[Array, ...]:
    """What each of ``PRICES`` is paid for."""
    names = ("steps", "layers", "activations", "params_total", "flops")
    steps, layers, activations, params, flops = (np.asarray(columns[name], dtype=float) for name in names)
    together = np.asarray(members, dtype=float)
    return steps / together, steps * layers / together, steps * activations, steps * params, flops
