from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.checks import MIN_STEPS
from sweeps.kinds import own
from sweeps.space import candidates, specimens, tabulate, tabulate_configs
from sweeps.spec import SweepSpec, parse


def spec(**changes: Any) -> SweepSpec:
    return parse(
        {
            "name": "space",
            "space": {"width": [8, 16, 32], "depth": [1, 2], "tokens": [5e3, 1e5, 1e6], "lr": [0.001, 0.01]},
            "targets": [{"at": {"width": 64, "depth": 2, "tokens": 1e7}}],
        }
        | changes
    )


def test_candidates_are_the_product_of_the_axes() -> None:
    axes = {"width": [8, 16, 32], "depth": [1, 2], "tokens": [1e5, 1e6], "lr": [0.001, 0.01]}
    table = candidates(spec(space=axes))
    assert len(table) == 3 * 2 * 2 * 2
    assert {tuple(sorted(table.config(row).items())) for row in range(len(table))}.__len__() == len(table)


def test_candidates_that_cannot_train_are_left_out() -> None:
    table = candidates(spec())
    assert 5e3 not in table["tokens"]  # 5 steps of 16 x 64 tokens
    assert table["steps"].min() >= MIN_STEPS


@given(st.floats(1e9, 1e14))
def test_no_candidate_costs_more_than_one_run_may(limit: float) -> None:
    everything = candidates(spec())
    within = everything["flops"] <= limit
    if not within.any():
        return
    for name in ("flops_per_run", "flops"):
        table = candidates(spec(budget={"runs": 9, name: limit}))
        assert len(table) == within.sum()
        assert table["flops"].max() <= limit


def test_a_row_has_the_cost_of_its_configuration() -> None:
    sweep = spec(proxy={"heads": 2})
    table = candidates(sweep)
    for row in range(len(table)):
        assert asdict(table.cost(row)) == asdict(sweep.cost(table.config(row)))
        assert table.config(row) == sweep.complete(table.config(row))


def test_the_cheapest_run_the_check_names_is_the_cheapest_candidate() -> None:
    cheapest = candidates(spec())["flops"].min()
    assert len(candidates(spec(budget={"runs": 9, "flops_per_run": cheapest * 1.0001}))) >= 1


def test_a_list_of_configurations_may_be_empty_or_incomplete() -> None:
    sweep = spec()
    assert len(tabulate_configs(sweep, [])) == 0
    configs = [
        {"width": 8.0, "depth": 1.0, "tokens": 1e5, "lr": 0.001},
        {"width": 16, "depth": 2, "tokens": 1e6},
    ]
    configs[1]["lr"] = 0.01
    table = tabulate_configs(sweep, configs)
    assert [table.config(row)["batch"] for row in range(2)] == [16, 16]
    assert table.config(0) == sweep.complete(configs[0])


def test_tabulate_broadcasts_what_is_the_same_for_all() -> None:
    table = tabulate(spec(), {"width": np.array([8, 16]), "depth": 1, "tokens": 1e5, "lr": 0.001})
    assert len(table) == 2
    assert list(table["depth"]) == [1, 1]
    assert table.take(np.array([False, True])).config(0)["width"] == 16


def test_specimens_differ_in_shape_and_lie_evenly_over_the_flops_of_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own, "_allowed", ["lab"])
    proxy = {"kind": "module", "entry": "lab.net:build", "dataset": "digits", "cost": {"params": "9*width"}}
    space = {"width": [8, 64, 16, 32, 128], "batch": [4, 8], "lr": [0.001, 0.01], "tokens": [640, 1280]}
    given = {"name": "a", "proxy": proxy, "space": space, "targets": [{"at": {"width": 512, "tokens": 1e6}}]}
    spec = parse(given)
    found = specimens(spec, 4)
    flops = [spec.cost(config).flops for config in found]
    assert flops == sorted(flops) and len(set(flops)) == 4
    assert (flops[0], flops[-1]) == (6 * 9 * 8 * 4, 6 * 9 * 128 * 8)
    assert {spec.cost(config).steps for config in found} == {1.0}
    assert len(specimens(spec, 99)) == 10  # every shape once
