"""Has small trainings timed, once a device and kind of proxy, and for networks of the user's once a sweep."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TypeAlias

from store import service
from store.db import Sessions
from store.events import emit
from sweeps.kinds import BUILT_IN
from sweeps.kinds.own import allowed
from sweeps.proxy import Proxy
from sweeps.resources import Resources
from sweeps.space import specimens
from sweeps.spec import SweepSpec, spec_hash
from workers import provenance
from workers.executor import Calibration, Device, Networks, Pool, Subject

log = logging.getLogger(__name__)

SHAPES = 6  # of a sweep's networks that are timed
LOSSES = 2  # of workers, after which nothing more is tried: what is timed may be to blame

Wanted: TypeAlias = tuple[Resources, str, str]  # what workers are given, kind of proxy, hash of its sweep


@dataclass
class Order:
    """What is to be timed.

    Args:
        sweep: number and specification of the one whose networks they are; None for a kind of the service.
        subject: None before it is known what is missing.
        lost: workers so far.
    """

    resources: Resources
    kind: str
    sweep: tuple[int, SweepSpec] | None = None
    subject: Subject | None = None
    lost: int = 0


class Calibrator:
    """The default kind is timed at once, so that the first plan knows seconds; the others as sweeps use them.

    Networks of the user's are timed by the shapes of each sweep, as far as these are not known.

    Args:
        pool: whose workers are timed, one at a time and none that trains.
    """

    def __init__(self, sessions: Sessions, pool: Pool) -> None:
        self._sessions = sessions
        self._pool = pool
        self._seen: set[Wanted] = set()
        self._orders: list[Order] = []
        self._add(Order(Resources(), Proxy().kind), "")

    @property
    def due(self) -> bool:
        """Whether something is to be timed as soon as a worker is free."""
        return any(order.subject is not None for order in self._orders)

    def want(self, spec: SweepSpec, sweep_id: int) -> bool:
        """Asks for what a sweep uses; whether it is the first to use it."""
        proxy, resources = spec.proxy, spec.resources.shared(1)
        if proxy.kind in BUILT_IN:
            return self._add(Order(resources, proxy.trainer), "")
        # What a training function of the user's takes only its runs can tell.
        if proxy.kind != "module" or not allowed(proxy.entry or ""):
            return False
        return self._add(Order(resources, proxy.trainer, (sweep_id, spec)), spec_hash(spec))

    def _add(self, order: Order, digest: str) -> bool:
        wanted = order.resources, order.kind, digest
        if wanted in self._seen:
            return False
        self._seen.add(wanted)
        self._orders.append(order)
        return True

    def tick(self) -> None:
        """Starts what is due where a worker is free, and stores what was found."""
        for order in self._orders:
            device = self._pool.device(order.resources)
            if device is None:
                continue
            order.subject = order.subject or self._missing(order, device)
            if order.subject is not None:
                found = self._pool.calibrate(order.resources, order.subject)
                if found is None:
                    return
                order.lost += found.lost
                if found.lost and order.lost < LOSSES:
                    return
                self._store(order, found)
            self._orders.remove(order)
            return

    def _missing(self, order: Order, device: Device) -> Subject | None:
        """What nobody has timed on a device; None where that is nothing."""
        if order.sweep is None:
            done = service.calibrated(self._sessions, device.name, order.kind)
            return None if done else Subject(order.kind)
        _, spec = order.sweep
        code = _code(spec.proxy, provenance.contents(spec.proxy.entry or ""))
        known = service.rehearsed(self._sessions, device.name, order.kind, code)
        configs = [config for config in specimens(spec, SHAPES) if spec.cost(config) not in known.costs]
        if configs:
            return Subject(order.kind, Networks(spec, spec.source, configs, known.refused))
        self._tell(order, known.refused)
        return None

    def _store(self, order: Order, found: Calibration) -> None:
        if found.timings:
            code = None if order.sweep is None else _code(order.sweep[1].proxy, found.code)
            service.record_timings(self._sessions, found.device, found.timings, code, found.trouble)
            log.info("timed %d small trainings of %s on %s", len(found.timings), order.kind, found.device)
        else:
            log.warning("nothing was timed of %s: %s", order.kind, found.trouble)
        self._tell(order, found.trouble)

    def _tell(self, order: Order, trouble: str | None) -> None:
        """Says once why the runs of a sweep train one at a time, if they do."""
        if trouble is not None and order.sweep is not None:
            log.info("runs of sweep %d train one at a time: %s", order.sweep[0], trouble)
            with self._sessions.begin() as session:
                emit(session, order.sweep[0], "sweep_not_stacked", {"reason": trouble})


def _code(proxy: Proxy, contents: str | None) -> str | None:
    """What timings of networks rest on: code, data, and the expressions that they are counted by."""
    if contents is None:
        return None
    parts = json.dumps([contents, proxy.dataset, proxy.cost], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()
