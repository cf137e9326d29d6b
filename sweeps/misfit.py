"""What a law gets wrong, as a smooth function that grows with the distance to the target.

No law is exact over all scales. It is only asked to hold at the target: below it ln L may differ from the
law by d m(x), with d = ln(C_target / C) and m a Gaussian process over the scale columns (Kennedy and
O'Hagan 2001). Runs far below the target then stop dictating the exponents, and many runs at one place do
not make a law certain elsewhere. The process is kept to few features (Nystrom's method; Quinonero-Candela
and Rasmussen 2005), whose weights are fitted along with the law.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sweeps.laws.base import Array, Columns

REACH = 2.0  # e-folds of scale over which a misfit stays alike
SPACING = 0.7  # of inducing points, in units of the reach
POINTS = 24  # at most
JITTER = 1e-6


@dataclass(frozen=True)
class Misfit:
    """The features of the misfit.

    Args:
        columns: scale columns it depends on, k of them.
        points: (m, k) inducing points, in centred columns.
        target: centred ln C of the target.
    """

    columns: tuple[str, ...]
    points: Array
    target: float

    def distance(self, x: Columns) -> Array:
        """ln(C_target / C), at least 0; (n,)."""
        return np.maximum(self.target - x["flops"], 0.0)

    def features(self, x: Columns) -> Array:
        """Features of rows, (n, m); their weights are independent with the same variance."""
        rows = np.stack([x[name] for name in self.columns], axis=-1)
        smooth = np.linalg.solve(self._root, _kernel(rows, self.points).T).T
        return np.asarray(self.distance(x)[:, None] * smooth)

    @cached_property
    def _root(self) -> Array:
        return np.asarray(
            np.linalg.cholesky(_kernel(self.points, self.points) + JITTER * np.eye(len(self.points)))
        )


def misfit(x: Columns, columns: tuple[str, ...], target: float) -> Misfit:
    """Features that cover given rows: each inducing point is the row farthest from those before.

    Args:
        x: centred columns, (n,) each.
        target: centred ln C.
    """
    rows = np.unique(np.stack([x[name] for name in columns], axis=-1), axis=0)
    chosen = [len(rows) // 2]
    apart = np.sum((rows - rows[chosen[0]]) ** 2, axis=1)
    while len(chosen) < POINTS and apart.max() > (SPACING * REACH) ** 2:
        chosen.append(int(np.argmax(apart)))
        apart = np.minimum(apart, np.sum((rows - rows[chosen[-1]]) ** 2, axis=1))
    return Misfit(columns, rows[chosen], target)


def _kernel(one: Array, two: Array) -> Array:
    apart = np.sum(one**2, axis=1)[:, None] + np.sum(two**2, axis=1) - 2.0 * one @ two.T
    return np.asarray(np.exp(-0.5 * np.maximum(apart, 0.0) / REACH**2))
