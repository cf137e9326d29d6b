"""Training on real text: numbers, interruptions, divergence, memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hearing import CLOCK, Ear
from torch.profiler import ProfilerActivity, profile

from sweeps import data
from sweeps.data import STDLIB
from sweeps.runs import Point
from sweeps.spec import SweepSpec, parse
from workers import cohort, device
from workers.cohort import Cohort
from workers.job import Job, Outcome
from workers.member import evaluation_steps
from workers.train import train

CONFIG = {"width": 8.0, "depth": 1.0, "tokens": 8e3, "lr": 1e-2, "batch": 4.0, "resolution": 32.0}
METRICS = ["val_loss", "train_loss", "lr", "grad_norm", "tokens_per_second", "flop_utilisation", "spikes"]


def make_spec(**settings: Any) -> SweepSpec:
    given: dict[str, Any] = {
        "name": "tiny",
        "space": {"width": [8, 16], "depth": 1, "tokens": [8e3, 1e6]},
        "targets": [{"at": {"width": 32, "depth": 1, "tokens": 1e6}}],
        "trainer": {"eval_tokens": 512, "evaluations": 4} | settings.pop("trainer", {}),
    }
    return parse(given | settings)


def make_job(path: Path, spec: SweepSpec | None = None, **config: float) -> Job:
    return Job(1, 1, spec or make_spec(), STDLIB, CONFIG | config, str(path / "run-1.pt"), 1e9, None)


class Gone(BaseException):
    """The worker's process dies."""


def run(job: Job, stop: Callable[[list[Point]], bool] = lambda _: False) -> tuple[Outcome, list[Point]]:
    ear = Ear(lambda _, points: stop(points))
    train([job], ear)
    return ear.outcomes[job.run_id], ear.heard


def repeatable(points: list[Point]) -> list[tuple[int, int, int, str, float]]:
    """Points without what a clock decides."""
    return [(p.seq, p.step, p.tokens, p.metric, 0.0 if p.metric in CLOCK else p.value) for p in points]


def test_a_process_learns_of_data_in_the_settings_by_the_run(tmp_path: Path) -> None:
    source = data.register(replace(STDLIB, name="mine"))
    given = replace(make_job(tmp_path, make_spec(proxy={"dataset": "mine"}), tokens=1280.0), source=source)
    del data._BY_NAME["mine"]
    assert run(given)[0].status == "finished"
    del data._BY_NAME["mine"]


def test_a_run_learns_and_reports_its_points_in_order(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    outcome, points = run(job)
    losses = [point.value for point in points if point.metric == "val_loss"]
    assert outcome.status == "finished"
    assert outcome.reason is None
    assert outcome.step == 62
    assert outcome.tokens == 62 * 4 * 32
    assert outcome.seconds > 0
    assert outcome.loss == losses[-1] < losses[0] < math.log(256) + 0.01
    assert [point.seq for point in points] == list(range(1, 4 * len(METRICS) + 1))
    assert [point.metric for point in points] == 4 * METRICS
    assert [point.step for point in points[:: len(METRICS)]] == sorted(evaluation_steps(62, 4))
    assert all(point.tokens == point.step * 4 * 32 for point in points)
    assert list(tmp_path.iterdir()) == []


def test_the_same_run_gives_the_same_numbers_and_another_seed_does_not(tmp_path: Path) -> None:
    _, first = run(make_job(tmp_path))
    _, again = run(make_job(tmp_path))
    _, other = run(make_job(tmp_path, seed=1))
    assert repeatable(first) == repeatable(again)
    assert repeatable(first) != repeatable(other)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd", "schedule": "constant"}])
def test_an_interrupted_run_ends_bit_for_bit_as_one_left_alone(
    tmp_path: Path, settings: Mapping[str, Any]
) -> None:
    job = make_job(tmp_path, make_spec(trainer=settings))
    whole, points = run(job)
    stopped, before = run(job, bool)
    assert stopped.status == "stopped"
    assert stopped.reason == "asked to stop"
    assert stopped.loss is None
    assert 0 < stopped.step < whole.step
    assert Path(job.checkpoint).exists()
    resumed, after = run(replace(job, attempt=2))
    assert resumed.loss == whole.loss
    assert resumed.step == whole.step
    assert repeatable(after) == repeatable(points)
    assert after[: len(before)] == before
    assert Path(job.checkpoint).exists()  # whoever stores the outcome deletes it


def test_a_worker_that_dies_loses_only_what_follows_its_last_checkpoint(tmp_path: Path) -> None:
    job = replace(make_job(tmp_path), checkpoint_seconds=0.0)
    whole, points = run(job)

    def die(points: list[Point]) -> bool:
        if points and points[-1].step > 20:
            raise Gone
        return False

    with pytest.raises(Gone):
        run(job, die)
    resumed, after = run(job)
    assert resumed.loss == whole.loss
    assert repeatable(after) == repeatable(points)


def test_a_checkpoint_of_other_settings_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(make_job(tmp_path), bool)
    outcome, points = run(make_job(tmp_path, lr=2e-2))
    fresh, expected = run(make_job(tmp_path, lr=2e-2))
    assert "belongs to another run" in caplog.text
    assert outcome.loss == fresh.loss
    assert repeatable(points) == repeatable(expected)


def test_a_stop_is_noticed_between_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "REPORT_SECONDS", 0.0)
    calls: list[int] = []

    def stop(points: list[Point]) -> bool:
        calls.append(len(points))
        return len(calls) > 5

    outcome, _ = run(make_job(tmp_path, make_spec(trainer={"evaluations": 1})), stop)
    assert outcome.step == 5
    assert calls == [0] * 6


