"""Choice of runs: budgets are hard, pending runs count, every decision has a reason."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import World, observe, spec

from sweeps.cost import SecondsModel
from sweeps.plan import plan
from sweeps.reasons import PLAIN
from sweeps.runs import Observation, Spent
from sweeps.scheduler import Look, Step, rehearse, step
from sweeps.spec import SweepSpec
from sweeps.stacks import Durations
from sweeps.strategies import STRATEGIES

WORLD = World()
SWEEP = spec(
    budget={"runs": 20, "flops": 3e12, "flops_per_run": 4e11}, laws={"names": ["chinchilla", "coupled"]}
)
ONE_LAW = {"names": ["chinchilla"]}  # where only runs, not laws, are compared
SECONDS = SecondsModel(per_step=2e-3, per_activation=0.0, per_flop=4e-11, error=0.1, timings=8)

SUBJECTS = {
    "lr": "pins the optimal lr",
    "batch": "pins the optimal batch",
    "split": "pins how to split the compute",
}


def look(asked: SweepSpec, **changes: object) -> Look:
    budget = asked.budget
    remaining = Spent(budget.runs, budget.flops or math.inf, budget.device_seconds or math.inf)
    return replace(Look(asked, [], [], [], [], remaining, 4, None), **changes)


def run(asked: SweepSpec, slots: int = 3, seed: int = 0) -> tuple[list[Observation], Step, list[Step]]:
    """A whole sweep against the known world; results come back in order, one at a time."""
    rng, done, pending, steps = np.random.default_rng(seed), [], [], []
    at = look(asked, slots=slots)
    while True:
        now = step(
            replace(at, observations=tuple(done), pending=tuple(pending)), np.random.default_rng(len(done))
        )
        steps.append(now)
        for decision in now.decisions:
            at = replace(at, remaining=at.remaining - Spent(1, decision.cost.flops, 0.0))
            pending.append(decision.config)
        if not pending:
            return done, now, steps
        config = pending.pop(0)
        done.append(Observation(config, asked.cost(config), WORLD.loss(asked, config, rng), len(done) + 1))


@pytest.fixture(scope="module")
def informative() -> tuple[list[Observation], Step, list[Step]]:
    return run(SWEEP)


def test_budget_is_hard_and_used(informative) -> None:
    asked, (done, last, _) = SWEEP, informative
    assert len(done) <= asked.budget.runs
    assert sum(seen.cost.flops for seen in done) <= asked.budget.flops
    assert max(seen.cost.flops for seen in done) <= asked.budget.flops_per_run
    assert "budget" in last.stop


def test_no_configuration_is_run_twice(informative) -> None:
    configs = [tuple(sorted(seen.config.items())) for seen in informative[0]]
    assert len(set(configs)) == len(configs)


def test_interval_narrows_and_holds_the_truth(informative) -> None:
    _, last, steps = informative
    first = next(s for s in steps if s.predictions).predictions["big"]
    final = last.predictions["big"]
    assert final.high - final.low < 0.5 * (first.high - first.low)
    assert final.low < WORLD.loss(SWEEP, final.at) < final.high


def test_first_batch_has_what_the_laws_need() -> None:
    """At least three sizes, two ratios of tokens to parameters, and spread learning rates."""
    chosen = step(look(spec()), np.random.default_rng(0)).decisions
    assert len(chosen) == spec().strategy.first_batch
    assert len({d.cost.params_total for d in chosen}) >= 3
    assert len({round(math.log(d.cost.tokens_seen / d.cost.params_total), 1) for d in chosen}) >= 4
    assert len({d.config["lr"] for d in chosen}) >= 3


def test_while_the_first_batch_trains_nothing_is_chosen_or_fitted() -> None:
    asked = spec()
    batch = step(look(asked), np.random.default_rng(0)).decisions
    pending = [decision.config for decision in batch[4:]]
    now = step(
        look(asked, observations=observe(asked, WORLD, 4, seed=1), pending=pending), np.random.default_rng(0)
    )
    assert now == Step(None, {}, [], None)


def test_every_decision_says_why(informative) -> None:
    for now in informative[2]:
        for decision in now.decisions:
            assert decision.strategy == "informative" and decision.score > 0
            assert "expected to narrow the interval" in decision.reason
            assert decision.expected["half_width_after"] <= decision.expected["half_width_before"]


def test_pending_runs_change_the_choice() -> None:
    """What a pending run will tell is not worth paying for twice: the next pick is another."""
    asked = spec()
    done = observe(asked, WORLD, 12, seed=1)
    rng = np.random.default_rng
    first = step(look(asked, observations=done, slots=1), rng(0)).decisions[0]
    waits = look(asked, observations=done, pending=[first.config], slots=2)
    waits = replace(waits, remaining=waits.remaining - Spent(1, first.cost.flops, 0.0))
    second = step(waits, rng(0)).decisions[0]
    both = step(look(asked, observations=done, slots=2), rng(0)).decisions
    assert both[0].config == first.config
    told = pytest.approx(first.expected["half_width_after"])
    for later in (second, both[1]):
        assert later.config != first.config
        assert later.expected["half_width_before"] == told


def test_slots_bound_what_is_in_flight() -> None:
    asked = spec(laws=ONE_LAW)
    done = observe(asked, WORLD, 12, seed=1)
    pending = [
        d.config for d in step(look(asked, observations=done, slots=4), np.random.default_rng(0)).decisions
    ]
    assert len(pending) == 4
    full = step(look(asked, observations=done, pending=pending, slots=4), np.random.default_rng(0))
    assert full.decisions == [] and full.stop is None and full.ensemble is not None


def test_tolerance_stops_the_sweep() -> None:
    asked = spec(stop={"tolerance": 0.5})
    now = step(look(asked, observations=observe(asked, WORLD, 20, seed=1)), np.random.default_rng(0))
    assert now.decisions == [] and "tolerance" in now.stop


def test_runs_that_tell_too_little_stop_the_sweep() -> None:
    asked = spec(stop={"patience": 0.9})
    now = step(look(asked, observations=observe(asked, WORLD, 25, seed=1)), np.random.default_rng(0))
    assert now.decisions == [] and "no affordable run" in now.stop


def test_a_diverged_run_bounds_the_learning_rate() -> None:
    asked = spec(strategy={"name": "random", "first_batch": 8})
    bad = observe(asked, WORLD, 1, seed=3)[0].config | {"lr": 1e-3, "batch": 32.0, "width": 8.0, "depth": 1.0}
    now = step(look(asked, diverged=[bad], slots=20), np.random.default_rng(0))
    assert now.decisions == []  # the smallest, slowest, calmest run diverged: nothing is safe


def test_failed_configurations_are_not_chosen_again() -> None:
    asked = spec()
    first = step(look(asked), np.random.default_rng(0)).decisions
    barred = [d.config for d in first]
    again = step(look(asked, barred=barred, slots=8), np.random.default_rng(0)).decisions
    assert again and not [d for d in again if d.config in barred]


@pytest.mark.parametrize("name", ["random", "grid"])
def test_baselines_run_within_the_budget(name: str) -> None:
    asked = spec(strategy={"name": name, "first_batch": 8}, budget={"runs": 14, "flops": 1e12}, laws=ONE_LAW)
    done, last, _ = run(asked)
    assert 8 <= len(done) <= 14
    assert sum(seen.cost.flops for seen in done) <= 1e12
    assert last.ensemble is not None and last.predictions["big"].low < last.predictions["big"].high


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_decides_with_a_reason(name: str) -> None:
    asked = spec(strategy={"name": name, "first_batch": 4}, budget={"runs": 30})
    decisions = step(look(asked, slots=4), np.random.default_rng(0)).decisions
    assert len(decisions) == 4 and {one.strategy for one in decisions} == {name}
    assert all("candidates" in one.reason for one in decisions) == (name in PLAIN)


@given(
    runs=st.integers(3, 20),
    flops=st.floats(5e10, 5e12),
    seconds=st.floats(5.0, 500.0),
    name=st.sampled_from(["informative", "random", "grid"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_no_limit_is_ever_exceeded(runs: int, flops: float, seconds: float, name: str, seed: int) -> None:
    limits = {"runs": runs, "flops": flops, "device_seconds": seconds}
    asked = spec(budget=limits, strategy={"name": name, "first_batch": 3})
    chosen = step(
        look(asked, slots=runs, durations=Durations(SECONDS)), np.random.default_rng(seed)
    ).decisions
    assert len(chosen) <= runs
    assert sum(d.cost.flops for d in chosen) <= flops
    assert sum(SECONDS(d.cost) for d in chosen) <= seconds


def test_plan_tells_the_cost_before_anything_starts() -> None:
    asked = spec()
    told = plan(asked, Durations(SECONDS))
    assert told.runs == len(rehearse(asked, Durations(SECONDS))) <= asked.budget.runs
    assert told.flops <= asked.budget.flops
    assert told.seconds == pytest.approx(told.seconds_together) and told.seconds_error == SECONDS.error
    assert told.cheapest <= told.dearest <= asked.budget.flops_per_run
    assert told.targets[0].flops == asked.cost(asked.complete(asked.targets[0].at)).flops
    blind = plan(asked)
    assert blind.seconds is None and any("calibrated" in warning for warning in blind.warnings)


def weighed(weights: dict[str, float]) -> list[str]:
    """Why each run was chosen."""
    asked = spec(strategy={"name": "informative", "weights": weights})
    at = look(asked, observations=observe(asked, WORLD, 16, seed=1))
    return [one.reason for one in step(at, np.random.default_rng(0)).decisions]


@pytest.fixture(scope="module")
def evenly() -> list[str]:
    return weighed({})


@pytest.mark.parametrize("part", ["lr", "batch", "split"])
def test_weights_say_what_the_runs_are_for(part: str, evenly: list[str]) -> None:
    """With one part of the question alone every run is for it."""
    alone = weighed({name: 0.0 for name in ("loss", "lr", "batch", "split") if name != part})
    assert all(reason.startswith(SUBJECTS[part]) for reason in alone)
    assert not all(reason.startswith(SUBJECTS[part]) for reason in evenly)
