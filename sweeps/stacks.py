"""How many runs of a shape should train together on a device where some have been timed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweeps.cost import Cost, SecondsModel, Timing, fit_seconds
from sweeps.peak import MemoryModel, fit_memory

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

    def gain(self, cost: Cost, members: int) -> float:
        """Predicted steps a second of a process against one run at a time."""
        return self.alone(cost) / max(self.together(cost, members), 1e-300)

    def members(self, cost: Cost, room: float) -> int:
        """The size of stack with most steps a second; 1 unless the gain is above its own error.

        Of sizes that differ by less than their error the smallest is taken: it leaves most for other workers.

        Args:
            cost: of a run.
            room: bytes that there are.
        """
        fit = self.peaks.fits(cost, room)
        sizes = [size for size in self.sizes if size <= fit]
        if not sizes or cost.flops / cost.steps > REACH * self.largest:
            return 1
        gains = [self.gain(cost, size) for size in sizes]
        if max(gains) <= 1.0 + self.doubt:
            return 1
        enough = max(gains) / (1.0 + self.together.error)
        return next(size for size, gain in zip(sizes, gains, strict=True) if gain >= enough)


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


def seconds_alone(timings: Sequence[Timing], kind: str, gpu: bool) -> SecondsModel | None:
    """Prices of runs that train by themselves; None where no device of the sort was timed.

    Several devices are told apart: prices are those of the one that has last trained this kind, or any.

    Args:
        timings: the latest first.
        kind: of proxy.
        gpu: whether a GPU is asked for.
    """
    known = [one for one in timings if one.members == 1 and (one.device is None or on_gpu(one.device) == gpu)]
    device = next((one.device for one in _first(known, kind) if one.device is not None), None)
    here = [one for one in known if device is None or one.device in (device, None)]
    return fit_seconds([one for one in here if one.kind == kind], [one for one in here if one.kind != kind])


def on_gpu(device: str) -> bool:
    """Whether a name is that of a GPU."""
    return not device.startswith(CPU)


def _first(timings: Sequence[Timing], kind: str) -> Iterable[Timing]:
    """Those of a kind before the others."""
    return sorted(timings, key=lambda one: one.kind != kind)
