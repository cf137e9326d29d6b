"""Claims queued runs, has them executed and stores what comes of them."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from store import attempts, leases, queue, service, trunks
from store.db import Sessions, now, reading
from store.leases import Orphan
from store.provenance import trace
from store.queue import Claim
from sweeps.resources import Resources
from sweeps.runs import RunState
from workers.advancer import Advancer
from workers.calibrator import Calibrator
from workers.executor import Delivery, Pool, Unplaceable
from workers.held import Held, discard, make_job
from workers.job import Job, Outcome
from workers.outcomes import place, record
from workers.owner import is_dead
from workers.placement import Placement, placed
from workers.stacking import Stacking, alone
from workers.trunks import clear, left, rooted

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 8.0
STOPPED = "the orchestrator was stopped"
CANCELLED = "cancelled"
LONGEST_PAUSE = 30.0
BRIEF_SECONDS = 2.0
ALL_LEASES = timedelta(days=365)  # no lease is longer


@dataclass(frozen=True)
class Pace:
    """How often things happen, in seconds.

    Args:
        lease: an orchestrator that is silent this long loses its runs to another one.
        poll: longest wait for news of the workers.
        checkpoint: between two checkpoints of a run.
    """

    lease: float = 15.0
    poll: float = 0.25
    checkpoint: float = 5.0


class Orchestrator:
    """One of any number that share a database; the lease says whose a run is.

    Args:
        sessions: of the database.
        pool: executes runs.
        owner: of leases, as ``workers.owner.identity`` gives it.
        checkpoints: folder of checkpoints, the same on every machine of the cluster.
        pace: of its work.
        stacking: how runs of a configuration's shape are to train together.
    """

    def __init__(
        self,
        sessions: Sessions,
        pool: Pool,
        owner: str,
        checkpoints: Path,
        pace: Pace | None = None,
        stacking: Stacking = alone,
    ) -> None:
        self._sessions = sessions
        self._pool = pool
        self._owner = owner
        self._checkpoints = checkpoints
        self._pace = pace or Pace()
        self._placement = Placement(stacking, pool.capacity)
        self._advancer = Advancer(sessions, self._placement.capacity)
        self._calibrator = Calibrator(sessions, pool)
        self._held: dict[int, Held] = {}
        self._waiting: list[Held] = []  # that are to train together as soon as there is room
        self._brief = False  # the last runs were over within a moment
        self._heed_at = 0.0
        self._renew_at = 0.0
        self._recover_at = 0.0
        self._claim_at = 0.0
        self._failures = 0

    def run(self, stopping: threading.Event) -> None:
        """Works until it is told to stop, then hands everything over."""
        lost_at: float | None = None
        while not stopping.is_set():
            try:
                self.tick()
                if lost_at is not None:
                    log.info("the database is back after %.0f s", time.monotonic() - lost_at)
                    lost_at = None
            except (OperationalError, InterfaceError) as error:
                if lost_at is None:
                    log.error("the database cannot be reached; workers train on: %s", error.orig)
                    lost_at = time.monotonic()
                stopping.wait(1.0)
        self.close()

    def tick(self) -> None:
        """One round: adopt, start, choose, collect, renew."""
        moment = time.monotonic()
        if moment >= self._recover_at:
            self._recover()
            clear(self._sessions, self._checkpoints)
            self._recover_at = moment + self._pace.lease / 3
        self._calibrator.tick()  # before all workers have runs
        self._start()
        self._store()
        self._advancer.scan()
        self._collect(self._advancer.wait(self._pace.poll))
        if time.monotonic() >= self._heed_at:
            self._heed_users()
            self._heed_at = time.monotonic() + self._pace.poll
        if time.monotonic() >= self._renew_at:
            self._renew()
            self._renew_at = time.monotonic() + self._pace.lease / 3

    def close(self) -> None:
        """Ends cleanly: runs go back to the queue with a checkpoint, or train on where workers outlive us."""
        self._advancer.close()
        try:
            self._store()
            self._let_go()
            clear(self._sessions, self._checkpoints)
            self._pool.close()
            for held in list(self._held.values()):
                if not self._pool.durable:
                    self._put_back(held, STOPPED)
        except (OperationalError, InterfaceError) as error:
            log.error("the database cannot be reached; leases will expire: %s", error.orig)
            self._pool.close()

    def _let_go(self) -> None:
        """Stops runs and waits for their checkpoints; leases of workers that train on end at once."""
        for held in list(self._held.values()):
            if held.started is None:
                self._put_back(held, STOPPED)
            elif self._pool.durable:
                with self._sessions.begin() as session:
                    leases.renew(session, held.job.run_id, held.job.attempt, self._owner, 0.0)
                log.info("%s trains on and waits for the next orchestrator", held.name)
            else:
                held.why_stopped = held.why_stopped or STOPPED
                self._pool.stop(held.job.run_id)
        end = time.monotonic() + SHUTDOWN_SECONDS
        while self._held and not self._pool.durable and time.monotonic() < end:
            self._collect(0.1)

    # -- starting -------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Claims while there is room. Runs that must wait for room are first in line: no others are claimed.

        While runs are over within a moment, the next ones are claimed before there is room for them, so that
        no worker waits for the database; not while something is to be timed, for which one has to be free.
        """
        self._launch_waiting()
        while time.monotonic() >= self._claim_at and not self._waiting:
            if not (self._pool.room() or (self._brief and not self._calibrator.due)):
                return
            self._waiting = self._claim()
            if not self._waiting:
                return
            first = self._waiting[0].claim
            self._launch_waiting()
            if self._calibrator.want(first.spec, first.run.sweep_id):
                return  # one worker is to be timed

    def _claim(self) -> list[Held]:
        """The oldest queued run, with others of its shape where training them together pays."""
        with self._sessions.begin() as session:
            claims = queue.claim(session, self._owner, self._pace.lease)
            if not claims:
                return []
            members, given = self._placement.place(session, claims[0])
            busy = {held.worker for held in self._held.values() if held.worker is not None}
            workers = max(1, self._pool.capacity(given) - len(busy))
            claims += queue.claim_alike(
                session, self._owner, self._pace.lease, claims[0], members - 1, workers
            )
            jobs = [(claim, self._job(claim, given)) for claim in claims]
            rooted_jobs = [pair for pair in jobs if rooted(session, *pair)]
        return [self._hold(claim, job) for claim, job in rooted_jobs]

    def _hold(self, claim: Claim, job: Job) -> Held:
        held = Held(claim, job)
        self._held[held.job.run_id] = held
        return held

    def _job(self, claim: Claim, given: Resources) -> Job:
        return make_job(claim, given, self._checkpoints, self._pace.checkpoint)

    def _launch_waiting(self) -> None:
        """Starts the runs that wait, if there is room by now."""
        group = self._waiting
        if not group:
            return
        try:
            worker = self._pool.launch([held.job for held in group])
        except Unplaceable as error:
            self._waiting = []
            for held in group:
                self._fail(held, str(error), final=True)
            return
        if worker is None:
            return
        self._waiting = []
        for held in group:
            held.started, held.worker, held.members = time.monotonic(), worker, len(group)
        for held in group:
            together = f", with {len(group) - 1} others" if len(group) > 1 else ""
            log.info("%s started, attempt %d on %s%s", held.name, held.job.attempt, worker, together)

    # -- collecting -----------------------------------------------------------------------------------------

    def _collect(self, timeout: float) -> None:
        """Stores what the workers deliver. What cannot be stored now is kept for the next round."""
        for delivery in self._pool.poll(timeout):
            held = self._held.get(delivery.run_id)
            ended = held is not None and held.news is not None and held.news.outcome is not None
            if held is not None and held.job.attempt == delivery.attempt and not ended:
                held.news = delivery
        if any(held.news is not None for held in self._held.values()):
            self._launch_waiting()  # a worker may be free by now
        self._store()

    def _store(self) -> None:
        """Writes where runs have started and what their workers delivered, in one transaction."""
        held_in_order = [held for _, held in sorted(self._held.items())]
        started = [held for held in held_in_order if held.worker is not None and not held.placed]
        news = [(held, held.news) for held in held_in_order if held.news is not None]
        if not started and not news:
            return
        with self._sessions.begin() as session:
            for held in started:
                place(session, held)
            for held, delivery in news:
                self._write(session, held, delivery)
        for held in started:
            held.placed = True
        for held, delivery in news:
            held.news = None
            self._settle(held, delivery)

    def _write(self, session: Session, held: Held, delivery: Delivery) -> None:
        """Writes points and the outcome of an attempt."""
        run_id, attempt, outcome = held.job.run_id, held.job.attempt, delivery.outcome
        if delivery.provenance is not None and not held.traced:
            trace(session, run_id, attempt, delivery.provenance)
        if delivery.points or outcome is not None:
            trunks.keep(session, run_id, left(held.job))
        if delivery.points:
            attempts.append(session, run_id, attempt, delivery.points, held.claim.spec.metric.name)
        if outcome is not None:
            record(session, held, outcome)

    def _settle(self, held: Held, delivery: Delivery) -> None:
        """Lets the worker go of what is stored."""
        held.traced = held.traced or delivery.provenance is not None
        if delivery.points:
            self._pool.acknowledge(held.job.run_id, delivery.points[-1].seq)
        if delivery.outcome is not None:
            self._end(held, delivery.outcome)
        elif delivery.error is not None and delivery.begun:
            self._fail(held, delivery.error, out_of_memory=delivery.out_of_memory)
        elif delivery.error is not None:
            self._put_back(held, delivery.error)

    def _end(self, held: Held, outcome: Outcome) -> None:
        """An attempt's end is stored: frees its worker."""
        if outcome.status in ("finished", "diverged") or held.why_stopped == CANCELLED:
            # Not before the outcome is stored.
            discard(held.job)
        self._free(held)
        if held.started is not None:
            self._brief = time.monotonic() - held.started < BRIEF_SECONDS
        if outcome.status == "failed":
            self._slow_down()
        else:
            self._failures = 0
        if outcome.loss is None:
            log.info("%s %s after %.1f s: %s", held.name, outcome.status, outcome.seconds, outcome.reason)
        else:
            loss, unit = outcome.loss, held.claim.spec.metric.unit
            log.info("%s %s after %.1f s: %.4f %s", held.name, outcome.status, outcome.seconds, loss, unit)

    def _fail(self, held: Held, reason: str, final: bool = False, out_of_memory: bool = False) -> None:
        """Stores that an attempt broke."""
        job = held.job
        with self._sessions.begin() as session:
            if final:
                attempts.finish(session, job.run_id, job.attempt, RunState.FAILED, None, held.seconds, reason)
            else:
                attempts.release(session, job.run_id, job.attempt, reason, True, held.seconds, out_of_memory)
        self._free(held)
        if not final:
            self._slow_down()
        log.warning("%s broke in attempt %d: %s", held.name, job.attempt, reason)

    def _put_back(self, held: Held, reason: str) -> None:
        """Queues a run again without counting a failure."""
        job = held.job
        with self._sessions.begin() as session:
            attempts.release(session, job.run_id, job.attempt, reason, False, held.seconds)
        self._free(held)
        log.info("%s goes back to the queue: %s", held.name, reason)

    def _free(self, held: Held) -> None:
        self._pool.forget(held.job.run_id)
        del self._held[held.job.run_id]
        if held in self._waiting:
            self._waiting.remove(held)
        self._advancer.soon()

    def _slow_down(self) -> None:
        """After failures in a row claims wait, longer each time: a broken machine breaks every run."""
        self._failures += 1
        self._claim_at = time.monotonic() + min(LONGEST_PAUSE, 0.25 * 2**self._failures)

    # -- keeping --------------------------------------------------------------------------------------------

    def _heed_users(self) -> None:
        """Stops runs that were cancelled."""
        pairs = [(held.job.run_id, held.job.attempt) for held in self._held.values() if not held.why_stopped]
        if not pairs:
            return
        with reading(self._sessions) as session:
            found = leases.cancelled(session, pairs)
        for run_id in found:
            self._cancel(self._held[run_id])

    def _cancel(self, held: Held) -> None:
        held.why_stopped = CANCELLED
        log.info("%s was cancelled", held.name)
        if held.started is None:
            self._free(held)
        else:
            self._pool.stop(held.job.run_id)

    def _renew(self) -> None:
        for held in list(self._held.values()):
            run_id, attempt = held.job.run_id, held.job.attempt
            with self._sessions.begin() as session:
                ours = leases.renew(session, run_id, attempt, self._owner, self._pace.lease)
            if ours or held.why_stopped:
                continue
            run = service.get_run(self._sessions, run_id)
            if run.state is RunState.CANCELLED:
                self._cancel(held)
            elif run.state is RunState.RUNNING and run.attempt == attempt:
                log.warning("%s was taken over by another orchestrator", held.name)
                self._pool.abandon(run_id)
                del self._held[run_id]
            else:
                log.warning("%s was given to another worker; this attempt is stopped", held.name)
                held.why_stopped = "superseded"
                self._pool.stop(run_id)

    def _recover(self) -> None:
        """Takes over runs whose orchestrator is gone: their live worker, or else their place in the queue."""
        with reading(self._sessions) as session:
            running = leases.orphans(session, now() + ALL_LEASES)
        for orphan in running:
            expired = orphan.lease_until < now()
            if orphan.run_id not in self._held and (expired or is_dead(orphan.owner)):
                self._take_over(orphan)

    def _take_over(self, orphan: Orphan) -> None:
        run_id, attempt = orphan.run_id, orphan.attempt
        with self._sessions.begin() as session:
            if not leases.adopt(session, run_id, attempt, self._owner, self._pace.lease, orphan.owner):
                return
        run = service.get_run(self._sessions, run_id)
        sweep = service.get_sweep(self._sessions, run.sweep_id)
        claim = Claim(run, sweep.spec, attempt, None, sweep.created_at)
        held = self._hold(claim, self._job(claim, placed(sweep.spec, run, orphan)))
        if orphan.worker is not None and self._pool.adopt(orphan.worker, run_id, attempt):
            held.started, held.worker, held.placed = time.monotonic(), orphan.worker, True
            log.info("%s trains on under this orchestrator; its worker is %s", held.name, orphan.worker)
        else:
            self._put_back(held, "its orchestrator and its worker are gone")
