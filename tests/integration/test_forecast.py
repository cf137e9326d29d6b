"""The final loss of a run of a sweep, forecast over HTTP from its streamed points."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from serving import Served, serve
from synthetic import curve
from typer.testing import CliRunner

import conf
from api.cli import app
from api.client import ServiceError
from store import attempts, queue
from sweeps.curves.running import nearest
from sweeps.curves.schedule import trained
from sweeps.runs import Point, Run, RunState
from sweeps.spec import parse
from sweeps.trainer import Trainer
from workers import optimizer


def given() -> dict[str, Any]:
    """Runs of two shapes that are long enough to have a curve."""
    return conf.sweep("gpt_tiny") | {
        "space": {
            "width": [8, 12],
            "depth": [1],
            "resolution": [16],
            "tokens": [20_480, 40_960],
            "lr": [4e-3, 8e-3],
            "batch": [4],
        },
        "strategy": {"name": "grid", "first_batch": 8},
    }


def stream(served: Served, claim: queue.Claim, points: list[Point], *, end: bool) -> None:
    with served.sessions.begin() as session:
        attempts.append(session, claim.run.id, claim.attempt, points, "val_loss")
    if end:
        with served.sessions.begin() as session:
            attempts.finish(session, claim.run.id, claim.attempt, RunState.FINISHED, points[-1].value, 1.0)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Sweep 1: run 1 is half done, 2 has one point, 3 diverged, 4 has none yet, 5 to 8 are finished."""
    with serve(tmp_path_factory.mktemp("forecast")) as running:
        sweep = running.client.submit(given())
        with running.sessions.begin() as session:
            claims = {claim.run.id: claim for claim in queue.claim(session, "test", 600.0, 8)}
        assert len(claims) == 8
        for claim in claims.values():
            points = curve(sweep.spec, claim.run)
            if claim.run.id == 1:
                stream(running, claim, points[:17], end=False)
            elif claim.run.id == 2:
                stream(running, claim, points[:1], end=False)
            elif claim.run.id == 3:
                with running.sessions.begin() as session:
                    attempts.finish(
                        session, 3, claim.attempt, RunState.DIVERGED, None, 1.0, "the loss is nan"
                    )
            elif claim.run.id > 4:
                stream(running, claim, points, end=True)
        running.client.submit(given())
        yield running


def test_a_running_run_is_continued_beside_finished_ones_of_its_shape(served: Served) -> None:
    sweep, run = served.client.sweep(1), served.client.run(1)
    started = time.perf_counter()
    found = served.client.forecast(1, 1)
    assert time.perf_counter() - started < 5.0
    points = curve(sweep.spec, run)
    steps = round(run.cost.steps)
    assert (found.state, found.points, found.step, found.steps) == ("running", 17, points[16].step, steps)
    assert found.low < points[-1].value < found.high
    assert found.loss == pytest.approx(points[-1].value, rel=0.02)
    assert found.low <= found.mean_low < found.loss < found.mean_high <= found.high
    assert found.measured is None and found.metric == "val_loss"
    shapes = {served.client.run(id).config["width"] for id in found.companions}
    assert shapes <= {run.config["width"]} and 1 not in found.companions
    assert found.ahead["step"][0] == found.step and found.ahead["step"][-1] == steps
    assert found.ahead["loss"][-1] == found.loss
    assert sum(found.laws.values()) == pytest.approx(1.0)


def test_a_finished_run_is_held_against_what_would_have_been_said(served: Served) -> None:
    run = served.client.run(8)
    known = served.client.forecast(1, 8)
    assert known.measured == run.loss and known.step == known.steps
    assert known.loss == pytest.approx(run.loss, rel=3e-3)
    half = served.client.forecast(1, 8, until=known.steps // 2, level=0.8)
    assert half.step <= known.steps // 2 and half.level == 0.8 and half.measured == run.loss
    assert half.low < run.loss < half.high  # type: ignore[operator]
    assert half.high - half.low > known.high - known.low


def test_the_command_prints_it_and_gives_json(served: Served) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(
            app, ["--url", served.url, "forecast", *arguments], catch_exceptions=False
        )
        assert result.exit_code == 0
        return result.stdout

    assert "final loss" in run("1", "1") and "90 % interval" in run("1", "1")
    assert "measured" in run("1", "8", "--until", "200")
    assert json.loads(run("1", "1", "--json"))["run_id"] == 1


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("1/runs/99", 404, "there is no run 99"),
        ("99/runs/1", 404, "sweep 99 has no run 1"),
        ("2/runs/1", 404, "sweep 2 has no run 1"),
        ("1/runs/3", 409, "run 3 diverged"),
        ("1/runs/4", 409, "run 4 is running and has no val_loss"),
        ("1/runs/9", 404, "sweep 1 has no run 9"),
        ("2/runs/9", 409, "run 9 is queued and has no val_loss"),
        ("1/runs/8", 409, "has no val_loss up to step 1"),
    ],
)
def test_what_cannot_be_forecast_is_a_problem(served: Served, path: str, status: int, words: str) -> None:
    query = {"until": 1} if path == "1/runs/8" else {}
    response = served.client.http.get(f"/v1/sweeps/{path}/forecast", params=query)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert words in response.json()["detail"]


def test_too_few_points_in_all_are_a_conflict(served: Served) -> None:
    with served.sessions.begin() as session:
        (claim,) = queue.claim(session, "test", 600.0, 1)
    stream(served, claim, curve(served.client.sweep(2).spec, claim.run)[:4], end=False)
    with pytest.raises(ServiceError, match="4 points of val_loss, 4 in all; allowed: at least 6") as raised:
        served.client.forecast(claim.run.sweep_id, claim.run.id)
    assert raised.value.status == 409


@pytest.mark.parametrize("query", ["level=1", "level=0", "until=0", "until=x"])
def test_bad_questions_are_named(served: Served, query: str) -> None:
    response: httpx.Response = served.client.http.get(f"/v1/sweeps/1/runs/1/forecast?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == query.split("=")[0]


def test_the_nearest_runs_are_of_the_same_shape(served: Served) -> None:
    run = served.client.run(8)

    def other(id: int, state: RunState = RunState.FINISHED, **config: float) -> Run:
        return replace(run, id=id, state=state, config=run.config | config)

    lr, tokens = run.config["lr"], run.config["tokens"]
    others = [
        other(20, lr=4 * lr),
        other(21, tokens=2 * tokens),
        other(22, lr=2 * lr),
        other(23, width=99.0),
        other(24, RunState.RUNNING),
        other(25, seed=7.0),
        run,
    ]
    assert [one.id for one in nearest(run, others, most=3)] == [25, 21, 22]
    assert [one.id for one in nearest(run, others)] == [25, 21, 22, 20]


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_rate_is_the_trainers(schedule: str) -> None:
    spec = parse(given() | {"trainer": {"schedule": schedule, "warmup": 0.07, "decay": 0.3}})
    trainer: Trainer = spec.trainer
    for steps in (1, 10, 320, 641):
        lr = trained(trainer.schedule, steps, 8e-3, trainer.warmup, trainer.decay)
        assert lr.tolist() == [8e-3 * optimizer.rate(trainer, step, steps) for step in range(steps)]
