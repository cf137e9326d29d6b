"""Continuous axes: values between those of the grid, around the best that a fit predicts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic import SPACE, World, observe, spec

from sweeps.model import frame
from sweeps.posterior import Posterior
from sweeps.refine import refined
from sweeps.ruled_out import RuledOut
from sweeps.runs import Spent
from sweeps.scheduler import Look, step
from sweeps.space import candidates, places_of, tabulate_configs
from sweeps.spec import parse, spec_hash, to_dict

ASKED = spec()


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    seen = observe(ASKED, World(), 24, seed=1)
    at = Look(ASKED, seen, [], [], [], Spent(30, 1e12, np.inf), 0, None)
    ensemble = step(at, np.random.default_rng(0)).ensemble
    assert ensemble is not None
    return Posterior(ensemble, frame(ASKED))


def kind(**axes: Any) -> dict[str, str]:
    return {name: axis.kind for name, axis in spec(space=SPACE | axes).space.items()}


def test_an_axis_by_its_ends_is_continuous_unless_it_holds_whole_numbers() -> None:
    ends = {"from": 8, "to": 32, "steps": 4, "scale": "linear"}
    found = kind(batch=ends, weight_decay={"from": 0.01, "to": 0.1, "steps": 3}, beta2=[0.9, 0.99])
    assert [name for name, one in found.items() if one == "continuous"] == ["lr", "weight_decay"]
    assert kind(lr=[1e-3, 1e-2])["lr"] == "listed"
    assert kind(lr={"values": [1e-3, 1e-2], "kind": "continuous"})["lr"] == "continuous"


def test_stored_specifications_read_as_before() -> None:
    """What is listed is written as it always was, so that its hash stays; what is continuous comes back."""
    listed = spec(space=SPACE | {"lr": [1e-3, 1e-2]})
    assert all(set(axis) == {"values", "scale"} for axis in to_dict(listed)["space"].values())
    assert parse(to_dict(ASKED)) == ASKED
    old = to_dict(ASKED)
    del old["space"]["lr"]["kind"]
    assert parse(old, stored=True).space["lr"].kind == "listed"
    assert spec_hash(parse(old)) != spec_hash(ASKED)


def test_values_lie_around_the_best_of_each_scale(posterior: Posterior) -> None:
    table = candidates(ASKED)
    found = refined(ASKED, posterior, table)
    lr = np.array(ASKED.space["lr"].values)
    assert len(found) and np.all(places_of(ASKED, found) < 0)
    assert np.all((found["lr"] > lr[0]) & (found["lr"] < lr[-1]))
    assert all(value == float(f"{value:.3g}") for value in found["lr"])
    assert np.all(found["flops"] <= ASKED.budget.flops_per_run)
    scales = {name: found[name] for name in ("width", "depth", "tokens")}
    rows = np.unique(np.stack([*scales.values()], axis=1), axis=0)
    assert len(rows) > 50 and len(found) <= 5 * len(rows)
    steps = np.log(lr[-1] / lr[0]) / (len(lr) - 1)
    for width, depth, tokens in rows[::7]:
        here = (scales["width"] == width) & (scales["depth"] == depth) & (scales["tokens"] == tokens)
        assert len(set(found["batch"][here])) == 1 and found["batch"][here][0] in (8, 16, 32)
        config = found.config(int(np.flatnonzero(here)[0]))
        x = posterior.frame.columns(tabulate_configs(ASKED, [config]))
        axis = next(axis for axis in posterior.frame.surface.axes if axis.name == "lr")
        best = float(axis.value(posterior.best(x, "lr"))[0])
        assert np.all(np.abs(np.log(found["lr"][here] / np.clip(best, lr[0], lr[-1]))) < 0.51 * steps + 0.01)


def test_nothing_is_refined_where_every_axis_is_listed(posterior: Posterior) -> None:
    listed = spec(space=SPACE | {"lr": list(ASKED.space["lr"].values)})
    assert len(refined(listed, posterior, candidates(listed))) == 0


def test_later_runs_leave_the_first_grid() -> None:
    """Before a fit runs are on the grid; later ones beside it, each once."""
    seen = observe(ASKED, World(), 24, seed=1)
    at = Look(ASKED, seen, [], [], [], Spent(30, 1e12, np.inf), 12, None)
    first = step(replace(at, observations=[]), np.random.default_rng(0)).decisions
    grid = set(ASKED.space["lr"].values)
    assert {one.config["lr"] for one in first} <= grid
    later = step(at, np.random.default_rng(0)).decisions
    beside = [one.config for one in later if one.config["lr"] not in grid]
    assert beside
    again = step(replace(at, pending=beside, slots=12 + len(beside)), np.random.default_rng(0)).decisions
    assert again and not [one for one in again if one.config in beside]


def test_what_was_tried_beside_the_grid_is_ruled_out(posterior: Posterior) -> None:
    found = refined(ASKED, posterior, candidates(ASKED))
    tried = [found.config(row) for row in (0, 3)]
    open_ = RuledOut.of(ASKED, tried, [], []).open(found)
    assert list(np.flatnonzero(~open_)) == [0, 3]
    bad = found.config(int(np.argmin(found["params_total"]))) | {"lr": 1e-3, "batch": 64.0}
    assert not RuledOut.of(ASKED, [], [bad], []).open(found).any()


def test_a_rate_that_diverged_is_the_one_of_training() -> None:
    at = {name: axis.values[0] for name, axis in ASKED.space.items()} | {"batch": 8.0}
    table = tabulate_configs(ASKED, [at | {"lr": lr} for lr in (1e-3, 1.2e-3, 2e-3)])
    diverged = at | {"lr": 1e-3, "batch": 16.0}
    assert RuledOut.of(ASKED, [], [diverged], []).open(table).tolist() == [False] * 3
    ruled = replace(ASKED, trainer=replace(ASKED.trainer, batch_rule="sqrt"))
    assert RuledOut.of(ruled, [], [diverged], []).open(table).tolist() == [True, True, False]


def test_runs_that_need_too_much_memory_are_ruled_out() -> None:
    table = candidates(ASKED)
    middle = int(np.argsort(table["memory"])[len(table) // 2])
    open_ = RuledOut.of(ASKED, [], [], [table.config(middle)]).open(table, places_of(ASKED, table))
    assert np.array_equal(open_, table["memory"] < table["memory"][middle])
