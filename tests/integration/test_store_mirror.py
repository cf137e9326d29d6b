"""The mirror's outbox, on both databases: nothing is skipped, whatever happens in between."""

from __future__ import annotations

import math
import random

import pytest

from store import attempts, mirror, queue, service
from store.db import Sessions
from store.mirror import MirrorRun
from sweeps.runs import Point, RunState, SweepState
from sweeps.spec import parse

SPEC = parse(
    {
        "name": "small",
        "space": {"width": [16, 32, 64], "depth": [1, 2], "tokens": [1e5, 2e5, 4e5]},
        "targets": [{"at": {"width": 128, "depth": 4, "tokens": 1e7}}],
        "strategy": {"name": "grid", "first_batch": 7},
        "budget": {"runs": 7},
    }
)


def curve(first: int, last: int) -> list[Point]:
    return [Point(seq, seq, seq, "val_loss", 1.0 / seq, 1e9) for seq in range(first, last + 1)]


def start(sessions: Sessions) -> int:
    with sessions.begin() as session:
        (held,) = queue.claim(session, "a", 30.0)
    return held.run.id


def append(sessions: Sessions, run_id: int, points: list[Point]) -> None:
    with sessions.begin() as session:
        attempts.append(session, run_id, 1, points, "val_loss")


def finish(sessions: Sessions, run_id: int, loss: float = 1.0) -> None:
    with sessions.begin() as session:
        assert attempts.finish(session, run_id, 1, RunState.FINISHED, loss, 1.0)


def show_sweep(sessions: Sessions, sweep_id: int = 1) -> None:
    state = service.get_sweep(sessions, sweep_id).state
    mirror.mirrored_sweep(sessions, sweep_id, f"sweep-{sweep_id}", state, None)


def only(items: list[MirrorRun]) -> MirrorRun:
    (item,) = items
    return item


def test_a_sweep_is_shown_when_it_changes(sessions: Sessions) -> None:
    service.create_sweep(sessions, SPEC)
    (item,) = mirror.unmirrored_sweeps(sessions)
    assert (item.sweep, item.mirror_id, item.fit) == (service.get_sweep(sessions, 1), None, None)
    show_sweep(sessions)
    assert mirror.unmirrored_sweeps(sessions) == []
    service.pause(sessions, 1)
    (item,) = mirror.unmirrored_sweeps(sessions)
    assert (item.sweep.state, item.mirror_id) == (SweepState.PAUSED, "sweep-1")
    service.resume(sessions, 1)
    # Back where the mirror saw it: nothing to show.
    assert mirror.unmirrored_sweeps(sessions) == []
    for number in range(7):
        run_id = start(sessions)
        finish(sessions, run_id, 3.0 + 0.1 * number)
    assert service.advance(sessions, 1, 4)
    (item,) = mirror.unmirrored_sweeps(sessions)
    assert item.fit is not None
    assert item.fit.id == service.list_fits(sessions, 1)[-1].id
    assert item.sweep.state == SweepState.FINISHED
    mirror.mirrored_sweep(sessions, 1, "sweep-1", item.sweep.state, item.fit.id)
    assert mirror.unmirrored_sweeps(sessions) == []


def test_a_run_waits_for_its_sweep_and_its_start(sessions: Sessions) -> None:
    service.create_sweep(sessions, SPEC)
    run_id = start(sessions)
    assert mirror.unmirrored_runs(sessions) == []
    show_sweep(sessions)
    item = only(mirror.unmirrored_runs(sessions))
    assert (item.run, item.parent_id, item.mirror_id) == (
        service.get_run(sessions, run_id),
        "sweep-1",
        None,
    )
    assert (item.points, item.more) == ([], False)
    decided = service.list_decisions(sessions, 1)[0]
    assert (item.reason, item.expected) == (decided.reason, decided.expected)
    mirror.mirrored_run(sessions, item, "run-1")
    assert mirror.unmirrored_runs(sessions) == []


def test_a_run_is_closed_after_its_last_point(sessions: Sessions) -> None:
    service.create_sweep(sessions, SPEC)
    show_sweep(sessions)
    run_id = start(sessions)
    append(sessions, run_id, curve(1, 25))
    finish(sessions, run_id)
    seen, closed = [], []
    while items := mirror.unmirrored_runs(sessions, points=10):
        item = only(items)
        seen += item.points
        closed.append(not item.more and item.run.state == RunState.FINISHED)
        mirror.mirrored_run(sessions, item, "run-1")
    assert seen == curve(1, 25)
    assert closed == [False, False, True]


def test_points_that_were_left_out_hold_nothing_up(sessions: Sessions) -> None:
    service.create_sweep(sessions, SPEC)
    show_sweep(sessions)
    run_id = start(sessions)
    append(sessions, run_id, [*curve(1, 2), Point(3, 3, 3, "val_loss", math.nan, 1e9)])
    item = only(mirror.unmirrored_runs(sessions))
    assert (item.points, item.seq, item.more) == (curve(1, 2), 3, False)
    mirror.mirrored_run(sessions, item, "run-1")
    assert mirror.unmirrored_runs(sessions) == []


def test_a_change_after_the_look_is_shown_later(sessions: Sessions) -> None:
    service.create_sweep(sessions, SPEC)
    show_sweep(sessions)
    run_id = start(sessions)
    append(sessions, run_id, curve(1, 5))
    item = only(mirror.unmirrored_runs(sessions))
    append(sessions, run_id, curve(6, 8))
    finish(sessions, run_id)
    mirror.mirrored_run(sessions, item, "run-1")
    late = only(mirror.unmirrored_runs(sessions))
    assert (late.points, late.run.state) == (curve(6, 8), RunState.FINISHED)


@pytest.mark.parametrize("seed", range(3))
def test_a_mirror_that_dies_now_and_then_shows_everything(sessions: Sessions, seed: int) -> None:
    dice = random.Random(seed)
    service.create_sweep(sessions, SPEC)
    show_sweep(sessions)
    shown: dict[int, dict[int, Point]] = {}
    states: dict[int, RunState] = {}

    def look() -> bool:
        items = mirror.unmirrored_runs(sessions, limit=2, points=dice.choice([1, 4, 100]))
        for item in items:
            shown.setdefault(item.run.id, {}).update({point.seq: point for point in item.points})
            if not item.more:
                states[item.run.id] = item.run.state
            if dice.random() < 0.6:  # else it died before it could say so
                mirror.mirrored_run(sessions, item, f"run-{item.run.id}")
        return bool(items)

    for _ in range(4):
        run_id, last = start(sessions), dice.randint(1, 12)
        append(sessions, run_id, curve(1, last))
        look()
        append(sessions, run_id, curve(last + 1, last + 3))
        finish(sessions, run_id)
        look()
    while look():
        pass
    for run_id, points in shown.items():
        assert list(points.values()) == service.list_points(sessions, run_id)
    assert states == dict.fromkeys(shown, RunState.FINISHED)
    assert len(shown) == 4


def test_one_leads_until_its_lease_ends(sessions: Sessions) -> None:
    assert mirror.lead(sessions, "mirror", "a", 30.0)
    assert mirror.lead(sessions, "mirror", "a", 30.0)
    assert not mirror.lead(sessions, "mirror", "b", 30.0)
    assert mirror.lead(sessions, "other", "b", 30.0)
    assert mirror.lead(sessions, "mirror", "a", -1.0)
    assert mirror.lead(sessions, "mirror", "b", 30.0)
    assert not mirror.lead(sessions, "mirror", "a", 30.0)
