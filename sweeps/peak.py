"""How much memory trainings take on a device where some were measured, and how many fit."""

from __future__ import annotations

import math
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
        return members * float(self.of(vars(cost)))

    def of(self, columns: Mapping[str, ArrayLike]) -> Array:
        """Of one of the runs given as columns of ``Cost``, each (n,) or a number."""
        standing, rest = _parts(columns)
        return np.asarray(self.per_parameter * standing + self.factor * rest)

    def fits(self, columns: Mapping[str, ArrayLike], room: float) -> Array:
        """How many runs like each may train together in so many bytes, the error allowed for; not rounded."""
        return room / ((1.0 + self.error) * self.of(columns))


def fit_memory(timings: Sequence[Timing]) -> MemoryModel:
    """Learned from measured peaks of runs that train alone; as counted where there are too few.

    Args:
        timings: of one kind of proxy on one device.
    """
    rows = [(one.cost, one.memory) for one in timings if one.memory is not None and one.memory > 0]
    if len(rows) < LEAST:
        return MemoryModel()
    design = np.array([_parts(vars(cost)) for cost, _ in rows]) / np.array([[peak] for _, peak in rows])
    (per_parameter, factor), _ = nnls(design, np.ones(len(rows)))
    error = float(np.sqrt(np.mean((design @ [per_parameter, factor] - 1.0) ** 2)))
    return MemoryModel(float(per_parameter), float(factor), error, len(rows))


def fit_stacked_memory(
    alone: MemoryModel, by_themselves: Sequence[Timing], together: Sequence[Timing]
) -> MemoryModel:
    """Of a member of a stack: what runs take alone, times what the same shapes were measured to take more.

    A few shapes tell this factor; for parameters and the rest apart they are too few.

    Args:
        by_themselves, together: of one kind of proxy on one device.
    """
    one = {_shape(run.cost): run.memory for run in by_themselves if run.memory}
    more = {
        _shape(run.cost): math.log(run.memory / run.members / one.get(_shape(run.cost), alone(run.cost)))
        for run in together
        if run.memory
    }
    if not more:
        return MemoryModel(per_parameter=3.0 * BYTES + STACKED)
    factor, spread = float(np.exp(np.mean([*more.values()]))), float(np.std([*more.values()]))
    return MemoryModel(
        factor * alone.per_parameter, factor * alone.factor, math.hypot(alone.error, spread), len(more)
    )


def _shape(cost: Cost) -> tuple[float, ...]:
    """What runs of one shape agree in, however long they are."""
    counted = cost.memory or cost.flops / cost.steps  # one's own code counts no memory
    return cost.params_total, cost.activations, counted


def _parts(columns: Mapping[str, ArrayLike]) -> tuple[Array, Array]:
    """Parameters, and bytes beyond weights and moments; FLOPs of a step where nobody counted these."""
    names = ("params_total", "memory", "flops", "steps")
    params, memory, flops, steps = (np.asarray(columns[name], dtype=float) for name in names)
    # One's own code counts no memory.
    return params, np.where(memory == 0.0, flops / steps, memory - 3.0 * BYTES * params)
