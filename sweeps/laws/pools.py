"""Pools of data whose use decays with every epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp, primitive

from sweeps.laws.base import Array, Centre, Columns
from sweeps.laws.formula import Constant, floor, law, power, term

SOURCE = "Goyal et al. 2024, arXiv 2404.07177"
LAST = 4096  # epochs beyond which the use no longer decays
LN2 = float(np.log(2.0))


def _sums(tau: Array, epochs: Array, moment: int) -> Array:
    """sum_(k=1)^(m-1) k^moment q^k ln((k+1)/k) + m^moment q^m ln(epochs/m), m full epochs, q = 2^(-1/tau).

    Args:
        tau: (..., n) with one value along its last axis, or (..., 1).
        epochs: (n,); the sum is 0 where they are at most 1.

    Returns:
        (..., n).
    """
    full = np.clip(np.floor(epochs), 1, LAST).astype(int)
    k = np.arange(1, full.max() + 1, dtype=float)
    decayed = k**moment * np.exp(-LN2 * k / tau[..., :1])
    before = np.cumsum(decayed * np.log1p(1.0 / k), axis=-1)
    before = np.concatenate([np.zeros_like(before[..., :1]), before], axis=-1)
    rest = np.log(np.maximum(epochs, 1.0) / full)
    return np.asarray(before[..., full - 1] + decayed[..., full - 1] * rest)


@primitive  # type: ignore[untyped-decorator]
def _worth(tau: Array, epochs: Array) -> Array:
    """ln of how many epochs of fresh data the epochs are worth."""
    return _sums(tau, epochs, 0)


def _pull(value: Array, tau: Array, epochs: Array) -> Any:
    slope = LN2 / tau**2 * _sums(tau, epochs, 1)
    del value
    return lambda passed: passed * slope


defvjp(_worth, _pull, None)


def _loss(p: Mapping[str, Any], x: Columns) -> Any:
    epochs = x["tokens"] / x["unique_tokens"]
    first = np.minimum(x["tokens"], x["unique_tokens"])
    seen = np.log(first) + _worth(p["tau"], epochs)
    return p["d"] + p["A"] * anp.exp(-p["b"] * seen)


_POOLS = law(
    "pools",
    "L = d + (a n_1)^-b prod_(k>=1) (n_(k+1)/n_k)^(-b 2^(-k/tau)), n_k tokens after k epochs of U",
    f"{SOURCE}, the law of one pool",
    ("tokens", "unique_tokens"),
    (
        floor("d"),
        term("A", "tokens", "b", "the size of the data term"),
        power("b", "tokens"),
        Constant("tau", "epochs after which data are worth half", float(np.log(6.0)), 0.9),
    ),
    _loss,
)


def _natural(theta: Array, centre: Centre) -> dict[str, Array]:
    c = _POOLS.natural(theta, centre)
    return {"d": c["d"], "a": c["A"] ** (-1.0 / c["b"]), "b": c["b"], "tau": c["tau"]}


def _internal(constants: Mapping[str, float], centre: Centre) -> Array:
    return _POOLS.internal({**constants, "A": constants["a"] ** -constants["b"]}, centre)


POOLS = replace(_POOLS, natural=_natural, internal=_internal)


@dataclass(frozen=True)
class Pool:
    """One bucket of data, ``b`` and ``tau`` of its own law."""

    b: float
    tau: float


def mixed(pools: Sequence[Pool], a: float, d: float, tokens: float, unique: float) -> float:
    """Loss of training on equal parts of some pools, which share a and d (arXiv 2404.07177).

    Mixed with p - 1 others a pool lasts p times as long: tau_i becomes p tau_i, and epoch k has the mean
    of the exponents b_i 2^(-k/(p tau_i)).

    Args:
        tokens: seen in all.
        unique: of all pools together.

    Raises:
        ValueError: there is no pool.
    """
    if not pools:
        raise ValueError("no pool was given; give at least one")
    b, tau = np.array([(pool.b, len(pools) * pool.tau) for pool in pools]).T
    full = max(int(tokens // unique), 1)
    ends = np.minimum(unique * np.arange(1, full + 2), tokens)
    powers = np.mean(b * np.exp(-LN2 * np.arange(full + 1)[:, None] / tau), axis=1)
    log_term = -powers[0] * np.log(a * ends[0]) - powers[1:] @ np.log(ends[1:] / ends[:-1])
    return float(d + np.exp(log_term))
