"""The additive law of parameters and tokens."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sweeps.laws.base import FLOOR, LEVEL, Array, Columns, Law
from sweeps.laws.coupled import (
    INNER,
    additive_start,
    inner,
    inner_value,
    internal_inner,
    natural_inner,
    split,
)


def _value(theta: Array, x: Columns) -> Array:
    return np.logaddexp(theta[..., 0, None], theta[..., 1, None] + inner_value(theta[..., 2:5], x))


def _evaluate(theta: Array, x: Columns) -> tuple[Array, Array]:
    floor, level = theta[..., 0, None], theta[..., 1, None]
    value, gradient = inner(theta[..., 2:5], x)
    log_loss = np.logaddexp(floor, level + value)
    share = np.exp(level + value - log_loss)
    own = np.stack([1.0 - share, share], axis=-1)
    return log_loss, np.concatenate([own, share[..., None] * gradient], axis=-1)


def _natural(theta: Array, centre: Mapping[str, float]) -> dict[str, Array]:
    return natural_inner(theta, centre, np.ones_like(theta[..., 0]))


def _internal(constants: Mapping[str, float], centre: Mapping[str, float]) -> Array:
    return internal_inner(constants, centre, 1.0)


CHINCHILLA = Law(
    name="chinchilla",
    formula="L = E + A N^-alpha + B D^-beta",
    source="Hoffmann et al. 2022, arXiv 2203.15556, equation 2 (form: Rosenfeld 2020, 1909.12673)",
    columns=("params", "tokens"),
    parameters=(FLOOR, LEVEL, *INNER),
    evaluate=_evaluate,
    start=additive_start,
    natural=_natural,
    internal=_internal,
    split=split,
    value=_value,
)
