"""Errors that saturate at small compute, and the straight line through two sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sweeps.laws.base import Array, Columns, Law
from sweeps.laws.formula import Constant, floor, law, power, scale, term

Number = float | Array

_SOURCE = "Nezhurina et al. 2025 (LAION), arXiv 2506.04598, the scaling law of error in compute"


def _saturating(name: str, formula: str, floored: bool) -> Law:
    def loss(p: Mapping[str, Any], x: Columns) -> Any:
        reducible = p["a"] * (x["flops"] + p["b"]) ** -p["c"]
        return reducible + p["d"] if floored else reducible

    constants: tuple[Constant, ...] = (
        term("a", "flops", "c", "the size of the error that compute lowers"),
        scale("b", "flops", "the compute below which the error no longer rises", mean=-3.0),
        power("c", "compute"),
    )
    return law(
        name,
        formula,
        _SOURCE,
        ("flops",),
        (*constants, floor("d")) if floored else constants,
        loss,
        measures="error",
    )


SATURATION = _saturating("saturation", "err = a (C + b)^-c", floored=False)
SATURATION_FLOOR = _saturating("saturation_floor", "err = a (C + b)^-c + d", floored=True)


def compute_for(error: Number, constants: Mapping[str, Number]) -> Array:
    """C that gives an error, 0 where it holds without any; infinite at or below the floor.

    Args:
        error: any shape.
        constants: of either law, which broadcast against it.
    """
    reducible = np.asarray(error, dtype=float) - constants.get("d", 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        needed = (constants["a"] / reducible) ** (1.0 / np.asarray(constants["c"])) - constants["b"]
    return np.asarray(np.where(reducible > 0, np.maximum(needed, 0.0), np.inf))


def log_linear(size: Number, sizes: tuple[float, float], losses: tuple[Number, Number]) -> Array:
    """The straight line in ln N through the losses at two sizes, the cheapest extrapolation there is.

    Kang et al. 2023 (projektor), arXiv 2307.02460: L(N) = [ln(N/N_0) L_1 - ln(N/N_1) L_0] / ln(N_1/N_0).

    Args:
        size: N, any shape.
        sizes: N_0 and N_1, which differ.
        losses: L_0 and L_1, which broadcast against ``size``.

    Raises:
        ValueError: the two sizes are one.
    """
    first, second = (float(np.log(one)) for one in sizes)
    if first == second:
        raise ValueError(f"both sizes are {sizes[0]:g}; give two that differ")
    log_size = np.log(np.asarray(size, dtype=float))
    return np.asarray(((log_size - first) * losses[1] - (log_size - second) * losses[0]) / (second - first))
