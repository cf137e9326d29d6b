"""How many runs are to train together, in one process and on one device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from store import service
from store.db import Sessions
from sweeps.peak import Room
from sweeps.resources import Resources
from sweeps.spec import Config, SweepSpec
from sweeps.stacks import ALONE, Packing, Stacks, learn_stacks
from workers.executor import Device

Stacking: TypeAlias = Callable[[SweepSpec, Resources, Config], Packing]  # of runs of such a shape

REFRESH_SECONDS = 10.0  # between reads of what was measured until there are stacks, then ten times as long


def alone(spec: SweepSpec, asked: Resources, config: Config) -> Packing:  # noqa: ARG001
    """Nothing is known of the device: every run trains alone."""
    return ALONE


class Measured:
    """The packing with most steps a second by what was measured on the device; one run before anything was.

    Args:
        device: of workers with given resources, None while none has started.
        capacity: how many workers with given resources fit at once.
    """

    def __init__(
        self,
        sessions: Sessions,
        device: Callable[[Resources], Device | None],
        capacity: Callable[[Resources], int],
    ) -> None:
        self._sessions = sessions
        self._device = device
        self._capacity = capacity
        self._known: dict[tuple[str, str], tuple[float, Stacks | None]] = {}

    def __call__(self, spec: SweepSpec, asked: Resources, config: Config) -> Packing:
        """How runs of the shape of a configuration are to share what each asks for."""
        device = self._device(asked.shared(1))
        stacks = None if device is None else self._stacks(spec.proxy.trainer, device.name)
        if device is None or stacks is None:
            return ALONE
        cost = spec.cost(spec.complete(config))
        return stacks.pack(cost, Room(device.memory, device.base), self._sharers(asked))

    def _sharers(self, asked: Resources) -> Iterator[int]:
        """Powers of two, so that shares of different sizes leave no gaps, while more workers find CPUs."""
        yield 1
        count = 2
        while asked.sharing == "measured" and self._fit(asked, count) > self._fit(asked, count // 2):
            yield count
            count *= 2

    def _fit(self, asked: Resources, sharers: int) -> int:
        return self._capacity(asked.shared(sharers))

    def _stacks(self, kind: str, device: str) -> Stacks | None:
        until, known = self._known.get((kind, device), (0.0, None))
        if time.monotonic() >= until:
            runs = service.finished(self._sessions)
            known = learn_stacks(service.calibration(self._sessions), kind, device, runs)
            # Finished runs alone tell nothing of stacks: a calibration may be under way.
            wait = REFRESH_SECONDS if known is None or not known.sizes else 10 * REFRESH_SECONDS
            self._known[kind, device] = time.monotonic() + wait, known
        return known
