"""A small sweep in the store, and what an orchestrator does with its runs."""

from __future__ import annotations

from store import attempts, leases, queue, service
from store.db import Sessions
from store.queue import Claim
from sweeps.runs import Point, RunState, Sweep
from sweeps.spec import SweepSpec, parse

LEASE = 30.0
SPEC = parse(
    {
        "name": "small",
        "space": {
            "width": [16, 32, 64],
            "depth": [1, 2],
            "tokens": [20_000, 40_000, 80_000],
            "lr": [1e-3, 3e-3],
        },
        "targets": [{"at": {"width": 128, "depth": 4, "tokens": 1e6}}],
        "strategy": {"name": "grid", "first_batch": 6},
        "budget": {"runs": 12},
        "trainer": {"retries": 1},
    }
)


def submit(sessions: Sessions, spec: SweepSpec = SPEC) -> Sweep:
    return service.create_sweep(sessions, spec)[0]


def claim(sessions: Sessions, owner: str = "a", limit: int = 1, lease: float = LEASE) -> list[Claim]:
    with sessions.begin() as session:
        return queue.claim(session, owner, lease, limit)


def release(sessions: Sessions, held: Claim, failed: bool, seconds: float = 1.0) -> RunState | None:
    with sessions.begin() as session:
        return attempts.release(session, held.run.id, held.attempt, "broke", failed, seconds)


def finish(
    sessions: Sessions,
    held: Claim,
    loss: float | None = 2.5,
    state: RunState = RunState.FINISHED,
    seconds: float = 1.0,
) -> bool:
    with sessions.begin() as session:
        return attempts.finish(session, held.run.id, held.attempt, state, loss, seconds)


def append(sessions: Sessions, held: Claim, points: list[Point]) -> int:
    with sessions.begin() as session:
        return attempts.append(session, held.run.id, held.attempt, points, "val_loss")


def curve(first: int, last: int, metric: str = "val_loss") -> list[Point]:
    return [
        Point(seq, 10 * seq, 1000 * seq, metric, 5.0 - 0.01 * seq, 1e9 + seq)
        for seq in range(first, last + 1)
    ]


def renew(sessions: Sessions, held: Claim, lease: float) -> bool:
    with sessions.begin() as session:
        return leases.renew(session, held.run.id, held.attempt, "a", lease)


def kinds(sessions: Sessions, run_id: int) -> list[str]:
    return [event.kind for event in service.list_events(sessions, None) if event.run_id == run_id]
