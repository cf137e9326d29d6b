"""Training in few bits: floating-point formats, and parameters that count for less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import autograd.numpy as anp
import numpy as np
from scipy.special import lambertw

from sweeps.laws.base import Array, Columns
from sweeps.laws.formula import Constant, floor, law, power, term

Number = float | Array

_BASE = (
    floor(),
    term("A", "params", "alpha", "the size of the term of parameters"),
    power("alpha", "parameters"),
    term("B", "tokens", "beta", "the size of the data term"),
    power("beta", "tokens"),
)


def _additive(p: Mapping[str, Any], params: Any, tokens: Any) -> Any:
    return p["E"] + p["A"] * params ** -p["alpha"] + p["B"] * tokens ** -p["beta"]


def _float(p: Mapping[str, Any], x: Columns) -> Any:
    coarse = (x["exponent_bits"] + 0.5) ** -p["delta"] * (x["mantissa_bits"] + 0.5) ** -p["nu"]
    density = x["tokens"] ** p["beta"] * x["params"] ** -p["alpha"]
    return _additive(p, x["params"], x["tokens"]) + p["g"] * np.log2(x["block"]) * density * coarse


FLOATING_POINT = law(
    "floating_point",
    "L = E + A N^-alpha + B D^-beta + g log2(block) D^beta N^-alpha (exponent_bits + 1/2)^-delta"
    " (mantissa_bits + 1/2)^-nu",
    "Sun et al. 2025, arXiv 2501.02423, the unified law of floating-point quantised training",
    ("params", "tokens", "exponent_bits", "mantissa_bits", "block"),
    (
        *_BASE,
        Constant(
            "g",
            "the loss that quantisation costs",
            0.0,
            3.0,
            unit=lambda p, centre: (
                centre["loss"] + p["alpha"] * centre["params"] - p["beta"] * centre["tokens"]
            ),
            linear=True,
        ),
        Constant("delta", "the exponent of exponent bits", float(np.log(2.0)), 0.7),
        Constant("nu", "the exponent of mantissa bits", float(np.log(2.0)), 0.7),
    ),
    _float,
)


def critical_tokens(
    constants: Mapping[str, Number],
    params: Number,
    exponent_bits: Number,
    mantissa_bits: Number,
    block: Number,
) -> Array:
    """Tokens beyond which more of them raise the loss of ``FLOATING_POINT``: dL/dD = 0.

    Sun et al. 2025 (arXiv 2501.02423): D^(2 beta) = B N^alpha / (g log2(block) q), where
    q = (exponent_bits + 1/2)^-delta (mantissa_bits + 1/2)^-nu.

    Returns:
        Any shape that the arguments broadcast to; infinite at a block of one number.
    """
    c = {name: np.asarray(value, dtype=float) for name, value in constants.items()}
    coarse = (np.asarray(exponent_bits) + 0.5) ** -c["delta"] * (np.asarray(mantissa_bits) + 0.5) ** -c["nu"]
    with np.errstate(divide="ignore"):
        squared = c["B"] * np.asarray(params, dtype=float) ** c["alpha"] / (c["g"] * np.log2(block) * coarse)
    return np.asarray(squared ** (0.5 / c["beta"]))


def _few_bits(p: Mapping[str, Any], x: Columns) -> Any:
    return _additive(p, -x["params"] * anp.expm1(-x["bits"] / p["gamma"]), x["tokens"])


FEW_BITS = law(
    "few_bits",
    "L = E + A (N (1 - exp(-bits / gamma)))^-alpha + B D^-beta",
    "Kumar et al. 2024, arXiv 2411.04330: effective parameters of weights trained in few bits",
    ("params", "tokens", "bits"),
    (*_BASE, Constant("gamma", "the bits at which a weight counts for 63 %", float(np.log(3.0)), 0.7)),
    _few_bits,
)


def worth(bits: Number, gamma: Number, tensors: int = 1) -> Array:
    """The share of its parameters a model counts for: (1 - exp(-bits / gamma))^tensors.

    Kumar et al. 2024 (arXiv 2411.04330): one factor each for weights, activations and cache.
    """
    return np.asarray((-np.expm1(-np.asarray(bits, dtype=float) / np.asarray(gamma))) ** tensors)


def cheapest_bits(gamma: Number, tensors: int = 3) -> Array:
    """Bits at which effective parameters cost least when a parameter costs in proportion to its bits.

    The maximum of (1 - exp(-x))^m / x with x = bits / gamma: exp(x) = 1 + m x, by Lambert's W.

    Args:
        gamma: any shape.
        tensors: m, how many of weights, activations and cache are held in these bits; at least 2, since
            with one alone fewer bits are always cheaper.

    Raises:
        ValueError: fewer than 2 tensors.
    """
    if tensors < 2:
        raise ValueError(f"tensors is {tensors}; with fewer than 2 there is no cheapest number of bits")
    inverse = 1.0 / tensors
    x = float(-inverse - lambertw(-inverse * np.exp(-inverse), -1).real)
    return np.asarray(x * np.asarray(gamma, dtype=float))


def after_training(constants: Mapping[str, Number], params: Number, tokens: Number, bits: Number) -> Array:
    """What quantising a trained model adds to its loss: C_T D^g_D N^-g_N exp(-bits / g).

    Kumar et al. 2024 (arXiv 2411.04330): it grows with tokens, so that there are too many of them.

    Args:
        constants: ``C_T``, ``g_D``, ``g_N`` and ``g``.
    """
    c = {name: np.asarray(value, dtype=float) for name, value in constants.items()}
    density = np.asarray(tokens, dtype=float) ** c["g_D"] * np.asarray(params, dtype=float) ** -c["g_N"]
    return np.asarray(c["C_T"] * density * np.exp(-np.asarray(bits, dtype=float) / c["g"]))
