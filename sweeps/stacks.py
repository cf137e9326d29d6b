"""How many runs of a shape should train together on a device where some have been timed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeps.cost import Array, Cost, SecondsModel, Timing, fit_seconds
from sweeps.peak import MemoryModel, fit_memory

COLUMNS = tuple(field.name for field in fields(Cost))
CPU = "CPU"  # what names of CPUs begin with
REACH = 4.0  # times the largest step that was timed as a stack; of larger ones nothing is known


@dataclass(frozen=True)
class Stacks:
    """What is known of one kind of proxy on one device.

    Args:
        alone, together: seconds of a run by itself, and of a member of a stack.
        peak, peaks: memory of a run by itself, and of stacks.
        sizes: of the stacks that were timed, ascending.
        largest: FLOPs of a step of the largest member.
    """

    alone: SecondsModel
    together: SecondsModel
    peak: MemoryModel
    peaks: MemoryModel
    sizes: tuple[int, ...]
    largest: float

    @property
    def doubt(self) -> float:
        """Relative error of a gain."""
        return math.hypot(self.alone.error, self.together.error)

    def gain(self, columns: Mapping[str, ArrayLike], members: ArrayLike) -> Array:
        """Predicted steps a second of a process against one run at a time.

        Args:
            columns: of ``Cost``, each (n,) or a number.
            members: that train together; a number, or of a shape that broadcasts with the columns'.
        """
        return self.alone.of(columns) / np.maximum(self.together.of(columns, members), 1e-300)

    def members(self, cost: Cost, room: float) -> int:
        """The size of stack that suits runs of a cost, see ``most``."""
        return int(self.most(vars(cost), room)[0])

    def most(self, columns: Mapping[str, ArrayLike], room: float = math.inf) -> NDArray[np.intp]:
        """The size of stack with most steps a second; 1 unless the gain is above its own error.

        Of sizes that differ by less than their error the smallest is taken: it leaves most for other workers.

        Args:
            columns: of ``Cost``, each (n,) or a number.
            room: bytes that there are.

        Returns:
            For each run, (n,), or (1,) for numbers.
        """
        rows = {name: np.atleast_1d(np.asarray(columns[name], dtype=float))[:, None] for name in COLUMNS}
        sizes = np.array(self.sizes)
        known = rows["flops"] / rows["steps"] <= REACH * self.largest
        gain = np.where(known & (sizes <= self.peaks.fits(rows, room)), self.gain(rows, sizes), 0.0)
        most = gain.max(axis=1, keepdims=True)
        enough = sizes[np.argmax(gain >= most / (1.0 + self.together.error), axis=1)]
        return np.where(most[:, 0] > 1.0 + self.doubt, enough, 1)

    def joining(self, columns: Mapping[str, ArrayLike]) -> Array:
        """Share of a run's seconds alone that it adds to others of its shape that train, (n,) or a number."""
        return np.minimum(1.0, 1.0 / self.gain(columns, math.inf))


def learn_stacks(calibration: Sequence[Timing], kind: str, device: str) -> Stacks | None:
    """From a calibration alone, which times both in turn: runs also evaluate and save. None without one.

    Args:
        calibration: of any kinds and devices.
    """
    of = [one for one in calibration if one.device == device and one.kind == kind]
    alone, together = [one for one in of if one.members == 1], [one for one in of if one.members > 1]
    one, many = fit_seconds(alone), fit_seconds(together)
    if one is None or many is None:
        return None
    return Stacks(
        alone=one,
        together=many,
        peak=fit_memory(alone, stacked=False),
        peaks=fit_memory(together, stacked=True),
        sizes=tuple(sorted({one.members for one in together})),
        largest=max(one.cost.flops / one.cost.steps for one in together),
    )


@dataclass(frozen=True)
class Durations:
    """Device seconds of runs of one kind, by themselves and with others.

    Args:
        alone: of a run by itself.
        stacks: what is known of runs that train together; None where they do not.
    """

    alone: SecondsModel
    stacks: Stacks | None = None


def learn_durations(
    timings: Sequence[Timing], calibration: Sequence[Timing], kind: str, gpu: bool
) -> Durations | None:
    """What runs will take; None where no device of the sort was timed.

    Several devices are told apart: prices are those of the one that has last trained this kind, or any.

    Args:
        timings: of runs and calibrations, the latest first.
        calibration: as of ``learn_stacks``.
        kind: of proxy.
        gpu: whether a GPU is asked for.
    """
    known = [one for one in timings if one.members == 1 and (one.device is None or on_gpu(one.device) == gpu)]
    device = next((one.device for one in _first(known, kind) if one.device is not None), None)
    here = [one for one in known if device is None or one.device in (device, None)]
    alone = fit_seconds([one for one in here if one.kind == kind], [one for one in here if one.kind != kind])
    if alone is None:
        return None
    return Durations(alone, None if device is None else learn_stacks(calibration, kind, device))


def on_gpu(device: str) -> bool:
    """Whether a name is that of a GPU."""
    return not device.startswith(CPU)


def _first(timings: Sequence[Timing], kind: str) -> Iterable[Timing]:
    """Those of a kind before the others."""
    return sorted(timings, key=lambda one: one.kind != kind)
