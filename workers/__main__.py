"""``python -m workers [overrides]``: the orchestrator as a process."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import conf
from store.db import Sessions, make_engine, make_sessions, migrate
from sweeps import registry
from workers.orchestrator import Orchestrator, Pace
from workers.owner import identity
from workers.pool import RayPool
from workers.stacking import Measured
from workers.tracker import NoTracker, Tracker

log = logging.getLogger("workers")

FLUSH_SECONDS = 3.0
TURN_SECONDS = 0.0005  # that a thread computes before others get their turn, in place of Python's 0.005


def main(overrides: list[str]) -> int:
    """Runs until SIGTERM or SIGINT; the exit status is 0 after a clean end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        settings = conf.load(*overrides)
        registry.load(settings)
    except ValueError as error:
        log.error("%s", error)
        return 2
    stopping = threading.Event()
    _listen(stopping)
    cluster = settings["cluster"]
    engine = make_engine(settings["store"]["url"])
    migrate(engine)
    sessions = make_sessions(engine)
    owner = identity()
    where = cluster["address"] or "a local Ray"
    log.info("orchestrator %s connects to %s", owner, where)
    try:
        pool = RayPool(cluster["address"], owner, cluster["slots"])
    except ConnectionError as error:
        hint = "check cluster.address or RAY_ADDRESS, and RAY_AUTH_TOKEN where the cluster wants a token"
        log.error("cannot connect to Ray at %s: %s; %s", where, error, hint)
        return 1
    _listen(stopping)  # Ray puts its own handler in our place
    # After every statement the orchestrator waits for its turn beside the looks and the mirror.
    sys.setswitchinterval(TURN_SECONDS)
    orchestrator = Orchestrator(
        sessions,
        pool,
        owner,
        Path(cluster["checkpoints"]).absolute(),
        Pace(cluster["lease_seconds"], cluster["poll_seconds"], cluster["checkpoint_seconds"]),
        Measured(sessions, pool.device, pool.capacity),
    )
    tracker = open_tracker(sessions, settings["tracking"], owner)
    tracker.start()
    log.info("orchestrator is ready")
    orchestrator.run(stopping)
    tracker.close(FLUSH_SECONDS)
    engine.dispose()
    log.info("orchestrator stopped")
    return 0


def open_tracker(sessions: Sessions, tracking: dict[str, Any], owner: str) -> Tracker:
    """The mirror the settings ask for."""
    if tracking["uri"] is None:
        return NoTracker()
    from workers.mirror import Mirror  # takes a second to import, which a service without MLflow saves

    return Mirror(sessions, tracking["uri"], tracking["experiment"], owner)


def _listen(stopping: threading.Event) -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
