"""Has small trainings timed, once a device and kind of proxy."""

from __future__ import annotations

import logging
from typing import TypeAlias

from store import service
from store.db import Sessions
from sweeps.kinds.own import Own
from sweeps.proxy import Proxy
from sweeps.resources import Resources
from sweeps.spec import SweepSpec
from workers.executor import Pool

log = logging.getLogger(__name__)

Wanted: TypeAlias = tuple[Resources, str]  # what workers are given, and the kind of proxy


class Calibrator:
    """The default kind is timed at once, so that the first plan knows seconds; the others as sweeps use them.

    Args:
        pool: whose workers are timed, one at a time and none that trains.
    """

    def __init__(self, sessions: Sessions, pool: Pool) -> None:
        self._sessions = sessions
        self._pool = pool
        self._seen: set[Wanted] = set()
        self._wanted: list[Wanted] = []
        self._add((Resources(), Proxy().kind))

    def want(self, spec: SweepSpec) -> bool:
        """Asks for what a sweep uses; whether it is the first to use it."""
        if isinstance(spec.kind, Own):  # what the user's code takes only its runs can tell
            return False
        return self._add((spec.resources.shared(1), spec.proxy.kind))

    def _add(self, wanted: Wanted) -> bool:
        if wanted in self._seen:
            return False
        self._seen.add(wanted)
        self._wanted.append(wanted)
        return True

    def tick(self) -> None:
        """Starts what is due where a worker is free, and stores what was found."""
        for wanted in self._wanted:
            resources, kind = wanted
            device = self._pool.device(resources)
            if device is None:
                continue
            if not service.calibrated(self._sessions, device.name, kind):
                found = self._pool.calibrate(resources, kind)
                if found is None:
                    return
                if found.timings:
                    service.record_timings(self._sessions, found.device, found.timings)
                    log.info("timed %d small trainings of %s on %s", len(found.timings), kind, found.device)
            self._wanted.remove(wanted)
            return
