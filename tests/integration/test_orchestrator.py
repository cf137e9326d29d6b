"""The orchestrator with runs in its own process: claims, points, ends, stops, resumes."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from store import lifecycle, service
from store.db import Sessions, reading
from store.models import AttemptRow
from sweeps.runs import Observation, Role, RunState, SweepState
from sweeps.spec import SweepSpec
from workers import device, outcomes

Tiny = Callable[..., SweepSpec]


def attempts(sessions: Sessions, run_id: int) -> list[AttemptRow]:
    with reading(sessions) as session:
        found = select(AttemptRow).where(AttemptRow.run_id == run_id).order_by(AttemptRow.attempt)
        return list(session.scalars(found))


def ended(sessions: Sessions, sweep_id: int) -> bool:
    return service.get_sweep(sessions, sweep_id).state is not SweepState.RUNNING


def test_a_sweep_runs_to_its_end(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any, home: Path
) -> None:
    sweep, _ = service.create_sweep(file_sessions, tiny())
    with orchestrate(slots=2):
        until(lambda: ended(file_sessions, sweep.id), "the sweep's end")
    sweep = service.get_sweep(file_sessions, sweep.id)
    runs = service.list_runs(file_sessions, sweep.id)
    assert sweep.state is SweepState.FINISHED
    assert [run.state for run in runs] == [RunState.FINISHED] * 3
    assert {one.run_id for one in service.observations(file_sessions, sweep.id)} == {run.id for run in runs}
    for run in runs:
        points = service.list_points(file_sessions, run.id)
        losses = [point.value for point in points if point.metric == "val_loss"]
        assert [point.seq for point in points] == list(range(1, len(points) + 1))
        assert losses[-1] == run.loss
        assert run.step == run.cost.steps
        assert run.seconds > 0
        (attempt,) = attempts(file_sessions, run.id)
        assert (attempt.device, attempt.members, attempt.memory) == (device.name(), 1, None)
    assert list((home / "checkpoints").glob("*.pt")) == []


def test_what_ran_is_stored_with_the_attempt(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any
) -> None:
    sweep, _ = service.create_sweep(file_sessions, tiny())
    assert service.get_run(file_sessions, 1).provenance is None
    with orchestrate():
        until(lambda: ended(file_sessions, sweep.id), "the sweep's end")
    run = service.list_runs(file_sessions, sweep.id)[0]
    (attempt,) = attempts(file_sessions, run.id)
    found = attempt.provenance
    assert found is not None and found == service.get_run(file_sessions, run.id).provenance
    assert found["torch"] == torch.__version__
    assert found["seed"] == run.config["seed"]
    assert found["threads"] == 1 and found["deterministic"] is True
    assert re.fullmatch("[0-9a-f]{64}", found["data_train"])


def test_two_orchestrators_share_the_runs(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any
) -> None:
    space = {
        "width": [8],
        "depth": [1, 2],
        "resolution": [16],
        "batch": [4],
        "tokens": [1280, 2560, 5120, 10240],
    }
    spec = tiny(space=space, strategy={"name": "grid", "first_batch": 8}, budget={"runs": 8})
    sweep, _ = service.create_sweep(file_sessions, spec)
    with orchestrate("one"), orchestrate("two"):
        until(lambda: ended(file_sessions, sweep.id), "the sweep's end")
    runs = service.list_runs(file_sessions, sweep.id)
    assert [(run.state, run.attempt) for run in runs] == [(RunState.FINISHED, 1)] * 8
    assert len(service.observations(file_sessions, sweep.id)) == 8


def test_a_run_that_starts_as_the_database_goes_away_is_stored_with_its_worker(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = iter([OperationalError("", None, Exception("the database is away"))])

    def place(*given: Any) -> None:
        for error in away:
            raise error
        outcomes.place(*given)

    monkeypatch.setattr("workers.orchestrator.place", place)
    sweep, _ = service.create_sweep(file_sessions, tiny())
    with orchestrate():
        until(lambda: ended(file_sessions, sweep.id), "the sweep's end")
    assert next(away, None) is None
    for run in service.list_runs(file_sessions, sweep.id):
        (attempt,) = attempts(file_sessions, run.id)
        assert (attempt.worker, attempt.outcome) == (f"thread-{run.id}-1", "finished")


def test_a_stopped_run_goes_on_from_its_checkpoint(
    file_sessions: Sessions,
    tiny: Tiny,
    orchestrate: Any,
    until: Any,
    long_space: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    spec = tiny(space=long_space, budget={"runs": 1})
    sweep, _ = service.create_sweep(file_sessions, spec)
    run_id = service.list_runs(file_sessions, sweep.id)[0].id
    with orchestrate("one"):
        until(lambda: service.get_run(file_sessions, run_id).step > 0, "the first point")
    stopped = service.get_run(file_sessions, run_id)
    assert stopped.state is RunState.QUEUED
    with orchestrate("two"):
        until(lambda: service.get_run(file_sessions, run_id).state is RunState.FINISHED, "its end")
    first, second = attempts(file_sessions, run_id)
    points = service.list_points(file_sessions, run_id)
    assert (first.outcome, second.outcome) == ("preempted", "finished")
    assert re.search(rf"run.{run_id}\b.* goes on from step [1-9]", caplog.text)
    assert [point.seq for point in points] == list(range(1, len(points) + 1))
    assert first.seconds is not None and second.seconds is not None
    assert service.get_run(file_sessions, run_id).seconds == first.seconds + second.seconds


def test_a_cancelled_run_makes_room(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any, long_space: dict[str, Any]
) -> None:
    endless = tiny(name="endless", space=long_space | {"tokens": [100_000_000]}, budget={"runs": 1})
    long, _ = service.create_sweep(file_sessions, endless)
    short, _ = service.create_sweep(file_sessions, tiny())
    run_id = service.list_runs(file_sessions, long.id)[0].id
    with orchestrate():
        until(lambda: service.get_run(file_sessions, run_id).state is RunState.RUNNING, "its start")
        service.cancel(file_sessions, long.id)
        until(lambda: ended(file_sessions, short.id), "the other sweep's end")
        until(lambda: attempts(file_sessions, run_id)[0].ended_at, "the end of the cancelled attempt")
    assert service.get_run(file_sessions, run_id).state is RunState.CANCELLED
    assert service.get_run(file_sessions, run_id).seconds > 0
    assert service.get_sweep(file_sessions, short.id).state is SweepState.FINISHED


def test_a_run_that_is_stopped_early_ends_and_leaves_its_forecast(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any, long_space: dict[str, Any], home: Path
) -> None:
    spec = tiny(space=long_space | {"tokens": [100_000_000]}, budget={"runs": 1})
    sweep, _ = service.create_sweep(file_sessions, spec)
    run_id = service.list_runs(file_sessions, sweep.id)[0].id
    with orchestrate():
        until(lambda: list((home / "checkpoints").glob("*.pt")), "its first checkpoint")
        run = service.get_run(file_sessions, run_id)
        known = Observation(run.config, run.cost, 2.2, run_id, "forecast", 0.002)
        with file_sessions.begin() as session:
            assert lifecycle.halt(session, sweep.id, known, "stopped early")
        until(lambda: attempts(file_sessions, run_id)[0].ended_at, "the end of its attempt")
        until(lambda: ended(file_sessions, sweep.id), "the sweep's end")
    run = service.get_run(file_sessions, run_id)
    assert (run.state, run.reason) == (RunState.CANCELLED, "stopped early")
    assert run.seconds > 0
    assert service.observations(file_sessions, sweep.id) == [known]
    assert list((home / "checkpoints").glob("*.pt")) == []


def test_what_can_never_run_fails_with_a_reason(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any
) -> None:
    spec = tiny(resources={"cpus": 1, "gpus": 1}, budget={"runs": 3})
    sweep, _ = service.create_sweep(file_sessions, spec)
    with orchestrate():
        until(lambda: ended(file_sessions, sweep.id), "the sweep's end")
    runs = service.list_runs(file_sessions, sweep.id)
    assert {run.state for run in runs} == {RunState.FAILED}
    assert all("GPU" in (run.reason or "") and run.attempt == 1 for run in runs)


def test_a_run_that_needs_too_much_memory_is_told_from_others(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any
) -> None:
    """A step of 2^40 tokens: its first tensor alone has 8.8e12 bytes."""
    space = {
        "width": [8],
        "depth": [1],
        "resolution": [2**20],
        "batch": [2**20],
        "tokens": [10 * 2**40, 11 * 2**40],
    }
    sweep, _ = service.create_sweep(
        file_sessions,
        tiny(space=space, strategy={"first_batch": 3}, budget={"runs": 1}, trainer={"retries": 0}),
    )
    with orchestrate():
        until(lambda: ended(file_sessions, sweep.id), "the sweep's end")
    (run,) = service.list_runs(file_sessions, sweep.id)
    assert run.state is RunState.FAILED and run.out_of_memory
    assert run.reason is not None and run.reason.startswith("out of memory: ")


def test_device_seconds_are_a_hard_limit(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any, long_space: dict[str, Any]
) -> None:
    spec = tiny(space=long_space | {"tokens": [100_000_000]}, budget={"runs": 1, "device_seconds": 2})
    sweep, _ = service.create_sweep(file_sessions, spec)
    with orchestrate():
        until(lambda: ended(file_sessions, sweep.id), "the sweep's end")
    run = service.list_runs(file_sessions, sweep.id)[0]
    assert run.state is RunState.CANCELLED
    assert run.seconds < 4


def test_a_paused_sweep_waits_and_lets_others_run(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any
) -> None:
    sweep, _ = service.create_sweep(file_sessions, tiny())
    service.pause(file_sessions, sweep.id)
    other, _ = service.create_sweep(file_sessions, tiny(name="other"))
    with orchestrate():
        until(lambda: ended(file_sessions, other.id), "the other sweep's end")
        assert {run.state for run in service.list_runs(file_sessions, sweep.id)} == {RunState.QUEUED}
        service.resume(file_sessions, sweep.id)
        until(lambda: ended(file_sessions, sweep.id), "the resumed sweep's end")
    assert len(service.list_runs(file_sessions, sweep.id, RunState.FINISHED, Role.PROXY)) == 3


RATES = {
    "width": [8],
    "depth": [1],
    "resolution": [16],
    "batch": [4],
    "lr": [1e-3, 2e-3, 4e-3, 8e-3],
    "seed": [0, 1],
    "tokens": [1280],
}


def test_runs_of_one_shape_train_together(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any, home: Path
) -> None:
    spec = tiny(space=RATES, strategy={"name": "grid", "first_batch": 8}, budget={"runs": 8})
    sweep, _ = service.create_sweep(file_sessions, spec)
    with orchestrate(slots=2, members=3):
        until(lambda: ended(file_sessions, sweep.id), "the sweep's end")
    runs = service.list_runs(file_sessions, sweep.id)
    assert [run.state for run in runs] == [RunState.FINISHED] * 8
    assert len({run.loss for run in runs}) == 8
    members = [attempts(file_sessions, run.id)[0].members for run in runs]
    assert sorted(members) == [2, 2, 3, 3, 3, 3, 3, 3]
    assert len({attempts(file_sessions, run.id)[0].worker for run in runs}) == 3
    for run in runs:
        points = service.list_points(file_sessions, run.id)
        assert [point.seq for point in points] == list(range(1, len(points) + 1))
    assert list((home / "checkpoints").glob("*.pt")) == []


def test_one_of_many_is_cancelled_and_the_others_go_on(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any
) -> None:
    space = RATES | {"lr": [1e-3, 2e-3], "tokens": [30_000]}
    short = tiny(space=space, strategy={"name": "grid", "first_batch": 4}, budget={"runs": 4})
    sweep, _ = service.create_sweep(file_sessions, short)
    run_id = service.list_runs(file_sessions, sweep.id)[1].id
    with orchestrate(members=4):
        until(lambda: service.get_run(file_sessions, run_id).step > 0, "its first point")
        run = service.get_run(file_sessions, run_id)
        known = Observation(run.config, run.cost, 4.0, run_id, "forecast", 0.02)
        with file_sessions.begin() as session:
            assert lifecycle.halt(session, sweep.id, known, "stopped early")
        until(lambda: ended(file_sessions, sweep.id), "the sweep's end")
    states = [run.state for run in service.list_runs(file_sessions, sweep.id)]
    assert states.count(RunState.CANCELLED) == 1
    assert states.count(RunState.FINISHED) >= 3
    assert service.get_run(file_sessions, run_id).state is RunState.CANCELLED


def test_a_cohort_that_is_interrupted_goes_on(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any
) -> None:
    space = RATES | {"lr": [1e-3, 2e-3, 4e-3], "seed": [0], "tokens": [30_000]}
    sweep, _ = service.create_sweep(file_sessions, tiny(space=space))
    every = [run.id for run in service.list_runs(file_sessions, sweep.id)]
    with orchestrate("one", members=3):
        until(lambda: service.get_run(file_sessions, every[-1]).step > 0, "the first point")
    assert [service.get_run(file_sessions, run).state for run in every] == [RunState.QUEUED] * 3
    with orchestrate("two", members=3):
        until(lambda: ended(file_sessions, sweep.id), "the sweep's end")
    for run in every:
        first, second = attempts(file_sessions, run)
        assert (first.outcome, second.outcome) == ("preempted", "finished")
        assert (first.members, second.members) == (3, 3)
        points = service.list_points(file_sessions, run)
        assert [point.seq for point in points] == list(range(1, len(points) + 1))
