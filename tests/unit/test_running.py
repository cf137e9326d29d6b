"""Runs that still train as observations: which enter, what they weigh, what they leave to be learned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
import pytest
from synthetic import World, curve, observe, spec

from sweeps.curves import running
from sweeps.ensemble import Ensemble, fit_ensemble, from_dict, learn, precisions, to_dict
from sweeps.model import frame, models
from sweeps.noise import SIGMA
from sweeps.runs import Decision, Observation, Point, Role, Run, RunState, Spent
from sweeps.scheduler import Look, decide
from sweeps.space import tabulate_configs
from sweeps.spec import Config
from sweeps.surface import surface

SPEC, WORLD = spec(), World()
DONE = observe(SPEC, WORLD, 15, seed=1)
Choice: TypeAlias = tuple[list[Decision], str | None]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def known() -> Ensemble:
    return fit_ensemble(SPEC, DONE, rng())


def forecast_of(one: Observation, deviation: float, off: float = 0.0) -> Observation:
    """As if it still trained and were forecast ``off`` in ln loss."""
    return replace(one, loss=one.loss * np.exp(off), deviation=deviation, provenance="forecast")


def run(id: int, state: RunState = RunState.FINISHED, done: float = 1.0, **config: float) -> Run:
    full = SPEC.complete({"width": 16, "depth": 1, "tokens": 8e5, "lr": 4e-3, "batch": 8} | config)
    cost, at = SPEC.cost(full), datetime(2026, 1, 1, tzinfo=UTC)
    return Run(
        id=id,
        sweep_id=1,
        role=Role.PROXY,
        state=state,
        config=full,
        cost=cost,
        attempt=1,
        step=round(done * cost.steps),
        tokens=0,
        loss=None,
        seconds=0.0,
        reason=None,
        target=None,
        decision_id=None,
        created_at=at,
        started_at=at,
        finished_at=None,
    )


def points(*runs: Run, evaluations: int = 24) -> dict[int, list[Point]]:
    return {one.id: [p for p in curve(SPEC, one, evaluations) if p.step <= one.step] for one in runs}


def test_a_forecast_weighs_by_its_precision() -> None:
    given = [forecast_of(DONE[0], deviation) for deviation in (0.0, SIGMA, running.WIDEST)]
    assert precisions(given) == pytest.approx([1.0, 0.5, 0.1])


def test_a_fit_without_forecasts_is_as_ever(known: Ensemble) -> None:
    frame_ = frame(SPEC)
    table = tabulate_configs(SPEC, [one.config for one in DONE])
    loss = np.array([one.loss for one in DONE])
    family = models(SPEC.laws.names, surface(SPEC))
    plain = learn(family, frame_, frame_.columns(table), loss, rng(), tuple(one.run_id for one in DONE))
    assert to_dict(known) == to_dict(plain)


def test_a_forecast_moves_a_fit_by_its_weight() -> None:
    last = max(DONE, key=lambda one: one.cost.flops)
    others = [one for one in DONE if one is not last]
    at = frame(SPEC).columns(tabulate_configs(SPEC, [last.config]))

    def level(one: Ensemble) -> float:
        pairs = one.pairs(surface(SPEC))
        return sum(m.weight * (model.log_loss(m.fit.theta, at)[0] + m.fit.loss_centre) for model, m in pairs)

    sure, wide, wild = (
        fit_ensemble(SPEC, [*others, forecast_of(last, sd, -0.02)], rng())
        for sd in (0.0, running.WIDEST, 1.0)
    )
    before = level(fit_ensemble(SPEC, others, rng()))
    moved = [before - level(one) for one in (sure, wide, wild)]
    assert moved[0] > 2.0 * moved[1] > 4.0 * abs(moved[2])
    assert (sure.forecasts, wide.forecasts) == ((), (last.run_id,))
    assert sure.runs == wide.runs


def test_a_stored_fit_says_which_runs_were_forecast(known: Ensemble) -> None:
    stored = json.loads(json.dumps(to_dict(replace(known, forecasts=(3, 4)))))
    assert from_dict(stored).forecasts == (3, 4)
    del stored["forecasts"]  # as fits were stored before there were any
    assert from_dict(stored).forecasts == ()


def test_the_furthest_with_a_finished_run_of_their_shape_are_forecast() -> None:
    active = [run(id, RunState.RUNNING, done) for id, done in enumerate((0.2, 0.5, 0.9, 0.4, 0.6, 0.7), 1)]
    active.append(run(7, RunState.RUNNING, 0.95, width=24))
    finished = [run(20, lr=8e-3), run(21, lr=1.6e-2), run(22, tokens=4e5), run(23, width=32)]
    found = running.furthest(active, finished)
    assert [one.id for one, _ in found] == [3, 6, 5, 2]
    assert all([other.id for other in others] == [22, 20] for _, others in found)


def test_a_running_run_becomes_an_observation() -> None:
    one, other = run(1, RunState.RUNNING, 0.6), run(2, tokens=4e5)
    found = running.observe(SPEC, one, points(one, other), [other])
    assert found is not None
    assert (found.run_id, found.config, found.cost) == (1, one.config, one.cost)
    assert found.provenance == "forecast" and 0.0 < found.deviation < SIGMA
    end = curve(SPEC, one)[-1].value
    assert abs(np.log(found.loss / end)) < 3.0 * found.deviation
    told = running.forecast_run(SPEC, one, points(one, other), [other], brief=True)
    assert (found.loss, found.deviation) == (told.loss, told.deviation)
    assert replace(told, high=told.low).deviation == 0.0


@pytest.mark.parametrize("reason", ["few points", "early", "alone", "wide", "broken"])
def test_a_forecast_that_tells_too_little_is_left_out(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = run(1, RunState.RUNNING, 0.2 if reason == "early" else 0.6), run(2, tokens=4e5)
    known = points(one, other)
    if reason == "few points":
        known[1] = known[1][-5:]
    if reason == "wide":
        monkeypatch.setattr(running, "WIDEST", 1e-4)
    if reason == "broken":
        monkeypatch.setattr(running, "fit_ensemble", lambda *_, **__: np.linalg.cholesky(-np.eye(2)))
    assert running.observe(SPEC, one, known, [] if reason == "alone" else [other]) is None


def choose(known: Ensemble, *ahead: Observation, pending: Sequence[Config] = (), **changes: Any) -> Choice:
    """What is chosen by one and the same fit."""
    asked = spec(**changes)
    at = Look(asked, [*DONE, *ahead], [], [], pending, Spent(15, 1e12, np.inf), 1, None)
    at = replace(at, ahead={one.run_id: 0.5 for one in ahead if one.run_id is not None})
    return decide(at, known, frame(asked), 1, rng())


def test_a_forecast_run_counts_as_pending_for_what_it_is_still_to_tell(known: Ensemble) -> None:
    (first,), _ = choose(known)
    sharp, wide = (Observation(first.config, first.cost, 1.0, 99, "forecast", sd) for sd in (1e-4, 1.0))
    (pending,), _ = choose(known, pending=[first.config])
    (after_wide,), _ = choose(known, wide)
    (after_sharp,), _ = choose(known, sharp)
    assert after_wide.config == pending.config != first.config != after_sharp.config
    assert after_wide.score == pytest.approx(pending.score, rel=1e-3)
    wide_known, sharp_known, unknown = (
        one.expected["half_width_before"] for one in (after_wide, after_sharp, first)
    )
    assert wide_known < 0.9 * sharp_known < 0.9 * unknown


def test_a_sweep_waits_for_its_forecast_runs(known: Ensemble) -> None:
    patience = {"patience": 0.9}
    assert choose(known, stop=patience)[1] is not None
    assert choose(known, replace(forecast_of(DONE[0], SIGMA), run_id=99), stop=patience) == ([], None)
