"""Who has which run, and changes of state of sweeps, on both databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queueing import LEASE, SPEC, append, claim, curve, finish, kinds, release, renew, submit
from sqlalchemy import func, select

from store import leases, queue, service
from store.db import Sessions, make_engine, make_sessions, migrate, now
from store.models import ObservationRow
from store.queue import Claim
from store.records import new_run
from sweeps.cost import Timing
from sweeps.errors import IllegalTransition, NotFound
from sweeps.runs import TERMINAL, Role, RunState, SweepState
from sweeps.spec import Budget

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
