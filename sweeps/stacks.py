"""How many runs of a shape should train together on a device where some have been timed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.cost import Cost, SecondsModel, Timing, fit_seconds
from sweeps.kinds import BUILT_IN
from sweeps.peak import LEAST, MemoryModel, Room, fit_memory

CPU = "CPU"  # what names of CPUs begin with
REACH = 4.0  # times the largest step that was measured; of larger ones nothing is known


@dataclass(frozen=True)
class Packing:
    """How runs are to share a device.

    Args:
        members: runs that train as one stack, in one process.
        sharers: processes that have the device together.
    """

    members: int = 1
    sharers: int = 1


ALONE = Packing()


@dataclass(frozen=True)
class Stacks:
    """What is known of one kind of proxy on one device.

    Args:
        alone, together: seconds of a run by itself, and of a member of a stack.
        peak, peaks: memory of a run by itself, and of stacks.
        sizes: of the stacks that were timed, ascending.
        largest, largest_stacked: FLOPs of a step of the largest run that was measured, and of the largest
            member of a stack.
        slowdown: of runs in processes that share the device, against what was predicted of them.
    """

    alone: SecondsModel
    together: SecondsModel
    peak: MemoryModel
    peaks: MemoryModel
    sizes: tuple[int, ...]
    largest: float
    largest_stacked: float
    slowdown: float = 1.0

    @property
    def doubt(self) -> float:
        """Relative error of a gain."""
        return math.hypot(self.alone.error, self.together.error)

    def gain(self, cost: Cost, packing: Packing) -> float:
        """Predicted steps a second of a device against one run at a time."""
        return self.alone(cost) / max(self._seconds(cost, packing), 1e-300)

    def pack(self, cost: Cost, room: Room, sharers: Iterable[int] = (1,)) -> Packing:
        """The packing with most steps a second; one run at a time unless the gain is above its own error.

        Of packings that differ by less than their error the one with fewest runs is taken: it leaves most for
        other workers. Processes share a device only where the memory of a run and of a process was measured.

        Args:
            cost: of a run.
            room: of the device.
            sharers: numbers of processes to choose among.
        """
        measured = room.base is not None and self.peak.peaks > 0
        counts = [count for count in sharers if count == 1 or measured]
        every = [Packing(members, count) for count in counts for members in (1, *self.sizes)]
        found = sorted(
            (one for one in every if one == ALONE or self._fits(cost, one, room.of(one.sharers))),
            key=lambda one: (one.members * one.sharers, one.sharers),
        )
        gains = [self.gain(cost, one) for one in found]
        if not gains or max(gains) <= 1.0 + self.doubt:
            return ALONE
        enough = max(gains) / (1.0 + self.together.error)
        return next(one for one, gain in zip(found, gains, strict=True) if gain >= enough)

    def _fits(self, cost: Cost, packing: Packing, room: float) -> bool:
        """Whether enough is known of such runs, and each process has room for its own."""
        stacked = packing.members > 1
        if cost.flops / cost.steps > REACH * (self.largest_stacked if stacked else self.largest):
            return False
        return packing.members <= (self.peaks if stacked else self.peak).fits(cost, room)

    def _seconds(self, cost: Cost, packing: Packing) -> float:
        """Of a run, its share of the device's.

        What a step costs whatever its size passes in all processes at once, as in a stack; what grows with
        the size the device does for one after the other.
        """
        model = self.alone if packing.members == 1 else self.together
        seconds = model(cost, packing.members * packing.sharers)
        return seconds * (self.slowdown if packing.sharers > 1 else 1.0)


def learn_stacks(
    calibration: Sequence[Timing], kind: str, device: str, runs: Sequence[Timing] = ()
) -> Stacks | None:
    """Seconds from a calibration alone, which times both in turn: runs also evaluate and save.

    Memory is learned from both, and from runs how much slower sharing is than predicted. Code of one's own is
    not calibrated: its seconds are those of its runs, and of its stacks nothing is known.

    Args:
        calibration: of any kinds and devices.
        runs: that finished, likewise.

    Returns:
        None where there is nothing of this kind and device.
    """
    of, ran = _here(calibration, kind, device), _here(runs, kind, device)
    alone, together = [one for one in of if one.members == 1], [one for one in of if one.members > 1]
    one = fit_seconds(alone or [one for one in ran if one.members == one.sharers == 1])
    if one is None:
        return None
    many = fit_seconds(together) or one
    by_itself = alone + [one for one in ran if one.members == 1]
    stacked = together + [one for one in ran if one.members > 1]
    found = Stacks(
        alone=one,
        together=many,
        peak=fit_memory(by_itself, stacked=False),
        peaks=fit_memory(stacked, stacked=True),
        sizes=tuple(sorted({one.members for one in together})),
        largest=_largest(one for one in by_itself if one.memory is not None),
        largest_stacked=_largest(together),
    )
    return Stacks(**vars(found) | {"slowdown": _slowdown(found, ran)})


def seconds_alone(timings: Sequence[Timing], kind: str, gpu: bool) -> SecondsModel | None:
    """Prices of runs that train by themselves; None where no device of the sort was timed.

    Several devices are told apart: prices are those of the one that has last trained this kind, or any.

    Args:
        timings: the latest first.
        kind: of proxy. Code of one's own learns from its own runs alone: what its costs are expressions for
            only its author knows.
        gpu: whether a GPU is asked for.
    """
    alone = [one for one in timings if one.members == one.sharers == 1]
    known = [one for one in alone if one.device is None or on_gpu(one.device) == gpu]
    device = next((one.device for one in _first(known, kind) if one.device is not None), None)
    here = [one for one in known if device is None or one.device in (device, None)]
    others = [one for one in here if one.kind != kind and {one.kind, kind} <= BUILT_IN.keys()]
    return fit_seconds([one for one in here if one.kind == kind], others)


def on_gpu(device: str) -> bool:
    """Whether a name is that of a GPU."""
    return not device.startswith(CPU)


def _here(timings: Iterable[Timing], kind: str, device: str) -> list[Timing]:
    return [one for one in timings if one.device == device and one.kind == kind]


def _first(timings: Sequence[Timing], kind: str) -> Iterable[Timing]:
    """Those of a kind before the others."""
    return sorted(timings, key=lambda one: one.kind != kind)


def _largest(timings: Iterable[Timing]) -> float:
    """FLOPs of the largest step of a run."""
    return max((one.cost.flops / one.cost.steps for one in timings), default=0.0)


def _slowdown(stacks: Stacks, runs: Sequence[Timing]) -> float:
    """What shared devices take of finished runs beyond what was predicted, against devices that are not.

    Both are compared with a calibration, so that what runs do beside their steps falls out.
    """
    taken: dict[bool, list[float]] = {True: [], False: []}
    for one in runs:
        predicted = stacks._seconds(one.cost, Packing(one.members, one.sharers))
        if one.seconds > 0 and predicted > 0:
            taken[one.sharers > 1].append(math.log(one.seconds / predicted))
    if min(map(len, taken.values())) < LEAST:
        return 1.0
    return float(np.exp(np.mean(taken[True]) - np.mean(taken[False])))
