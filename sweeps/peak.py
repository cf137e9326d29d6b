"""How much memory trainings take on a device where some were measured, and how many fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from sweeps.cost import Cost, Timing

Array = NDArray[np.float64]

BYTES = 4  # float32
LEAST = 3  # measured peaks from which factors are learned
STACKED = 4.0  # copies of every weight beyond ``Cost.memory`` bytes: gradients are there twice
SHARE = 0.9  # of the memory there is that trainings may take; kernels and libraries want the rest


@dataclass(frozen=True)
class MemoryModel:
    """Peak bytes: so many by parameter, and a factor on what ``Cost.memory`` counts beside these.

    Args:
        per_parameter: bytes.
        factor: of the rest.
        error: relative root mean square error on the peaks that these were learned from.
        peaks: how many those were; 0 where both are as counted.
    """

    per_parameter: float = 3.0 * BYTES
    factor: float = 1.0
    error: float = 0.0
    peaks: int = 0

    def __call__(self, cost: Cost, members: int = 1) -> float:
        """Of a run, or of ``members`` that train together."""
        return members * float(self.of(vars(cost)))

    def of(self, columns: Mapping[str, ArrayLike]) -> Array:
        """Of one of the runs given as columns of ``Cost``, each (n,) or a number."""
        standing, rest = _parts(columns)
        return np.asarray(self.per_parameter * standing + self.factor * rest)

    def fits(self, columns: Mapping[str, ArrayLike], room: float) -> Array:
        """How many runs like each may train together in so many bytes, not rounded."""
        return SHARE * room / self.of(columns)


def fit_memory(timings: Sequence[Timing], stacked: bool) -> MemoryModel:
    """Learned from measured peaks; as counted where there are too few.

    Args:
        timings: of one kind of proxy on one device, all alone or all stacked.
    """
    rows = [one for one in timings if one.memory is not None and one.memory > 0]
    if len(rows) < LEAST:
        return MemoryModel(per_parameter=3.0 * BYTES + (STACKED if stacked else 0.0))
    measured = np.array([float(one.memory or 0.0) / one.members for one in rows])
    design = np.array([_parts(vars(one.cost)) for one in rows]) / measured[:, None]
    (per_parameter, factor), _ = nnls(design, np.ones(len(rows)))
    error = float(np.sqrt(np.mean((design @ [per_parameter, factor] - 1.0) ** 2)))
    return MemoryModel(float(per_parameter), float(factor), error, len(rows))


def _parts(columns: Mapping[str, ArrayLike]) -> tuple[Array, Array]:
    """Parameters, and bytes beyond weights and moments."""
    params, memory = (np.asarray(columns[name], dtype=float) for name in ("params_total", "memory"))
    return params, memory - 3.0 * BYTES * params
