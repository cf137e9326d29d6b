"""Runs that still train take part in the fits of their sweep, until they end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import curve

import conf
from store import attempts, leases, lifecycle, queue, service
from store.db import Sessions
from sweeps.runs import Observation, Run, RunState, SweepState
from sweeps.scheduler import Look, Step, step
from sweeps.spec import Budget, Stop, SweepSpec, parse

SPEC = parse(
    conf.sweep("gpt_tiny")
    | {
        "space": {
            "width": [8],
            "depth": [1],
            "resolution": [16],
            "tokens": [20_480, 40_960],
            "lr": [2e-3, 4e-3, 8e-3, 1.6e-2],
            "batch": [4, 8],
        },
        "strategy": {"name": "informative", "first_batch": 9},
        "budget": {"runs": 14},
        "stop": {"patience": 0.0},
    }
)
# All its runs have begun, and each must narrow the answer by half to be worth what it is still to cost.
STRICT = replace(SPEC, budget=Budget(runs=9, flops=2e10), stop=Stop(patience=0.5))


def begin(sessions: Sessions, spec: SweepSpec, finished: int) -> tuple[int, list[queue.Claim]]:
    """A sweep whose first runs are finished and whose others have just started."""
    sweep, _ = service.create_sweep(sessions, spec)
    with sessions.begin() as session:
        claims = queue.claim(session, "a", 600.0, 100)
    for claim in claims[:finished]:
        end(sessions, claim)
    return sweep.id, claims


def end(sessions: Sessions, claim: queue.Claim, state: RunState = RunState.FINISHED) -> None:
    stream(sessions, claim, 1.0)
    with sessions.begin() as session:
        loss = curve(claim.spec, claim.run)[-1].value
        assert attempts.finish(session, claim.run.id, claim.attempt, state, loss, 1.0)


def stream(sessions: Sessions, claim: queue.Claim, done: float, evaluations: int = 24) -> None:
    run: Run = claim.run
    points = [p for p in curve(claim.spec, run, evaluations) if p.step <= done * run.cost.steps]
    with sessions.begin() as session:
        attempts.append(session, run.id, claim.attempt, points, "val_loss")


def test_a_running_run_is_fitted_until_it_ends(sessions: Sessions) -> None:
    sweep, claims = begin(sessions, SPEC, 7)
    running, waiting = claims[7:]
    stream(sessions, running, 0.7)
    before = service.get_sweep(sessions, sweep)
    assert service.advance(sessions, sweep, 5)
    fit = service.latest_fit(sessions, sweep)
    assert fit is not None
    assert fit.ensemble.forecasts == (running.run.id,)
    assert fit.n_observations == fit.ensemble.n == 8
    assert fit.ensemble.runs == tuple(claim.run.id for claim in claims[:8])
    assert [one.run_id for one in service.observations(sessions, sweep)] == list(fit.ensemble.runs[:7])
    # It holds its slot and its share of the budget, and is not started again.
    after = service.get_sweep(sessions, sweep)
    assert after.counts[RunState.QUEUED] == 3
    assert (after.spent, after.reserved.runs) == (before.spent, before.reserved.runs + 3)
    runs = service.list_runs(sessions, sweep)
    assert len({tuple(run.config.items()) for run in runs}) == len(runs) == 12
    # More of its curve asks for no other fit, its end does.
    stream(sessions, running, 0.9)
    assert not service.advance(sessions, sweep, 5)
    end(sessions, running)
    assert service.advance(sessions, sweep, 5)
    fit = service.latest_fit(sessions, sweep)
    assert fit is not None
    assert (fit.ensemble.forecasts, fit.n_observations) == ((), 8)
    assert fit.ensemble.runs.count(running.run.id) == 1
    assert waiting.run.id not in fit.ensemble.runs


@pytest.mark.parametrize("last", [RunState.FINISHED, RunState.DIVERGED])
def test_a_sweep_ends_when_its_forecast_runs_have(sessions: Sessions, last: RunState) -> None:
    sweep, claims = begin(sessions, replace(SPEC, budget=Budget(runs=9)), 7)
    for claim in claims[7:]:
        stream(sessions, claim, 0.7)
    assert service.advance(sessions, sweep, 4)
    fit = service.latest_fit(sessions, sweep)
    assert fit is not None and fit.ensemble.forecasts == tuple(claim.run.id for claim in claims[7:])
    assert service.get_sweep(sessions, sweep).state == SweepState.RUNNING
    end(sessions, claims[7])
    end(sessions, claims[8], last)
    assert service.advance(sessions, sweep, 4)
    fit = service.latest_fit(sessions, sweep)
    assert fit is not None and fit.ensemble.forecasts == ()
    assert fit.ensemble.n == (9 if last == RunState.FINISHED else 8)
    assert service.get_sweep(sessions, sweep).state == SweepState.FINISHED


def test_forecasts_make_no_first_fit(sessions: Sessions) -> None:
    sweep, claims = begin(sessions, SPEC, 5)
    for claim in claims[5:]:
        stream(sessions, claim, 0.7)
    assert service.advance(sessions, sweep, 9)
    assert service.list_fits(sessions, sweep) == []


def test_a_short_curve_is_no_observation(sessions: Sessions) -> None:
    sweep, claims = begin(sessions, SPEC, 7)
    stream(sessions, claims[7], 0.9, evaluations=5)
    stream(sessions, claims[8], 0.2)
    assert service.advance(sessions, sweep, 5)
    fit = service.latest_fit(sessions, sweep)
    assert fit is not None and (fit.ensemble.forecasts, fit.ensemble.n) == ((), 7)


def test_a_run_that_has_little_left_to_tell_is_stopped(sessions: Sessions) -> None:
    sweep, claims = begin(sessions, STRICT, 7)
    running, other = claims[7:]
    stream(sessions, running, 0.7)
    before = service.get_sweep(sessions, sweep)
    assert service.advance(sessions, sweep, 4)
    run = service.get_run(sessions, running.run.id)
    assert run.state == RunState.CANCELLED and run.reason is not None
    assert run.reason.startswith("stopped early: what it could still tell")
    assert service.get_run(sessions, other.run.id).state == RunState.RUNNING  # nothing is known of it
    (kept,) = (one for one in service.list_observations(sessions, sweep) if one.run_id == run.id)
    assert kept.provenance == "forecast" and 0.0 < kept.deviation < 0.01
    assert kept.loss == pytest.approx(curve(STRICT, run)[-1].value, rel=4 * kept.deviation)
    # What it has not spent is free again.
    after, share = service.get_sweep(sessions, sweep), run.tokens / run.cost.tokens_seen
    assert after.reserved.runs == before.reserved.runs - 1
    assert after.spent.flops == pytest.approx(before.spent.flops + share * run.cost.flops)
    # Its worker is told, and what it delivers afterwards changes nothing.
    with sessions.begin() as session:
        assert leases.cancelled(session, [(run.id, running.attempt)]) == [run.id]
        assert not leases.renew(session, run.id, running.attempt, "a", 600.0)
        assert not attempts.finish(session, run.id, running.attempt, RunState.FINISHED, 2.0, 3.0)
    assert service.get_run(sessions, run.id).seconds == 3.0
    # Later fits rest on the forecast; the run is stopped once, and bars no other.
    assert service.advance(sessions, sweep, 4)
    assert not service.advance(sessions, sweep, 4)
    end(sessions, other)
    assert service.advance(sessions, sweep, 4)
    fit = service.latest_fit(sessions, sweep)
    assert fit is not None
    assert (fit.ensemble.forecasts, fit.n_observations) == ((run.id,), 9)
    assert [one for one in service.list_observations(sessions, sweep) if one.run_id == run.id] == [kept]
    kinds = [one.kind for one in service.list_events(sessions, sweep) if one.run_id == run.id]
    assert kinds.count("run_cancelled") == 1
    assert service.get_sweep(sessions, sweep).state == SweepState.FINISHED


def test_a_run_that_ends_during_the_look_is_not_stopped(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, claims = begin(sessions, STRICT, 7)
    running = claims[7]
    stream(sessions, running, 0.7)

    def thinks(look: Look, rng: np.random.Generator) -> Step:
        found = step(look, rng)
        assert [one.run_id for one in found.halts] == [running.run.id]
        end(sessions, running)
        return found

    monkeypatch.setattr("store.advance.step", thinks)
    assert service.advance(sessions, sweep, 4)
    assert service.get_run(sessions, running.run.id).state == RunState.FINISHED
    (kept,) = (one for one in service.observations(sessions, sweep) if one.run_id == running.run.id)
    assert (kept.provenance, kept.deviation) == ("run", 0.0)


def test_a_run_is_stopped_once(sessions: Sessions) -> None:
    sweep, claims = begin(sessions, STRICT, 7)
    run = claims[7].run
    known = Observation(run.config, run.cost, 2.2, run.id, "forecast", 0.002)
    with sessions.begin() as session:
        assert lifecycle.halt(session, sweep, known, "stopped early")
        assert not lifecycle.halt(session, sweep, known, "stopped early")
    assert service.observations(sessions, sweep)[-1] == known
