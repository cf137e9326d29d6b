"""How many runs are to train together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

from store import service
from store.db import Sessions
from sweeps.spec import Config, Resources, SweepSpec
from sweeps.stacks import Stacks, learn_stacks
from workers.executor import Device

Stacking: TypeAlias = Callable[[SweepSpec, Config], int]  # most runs of such a shape in one cohort

REFRESH_SECONDS = 10.0  # calibrations are read again this often until there is one, and then ten times less


def alone(spec: SweepSpec, config: Config) -> int:  # noqa: ARG001
    """Nothing is known of the device: every run trains alone."""
    return 1


class Measured:
    """As many as have most steps a second by what was timed on the device; one before anything was.

    Args:
        device: of workers with given resources, None while none has started.
    """

    def __init__(self, sessions: Sessions, device: Callable[[Resources], Device | None]) -> None:
        self._sessions = sessions
        self._device = device
        self._known: dict[tuple[str, str], tuple[float, Stacks | None]] = {}

    def __call__(self, spec: SweepSpec, config: Config) -> int:
        """Most runs of the shape of a configuration that are to train together."""
        device = self._device(spec.resources)
        stacks = None if device is None else self._stacks(spec.proxy.kind, device.name)
        if device is None or stacks is None:
            return 1
        return stacks.members(spec.cost(spec.complete(config)), device.memory)

    def _stacks(self, kind: str, device: str) -> Stacks | None:
        until, known = self._known.get((kind, device), (0.0, None))
        if time.monotonic() >= until:
            known = learn_stacks(service.calibration(self._sessions), kind, device)
            wait = REFRESH_SECONDS if known is None else 10 * REFRESH_SECONDS
            self._known[kind, device] = time.monotonic() + wait, known
        return known
