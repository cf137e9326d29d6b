"""Parallel streams: a model run several times on one input, its outputs combined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import autograd.numpy as anp
import numpy as np

from sweeps.laws.base import Array, Centre, Columns
from sweeps.laws.formula import Constant, floor, law, power

Number = float | Array


def _loss(p: Mapping[str, Any], x: Columns) -> Any:
    effective = x["params"] * (1.0 + p["k"] * np.log(x["streams"]))
    return p["E"] + p["A"] * anp.exp(-p["alpha"] * anp.log(effective))


def _natural(theta: Array, centre: Centre) -> dict[str, Array]:
    level, log_alpha, log_k = (theta[..., i] for i in (1, 2, 3))
    alpha = np.exp(log_alpha)
    return {
        "E": np.exp(theta[..., 0] + centre["loss"]),
        "A": np.exp((level + centre["loss"]) / alpha + centre["params"]),
        "alpha": alpha,
        "k": np.exp(log_k),
    }


def _internal(constants: Mapping[str, float], centre: Centre) -> Array:
    alpha = constants["alpha"]
    level = alpha * (np.log(constants["A"]) - centre["params"]) - centre["loss"]
    return np.array([np.log(constants["E"]) - centre["loss"], level, np.log(alpha), np.log(constants["k"])])


STREAMS = law(
    "streams",
    "L = E + (A / (N (k ln P + 1)))^alpha",
    "Chen et al. 2025 (ParScale), arXiv 2505.10475, the fitted law of parallel scaling",
    ("params", "streams"),
    # The second coordinate is ln A^alpha, the size of the term at the centre: the loss is linear in it.
    (
        floor(),
        Constant("A", "the size of the term of parameters", -1.5, 1.2, linear=True),
        power("alpha", "parameters"),
        Constant("k", "what an e-fold of streams adds, in copies of the model", -1.2, 1.0),
    ),
    _loss,
    natural=_natural,
    internal=_internal,
)


def worth(streams: Number, k: Number) -> Array:
    """How many times the parameters P streams are worth: 1 + k ln P."""
    return np.asarray(1.0 + np.asarray(k, dtype=float) * np.log(np.asarray(streams, dtype=float)))


def streams_for(times: Number, k: Number) -> Array:
    """Streams that are worth a multiple of the parameters: exp((times - 1) / k)."""
    return np.asarray(np.exp((np.asarray(times, dtype=float) - 1.0) / np.asarray(k, dtype=float)))
