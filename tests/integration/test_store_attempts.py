"""Points and ends of attempts, on both databases."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from queueing import LEASE, SPEC, append, claim, curve, finish, kinds, release, renew, submit
from sqlalchemy import func, select

from store import attempts, leases, service
from store.db import Sessions, reading
from store.models import AttemptRow, PointRow
from sweeps.runs import Ran, RunState
from sweeps.spec import parse
from sweeps.trainer import Trainer


def test_an_attempt_that_lost_its_run_changes_nothing(sessions: Sessions) -> None:
    sweep = submit(sessions)
    (old,) = claim(sessions)
    assert release(sessions, old, failed=False) == RunState.QUEUED
    (new,) = claim(sessions, "b")
    assert (new.run.id, new.attempt) == (old.run.id, 2)
    assert append(sessions, old, curve(1, 3)) == 0
    assert not finish(sessions, old, loss=9.0)
    assert release(sessions, old, failed=True) is None
    with sessions.begin() as session:
        assert not leases.renew(session, old.run.id, old.attempt, "a", LEASE)
        assert not leases.adopt(session, old.run.id, old.attempt, "a", LEASE)
    run = service.get_run(sessions, old.run.id)
    assert (run.state, run.step, run.seconds) == (RunState.RUNNING, 0, 1.0)
    assert service.list_points(sessions, run.id) == []
    assert service.observations(sessions, sweep.id) == []
    assert finish(sessions, new, loss=3.0)
    assert [one.loss for one in service.observations(sessions, sweep.id)] == [3.0]


def test_a_late_result_counts_while_nobody_took_the_run(sessions: Sessions) -> None:
    submit(sessions)
    (held,) = claim(sessions)
    assert renew(sessions, held, -1.0)
    assert append(sessions, held, curve(1, 2)) == 2
    assert finish(sessions, held)


def test_a_run_that_ended_twice_is_one_observation(sessions: Sessions) -> None:
    sweep = submit(sessions)
    (held,) = claim(sessions)
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: finish(sessions, held, seconds=2.0), range(4)))
    assert sorted(done) == [False, False, False, True]
    (seen,) = service.observations(sessions, sweep.id)
    run = service.get_run(sessions, held.run.id)
    assert (seen.config, seen.cost, seen.loss, seen.run_id) == (run.config, run.cost, 2.5, run.id)
    assert (run.state, run.loss, run.seconds) == (RunState.FINISHED, 2.5, 2.0)
    assert run.finished_at is not None
    assert kinds(sessions, run.id) == ["run_queued", "decision", "run_started", "run_finished"]


def test_a_diverged_run_is_a_result_but_no_observation(sessions: Sessions) -> None:
    sweep = submit(sessions)
    (held,) = claim(sessions)
    append(sessions, held, curve(1, 2))
    with sessions.begin() as session:
        assert attempts.finish(session, held.run.id, 1, RunState.DIVERGED, math.nan, 1.0, "loss was nan")
    run = service.get_run(sessions, held.run.id)
    assert (run.state, run.loss, run.reason) == (RunState.DIVERGED, 4.98, "loss was nan")
    assert service.observations(sessions, sweep.id) == []
    event = service.list_events(sessions, sweep.id)[-1]
    assert event.kind == "run_diverged"
    assert event.data == {"config": run.config, "loss": 4.98, "reason": "loss was nan"}


def test_an_end_needs_an_end_state_and_a_loss(sessions: Sessions) -> None:
    submit(sessions)
    (held,) = claim(sessions)
    with pytest.raises(ValueError, match="allowed: cancelled, diverged, failed, finished"):
        finish(sessions, held, state=RunState.QUEUED)
    for loss in (None, math.nan, math.inf):
        with pytest.raises(ValueError, match="give a finite one"):
            finish(sessions, held, loss=loss)


def test_failures_count_and_preemptions_do_not(sessions: Sessions) -> None:
    sweep = submit(sessions)
    states = []
    for failed in (False, True, False, True):
        (held,) = claim(sessions)
        assert held.run.id == 1
        states.append(release(sessions, held, failed, seconds=0.5))
    assert states == [RunState.QUEUED, RunState.QUEUED, RunState.QUEUED, RunState.FAILED]
    run = service.get_run(sessions, 1)
    assert (run.state, run.attempt, run.seconds, run.reason) == (RunState.FAILED, 4, 2.0, "broke")
    assert run.finished_at is not None
    with sessions() as session:
        rows = session.scalars(select(AttemptRow).order_by(AttemptRow.attempt)).all()
    assert [row.outcome for row in rows] == ["preempted", "failed", "preempted", "failed"]
    assert all(row.ended_at is not None and row.seconds == 0.5 for row in rows)
    assert kinds(sessions, 1)[-2:] == ["run_started", "run_failed"]
    assert service.get_sweep(sessions, sweep.id).counts[RunState.FAILED] == 1


def test_without_retries_the_first_failure_is_the_end(sessions: Sessions) -> None:
    submit(sessions, replace(SPEC, trainer=Trainer(retries=0)))
    (held,) = claim(sessions)
    assert release(sessions, held, failed=True) == RunState.FAILED


def test_points_are_stored_once_whoever_sends_them(sessions: Sessions) -> None:
    submit(sessions)
    (held,) = claim(sessions)
    assert append(sessions, held, []) == 0
    assert append(sessions, held, curve(1, 500)) == 500
    assert append(sessions, held, curve(401, 600)) == 100
    release(sessions, held, failed=False)
    (again,) = claim(sessions)
    # Resumed from a checkpoint, the stream repeats itself a little.
    assert append(sessions, again, curve(550, 560)) == 0
    assert service.get_run(sessions, again.run.id).step == 5600
    assert append(sessions, again, curve(561, 620)) == 20
    points = service.list_points(sessions, again.run.id)
    assert points == curve(1, 620)
    run = service.get_run(sessions, again.run.id)
    assert (run.step, run.tokens, run.loss) == (6200, 620_000, points[-1].value)


def test_threads_that_append_the_same_points_store_them_once(sessions: Sessions) -> None:
    submit(sessions)
    (held,) = claim(sessions)
    with ThreadPoolExecutor(4) as threads:
        new = list(threads.map(lambda _: append(sessions, held, curve(1, 200)), range(4)))
    assert sum(new) == 200
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(PointRow)) == 200


def test_values_that_are_not_finite_are_left_out(sessions: Sessions) -> None:
    submit(sessions)
    (held,) = claim(sessions)
    points = curve(1, 3)
    points[1] = replace(points[1], value=math.nan)
    points[2] = replace(points[2], value=math.inf)
    assert append(sessions, held, points) == 1
    run = service.get_run(sessions, held.run.id)
    assert (run.step, run.loss) == (30, points[0].value)
    assert append(sessions, held, [replace(points[2], seq=4, value=math.nan)]) == 0


def test_the_loss_of_a_run_is_its_metric(sessions: Sessions) -> None:
    submit(sessions)
    (held,) = claim(sessions)
    append(sessions, held, curve(1, 3, "train_loss"))
    assert service.get_run(sessions, held.run.id).loss is None
    append(sessions, held, [*curve(4, 4), *curve(5, 5, "train_loss")])
    assert service.get_run(sessions, held.run.id).loss == curve(4, 4)[0].value


def test_how_an_attempt_was_executed_is_stored_and_teaches(sessions: Sessions) -> None:
    submit(sessions)
    first, second, third = claim(sessions, limit=3)
    ran = Ran("CPU here", 4, 1e6)
    with sessions.begin() as session:
        attempts.finish(session, first.run.id, 1, RunState.FINISHED, 2.5, 7.0, ran=ran)
        attempts.release(session, second.run.id, 1, "preempted", False, 1.0, ran=ran)
    assert finish(sessions, third)
    with reading(sessions) as session:
        rows = {row.run_id: row for row in session.scalars(select(AttemptRow))}
    for held, told in ((first, ran), (second, ran)):
        row = rows[held.run.id]
        assert Ran(row.device or "", row.members, row.memory) == told
    assert (rows[third.run.id].device, rows[third.run.id].members) == (None, 1)
    (again,) = [one for one in claim(sessions, limit=5) if one.run.id == second.run.id]
    with sessions.begin() as session:
        attempts.finish(session, again.run.id, 2, RunState.FINISHED, 2.5, 1.0, ran=ran)
    assert [(one.members, one.memory, one.device, one.kind) for one in service.timings(sessions)] == [
        (1, None, None, "gpt"),
        (4, 1e6, "CPU here", "gpt"),
    ]


def test_code_of_ones_own_is_timed_by_its_entry(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.kinds.own._allowed", ["mylab"])
    at = {"width": 8, "tokens": 1000}
    one, other = (
        parse(
            {
                "name": "own",
                "proxy": {"kind": "own", "entry": f"mylab.{name}:train", "cost": {"params": "10*width"}},
                "space": at,
                "targets": [{"at": at}],
            }
        )
        for name in ("one", "other")
    )
    submit(sessions, one)
    (held,) = claim(sessions)
    with sessions.begin() as session:
        attempts.finish(session, held.run.id, 1, RunState.FINISHED, 2.5, 7.0, ran=Ran("CPU here"))
    assert [(told.kind, told.seconds) for told in service.finished(sessions)] == [
        ("own mylab.one:train", 7.0)
    ]
    known = service.durations(sessions, one)
    assert known is not None and known.alone(held.run.cost) == pytest.approx(7.0)
    assert service.durations(sessions, other) is None and service.durations(sessions, SPEC) is None


def test_a_run_that_had_too_little_of_a_device_is_told_from_others(sessions: Sessions) -> None:
    submit(sessions)
    first, second = claim(sessions, limit=2)
    with sessions.begin() as session:
        assert leases.too_many_sharers(session, first.run.sweep_id) is None
        leases.place(session, first.run.id, 1, "worker", sharers=4)
        leases.place(session, second.run.id, 1, "worker", sharers=2)
        released = attempts.release(session, first.run.id, 1, "too large", False, 1.0, undivided=True)
        assert released is RunState.QUEUED
        attempts.finish(session, second.run.id, 1, RunState.FINISHED, 2.5, 1.0, ran=Ran("GPU"))
    (again,) = [one for one in claim(sessions, limit=9) if one.run.id == first.run.id]
    assert again.run.undivided and not again.run.out_of_memory
    with sessions.begin() as session:
        leases.place(session, again.run.id, 2, "worker")
        attempts.release(session, again.run.id, 2, "stopped", False, 1.0)
        assert leases.too_many_sharers(session, again.run.sweep_id) == 4
    assert service.get_run(sessions, again.run.id).undivided  # whatever else happens to it
    assert [(one.sharers, one.device) for one in service.finished(sessions)] == [(2, "GPU")]
