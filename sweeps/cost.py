"""What a run costs, from its shape alone: parameters by group, FLOPs, activations, memory, seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from sweeps.recipe import heads

Array = NDArray[np.float64]

VOCABULARY = 256  # bytes
BYTES = 4  # float32
KEPT_COPIES = 3  # of every parameter: weight and AdamW's two moments; the gradient comes and goes


@dataclass(frozen=True)
class Cost:
    """Cost of one run. The same runs give other exponents under another count of N, so every count is kept.

    Args:
        params_embedding, params_body, params_head: trained numbers by group; they sum to ``params_total``.
        params_total: N with everything.
        params_active: parameters in a matrix product for one token (all but the look-up table).
        tokens_seen: D, training tokens really seen (whole batches).
        steps: optimiser steps.
        flops: training FLOPs of every matrix product, attention included, backward counted as twice forward.
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


def gpt(columns: Mapping[str, ArrayLike], head_count: int | None = None) -> dict[str, Array]:
    """Cost of decoder-only transformers over bytes, one row a configuration.

    Per token the forward pass multiplies with 12 d^2 weights a layer (attention 4 d^2, feed-forward
    8 d^2), with 2 s d numbers a layer in attention (scores and values over all s positions, as the
    kernels compute them) and with V d weights in the head; a multiply-add is 2 FLOPs and the backward
    pass costs twice the forward one (Kaplan et al. 2020, arXiv 2001.08361, section 2.1, with
    attention and head counted).

    Per token autograd keeps 18 d numbers a layer (the stream before and after attention 2 d, both
    normalised 2 d, queries, keys and values 3 d, turned queries and keys 2 d, attended d, feed-forward
    before and after its nonlinearity 8 d), two norms, two norms and a log-sum a head, and the stream as it
    is at the end and normalised, its norm and V log-probabilities. Memory peaks where the backward pass
    begins, with the gradients of log-probabilities and logits beside all that is kept (2 V a token), or in
    the optimiser with every gradient; widths above 256 need up to 10 % more, inside the feed-forward part.

    Args:
        columns: width d, depth l, resolution s, tokens, batch (sequences a step), each (n,) or a number.
        head_count: attention heads, None for the recipe's.

    Returns:
        The fields of ``Cost``, each (n,) or a number.
    """
    d, l, s = (np.asarray(columns[name], dtype=float) for name in ("width", "depth", "resolution"))
    tokens_per_step = np.asarray(columns["batch"], dtype=float) * s
    steps = np.maximum(1.0, np.round(np.asarray(columns["tokens"], dtype=float) / tokens_per_step))
    seen = steps * tokens_per_step
    embedding, body, head = VOCABULARY * d, 12 * l * d**2, VOCABULARY * d
    total = embedding + body + head
    widths, of = np.unique(d, return_inverse=True)
    h = np.array([float(heads(int(width), head_count)) for width in widths])[of]
    activations = tokens_per_step * (l * (18 * d + 3 * h + 2) + 2 * d + 1 + VOCABULARY)
    backward = np.maximum(total, activations + tokens_per_step * 2 * VOCABULARY)
    return {
        "params_embedding": embedding,
        "params_body": body,
        "params_head": head,
        "params_total": total,
        "params_active": body + head,
        "tokens_seen": seen,
        "steps": steps,
        "flops": 3.0 * (2 * (body + head) + 4 * l * s * d) * seen,
        "flops_6nd": 6.0 * total * seen,
        "activations": activations,
        "memory": BYTES * (KEPT_COPIES * total + backward),
    }


COSTS = {"gpt": gpt}


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
