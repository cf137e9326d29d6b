"""How many runs of a shape should train together on a device where some have been timed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeps.cost import Array, Cost, SecondsModel, Timing, fit_seconds
from sweeps.kinds import BUILT_IN
from sweeps.peak import LEAST, MemoryModel, Room, fit_memory, fit_stacked_memory

COLUMNS = tuple(field.name for field in fields(Cost))
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

    def gain(self, columns: Mapping[str, ArrayLike], packing: Packing) -> Array:
        """Predicted steps a second of a device against one run at a time, (n,) or a number.

        Args:
            columns: of ``Cost``, each (n,) or a number.
        """
        return self.alone.of(columns) / np.maximum(self.seconds(columns, packing), 1e-300)

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
        options = [Packing(members, count) for count in counts for members in (1, *self.sizes)]
        options.sort(key=lambda one: (one.members * one.sharers, one.sharers))
        return options[int(self._best(vars(cost), options, room)[0])]

    def most(self, columns: Mapping[str, ArrayLike]) -> NDArray[np.intp]:
        """How many runs like each should train as one stack where memory is no matter, (n,).

        Args:
            columns: of ``Cost``, each (n,) or a number.
        """
        sizes = (1, *self.sizes)
        best = self._best(columns, [Packing(members) for members in sizes], Room(math.inf))
        return np.array(sizes)[best]

    def joining(self, columns: Mapping[str, ArrayLike]) -> Array:
        """Share of a run's seconds alone that it adds to others of its shape that train, (n,) or a number."""
        added = self.together.of(columns, math.inf)
        return np.minimum(1.0, added / np.maximum(self.alone.of(columns), 1e-300))

    def seconds(self, columns: Mapping[str, ArrayLike], packing: Packing) -> Array:
        """Of a run, its share of the device's, (n,) or a number.

        What a step costs whatever its size passes in all processes at once, as in a stack; what grows with
        the size the device does for one after the other.
        """
        model = self.alone if packing.members == 1 else self.together
        seconds = model.of(columns, packing.members * packing.sharers)
        return seconds * (self.slowdown if packing.sharers > 1 else 1.0)

    def _best(
        self, columns: Mapping[str, ArrayLike], options: Sequence[Packing], room: Room
    ) -> NDArray[np.intp]:
        """Which of the options suits each run, (n,); the first, one run at a time, where none does."""
        rows = {name: np.atleast_1d(np.asarray(columns[name], dtype=float)) for name in COLUMNS}
        gains = np.stack([self._fits(rows, one, room) * self.gain(rows, one) for one in options], axis=1)
        gains[:, 0] = 1.0
        most = gains.max(axis=1)
        enough = np.argmax(gains >= most[:, None] / (1.0 + self.together.error), axis=1)
        return np.where(most > 1.0 + self.doubt, enough, 0)

    def _fits(self, columns: Mapping[str, Array], packing: Packing, room: Room) -> NDArray[np.bool_]:
        """Whether enough is known of such runs, and each process has room for its own, (n,)."""
        stacked = packing.members > 1
        largest, peak = (self.largest_stacked, self.peaks) if stacked else (self.largest, self.peak)
        known = columns["flops"] <= REACH * largest * columns["steps"]
        return np.asarray(known & (packing.members <= peak.fits(columns, room.of(packing.sharers))))


def learn_stacks(
    calibration: Sequence[Timing], kind: str, device: str, runs: Sequence[Timing] = ()
) -> Stacks | None:
    """Seconds from a calibration alone, which times both in turn: runs also evaluate and save.

    Memory is learned from both, and from runs how much slower sharing is than predicted. A training function
    of one's own is not calibrated: its seconds are those of its runs, and of stacks nothing is known.

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
    peak = fit_memory(by_itself)
    found = Stacks(
        alone=one,
        together=many,
        peak=peak,
        peaks=fit_stacked_memory(peak, by_itself, stacked),
        sizes=tuple(sorted({one.members for one in together})),
        largest=_largest(one for one in by_itself if one.memory is not None),
        largest_stacked=_largest(together),
    )
    return Stacks(**vars(found) | {"slowdown": _slowdown(found, ran)})


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
        kind: of proxy. Code of one's own learns from its own runs alone: what its costs are expressions for
            only its author knows.
        gpu: whether a GPU is asked for.
    """
    alone = [one for one in timings if one.members == one.sharers == 1]
    known = [one for one in alone if one.device is None or on_gpu(one.device) == gpu]
    device = next((one.device for one in _first(known, kind) if one.device is not None), None)
    here = [one for one in known if device is None or one.device in (device, None)]
    others = [one for one in here if one.kind != kind and {one.kind, kind} <= BUILT_IN.keys()]
    model = fit_seconds([one for one in here if one.kind == kind], others)
    if model is None:
        return None
    return Durations(model, None if device is None else learn_stacks(calibration, kind, device))


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
        predicted = stacks.seconds(vars(one.cost), Packing(one.members, one.sharers))
        if one.seconds > 0 and predicted > 0:
            taken[one.sharers > 1].append(math.log(one.seconds / predicted))
    if min(map(len, taken.values())) < LEAST:
        return 1.0
    return float(np.exp(np.mean(taken[True]) - np.mean(taken[False])))
