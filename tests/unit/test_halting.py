"""Running runs are stopped for what they can still tell and cost, never for their loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import World, observe, spec

from sweeps import scheduler
from sweeps.ensemble import Ensemble, fit_ensemble
from sweeps.model import frame
from sweeps.noise import SIGMA
from sweeps.runs import Observation, Spent
from sweeps.scheduler import Look, decide, step
from sweeps.spec import SweepSpec

SPEC, WORLD = spec(), World()
DONE = observe(SPEC, WORLD, 15, seed=1)
LEFT, NO_RUN = Spent(15, 1e12, np.inf), Spent(0, 1e12, np.inf)
SHARP, MIDDLING, WIDE = 1e-4, SIGMA, 3.0 * SIGMA


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def best() -> Observation:
    """The run that would be started next, as if it trained already and were forecast sharply."""
    at = Look(SPEC, DONE, [], [], [], LEFT, 1, None)
    (first,), _ = decide(at, fit_ensemble(SPEC, DONE, rng()), frame(SPEC), 1, rng())
    return Observation(first.config, first.cost, WORLD.loss(SPEC, first.config), 99, "forecast", SHARP)


@pytest.fixture(scope="module")
def known(best: Observation) -> Ensemble:
    return fit_ensemble(SPEC, [*DONE, best], rng())


def look(*coming: Observation, ahead: float = 0.3, left: Spent = LEFT, asked: SweepSpec = SPEC) -> Look:
    shares = {one.run_id: ahead for one in coming if one.run_id is not None}
    return Look(asked, [*DONE, *coming], [], [], [], left, len(coming), None, ahead=shares)


def halted(at: Look) -> list[int]:
    """Ids of the runs that are stopped."""
    return [one.run_id for one in step(at, rng()).halts]


def test_a_run_with_nothing_left_to_tell_is_stopped(best: Observation) -> None:
    (one,) = step(look(best), rng()).halts
    assert one.run_id == 99
    assert one.reason.startswith("stopped early: what it could still tell narrows the answer by 0.0")
    assert "less than 0.10%, for another " in one.reason and "% of the FLOP budget" in one.reason
    assert one.reason.endswith(f"forecast to end at {best.loss:.4f} +-0.0%")


@pytest.mark.parametrize("worse", [1.0, 1.05])
def test_a_run_whose_forecast_is_wide_goes_on(best: Observation, worse: float) -> None:
    assert halted(look(replace(best, deviation=WIDE, loss=worse * best.loss))) == []


@pytest.mark.parametrize("deviation", [SHARP, WIDE])
def test_a_poor_loss_alone_changes_nothing(
    known: Ensemble, best: Observation, monkeypatch: pytest.MonkeyPatch, deviation: float
) -> None:
    """By one and the same fit; a loss that surprises widens what a fit leaves open."""
    monkeypatch.setattr(scheduler, "fit_ensemble", lambda *_: known)
    good = replace(best, deviation=deviation)
    verdicts = [halted(look(run)) for run in (good, replace(good, loss=1.5 * good.loss))]
    assert verdicts[0] == verdicts[1] == ([99] if deviation == SHARP else [])


@pytest.mark.parametrize("name", ["random", "grid", "cheapest"])
def test_baselines_let_every_run_end(best: Observation, name: str) -> None:
    assert halted(look(best, asked=spec(strategy={"name": name, "first_batch": 8}))) == []


def test_without_patience_no_run_is_stopped(best: Observation) -> None:
    assert halted(look(best, asked=spec(stop={"patience": 0.0}))) == []


def test_a_run_goes_on_that_buys_more_than_others_would(best: Observation) -> None:
    """It narrows the answer by less than is asked of a run, for next to nothing."""
    one, asked = replace(best, deviation=MIDDLING), spec(stop={"patience": 0.5})
    assert halted(look(one, ahead=1e-3, asked=asked)) == []
    assert halted(look(one, ahead=1e-3, left=NO_RUN, asked=asked)) == [99]


def test_a_run_goes_on_whose_rest_costs_nothing(best: Observation) -> None:
    assert halted(look(best, left=Spent(15, np.inf, np.inf))) == []
    assert halted(look(best, ahead=0.0, left=NO_RUN)) == []


def test_of_two_runs_that_tell_the_same_one_goes_on(
    best: Observation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either tells little once the other is through, and much without it."""
    before = fit_ensemble(SPEC, DONE, rng())
    monkeypatch.setattr(scheduler, "fit_ensemble", lambda *_: before)
    twins = [replace(best, run_id=id_, deviation=MIDDLING) for id_ in (98, 99)]
    asked = spec(stop={"patience": 0.2})
    assert halted(look(twins[0], left=NO_RUN, asked=asked)) == []
    assert len(halted(look(*twins, left=NO_RUN, asked=asked))) == 1


def test_a_stopped_run_is_coming_no_more(known: Ensemble, best: Observation) -> None:
    """Its forecast stays an observation; the sweep does not wait for it."""
    asked = spec(stop={"patience": 0.9})
    at = Look(asked, [*DONE, best], [], [], [], LEFT, 1, None)
    assert at.coming == [] and halted(at) == []
    found, stop = decide(at, known, frame(asked), 1, rng())
    assert found == [] and stop is not None
