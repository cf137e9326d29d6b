"""Keeps sweeps going: has the scheduler look again at every running sweep in which something changed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from store import service
from store.db import Sessions
from store.service import Standing
from sweeps.resources import Resources

log = logging.getLogger(__name__)

SCAN_SECONDS = 1.0
AGAIN_SECONDS = 5.0
LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Look:
    """The last look at a sweep.

    Args:
        seen: what it rested on; None when it failed.
        until: the same need not be looked at again before this moment.
        failures: in a row.
        took: seconds.
    """

    seen: Standing | None
    until: float
    failures: int = 0
    took: float = 0.0


class Advancer:
    """Looks at sweeps in one thread: a second of numerics holds up no run, and no two looks meet.

    Args:
        capacity: how many runs with given resources fit at once.
    """

    def __init__(self, sessions: Sessions, capacity: Callable[[Resources], int]) -> None:
        self._sessions = sessions
        self._capacity = capacity
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="advance")
        self._looking: dict[int, tuple[Standing, float, Future[bool]]] = {}
        self._looks: dict[int, Look] = {}
        self._scan_at = 0.0

    def soon(self) -> None:
        """A run ended: look at the next opportunity."""
        self._scan_at = 0.0

    def scan(self) -> None:
        """Starts a look at every running sweep that has changed since the last one. Never waits."""
        self._collect()
        if time.monotonic() < self._scan_at:
            return
        self._scan_at = time.monotonic() + SCAN_SECONDS
        for sweep_id, spec, seen in service.running(self._sessions):
            last = self._looks.get(sweep_id)
            known = last is not None and last.seen in (seen, None) and time.monotonic() < last.until
            if sweep_id not in self._looking and not known:
                fit = self._capacity(spec.resources_of(None))
                work = 0.0 if last is None else fit * last.took
                look = self._thread.submit(service.advance, self._sessions, sweep_id, ahead(fit), work)
                self._looking[sweep_id] = seen, time.monotonic(), look

    def close(self) -> None:
        """Starts nothing further; a look under way ends by itself and stores what it found."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _collect(self) -> None:
        for sweep_id, (seen, begun, look) in list(self._looking.items()):
            if not look.done():
                continue
            del self._looking[sweep_id]
            now, error = time.monotonic(), look.exception()
            if error is None:
                # Nothing written: somebody else has done it, or is about to and may die before.
                wait = math.inf if look.result() else AGAIN_SECONDS
                self._looks[sweep_id] = Look(seen, now + wait, took=now - begun)
                self._scan_at = 0.0
            else:
                last = self._looks.get(sweep_id)
                failures = 1 if last is None else last.failures + 1
                wait = min(LONGEST_WAIT, 2.0**failures)
                self._looks[sweep_id] = Look(None, now + wait, failures)
                log.error(
                    "sweep %d: choosing runs failed, next try in %.0f s", sweep_id, wait, exc_info=error
                )


def ahead(fit: int) -> int:
    """Runs that may be queued or running: a few more than fit, so that no slot is empty during a look."""
    return max(1, fit + math.ceil(fit / 4))
