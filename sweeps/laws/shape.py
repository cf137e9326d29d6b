"""Laws of width and depth besides parameters and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweeps.laws.base import Array, Columns, Law
from sweeps.laws.formula import floor, law, power, term

Number = float | Array

WORDS = {"width": "width", "depth": "depth", "params": "parameters", "tokens": "tokens"}


def additive(name: str, formula: str, columns: Sequence[str], source: str) -> Law:
    """L = E + sum of C_x x^-e_x over columns, that is ln L = LSE(c_x - e_x ln x, e) with C_x = exp(c_x).

    Constants are called ``E``, ``C_width``, ``e_width`` and so on.
    """

    def loss(p: Mapping[str, Any], x: Columns) -> Any:
        total = p["E"]
        for column in columns:
            total = total + p[f"C_{column}"] * x[column] ** -p[f"e_{column}"]
        return total

    terms = [
        constant
        for column in columns
        for constant in (
            term(f"C_{column}", column, f"e_{column}", f"the size of the term of {WORDS[column]}"),
            power(f"e_{column}", WORDS[column]),
        )
    ]
    return law(name, formula, source, columns, (floor(), *terms), loss)


_SOURCE = "McLeish et al. 2025 (Gemstones), arXiv 2502.06857, the law of width and depth"

WIDTH_DEPTH = additive(
    "width_depth",
    "L = E + C_width w^-e_width + C_depth d^-e_depth + C_tokens D^-e_tokens",
    ("width", "depth", "tokens"),
    _SOURCE,
)
GEMSTONES = additive(
    "gemstones",
    "L = E + C_width w^-e_width + C_depth d^-e_depth + C_params N^-e_params + C_tokens D^-e_tokens",
    ("width", "depth", "params", "tokens"),
    _SOURCE,
)


def best_width(constants: Mapping[str, Number], params: Number, per_layer: float = 12.0) -> Array:
    """The width of the lowest loss among shapes of equal parameters N = per_layer depth width^2.

    Along these the terms of width and depth alone differ; where their slopes cancel,
    w^(e_w + 2 e_d) = e_w C_w / (2 e_d C_d) (N / per_layer)^e_d.

    Args:
        constants: of ``GEMSTONES`` or ``WIDTH_DEPTH``, each a number or (b,) draws.
        params: without embeddings.
        per_layer: 12 for attention and a feed-forward part four times as wide.

    Returns:
        The width; the depth is N / (per_layer width^2).
    """
    c = {name: np.asarray(value, dtype=float) for name, value in constants.items()}
    wide, deep = c["e_width"], c["e_depth"]
    balance = np.log(wide * c["C_width"]) - np.log(2.0 * deep * c["C_depth"])
    log_size = np.log(np.asarray(params, dtype=float) / per_layer)
    return np.asarray(np.exp((balance + deep * log_size) / (wide + 2.0 * deep)))
