"""Every change of state of runs, on both databases."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from store import attempts, leases, queue, service
from store.db import Sessions, make_engine, make_sessions, migrate, now, reading
from store.models import AttemptRow, ObservationRow, PointRow
from store.queue import Claim
from store.records import new_run
from sweeps.cost import Timing
from sweeps.errors import IllegalTransition, NotFound
from sweeps.runs import TERMINAL, Point, Ran, Role, RunState, Sweep, SweepState
from sweeps.spec import Budget, SweepSpec, parse
from sweeps.trainer import Trainer

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


ACTIONS: dict[str, Callable[[Sessions, Claim], object]] = {
    "claim": lambda sessions, _: claim(sessions),
    "finish": finish,
    "diverge": lambda sessions, held: finish(sessions, held, state=RunState.DIVERGED),
    "break": lambda sessions, held: release(sessions, held, failed=True),
    "preempt": lambda sessions, held: release(sessions, held, failed=False),
    "append": lambda sessions, held: append(sessions, held, curve(1, 3)),
    "expire": lambda sessions, held: renew(sessions, held, -1.0),
    "renew": lambda sessions, held: renew(sessions, held, LEASE),
}


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    """One SQLite database for many examples."""
    engine = make_engine(f"sqlite:///{tmp_path_factory.mktemp('books') / 'a.db'}")
    migrate(engine)
    yield make_sessions(engine)
    engine.dispose()


def test_a_claim_takes_the_oldest_run_with_its_specification(sessions: Sessions) -> None:
    sweep = submit(sessions)
    (held,) = claim(sessions)
    runs = service.list_runs(sessions, sweep.id)
    assert held.run == runs[0]
    assert (held.attempt, held.run.attempt, held.run.state) == (1, 1, RunState.RUNNING)
    assert held.spec == SPEC
    assert held.device_seconds_left is None
    assert held.run.started_at is not None
    assert [run.state for run in runs[1:]] == [RunState.QUEUED] * 5


def test_many_are_claimed_in_order_and_none_twice(sessions: Sessions) -> None:
    sweep = submit(sessions)
    ids = [run.id for run in service.list_runs(sessions, sweep.id)]
    assert [held.run.id for held in claim(sessions, limit=4)] == ids[:4]
    assert [held.run.id for held in claim(sessions, limit=4)] == ids[4:]
    assert claim(sessions) == []


def test_threads_that_claim_at_once_share_the_runs(sessions: Sessions) -> None:
    spec = replace(SPEC, strategy=replace(SPEC.strategy, first_batch=36), budget=Budget(runs=36))
    sweep = submit(sessions, spec)
    ids = sorted(run.id for run in service.list_runs(sessions, sweep.id))
    assert len(ids) == 36

    def work(owner: str) -> list[int]:
        taken = []
        while held := claim(sessions, owner, limit=2):
            taken += [one.run.id for one in held]
            assert all(finish(sessions, one) for one in held)
        return taken

    with ThreadPoolExecutor(6) as threads:
        taken = [run_id for part in threads.map(work, "abcdef") for run_id in part]
    assert sorted(taken) == ids
    assert len(service.observations(sessions, sweep.id)) == 36
    events = Counter(event.kind for event in service.list_events(sessions, sweep.id))
    assert events["run_started"] == events["run_finished"] == 36


def test_a_lease_is_kept_only_by_who_holds_it(sessions: Sessions) -> None:
    submit(sessions)
    (held,) = claim(sessions)
    with sessions.begin() as session:
        assert leases.renew(session, held.run.id, 1, "a", LEASE)
        assert not leases.renew(session, held.run.id, 1, "b", LEASE)
        assert not leases.renew(session, held.run.id, 2, "a", LEASE)
        assert not leases.adopt(session, held.run.id, 1, "b", LEASE)
        assert leases.adopt(session, held.run.id, 1, "b", LEASE, previous="a")
        assert not leases.renew(session, held.run.id, 1, "a", LEASE)
        assert leases.renew(session, held.run.id, 1, "b", LEASE)


def test_a_live_attempt_of_a_dead_orchestrator_is_adopted_once(sessions: Sessions) -> None:
    submit(sessions)
    held, other = claim(sessions, limit=2)
    with sessions.begin() as session:
        leases.place(session, held.run.id, 1, "actor-7")
        assert leases.orphans(session, now()) == []
        running = leases.orphans(session, now() + timedelta(seconds=LEASE))
        assert [one.run_id for one in running] == [held.run.id, other.run.id]
    assert renew(sessions, held, -1.0)
    with sessions.begin() as session:
        (orphan,) = leases.orphans(session, now())
        assert (orphan.run_id, orphan.attempt, orphan.owner, orphan.worker) == (
            held.run.id,
            1,
            "a",
            "actor-7",
        )
        assert orphan.lease_until < now()
        assert leases.adopt(session, held.run.id, 1, "b", LEASE)
        assert not leases.adopt(session, held.run.id, 1, "c", LEASE)
        assert leases.orphans(session, now()) == []
    assert finish(sessions, held)


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


@given(st.lists(st.tuples(st.sampled_from(sorted(ACTIONS)), st.integers(0, 9)), min_size=5, max_size=40))
@settings(max_examples=20)
def test_whatever_happens_the_books_are_right(books: Sessions, actions: list[tuple[str, int]]) -> None:
    sweep = submit(books)
    held: list[Claim] = []  # every attempt there ever was, dead ones too
    for name, choice in actions:
        if name == "claim":
            held += claim(books)
        elif held:
            ACTIONS[name](books, held[choice % len(held)])
    runs = service.list_runs(books, sweep.id)
    sent = {one.run.id: one for one in held}
    seen = {one.run_id: one.loss for one in service.observations(books, sweep.id)}
    assert seen == {run.id: run.loss for run in runs if run.state == RunState.FINISHED}
    for run in runs:
        attempts = [one.attempt for one in held if one.run.id == run.id]
        assert attempts == list(range(1, run.attempt + 1))
        assert (run.id in sent) == (run.attempt > 0)
        stored = [point.seq for point in service.list_points(books, run.id)]
        assert stored in ([], [1, 2, 3])
        assert (run.state in TERMINAL) == (run.finished_at is not None)
        happened = Counter(kinds(books, run.id))
        assert happened["run_started"] == run.attempt
        ends = sum(happened[f"run_{state}"] for state in TERMINAL)
        assert ends == (run.state in TERMINAL)
        live = run.state == RunState.RUNNING
        assert happened["run_started"] == happened["run_requeued"] + ends + live
    service.cancel(books, sweep.id)


def test_a_paused_sweep_starts_nothing_and_goes_on(sessions: Sessions) -> None:
    sweep = submit(sessions)
    (held,) = claim(sessions)
    assert service.pause(sessions, sweep.id).state == SweepState.PAUSED
    assert claim(sessions) == []
    assert append(sessions, held, curve(1, 2)) == 2
    assert finish(sessions, held)
    with pytest.raises(IllegalTransition, match="sweep 1 is paused; only a running sweep can be paused"):
        service.pause(sessions, sweep.id)
    assert service.resume(sessions, sweep.id).state == SweepState.RUNNING
    assert len(claim(sessions)) == 1
    with pytest.raises(IllegalTransition, match="sweep 1 is running; only a paused sweep can be resumed"):
        service.resume(sessions, sweep.id)


def test_a_cancelled_sweep_ends_its_runs(sessions: Sessions) -> None:
    sweep = submit(sessions)
    done, held = claim(sessions, limit=2)
    finish(sessions, done)
    assert service.cancel(sessions, sweep.id).state == SweepState.CANCELLED
    states = Counter(run.state for run in service.list_runs(sessions, sweep.id))
    assert states == {RunState.FINISHED: 1, RunState.CANCELLED: 5}
    assert claim(sessions) == []
    with sessions.begin() as session:
        assert leases.cancelled(session, [(done.run.id, 1), (held.run.id, 1), (held.run.id, 2)]) == [
            held.run.id
        ]
        assert leases.cancelled(session, []) == []
        assert not leases.renew(session, held.run.id, 1, "a", LEASE)
    # What its worker says after that changes no state; its seconds count, once.
    assert append(sessions, held, curve(1, 2)) == 0
    assert not finish(sessions, held, seconds=3.0)
    assert release(sessions, held, failed=False, seconds=3.0) is None
    run = service.get_run(sessions, held.run.id)
    assert (run.state, run.seconds) == (RunState.CANCELLED, 3.0)
    for change in (service.cancel, service.pause, service.resume):
        with pytest.raises(IllegalTransition, match="is cancelled; only a "):
            change(sessions, sweep.id)
    with pytest.raises(NotFound, match="there is no sweep 99"):
        service.cancel(sessions, 99)


def test_cancelling_while_others_claim_leaves_nothing_behind(sessions: Sessions) -> None:
    spec = replace(SPEC, strategy=replace(SPEC.strategy, first_batch=36), budget=Budget(runs=36))
    sweep = submit(sessions, spec)

    def work(owner: str) -> None:
        while held := claim(sessions, owner):
            finish(sessions, held[0])

    with ThreadPoolExecutor(4) as threads:
        workers = [threads.submit(work, owner) for owner in "abc"]
        threads.submit(service.cancel, sessions, sweep.id).result()
        for worker in workers:
            worker.result()
    ended = service.get_sweep(sessions, sweep.id)
    assert ended.state == SweepState.CANCELLED
    assert ended.counts[RunState.QUEUED] == ended.counts[RunState.RUNNING] == 0
    assert sum(ended.counts.values()) == 36


def test_a_target_runs_though_its_sweep_is_paused(sessions: Sessions) -> None:
    sweep = submit(sessions)
    service.pause(sessions, sweep.id)
    config = SPEC.complete(SPEC.targets[0].at)
    with sessions.begin() as session:
        run = new_run(sweep.id, Role.TARGET, config, SPEC.cost(config), target="target")
        queue.enqueue(session, sweep.id, [run])
    (held,) = claim(sessions, limit=5)
    assert (held.run.role, held.run.target) == (Role.TARGET, "target")
    assert finish(sessions, held)
    assert service.observations(sessions, sweep.id) == []
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(ObservationRow)) == 0


def test_grants_never_exceed_the_device_seconds(sessions: Sessions) -> None:
    limited = replace(SPEC, budget=Budget(runs=12, device_seconds=10.0))
    sweep = submit(sessions, limited)
    held = claim(sessions, limit=2)
    left = [one.device_seconds_left or 0.0 for one in held]
    assert min(left) > 0
    assert sum(left) <= 10.0
    more = claim(sessions, limit=5)
    assert sum(left) + sum(one.device_seconds_left or 0.0 for one in more) <= 10.0
    for one in [*held, *more]:
        assert release(sessions, one, failed=False, seconds=1.0) == RunState.QUEUED
    spent = 1.0 * len([*held, *more])
    (again,) = claim(sessions)
    assert again.attempt == 2
    assert again.device_seconds_left is not None
    assert again.device_seconds_left <= 10.0 - spent
    # Whoever brings the total to the limit is the last.
    assert release(sessions, again, failed=False, seconds=9.5 - spent) == RunState.CANCELLED
    assert claim(sessions) == []
    ended = service.get_sweep(sessions, sweep.id)
    assert ended.counts[RunState.CANCELLED] == 6
    run = service.get_run(sessions, again.run.id)
    assert run.reason == "the sweep's budget of device seconds is spent"
    assert ended.spent.device_seconds == pytest.approx(9.5)


def test_an_expected_duration_bounds_the_grant(sessions: Sessions) -> None:
    cost = SPEC.cost(SPEC.complete({"width": 16, "depth": 1, "tokens": 20_000}))
    service.record_timings(sessions, "CPU", [Timing(cost, 0.1)])
    submit(sessions, replace(SPEC, budget=Budget(runs=12, device_seconds=1000.0)))
    (held,) = claim(sessions)
    assert held.device_seconds_left is not None
    assert 1.0 < held.device_seconds_left < 50.0


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


def test_events_wait_for_transactions_that_began_earlier(sessions: Sessions, database_url: str) -> None:
    sweep = submit(sessions)
    last = service.list_events(sessions, sweep.id)[-1].id
    if database_url.startswith("sqlite"):
        finish(sessions, claim(sessions)[0])
        assert len(service.list_events(sessions, sweep.id, last)) == 2
        return
    with sessions() as slow:
        (first,) = queue.claim(slow, "slow", LEASE)
        (second,) = claim(sessions, "quick")
        assert first.run.id != second.run.id
        assert service.list_events(sessions, sweep.id, last) == []
        slow.commit()
    seen = service.list_events(sessions, sweep.id, last)
    assert [event.run_id for event in seen] == [first.run.id, second.run.id]