def test_device_seconds_are_a_hard_limit(tmp_path: Path) -> None:
    job = replace(make_job(tmp_path, tokens=1e6), max_seconds=0.3)
    began = time.monotonic()
    outcome, _ = run(job)
    assert outcome.status == "stopped"
    assert outcome.reason == "device-second budget"
    assert 0.3 <= outcome.seconds <= time.monotonic() - began
    assert Path(job.checkpoint).exists()


@pytest.mark.parametrize("settings", [{"warmup": 0}, {"warmup": 0, "optimizer": "sgd", "clip": 1e3}])
def test_a_rate_far_too_high_diverges_with_a_reason(tmp_path: Path, settings: Mapping[str, Any]) -> None:
    job = make_job(tmp_path, make_spec(trainer=settings), lr=10.0)
    outcome, _ = run(job)
    assert outcome.status == "diverged"
    assert outcome.loss is None
    assert outcome.reason is not None
    assert "has been above 6.05 for 20 steps" in outcome.reason
    assert not Path(job.checkpoint).exists()


def test_the_swept_metric_is_the_result(tmp_path: Path) -> None:
    outcome, points = run(make_job(tmp_path, make_spec(metric={"name": "train_loss"})))
    assert outcome.loss == [point.value for point in points if point.metric == "train_loss"][-1]


def test_half_precision_trains_to_nearly_the_same_loss(tmp_path: Path) -> None:
    full, _ = run(make_job(tmp_path))
    half, _ = run(make_job(tmp_path, make_spec(trainer={"precision": "bfloat16"})))
    assert half.loss == pytest.approx(full.loss, rel=0.01)
    assert half.loss != full.loss


@pytest.mark.parametrize(
    ("width", "depth", "batch", "resolution"),
    [(8, 1, 8, 64), (16, 3, 8, 64), (64, 2, 4, 32), (128, 2, 1, 16), (512, 1, 4, 16)],
)
def test_memory_is_the_measured_peak_of_a_step(
    tmp_path: Path, width: int, depth: int, batch: int, resolution: int
) -> None:
    """Within 11 %: the feed-forward part's temporaries at large widths are not counted."""
    shape = {"width": width, "depth": depth, "batch": batch, "resolution": resolution, "tokens": 1e6}
    training = Cohort([make_job(tmp_path, **shape)])
    for _ in range(2):
        training.advance()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        training.advance()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    peak = used = 0
    for event in sorted(
        (event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()
    ):
        used += event.nbytes()
        peak = max(peak, used)
    state = training.engine.state(0)
    standing = sum(
        part.nbytes for parts in state.values() if isinstance(parts, dict) for part in parts.values()
    )
    assert training.members[0].cost.memory == pytest.approx(standing + peak, rel=0.11)


@pytest.mark.parametrize(("steps", "count"), [(1, 8), (3, 8), (10, 1), (1000, 8), (50, 50)])
def test_evaluations_end_with_the_last_step(steps: int, count: int) -> None:
    found = evaluation_steps(steps, count)
    assert max(found) == steps
    assert min(found) >= 1
    assert len(found) <= count
    assert len(found) == min(count, steps) or steps < 4 * count


def test_what_needs_more_memory_than_there_is_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "memory", lambda _: 1e5)
    outcome, _ = run(make_job(tmp_path))
    assert (outcome.status, outcome.out_of_memory, outcome.hopeless) == ("failed", True, True)
    assert outcome.reason is not None and "has 0.0001 GB; take a smaller batch" in outcome.reason


def test_gpus_that_are_not_there_are_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    outcome, _ = run(make_job(tmp_path, make_spec(resources={"gpus": 1})))
    assert outcome.status == "failed"
    assert outcome.reason is not None and "sees no GPU here; set resources" in outcome.reason
