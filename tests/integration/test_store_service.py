"""The store's use cases, on both databases and with the real scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import attempts, queue, service
from store.db import Sessions, make_engine, make_sessions, migrate
from sweeps.cost import Timing
from sweeps.errors import Conflict, IllegalTransition, NotFound, SpecError
from sweeps.runs import Point, Role, Run, RunState, Spent, Sweep, SweepState
from sweeps.spec import Budget, parse, spec_hash
from sweeps.trainer import Trainer

SPEC = parse(
    {
        "name": "small",
        "space": {
            "width": [16, 32, 64, 128],
            "depth": [1, 2],
            "tokens": [1e5, 2e5, 4e5, 8e5],
            "lr": [1e-3, 2e-3, 4e-3, 8e-3],
        },
        "targets": [{"at": {"width": 256, "depth": 4, "tokens": 1e7}}],
        "strategy": {"first_batch": 8},
        "budget": {"runs": 14},
    }
)


def loss_of(run: Run) -> float:
    """What a training would reach, by a known law; each run a little off, always by the same."""
    cost, lr = run.cost, run.config["lr"]
    clean = 1.2 + 30.0 * cost.params_total**-0.3 + 40.0 * cost.tokens_seen**-0.3
    noise = np.random.default_rng(run.id).normal(0.0, 0.003)
    return float(clean * (1.0 + 0.02 * np.log(lr / 3e-3) ** 2) * np.exp(noise))


def train(sessions: Sessions, limit: int = 100, state: RunState = RunState.FINISHED) -> list[Run]:
    """Executes queued runs at once."""
    with sessions.begin() as session:
        claims = queue.claim(session, "a", 30.0, limit)
    for held in claims:
        point = Point(1, 10, 1000, "val_loss", loss_of(held.run), 1e9)
        with sessions.begin() as session:
            attempts.append(session, held.run.id, held.attempt, [point], "val_loss")
        with sessions.begin() as session:
            assert attempts.finish(session, held.run.id, held.attempt, state, loss_of(held.run), 2.0)
    return [held.run for held in claims]


def play(sessions: Sessions, sweep: Sweep, slots: int = 4) -> Sweep:
    """Trains and advances until the sweep ends."""
    while service.get_sweep(sessions, sweep.id).state == SweepState.RUNNING:
        train(sessions, limit=slots)
        assert service.advance(sessions, sweep.id, slots)
    return service.get_sweep(sessions, sweep.id)


def test_a_sweep_begins_with_its_first_batch(sessions: Sessions) -> None:
    sweep, created = service.create_sweep(sessions, SPEC)
    assert created
    assert (sweep.name, sweep.state, sweep.spec) == ("small", SweepState.RUNNING, SPEC)
    assert sweep.spec_hash == spec_hash(SPEC)
    runs = service.list_runs(sessions, sweep.id)
    assert len(runs) == sweep.counts[RunState.QUEUED] == sweep.reserved.runs == 8
    assert sweep.reserved.flops == pytest.approx(sum(run.cost.flops for run in runs))
    assert sweep.spent == Spent()
    decisions = service.list_decisions(sessions, sweep.id)
    assert [one.run_id for one in decisions] == [run.id for run in runs]
    assert [one.id for one in decisions] == [run.decision_id for run in runs]
    for one, run in zip(decisions, runs, strict=True):
        assert (SPEC.complete(one.config), one.cost, one.sweep_id) == (run.config, run.cost, sweep.id)
        assert one.reason
        assert one.created_at is not None
    kinds = [event.kind for event in service.list_events(sessions, sweep.id)]
    assert kinds == ["sweep_created"] + ["run_queued"] * 8 + ["decision"] * 8


def test_the_same_key_is_the_same_sweep(sessions: Sessions) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: service.create_sweep(sessions, SPEC, "once"), range(16)))
    assert {sweep.id for sweep, _ in answers} == {1}
    assert sum(created for _, created in answers) == 1
    assert [sweep.id for sweep in service.list_sweeps(sessions)] == [1]
    assert len(service.list_runs(sessions, 1)) == 8
    other = replace(SPEC, seed=1)
    with pytest.raises(Conflict, match="'once' stands for sweep 1 with another specification"):
        service.create_sweep(sessions, other, "once")
    service.extend(sessions, 1, Budget(runs=20))
    again, created = service.create_sweep(sessions, SPEC, "once")
    assert (again.id, again.spec.budget.runs, created) == (1, 20, False)
    assert service.create_sweep(sessions, SPEC)[1]
    assert service.create_sweep(sessions, SPEC)[1]
    assert service.create_sweep(sessions, other, "another")[0].id != 1


def test_sweeps_are_listed_newest_first(sessions: Sessions) -> None:
    spec = replace(SPEC, strategy=replace(SPEC.strategy, name="grid"))
    ids = [service.create_sweep(sessions, spec)[0].id for _ in range(5)]
    service.pause(sessions, ids[1])
    listed = service.list_sweeps(sessions, limit=3)
    assert [sweep.id for sweep in listed] == ids[:1:-1]
    assert [sweep.id for sweep in service.list_sweeps(sessions, after=listed[-1].id)] == [ids[1], ids[0]]
    assert [sweep.id for sweep in service.list_sweeps(sessions, state=SweepState.PAUSED)] == [ids[1]]
    assert listed[0] == service.get_sweep(sessions, ids[-1])


def test_what_is_not_there_is_not_found(sessions: Sessions) -> None:
    for read in (service.get_sweep, service.get_run, service.get_fit, service.extend):
        with pytest.raises(NotFound, match=r"there is no .* 7"):
            read(sessions, 7)
    with pytest.raises(NotFound):
        service.advance(sessions, 7, 4)
    assert service.latest_fit(sessions, 7) is None
    assert service.list_runs(sessions, 7) == []


def test_a_sweep_plays_to_its_end(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, SPEC)
    ended = play(sessions, sweep)
    assert ended.state == SweepState.FINISHED
    assert ended.reason == "the budget of 14 runs is spent"
    assert ended.finished_at is not None
    assert ended.counts[RunState.FINISHED] == ended.spent.runs == 14
    assert ended.reserved == Spent()
    runs = service.list_runs(sessions, sweep.id)
    assert ended.spent.flops == pytest.approx(sum(run.cost.flops for run in runs))
    assert ended.spent.device_seconds == pytest.approx(28.0)
    assert len({tuple(run.config.items()) for run in runs}) == 14
    assert [run.id for run in service.list_runs(sessions, sweep.id, after=runs[9].id, limit=2)] == [
        run.id for run in runs[10:12]
    ]
    assert [one.loss for one in service.observations(sessions, sweep.id)] == [loss_of(run) for run in runs]
    headers = service.list_fits(sessions, sweep.id)
    latest = service.latest_fit(sessions, sweep.id)
    assert latest is not None
    assert latest == replace(service.get_fit(sessions, latest.id), ensemble=latest.ensemble)
    assert headers[-1].id == latest.id
    assert service.list_fits(sessions, sweep.id, after=headers[0].id, limit=1) == headers[1:2]
    assert latest.n_observations == latest.ensemble.n == 14
    assert set(latest.predictions) == {"target"}
    told = [event for event in service.list_events(sessions, sweep.id) if event.kind == "fit"]
    answer = latest.predictions["target"]
    assert told[-1].data == {
        "fit_id": latest.id,
        "n_observations": 14,
        "predictions": {"target": {"loss": answer.loss, "low": answer.low, "high": answer.high}},
    }
    later = [one for one in service.list_decisions(sessions, sweep.id) if one.fit_id is not None]
    assert {one.fit_id for one in later} <= {header.id for header in headers}
    assert service.list_events(sessions, sweep.id)[-1].kind == "sweep_finished"


def test_a_second_look_at_the_same_runs_changes_nothing(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, SPEC)
    train(sessions)
    with ThreadPoolExecutor(4) as threads:
        wrote = list(threads.map(lambda _: service.advance(sessions, sweep.id, 3), range(4)))
    assert sorted(wrote) == [False, False, False, True]
    before = service.list_runs(sessions, sweep.id), service.list_events(sessions, sweep.id)
    assert not service.advance(sessions, sweep.id, 3)
    assert (service.list_runs(sessions, sweep.id), service.list_events(sessions, sweep.id)) == before
    assert len(before[0]) == 11
    assert len(service.list_fits(sessions, sweep.id)) == 1
    assert service.get_sweep(sessions, sweep.id).counts[RunState.QUEUED] == 3


def test_looks_in_two_places_keep_the_budget(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, replace(SPEC, budget=Budget(runs=11)))

    def work(_: int) -> None:
        while service.get_sweep(sessions, sweep.id).state == SweepState.RUNNING:
            train(sessions, limit=1)
            service.advance(sessions, sweep.id, 3)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(work, range(3)))
    ended = service.get_sweep(sessions, sweep.id)
    assert ended.counts[RunState.FINISHED] == 11
    assert sum(ended.counts.values()) == 11


def test_only_a_running_sweep_advances(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, SPEC)
    train(sessions)
    service.pause(sessions, sweep.id)
    assert not service.advance(sessions, sweep.id, 3)
    service.resume(sessions, sweep.id)
    assert service.advance(sessions, sweep.id, 3)
    service.cancel(sessions, sweep.id)
    assert not service.advance(sessions, sweep.id, 3)


def test_runs_that_diverged_or_broke_are_replaced(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, SPEC)
    train(sessions, 2, RunState.DIVERGED)
    train(sessions, 1, RunState.FAILED)
    train(sessions)
    assert service.advance(sessions, sweep.id, 4)
    counts = service.get_sweep(sessions, sweep.id).counts
    assert (counts[RunState.FINISHED], counts[RunState.DIVERGED], counts[RunState.FAILED]) == (5, 2, 1)
    assert counts[RunState.QUEUED] > 0
    # Five observations carry no fit yet.
    assert service.latest_fit(sessions, sweep.id) is None
    assert service.list_fits(sessions, sweep.id) == []


def test_runs_that_needed_too_much_memory_bound_the_shape(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, replace(SPEC, trainer=Trainer(retries=0)))
    with sessions.begin() as session:
        claims = queue.claim(session, "a", 30.0, 100)
    largest = sorted(claims, key=lambda held: held.run.cost.memory)[-2:]
    for held in largest:
        with sessions.begin() as session:
            assert attempts.release(session, held.run.id, held.attempt, "no room", True, 1.0, True)
    limit = largest[0].run.cost.memory
    assert [service.get_run(sessions, held.run.id).out_of_memory for held in largest] == [True, True]
    for held in claims:
        if held not in largest:
            with sessions.begin() as session:
                attempts.finish(session, held.run.id, held.attempt, RunState.FINISHED, loss_of(held.run), 2.0)
    assert service.advance(sessions, sweep.id, 4)
    after = service.list_runs(sessions, sweep.id)[len(claims) :]
    assert after and all(run.cost.memory < limit for run in after)


def test_an_attempt_that_goes_on_elsewhere_has_memory_again(sessions: Sessions) -> None:
    service.create_sweep(sessions, SPEC)
    with sessions.begin() as session:
        (held,) = queue.claim(session, "a", 30.0)
        attempts.release(session, held.run.id, held.attempt, "no room", True, 1.0, True)
    assert service.get_run(sessions, held.run.id).out_of_memory
    with sessions.begin() as session:
        (again,) = queue.claim(session, "a", 30.0)
    assert again.run.id == held.run.id and not again.run.out_of_memory


def test_more_budget_wakes_a_finished_sweep(sessions: Sessions) -> None:
    spec = replace(SPEC, budget=Budget(runs=8))
    sweep = play(sessions, service.create_sweep(sessions, spec)[0])
    assert sweep.state == SweepState.FINISHED
    assert service.extend(sessions, sweep.id, tolerance=0.01).state == SweepState.FINISHED
    woken = service.extend(sessions, sweep.id, Budget(runs=10))
    assert (woken.state, woken.reason, woken.finished_at) == (SweepState.RUNNING, None, None)
    assert (woken.spec.budget.runs, woken.spec.stop.tolerance) == (10, 0.01)
    assert play(sessions, woken).spent.runs <= 10
    with pytest.raises(SpecError, match=r"budget\.flops"):
        service.extend(sessions, sweep.id, Budget(runs=10, flops=1.0))
    service.create_sweep(sessions, SPEC)
    service.cancel(sessions, 2)
    with pytest.raises(IllegalTransition, match=r"sweep 2 is cancelled; only a .* can be extended"):
        service.extend(sessions, 2, Budget(runs=99))


def test_a_target_is_trained_with_predicted_settings(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, SPEC)
    with pytest.raises(IllegalTransition, match="sweep 1 has no fit yet"):
        service.verify(sessions, sweep.id, "target", {})
    ended = play(sessions, sweep)
    fit = service.latest_fit(sessions, sweep.id)
    assert fit is not None
    with ThreadPoolExecutor(4) as threads:
        runs = list(threads.map(lambda _: service.verify(sessions, sweep.id, "target", {}), range(4)))
    assert {run.id for run in runs} == {15}
    run = runs[0]
    assert (run.role, run.state, run.target) == (Role.TARGET, RunState.QUEUED, "target")
    assert run.config == SPEC.complete(fit.predictions["target"].at)
    shorter = service.verify(sessions, sweep.id, "target", {"tokens": 5e6, "lr": 2e-3})
    assert (shorter.config["tokens"], shorter.config["lr"]) == (5e6, 2e-3)
    assert len(train(sessions)) == 2
    after = service.get_sweep(sessions, sweep.id)
    assert (after.state, after.spent, after.counts) == (ended.state, ended.spent, ended.counts)
    assert len(service.observations(sessions, sweep.id)) == 14
    assert [one.id for one in service.list_runs(sessions, sweep.id, role=Role.TARGET)] == [15, 16]
    with pytest.raises(NotFound, match="has no target 'other'; it has target"):
        service.verify(sessions, sweep.id, "other", {})
    with pytest.raises(SpecError, match=r"targets\.0\.at\.colour"):
        service.verify(sessions, sweep.id, "target", {"colour": 1.0})


def test_an_unfinished_run_has_spent_what_it_trained(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, SPEC)
    (run,) = train(sessions, 1, RunState.DIVERGED)
    spent = service.get_sweep(sessions, sweep.id).spent
    assert spent.runs == 1
    assert spent.flops == pytest.approx(run.cost.flops * 1000 / run.cost.tokens_seen)
    service.cancel(sessions, sweep.id)
    assert service.get_sweep(sessions, sweep.id).spent.runs == 1


def test_durations_are_learned_from_calibration_and_runs(sessions: Sessions) -> None:
    assert service.durations(sessions, SPEC) is None
    cost = SPEC.cost(SPEC.complete({"width": 32, "depth": 1, "tokens": 1e5}))
    for seconds in (3.0, 2.0):
        service.record_timings(sessions, "CPU one", [Timing(cost, seconds)])
    service.record_timings(sessions, "CPU one", [Timing(cost, 0.5, "mlp", 4, 1e6)])
    service.record_timings(sessions, "GPU two", [Timing(cost, 0.1)])
    assert (
        service.timings(sessions)
        == service.calibration(sessions)
        == [
            Timing(cost, 0.1, "gpt", 1, None, "GPU two"),
            Timing(cost, 0.5, "mlp", 4, 1e6, "CPU one"),
            Timing(cost, 2.0, "gpt", 1, None, "CPU one"),
        ]
    )
    assert service.calibrated(sessions, "CPU one", "mlp")
    assert not service.calibrated(sessions, "GPU two", "mlp")
    known = service.durations(sessions, SPEC)
    assert known is not None and known.stacks is not None and known.stacks.sizes == ()
    model = known.alone
    assert model(cost) == pytest.approx(2.0)
    sweep, _ = service.create_sweep(sessions, SPEC)
    runs = service.list_runs(sessions, sweep.id)
    assert sweep.reserved.device_seconds == pytest.approx(sum(model(run.cost) for run in runs))
    train(sessions, 3)
    assert len(service.timings(sessions)) == 6
    assert [one.kind for one in service.timings(sessions)[:3]] == ["gpt"] * 3


def test_what_changes_of_running_sweeps(sessions: Sessions) -> None:
    first, _ = service.create_sweep(sessions, SPEC)
    second, _ = service.create_sweep(sessions, SPEC)
    assert [one.id for one in (first, second)] == [id_ for id_, *_ in service.running(sessions)]
    train(sessions, 3)
    found = {id_: (spec, standing) for id_, spec, standing in service.running(sessions)}
    assert found[first.id] == (SPEC, service.Standing(revision=0, ended=3))
    assert found[second.id] == (SPEC, service.Standing(revision=0, ended=0))
    service.extend(sessions, first.id, Budget(runs=50))
    service.cancel(sessions, second.id)
    ((id_, spec, standing),) = service.running(sessions)
    assert id_ == first.id and spec.budget.runs == 50
    assert standing == service.Standing(revision=1, ended=3)


def test_a_rest_of_seconds_that_starts_nothing_ends_the_sweep(sessions: Sessions) -> None:
    """Runs are known to be short, so that one would fit; but no attempt starts with less than a second."""
    cost = SPEC.cost(SPEC.complete({"width": 16, "depth": 1, "tokens": 20_000}))
    service.record_timings(sessions, "CPU one", [Timing(cost, 1e-3)])
    limited = replace(SPEC, budget=Budget(runs=60, device_seconds=16.5))
    sweep, _ = service.create_sweep(sessions, limited)
    ended = play(sessions, sweep)
    assert ended.state == SweepState.FINISHED and "device seconds" in (ended.reason or "")
    assert ended.counts[RunState.QUEUED] == 0
    assert ended.counts[RunState.FINISHED] == 8


def test_events_can_be_followed(sessions: Sessions) -> None:
    first, _ = service.create_sweep(sessions, SPEC)
    second, _ = service.create_sweep(sessions, SPEC)
    train(sessions, 2)
    every = service.list_events(sessions, None)
    assert [event.id for event in every] == sorted(event.id for event in every)
    followed, after = [], 0
    while batch := service.list_events(sessions, first.id, after, limit=5):
        followed += batch
        after = batch[-1].id
    assert followed == [event for event in every if event.sweep_id == first.id]
    assert {event.sweep_id for event in every} == {first.id, second.id}


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    """Run 1 has several hundred points of two metrics."""
    engine = make_engine(f"sqlite:///{tmp_path_factory.mktemp('points') / 'a.db'}")
    migrate(engine)
    sessions = make_sessions(engine)
    service.create_sweep(sessions, SPEC)
    points = [
        Point(seq, seq, seq, "train_loss" if seq % 9 else "val_loss", 1.0 / seq, 1e9) for seq in range(1, 791)
    ]
    with sessions.begin() as session:
        (held,) = queue.claim(session, "a", 30.0)
        attempts.append(session, held.run.id, held.attempt, points, "val_loss")
    yield sessions
    engine.dispose()


@given(limit=st.integers(2, 1000))
@settings(max_examples=25)
def test_points_are_thinned_evenly(long_run: Sessions, limit: int) -> None:
    full = service.list_points(long_run, 1, "train_loss", 1000)
    thin = service.list_points(long_run, 1, "train_loss", limit)
    assert len(thin) == min(limit, len(full))
    assert (thin[0], thin[-1]) == (full[0], full[-1])
    places = [full.index(point) for point in thin]
    gaps = np.diff(places)
    assert gaps.max() - gaps.min() <= 1
    both = service.list_points(long_run, 1, limit=limit)
    assert [point for point in both if point.metric == "train_loss"] == thin
    assert [point.seq for point in both] == sorted(point.seq for point in both)


def test_points_are_thinned_on_every_database(sessions: Sessions) -> None:
    service.create_sweep(sessions, SPEC)
    points = [Point(seq, seq, seq, "val_loss", 1.0 / seq, 1e9) for seq in range(1, 1001)]
    with sessions.begin() as session:
        (held,) = queue.claim(session, "a", 30.0)
        attempts.append(session, held.run.id, held.attempt, points, "val_loss")
    assert service.list_points(sessions, 1, limit=4) == [points[i] for i in (0, 333, 666, 999)]
    assert service.list_points(sessions, 1, limit=2) == [points[0], points[-1]]
    assert service.list_points(sessions, 1, "other") == []
