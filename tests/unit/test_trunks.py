"""Runs that share their first steps: where they part, what a branch costs, that it is chosen for that."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import World, observe
from synthetic import spec as synthetic

from sweeps.checks import least_steps
from sweeps.cost import SecondsModel
from sweeps.curves.schedule import decays_from, trained
from sweeps.errors import SpecError
from sweeps.plan import plan
from sweeps.runs import Branch, Spent, rest
from sweeps.scheduler import Look, rehearse, step
from sweeps.space import candidates, tabulate_configs
from sweeps.spec import SweepSpec, parse, warnings
from sweeps.stacks import Durations
from sweeps.trunks import Trunk, branches, joints, trunk_key

TRUNKS = {"schedule": "constant", "warmup": 10, "decay": 0.2}
LENGTHS = [1e5, 2e5, 4e5]  # tokens, which at 64 a step are 1562, 3125 and 6250 steps


def spec(**changes: Any) -> SweepSpec:
    given = {
        "name": "trunks",
        "space": {
            "width": [8, 16],
            "depth": 1,
            "tokens": LENGTHS,
            "lr": [1e-3, 1e-2],
            "batch": 1,
            "resolution": 64,
        },
        "targets": [{"at": {"width": 64, "depth": 1, "tokens": 1e6}}],
        "trainer": TRUNKS,
    }
    return parse(given | changes)


def run(asked: SweepSpec, run_id: int, tokens: float, *, lr: float = 1e-3) -> Trunk:
    """A run that has left all checkpoints that it is to leave."""
    config = asked.complete({"width": 8.0, "lr": lr, "tokens": tokens})
    return Trunk(run_id, config, joints(asked, config))


@given(st.integers(1, 3000), st.floats(0, 1))
def test_the_rate_is_full_up_to_where_it_is_said_to_fall(steps: int, decay: float) -> None:
    rate, first = trained("constant", steps, 1.0, 0.0, decay), int(decays_from(steps, decay))
    assert np.all(rate[:first] == 1.0) and np.all(rate[first:] < 1.0)


@given(st.integers(10, 2000), st.integers(10, 2000), st.floats(0, 0.9), st.integers(1, 10))
def test_runs_of_two_lengths_have_one_rate_up_to_where_the_shorter_decays(
    one: int, other: int, decay: float, warmup: int
) -> None:
    shorter, longer = sorted((one, other))
    first = int(decays_from(shorter, decay))
    rates = [trained("constant", steps, 1.0, warmup, decay)[:first] for steps in (shorter, longer)]
    assert np.array_equal(*rates)


def test_a_run_leaves_a_checkpoint_where_each_other_length_parts_from_it() -> None:
    asked = spec()
    leave = [int(decays_from(steps, 0.2)) for steps in (1562, 3125, 6250)]
    assert [run(asked, 1, tokens).steps for tokens in LENGTHS] == [
        (leave[0],),
        (leave[0], leave[1]),
        (leave[0], leave[1]),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"trainer": TRUNKS | {"schedule": "cosine"}},
        {"trainer": TRUNKS | {"warmup": 0.1}},
        {"space": {"width": 8, "depth": 1, "tokens": 1e5, "lr": [1e-3, 1e-2], "batch": 1, "resolution": 64}},
    ],
)
def test_runs_without_a_common_part_leave_none(changes: dict[str, Any]) -> None:
    assert run(spec(**changes), 1, 1e5).steps == ()


def test_without_a_decay_a_branch_trains_its_last_step() -> None:
    asked = spec(trainer=TRUNKS | {"decay": 0})
    assert run(asked, 1, 4e5).steps == (1561, 3124)


def test_a_candidate_begins_at_the_latest_checkpoint_before_its_decay() -> None:
    asked = spec()
    table = tabulate_configs(asked, [run(asked, 0, tokens).config for tokens in LENGTHS])
    shortest, longest = run(asked, 7, LENGTHS[0]), run(asked, 9, LENGTHS[2])
    of_longest, of_shortest = branches(asked, [longest], table), branches(asked, [shortest], table)
    leave = [int(decays_from(steps, 0.2)) for steps in (1562, 3125)]
    assert [of_longest.of(i) for i in (0, 1)] == [Branch(9, leave[0]), Branch(9, leave[1])]
    assert of_longest.rest[:2] == pytest.approx([0.2, 0.2], rel=0.01)
    # On from a shorter one: all but the steps that both have at the full rate.
    assert [of_shortest.of(i) for i in (1, 2)] == [Branch(7, leave[0])] * 2
    assert of_shortest.rest[1:] == pytest.approx([0.6, 0.8], rel=0.01)
    both = branches(asked, [shortest, longest], table)
    assert [both.of(i) for i in (0, 1)] == [Branch(7, leave[0]), Branch(9, leave[1])]


@given(st.permutations(range(5)), st.floats(0, 0.8))
def test_all_lengths_cost_one_trunk_and_their_decays_in_whatever_order(
    order: list[int], decay: float
) -> None:
    lengths = [6.4e3, 1e4, 1.5e4, 2e4, 4e4]
    trainer = {"schedule": "constant", "warmup": 0, "decay": decay}
    asked = spec(space=spec().space | {"tokens": lengths}, trainer=trainer)
    trained, trunks = 0.0, []
    for run_id, place in enumerate(order, 1):
        one = run(asked, run_id, lengths[place])
        table = tabulate_configs(asked, [one.config])
        trained += float(table["steps"][0] * branches(asked, trunks, table).rest[0])
        trunks.append(one)
    steps = tabulate_configs(asked, [one.config for one in trunks])["steps"]
    leaves = np.minimum(decays_from(steps, decay), steps - 1)
    assert trained == pytest.approx(leaves.max() + np.sum(steps - leaves))


def test_only_runs_that_differ_in_nothing_but_length_have_branches() -> None:
    asked = spec()
    table = candidates(asked)
    found = branches(asked, [run(asked, 3, LENGTHS[2], lr=1e-2)], table)
    alike = [trunk_key(table.config(i)) == trunk_key(run(asked, 3, 1e5, lr=1e-2).config) for i in range(12)]
    assert [found.of(i) is not None for i in range(12)] == alike and sum(alike) == 3
    assert np.all(found.rest[~np.array(alike)] == 1.0)
    assert branches(asked, [], table).of(0) is None
    assert all(rest(found.of(i), table.cost(i)) == found.rest[i] for i in range(12))


WORLD = World()
SECONDS = SecondsModel(per_step=2e-3, per_activation=0.0, per_flop=4e-11, error=0.1, timings=8)


def test_a_branch_is_chosen_for_its_small_price() -> None:
    asked = synthetic(trainer=TRUNKS, strategy={"name": "informative", "first_batch": 8})
    done = observe(asked, WORLD, 12, seed=1)
    configs = {seen.run_id: asked.complete(seen.config) for seen in done if seen.run_id is not None}
    trunks = [Trunk(run_id, config, joints(asked, config)) for run_id, config in configs.items()]
    left = Spent(8, 4e10, math.inf)
    look = Look(asked, done, [], [], [], left, 8, Durations(SECONDS), trunks=trunks)
    decided = step(look, np.random.default_rng(0)).decisions
    taken = [one for one in decided if one.branch is not None]
    assert taken
    spent = 0.0
    for one in decided:
        spent += one.cost.flops * rest(one.branch, one.cost)
    assert spent <= left.flops < sum(one.cost.flops for one in decided)
    by_id = {trunk.run_id: trunk for trunk in trunks}
    for one in taken:
        assert one.branch is not None
        trunk = by_id[one.branch.run_id]
        assert trunk_key(trunk.config) == trunk_key(asked.complete(one.config))
        assert one.branch.step in trunk.steps
        where = f"branches from run {one.branch.run_id} at step {one.branch.step}"
        assert where in one.reason
    whole = step(
        Look(asked, done, [], [], [], left, 8, Durations(SECONDS)), np.random.default_rng(0)
    ).decisions
    assert [one.config for one in whole] != [one.config for one in decided]


@pytest.mark.parametrize("strategy", ["informative", "cheapest"])
def test_a_plan_prices_branches_by_what_they_train_themselves(strategy: str) -> None:
    asked = synthetic(trainer=TRUNKS, strategy={"name": strategy, "first_batch": 8})
    durations = Durations(SECONDS)
    decided, told = rehearse(asked, durations), plan(asked, durations)
    shares = [rest(one.branch, one.cost) for one in decided]
    assert told.branches == sum(share < 1.0 for share in shares) > 0 == sum(s < 1.0 for s in shares[:8])
    for place, one in enumerate(decided, 1):
        if one.branch is not None:
            trunk = decided[one.branch.run_id - 1]
            assert one.branch.run_id < place and one.branch.step in joints(asked, trunk.config)
            assert trunk_key(trunk.config) == trunk_key(one.config)
    assert told.flops == pytest.approx(sum(s * d.cost.flops for s, d in zip(shares, decided, strict=True)))
    seconds = sum(share * SECONDS(one.cost) for share, one in zip(shares, decided, strict=True))
    assert told.seconds == pytest.approx(seconds) == told.seconds_together
    limit = asked.budget.flops
    assert limit is not None and told.flops <= limit and told.runs <= asked.budget.runs
    apart = plan(synthetic(strategy={"name": strategy, "first_batch": 8}), durations)
    assert apart.branches == 0 and apart.flops / apart.runs > told.flops / told.runs


def test_baselines_pay_the_same_prices() -> None:
    asked = synthetic(trainer=TRUNKS, strategy={"name": "cheapest", "first_batch": 8})
    done = observe(asked, WORLD, 12, seed=1)
    table = candidates(asked)
    long = table.config(int(np.argmin(table["flops"]))) | {"tokens": 1.6e6}
    limit = Spent(100, asked.cost(long).flops, math.inf)
    look = Look(asked, done, [], [], [], limit, 100, None, trunks=[Trunk(1, long, joints(asked, long))])
    decided = step(look, np.random.default_rng(0)).decisions
    prices = [one.cost.flops * rest(one.branch, one.cost) for one in decided]
    assert prices == sorted(prices) and sum(prices) <= limit.flops
    assert any(one.branch is not None for one in decided)


@pytest.mark.parametrize(
    ("trainer", "field", "allowed"),
    [
        ({"warmup": 1.5}, "trainer.warmup", "a whole number of steps"),
        ({"warmup": 0.7}, "trainer.warmup", "at most 0.5"),
        ({"schedule": "constant", "warmup": 5, "decay": 1}, "trainer.decay", "below 1"),
    ],
)
def test_a_warm_up_that_makes_no_sense_is_refused(trainer: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(trainer=trainer)
    (problem,) = caught.value.problems
    assert problem.field == field and allowed in problem.allowed


@pytest.mark.parametrize(
    ("trainer", "least"),
    [
        ({}, 10),
        ({"warmup": 100}, 200),
        (TRUNKS | {"warmup": 100}, 200),
        (TRUNKS | {"warmup": 100, "decay": 0.75}, 400),
        (TRUNKS, 20),
    ],
)
def test_runs_are_long_enough_for_their_warm_up(trainer: dict[str, Any], least: int) -> None:
    assert least_steps(spec(trainer=trainer).trainer) == least


def test_candidates_leave_their_warm_up_behind() -> None:
    table = candidates(spec(trainer=TRUNKS | {"warmup": 1000}))
    assert sorted(set(table["tokens"])) == LENGTHS[1:]


def test_a_warm_up_that_keeps_runs_apart_warns() -> None:
    apart = spec(trainer=TRUNKS | {"warmup": 0.1})
    assert any("trainer.warmup" in text for text in warnings(apart))
    assert warnings(spec()) == []
