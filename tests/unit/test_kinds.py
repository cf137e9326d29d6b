"""Specifications of every kind of proxy, and what the kinds refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import conf
from sweeps.cost import Cost
from sweeps.data import DIGITS, GLYPHS, STDLIB, TEACHER
from sweeps.errors import SpecError
from sweeps.imports import past_runs
from sweeps.kinds import BUILT_IN
from sweeps.kinds.base import metrics
from sweeps.ladder import Ladder, plan_ladder
from sweeps.proxy import Proxy
from sweeps.space import candidates
from sweeps.spec import SweepSpec, parse, spec_hash, to_dict
from sweeps.tables import TableError

DATASETS = {"mlp": "digits", "convnet": "glyphs", "vit": "glyphs", "gpt": "stdlib"}


def given_of(kind: str, proxy: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    space = {"width": [8, 16, 32], "depth": [1, 2], "tokens": [1e5, 2e5, 4e5], "lr": [1e-3, 4e-3]}
    return {
        "name": kind,
        "proxy": {"kind": kind, "dataset": DATASETS[kind]} | (proxy or {}),
        "space": space | changes.pop("space", {}),
        "targets": [{"name": "big", "at": {"width": 64, "depth": 2, "tokens": 1e6} | changes.pop("at", {})}],
    } | changes


def spec_of(kind: str, **changes: Any) -> SweepSpec:
    return parse(given_of(kind, **changes))


def problems(mapping: dict[str, Any]) -> dict[str, tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        parse(mapping)
    return {problem.field: (problem.given, problem.allowed) for problem in reversed(caught.value.problems)}


def test_hashes_of_specifications_are_what_they_were() -> None:
    hashes = {name: spec_hash(parse(conf.sweep(name)))[:16] for name in ("gpt_tiny", "gpt_stdlib")}
    assert hashes == {"gpt_tiny": "5480ff123471c14b", "gpt_stdlib": "e9a13eb229d8a5fc"}


@pytest.mark.parametrize("kind", BUILT_IN)
def test_every_kind_has_runs_to_choose_from(kind: str) -> None:
    spec = spec_of(kind)
    table = candidates(spec)
    assert len(table) == 3 * 2 * 3 * 2
    assert parse(json.loads(json.dumps(to_dict(spec)))) == spec
    assert spec.metric.unit == spec.source.unit
    assert {"mup", "unique", "fraction", "kept"} <= {*table.axes}
    for row in (0, len(table) - 1):
        assert table.config(row) == spec.complete(table.config(row))
        assert table.cost(row) == spec.cost(table.config(row))


@pytest.mark.parametrize("kind", BUILT_IN)
def test_ladders_and_past_runs_of_every_kind(kind: str) -> None:
    spec = spec_of(kind)
    plan = plan_ladder(spec, Ladder(sizes=3, tokens_per_param=(100.0,)))
    assert len(plan.rungs) == 3
    wanted = spec.complete({"width": 24, "depth": 2, "tokens": 1e5, "lr": 2e-3})
    columns = {"depth": [2.0], "tokens": [1e5], "lr": [2e-3], "loss": [2.0]}
    found = past_runs(spec, columns | {"params": [spec.cost(wanted).params_total]}, None, "table")
    assert found.observations[0].config == wanted


def test_past_runs_whose_values_do_not_fit_together_are_named() -> None:
    columns = {"width": [8.0, 12.0], "depth": [1.0, 1.0], "tokens": [1e5, 1e5], "lr": [1e-3, 1e-3]}
    spec = spec_of("convnet", space={"group_width": 8})
    with pytest.raises(TableError) as caught:
        past_runs(spec, columns | {"loss": [2.0, 2.0]}, None, "table")
    assert "map.group_width: given groups of 8 for width 12 in row 2" in str(caught.value)


def test_batches_of_images_are_samples() -> None:
    columns = {"width": [8.0], "depth": [1.0], "tokens": [1e5], "lr": [1e-3], "loss": [2.0]}
    (one,) = past_runs(spec_of("vit"), columns | {"batch_tokens": [32.0]}, None, "table").observations
    assert one.config["batch"] == 32.0 and one.cost.steps == 3125


@pytest.mark.parametrize("kind", BUILT_IN)
@given(data=st.data())
def test_costs_of_every_kind_add_up(kind: str, data: st.DataObject) -> None:
    source = data.draw(
        st.sampled_from([s for s in (STDLIB, GLYPHS, DIGITS, TEACHER) if BUILT_IN[kind].learns(s)])
    )
    rules = BUILT_IN[kind].axes(source)
    shape = {name: float(rule.default or 0) for name, rule in rules.items()} | {
        "width": float(2 * data.draw(st.integers(2, 200))),
        "depth": float(data.draw(st.integers(2, 12))),
        "tokens": float(data.draw(st.integers(10**4, 10**8))),
        "batch": float(data.draw(st.integers(1, 64))),
    }
    one = Cost(**{k: float(v) for k, v in BUILT_IN[kind].cost(shape, Proxy(kind), source).items()})
    assert one.params_embedding + one.params_body + one.params_head == one.params_total
    assert all(value > 0 for value in vars(one).values())
    a_step = shape["batch"] * (shape["resolution"] if source.task == "tokens" else 1)
    assert one.tokens_seen == one.steps * a_step
    for axis in ("width", "depth", "batch"):
        larger = BUILT_IN[kind].cost(shape | {axis: 2 * shape[axis]}, Proxy(kind, heads=None), source)
        assert larger["memory"] >= 0.9 * one.memory and larger["params_total"] >= one.params_total


@pytest.mark.parametrize("kind", BUILT_IN)
def test_columns_cost_what_their_rows_cost(kind: str) -> None:
    table = candidates(spec_of(kind, space={"batch": [8, 32]}))
    for row in range(0, len(table), 7):
        assert table.cost(row) == spec_of(kind).cost(table.config(row))


def test_a_convnet_grows_as_its_stages_do() -> None:
    """FLOPs ~ d w^2 r^2, parameters ~ d w^2, activations ~ d w r^2 (arXiv 2103.06877) where stem, stages'
    entries and head are small beside."""
    base = {
        "width": 256.0,
        "depth": 64.0,
        "resolution": 256.0,
        "group_width": 0.0,
        "tokens": 1.0,
        "batch": 1.0,
    }

    def grown(**by: float) -> list[float]:
        at = [
            BUILT_IN["convnet"].cost(base | {n: base[n] * f for n, f in by.items()}, Proxy("convnet"), GLYPHS)
        ]
        at.append(BUILT_IN["convnet"].cost(base, Proxy("convnet"), GLYPHS))
        return [float(at[0][n] / at[1][n]) for n in ("flops", "params_body", "activations")]

    assert grown(depth=2) == pytest.approx([2, 2, 2], rel=0.02)
    assert grown(width=2) == pytest.approx([4, 4, 2], rel=0.02)
    assert grown(resolution=2) == pytest.approx([4, 1, 4], rel=0.02)


def test_a_source_decides_axes_and_metrics() -> None:
    assert BUILT_IN["convnet"].axes(DIGITS)["resolution"].default == 8
    assert BUILT_IN["convnet"].axes(GLYPHS)["resolution"].default == 16
    assert BUILT_IN["mlp"].axes(TEACHER)["resolution"].upper == 1
    assert BUILT_IN["gpt"].axes(STDLIB)["resolution"].default == 64
    assert metrics(TEACHER) == {"val_loss": "squared error", "train_loss": "squared error"}
    assert metrics(DIGITS)["val_error"] == "share"
    assert spec_of("vit", metric={"name": "val_error"}).metric.unit == "share"
    learnt = {name: kind.datasets for name, kind in BUILT_IN.items()}
    assert learnt["gpt"] == ["stdlib"] and learnt["convnet"] == learnt["vit"] == ["glyphs", "digits"]
    assert learnt["mlp"] == ["glyphs", "digits", "teacher"]
    assert not BUILT_IN["vit"].learns(replace(TEACHER, task="classes"))


@pytest.mark.parametrize(
    ("mapping", "field", "given_text", "allowed_text"),
    [
        (given_of("gpt", {"kind": "cnn"}),
         "proxy.kind", "'cnn'", "one of mlp, convnet, vit, gpt"),
        (given_of("convnet", {"dataset": "stdlib"}), "proxy.dataset", "'stdlib'", "one of glyphs, digits"),
        (given_of("gpt", {"dataset": "glyphs"}), "proxy.dataset", "'glyphs'", "one of stdlib"),
        (given_of("vit", {"dataset": "teacher"}), "proxy.dataset", "'teacher'", "one of glyphs, digits"),
        (given_of("convnet", {"heads": 2}), "proxy.heads", "2", "null, since convnet has no attention"),
        (given_of("vit", {"heads": 3}), "proxy.heads", "3 heads for width 8", "divide every width"),
        (given_of("vit", space={"patch": [4, 3]}), "space.patch", "patches of 3 for resolution 16",
         "divide every resolution"),
        (given_of("vit", at={"resolution": 18}), "targets.0.at.patch", "of 4 for resolution 18", "divide"),
        (given_of("convnet", space={"group_width": 16}), "space.group_width", "groups of 16 for width 8",
         "divide every width"),
        (given_of("convnet", space={"resolution": [16, 18]}), "space.resolution", "18", "multiples of 4"),
        (given_of("convnet", {"dataset": "digits"}, space={"resolution": 16}), "space.resolution", "16", "8"),
        (given_of("mlp", {"dataset": "teacher"}, space={"resolution": 16}), "space.resolution", "16", "1"),
        (given_of("mlp", space={"patch": 4}), "space.patch", "unknown axis 'patch'", "one of the axes"),
        (given_of("mlp", laws={"count": "body"}), "laws.count", "'body'", "total"),
        (given_of("gpt", space={"mup": [0, 2]}), "space.mup", "2", "from 0 to 1"),
        (given_of("gpt", space={"fraction": 0}), "space.fraction", "0", "to 1"),
        (given_of("gpt", metric={"name": "val_error"}), "metric.name", "'val_error'", "one of val_loss"),
        (given_of("mlp", space={"tokens": 100}), "space.tokens", "100", "at least 160, which is 10 steps"),
    ],
)  # fmt: skip
def test_what_a_kind_cannot_is_named(
    mapping: dict[str, Any], field: str, given_text: str, allowed_text: str
) -> None:
    found = problems(mapping)
    assert field in found, found
    assert given_text in found[field][0]
    assert allowed_text in found[field][1]


def test_axes_of_the_data_have_no_best_value() -> None:
    spec = spec_of("gpt", space={"fraction": [0.25, 0.5, 1], "kept": [0.5, 1], "unique": [10_000, 100_000]})
    assert parse(to_dict(replace(spec, strategy=replace(spec.strategy, weights={"lr": 2.0})))) is not None
    weighted = to_dict(spec)
    weighted["strategy"]["weights"] = {"fraction": 2.0}
    assert "strategy.weights.fraction" in problems(weighted)
    assert np.unique(candidates(spec)["fraction"]).tolist() == [0.25, 0.5, 1.0]
