"""How much memory trainings take on a device where some were measured, and how many fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from sweeps.cost import Cost, Timing

BYTES = 4  # float32
LEAST = 3  # measured peaks from which factors are learned
STACKED = 4.0  # copies of every weight beyond ``Cost.memory`` bytes: gradients are there twice
SHARE = 0.9  # of memory that trainings may take where nobody measured what kernels and libraries want


@dataclass(frozen=True)
class Room:
    """What trainings find on a device.

    Args:
        memory: bytes of it that processes may share.
        base: bytes that every process takes beside its trainings; None where that was not measured.
    """

    memory: float
    base: float | None = None

    def of(self, sharers: int) -> float:
        """Bytes that trainings may take in one of so many processes."""
        part = self.memory / sharers
        return SHARE * part if self.base is None else part - self.base


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
        standing, rest = _parts(cost)
        return members * (self.per_parameter * standing + self.factor * rest)

    def fits(self, cost: Cost, room: float) -> int:
        """How many runs of a cost may train together in so many bytes, the error allowed for."""
        return int(room / ((1.0 + self.error) * self(cost)))


def fit_memory(timings: Sequence[Timing], stacked: bool) -> MemoryModel:
    """Learned from measured peaks; as counted where there are too few.

    Args:
        timings: of one kind of proxy on one device, all alone or all stacked; runs as well as calibrations.
    """
    rows = [one for one in timings if one.memory is not None and one.memory > 0]
    if len(rows) < LEAST:
        return MemoryModel(per_parameter=3.0 * BYTES + (STACKED if stacked else 0.0))
    measured = np.array([float(one.memory or 0.0) / one.members for one in rows])
    design = np.array([_parts(one.cost) for one in rows]) / measured[:, None]
    (per_parameter, factor), _ = nnls(design, np.ones(len(rows)))
    error = float(np.sqrt(np.mean((design @ [per_parameter, factor] - 1.0) ** 2)))
    return MemoryModel(float(per_parameter), float(factor), error, len(rows))


def _parts(cost: Cost) -> tuple[float, float]:
    """Parameters, and bytes beyond weights and moments; FLOPs of a step where nobody counted these."""
    if cost.memory == 0.0:  # one's own code
        return cost.params_total, cost.flops / cost.steps
    return cost.params_total, cost.memory - 3.0 * BYTES * cost.params_total
