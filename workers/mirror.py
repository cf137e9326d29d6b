"""The mirror's thread: shows MLflow what is new, at its own pace, and waits when MLflow is away."""

from __future__ import annotations

import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.exc import InterfaceError, OperationalError

from store import mirror, service
from store.db import Sessions, now
from store.mirror import MirrorRun, MirrorSweep
from sweeps import plot
from sweeps.runs import Role, RunState, SweepState
from sweeps.spec import SweepSpec
from workers import tracking

log = logging.getLogger(__name__)

WORK = "mirror"
PACE_SECONDS = 1.5
LEASE = timedelta(seconds=15.0)
PROBE_SECONDS = 3.0
PICTURE_SECONDS = 20.0
TROUBLE_SECONDS = 60.0
ENDED = (SweepState.FINISHED, SweepState.CANCELLED)


@dataclass
class Lead:
    """Since when nobody else has written to MLflow.

    Args:
        since: when the lead began, which has had no gap as long as a lease; None before it did.
        renewed: last.
    """

    since: datetime | None = None
    renewed: datetime | None = None

    def renew(self, moment: datetime) -> None:
        """Takes note that the lease is ours at this moment."""
        if self.renewed is None or moment - self.renewed > LEASE:
            self.since = moment
        self.renewed = moment

    def covers(self, began: datetime) -> bool:
        """Whether a run began so late that nobody else can have created it in MLflow."""
        return self.since is not None and began > self.since + LEASE


