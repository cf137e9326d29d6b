"""Tables of the additive law, and what is fitted to them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from sweeps import fit, predict
from sweeps.laws import LAWS
from sweeps.laws.base import Array
from sweeps.study import Study

TRUE = {"E": 1.8172, "A": 477.84, "B": 2143.9, "alpha": 0.34731, "beta": 0.36718}
FAR = {"params": 7e10, "tokens": 1.4e12}
LAW = LAWS["chinchilla"]
Table = dict[str, Array]


def runs(n: int, seed: int = 0, noise: ArrayLike = 0.006) -> Table:
    """Runs of the additive law with noise, over nine budgets of compute."""
    rng = np.random.default_rng(seed)
    flops = np.repeat(np.geomspace(6e18, 3e21, 9), -(-n // 9))[:n]
    params = 10 ** rng.uniform(-0.8, 0.8, n) * 2.8e9 * np.sqrt(flops / 1e21)
    table = {"params": params, "tokens": flops / (6.0 * params)}
    return table | {"loss": LAW.at(TRUE, table) * np.exp(noise * rng.standard_normal(n))}


@cache
def study(objective: str, intervals: str = "posterior") -> Study:
    """A fit to 240 of these runs."""
    return fit(runs(240), laws="chinchilla", objective=objective, intervals=intervals)


def as_columns(at: Mapping[str, float]) -> Table:
    """Columns of one row."""
    return {name: np.array([value]) for name, value in at.items()}


def spread(found: Study) -> float:
    """Relative width of the interval far out."""
    one = predict(found, FAR)[0]
    return (one.mean_high - one.mean_low) / one.loss
