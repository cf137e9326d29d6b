"""What runs cost beside others of their shape, and what that changes in the choice of runs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import World, observe, spec

from sweeps.cost import SecondsModel
from sweeps.peak import MemoryModel
from sweeps.plan import plan
from sweeps.prices import Prices, Sharing
from sweeps.runs import Decision, Spent
from sweeps.scheduler import GROWTH, Look, step
from sweeps.space import candidates, shapes
from sweeps.spec import OWN_OF_MEMBERS, SweepSpec
from sweeps.stacks import Durations, Stacks

ALONE = SecondsModel(per_step=2e-3, per_activation=0.0, per_flop=1e-13, error=0.05, timings=8)
STACKS = Stacks(
    alone=ALONE,
    together=replace(ALONE, per_flop=4e-13),
    peak=MemoryModel(),
    peaks=MemoryModel(),
    sizes=(4, 16),
    largest=math.inf,
    largest_stacked=math.inf,
)
SHARED, APART = Durations(ALONE, STACKS), Durations(ALONE)


def look(asked: SweepSpec, **changes: Any) -> Look:
    budget = asked.budget
    remaining = Spent(budget.runs, budget.flops or math.inf, budget.device_seconds or math.inf)
    return replace(Look(asked, [], [], [], [], remaining, 4, None), **changes)


def shape_of(one: Decision) -> tuple[tuple[str, float], ...]:
    return tuple(sorted((name, v) for name, v in one.config.items() if name not in OWN_OF_MEMBERS))


def prices_of(shape: list[int], most: list[int], alone: list[float], joining: list[float]) -> Prices:
    seconds = np.array(alone)
    none = np.zeros(max(shape) + 1, dtype=np.intp)
    sharing = Sharing(np.array(shape), np.array(most), seconds, np.array(joining), none)
    return Prices(np.ones(len(shape)), seconds, sharing)


@given(runs=st.integers(1, 40), most=st.sampled_from([2, 4, 16]))
def test_runs_of_a_shape_cost_full_stacks_and_a_rest(runs: int, most: int) -> None:
    prices, total = prices_of([0] * 40, [most] * 40, [10.0] * 40, [1.0] * 40), 0.0
    for row in range(runs):
        total += prices.spent(row).device_seconds
        prices = prices.take(row)
    stacks = math.ceil(runs / most)
    assert total == pytest.approx(10.0 * stacks + 1.0 * (runs - stacks))
    spread = prices_of([0] * 40, [most] * 40, [10.0] * 40, [1.0] * 40).spread([*range(runs)])
    assert sum(spread) == pytest.approx(total)
    assert all(len(set(spread[i : i + most])) == 1 for i in range(0, runs, most))


def test_other_shapes_and_runs_that_train_alone_keep_their_price() -> None:
    prices = prices_of([0, 0, 1, 1, 2], [4, 4, 4, 4, 1], [8.0, 8.0, 6.0, 6.0, 5.0], [1.0] * 5)
    assert [*prices.take(0).seconds] == [1.0, 1.0, 6.0, 6.0, 5.0]
    assert [*prices.take(4).seconds] == [*prices.seconds]
    assert [*prices.take(0).among(np.array([1, 3])).take(1).seconds] == [1.0, 1.0]
    assert [*prices.seconds] == [8.0, 8.0, 6.0, 6.0, 5.0]


def test_shapes_are_what_a_cohort_shares() -> None:
    table = candidates(spec())
    found = shapes(table)
    assert sorted(set(found)) == [*range(found.max() + 1)]
    kept = [name for name in table.axes if name not in OWN_OF_MEMBERS]
    groups = {tuple(row) for row in np.stack([table[name] for name in kept], axis=1)}
    assert len(groups) == found.max() + 1
    for group in range(found.max() + 1):
        assert all(len(set(table[name][found == group])) == 1 for name in kept)


def test_limited_seconds_buy_more_runs_where_they_share_a_device() -> None:
    """The same choice with the same budget: runs of one shape add little, so that more of them are taken."""
    limits = {"runs": 60, "flops": 1e18, "device_seconds": 40.0}
    asked = spec(budget=limits, strategy={"first_batch": 4}, laws={"names": ["chinchilla"]})
    seen, found = observe(asked, World(), 12, seed=1), {}
    for name, known in (("shared", SHARED), ("apart", APART)):
        at = look(asked, observations=seen, slots=40, durations=known)
        found[name] = step(at, np.random.default_rng(0)).decisions
        assert sum(one.expected["seconds"] for one in found[name]) <= 40.0
    assert len(found["shared"]) > 1.3 * len(found["apart"])
    assert len(set(map(shape_of, found["shared"]))) < len(found["shared"]) / 2
    after = {name: chosen[-1].expected["half_width_after"] for name, chosen in found.items()}
    assert after["shared"] < 0.95 * after["apart"]
    assert all(one.expected["seconds"] == pytest.approx(ALONE(one.cost)) for one in found["apart"])


def test_small_runs_are_chosen_ahead_by_the_work_they_are() -> None:
    """As many as keep the device busy until the next look, but a share of what is known at most."""
    asked = spec(laws={"names": ["chinchilla"]})
    seen = observe(asked, World(), 24, seed=1)
    at = look(asked, observations=seen, slots=2, durations=APART)

    def chosen(**changes: Any) -> list[Decision]:
        return step(replace(at, **changes), np.random.default_rng(0)).decisions

    two = chosen()
    assert len(two) == len(chosen(work=0.9 * sum(ALONE(one.cost) for one in two))) == 2
    more = chosen(work=1.1 * sum(ALONE(one.cost) for one in two))
    assert more[:2] == two and len(more) == 3
    assert len(chosen(work=1e9)) == GROWTH * len(seen)
    assert len(chosen(work=1e9, durations=None)) == 2  # nobody knows how much work a run is
    pending = [one.config for one in more]
    assert len(chosen(work=1e9, pending=pending)) == GROWTH * len(seen) - len(pending)
    enough = 0.9 * sum(ALONE(one.cost) for one in more)
    assert chosen(work=enough, pending=pending) == []


def test_runs_that_join_others_take_no_slot() -> None:
    limits = {"runs": 90, "flops": 1e18, "device_seconds": 40.0}
    asked = spec(budget=limits, laws={"names": ["chinchilla"]})
    seen = observe(asked, World(), 40, seed=1)
    for slots in (2, 3):
        at = look(asked, observations=seen, slots=slots, durations=SHARED)
        chosen = step(at, np.random.default_rng(0)).decisions
        assert len(set(map(shape_of, chosen))) <= slots < len(chosen) <= GROWTH * len(seen)
        assert len(step(replace(at, durations=APART), np.random.default_rng(0)).decisions) == slots


def test_a_plan_says_what_sharing_saves() -> None:
    told = plan(spec(), SHARED)
    assert told.seconds is not None and told.seconds_together is not None
    assert told.seconds_together < told.seconds