class Mirror:
    """Mirrors a database to an MLflow server; of several orchestrators one does it at a time.

    Args:
        uri: of the MLflow server.
        experiment: that holds every sweep.
        owner: of the lease on this work.
    """

    def __init__(self, sessions: Sessions, uri: str, experiment: str, owner: str) -> None:
        self._sessions = sessions
        self._uri = uri
        self._name = experiment
        self._owner = owner
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self._target: tracking.Target | None = None
        self._away_since: float | None = None
        self._database_away = False
        self._shown_fits: dict[int, int] = {}  # by sweep: the last fit whose metrics are written
        self._drawn_at: dict[int, float] = {}
        self._to_draw: dict[int, str] = {}  # by sweep: MLflow's id of its run
        self._trouble: dict[Hashable, float] = {}  # what MLflow refused, and when to try again
        self._lead = Lead()
        self._tried: set[int] = set()  # runs that MLflow may have although the database does not know

    def start(self) -> None:
        """Begins to mirror."""
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Mirrors what is left, at most ``timeout`` seconds, and ends."""
        self._deadline = time.monotonic() + timeout
        self._stopping.set()
        self._thread.join(timeout + PROBE_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if not self._guarded():
                self._stopping.wait(PACE_SECONDS)
        while time.monotonic() < self._deadline and self._guarded():
            pass
        with suppress(OperationalError, InterfaceError):
            mirror.lead(self._sessions, WORK, self._owner, 0.0)  # another may go on at once

    def _guarded(self) -> bool:
        """One round; whatever goes wrong in it, the next one starts over from the database."""
        try:
            more = self._round()
        except Exception as error:
            if not self._database_away:
                log.warning("the mirror cannot work, it tries again: %s: %s", type(error).__name__, error)
            self._database_away = True
            return False
        self._database_away = False
        return more

    def _round(self) -> bool:
        """Writes what is not written; whether there was anything."""
        if not self._reachable() or not mirror.lead(self._sessions, WORK, self._owner, LEASE.total_seconds()):
            return False
        self._lead.renew(now())
        if self._target is None:
            self._target = tracking.connect(self._uri, self._name)
        target = self._target
        done = 0
        for sweep in mirror.unmirrored_sweeps(self._sessions):
            done += self._try(("sweep", sweep.sweep.id), partial(self._show_sweep, target, sweep))
        specs: dict[int, SweepSpec] = {}
        for run in mirror.unmirrored_runs(self._sessions):
            if self._late():
                return False
            sweep_id = run.run.sweep_id
            if sweep_id not in specs:
                specs[sweep_id] = service.get_sweep(self._sessions, sweep_id).spec
            done += self._try(("run", run.run.id), partial(self._show_run, target, run, specs[sweep_id]))
        for sweep_id, shown in list(self._to_draw.items()):
            if time.monotonic() - self._drawn_at.get(sweep_id, 0.0) >= PICTURE_SECONDS and not self._late():
                self._try(("picture", sweep_id), partial(self._draw, target, sweep_id, shown))
        return done > 0

    def _late(self) -> bool:
        return time.monotonic() > self._deadline

    def _reachable(self) -> bool:
        """Asks the server for its health, and says once when it goes and once when it is back."""
        if not self._uri.startswith("http"):
            return True
        try:
            with urllib.request.urlopen(f"{self._uri.rstrip('/')}/health", timeout=PROBE_SECONDS) as answer:
                healthy = bool(answer.status == 200)
        except (OSError, ValueError):
            healthy = False
        if healthy and self._away_since is not None:
            log.info("MLflow at %s is back after %.0f s", self._uri, time.monotonic() - self._away_since)
            self._away_since = None
        elif not healthy and self._away_since is None:
            log.warning("MLflow at %s cannot be reached; it will be caught up with later", self._uri)
            self._away_since = time.monotonic()
            self._target = None
            self._trouble.clear()
        return healthy

    def _try(self, what: Hashable, show: Callable[[], None]) -> bool:
        """Whether it was written. What MLflow refuses waits for a while and holds up nothing else."""
        if time.monotonic() < self._trouble.get(what, 0.0):
            return False
        try:
            show()
        except Exception as error:
            if self._reachable():
                if what not in self._trouble:
                    log.warning("MLflow refuses %s: %s", what, error)
                self._trouble[what] = time.monotonic() + TROUBLE_SECONDS
            return False
        self._trouble.pop(what, None)
        return True

    def _show_sweep(self, target: tracking.Target, item: MirrorSweep) -> None:
        sweep_id = item.sweep.id
        fits = service.list_fits(self._sessions, sweep_id, self._shown_fits.get(sweep_id))
        try:
            shown = tracking.show_sweep(target, item, fits)
        except Exception as error:
            if item.mirror_id is None or not tracking.is_gone(error):
                raise
            log.warning("sweep %d was deleted in MLflow and is left so", sweep_id)
            shown = item.mirror_id
        if item.fit is not None or item.sweep.state in ENDED:
            self._to_draw[sweep_id] = shown
        if item.sweep.state in ENDED:
            self._draw(target, sweep_id, shown)
        fit_id = None if item.fit is None else item.fit.id
        mirror.mirrored_sweep(self._sessions, sweep_id, shown, item.sweep.state, fit_id)
        if fits:
            self._shown_fits[sweep_id] = fits[-1].id

    def _show_run(self, target: tracking.Target, item: MirrorRun, spec: SweepSpec) -> None:
        run_id, began = item.run.id, item.run.started_at
        new = began is not None and self._lead.covers(began) and run_id not in self._tried
        self._tried.add(run_id)
        try:
            shown = tracking.show_run(target, item, spec, new)
        except Exception as error:
            if item.mirror_id is None or not tracking.is_gone(error):
                raise
            log.warning("run %d was deleted in MLflow and is left so", item.run.id)
            shown = item.mirror_id
        if item.run.role is Role.TARGET and item.run.state is RunState.FINISHED:
            self._draw(target, item.run.sweep_id, item.parent_id)
        mirror.mirrored_run(self._sessions, item, shown)
        self._tried.discard(run_id)

    def _draw(self, target: tracking.Target, sweep_id: int, shown: str) -> None:
        """Writes the picture of the latest fit with the targets that have been trained."""
        fit = service.latest_fit(self._sessions, sweep_id)
        if fit is not None:
            spec = service.get_sweep(self._sessions, sweep_id).spec
            verified = service.list_runs(self._sessions, sweep_id, RunState.FINISHED, Role.TARGET)
            first = spec.targets[0].name
            picture = plot.picture(
                spec,
                fit.ensemble,
                service.observations(self._sessions, sweep_id),
                {run.target: run.loss for run in verified if run.target and run.loss is not None},
                [
                    (one.n_observations, one.predictions[first].relative)
                    for one in service.list_fits(self._sessions, sweep_id)
                ],
            )
            tracking.show_picture(target, shown, plot.png(picture), plot.html(picture))
        self._drawn_at[sweep_id] = time.monotonic()
        self._to_draw.pop(sweep_id, None)
