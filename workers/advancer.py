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
SOON_SECONDS = 0.1
REST = 9.0  # times as long as the last look took
AGAIN_SECONDS = 5.0
LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Look:
    """The last look at a sweep.

    Args:
        seen: what it rested on; None when it failed.
        until: the same need not be looked at again before this moment.
        failures: in a row.
        begun: when.
        took: seconds.
    """

    seen: Standing | None
    until: float
    failures: int = 0
    begun: float = 0.0
    took: float = 0.0

    def due(self, now: Standing, line: int, moment: float) -> bool:
        """Whether another look is worth its time.

        Where enough runs wait in line a look is not urgent. Looks take a tenth of the time then, or those at
        a sweep of short runs would take a core; unless the line may be gone by the end of the next one.

        Args:
            now: how the sweep stands.
            line: runs of it that should be queued.
            moment: of the monotonic clock.
        """
        if self.seen is None or self.seen == now:
            return moment >= self.until
        if now.queued < line or now.revision != self.seen.revision:
            return True
        if moment >= self.begun + (1.0 + REST) * self.took:
            return True
        pace = (moment - self.begun) / max(1, now.ended - self.seen.ended)
        return now.queued * pace < 2.0 * self.took


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
        self._scanned_at = -math.inf

    def soon(self) -> None:
        """A run ended: look before long."""
        self._scan_at = min(self._scan_at, self._scanned_at + SOON_SECONDS)

    def wait(self, most: float) -> float:
        """Seconds until the next scan is due, at most so many."""
        return min(most, max(0.0, self._scan_at - time.monotonic()))

    def scan(self) -> None:
        """Starts a look at every running sweep that has changed since the last one. Never waits."""
        self._collect()
        if time.monotonic() < self._scan_at:
            return
        self._scanned_at = time.monotonic()
        self._scan_at = self._scanned_at + SCAN_SECONDS
        for sweep_id, spec, seen in service.running(self._sessions):
            last, fit = self._looks.get(sweep_id), self._capacity(spec.resources_of(None))
            slots, moment = ahead(fit), time.monotonic()
            if sweep_id not in self._looking and (last is None or last.due(seen, slots - fit, moment)):
                work = 0.0 if last is None else fit * last.took
                look = self._thread.submit(service.advance, self._sessions, sweep_id, slots, work)
                self._looking[sweep_id] = seen, moment, look

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
                self._looks[sweep_id] = Look(seen, now + wait, begun=begun, took=now - begun)
                self.soon()
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
