"""Broken neural scaling laws: power laws whose exponent changes smoothly at some scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import autograd.numpy as anp
import numpy as np

from sweeps.laws.base import Columns, Law
from sweeps.laws.formula import Constant, Kind, floor, law, scale


def broken(breaks: int, column: str = "x", name: str | None = None) -> Law:
    """A law with smooth breaks.

    Breaks outside the data are left to the prior: at least one run past a break is needed to see it.

    Args:
        breaks: how many, at least 1.
        name: ``bnsl`` and their number by default.
    """
    order = range(1, breaks + 1)

    def loss(p: Mapping[str, Any], x: Columns) -> Any:
        log_x = np.log(x[column])
        log_term = anp.log(p["b"]) - p["c0"] * log_x
        for i in order:
            turn = anp.logaddexp(0.0, (log_x - anp.log(p[f"d{i}"])) / p[f"f{i}"])
            log_term = log_term - p[f"c{i}"] * p[f"f{i}"] * turn
        return p["a"] + anp.exp(log_term)

    constants = [
        floor("a"),
        Constant(
            "b",
            "the size of the reducible loss",
            -1.0,
            1.2,
            unit=lambda p, centre: centre["loss"] + p["c0"] * centre[column],
            linear=True,
        ),
        Constant("c0", "the exponent before any break", 0.25, 0.25, Kind.REAL),
    ]
    for i in order:
        # Spread over the data, so that the breaks do not change places.
        where = 4.0 * (i - 0.5 * (breaks + 1)) / breaks
        constants += [
            scale(f"d{i}", column, f"the scale of break {i}", where, 1.5),
            Constant(f"c{i}", f"the change of the exponent at break {i}", 0.0, 0.7, Kind.REAL),
            Constant(f"f{i}", f"the width of break {i}", float(np.log(0.4)), 0.8),
        ]
    return law(
        name or f"bnsl{breaks}",
        f"L = a + b x^-c0 prod_i (1 + (x/d_i)^(1/f_i))^(-c_i f_i), {breaks} breaks",
        "Caballero et al. 2022, arXiv 2210.14891, equation 1",
        (column,),
        constants,
        loss,
    )


BROKEN = tuple(broken(breaks) for breaks in (1, 2, 3))
