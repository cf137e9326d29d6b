"""One size that sets many axes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.answers import frontier, optimum
from sweeps.ensemble import fit_ensemble
from sweeps.errors import SpecError
from sweeps.imports import past_runs
from sweeps.ladder import Ladder, plan_ladder
from sweeps.shapes import STRATEGIES
from sweeps.space import candidates, tabulate
from sweeps.spec import SweepSpec, parse, spec_hash, to_dict
from sweeps.surface import surface

DATASETS = {"mlp": "digits", "convnet": "glyphs", "vit": "glyphs", "gpt": "stdlib"}
BASE = {"width": 16, "depth": 2, "resolution": 16}
FLAT = {"width": 16, "depth": 2}
ONE_DIAL = {"rule": "dial", "width": "16*size", "depth": "2*size", "batch": "8*size**0.5", "lr": "0.01/size"}


def mapping(kind: str, scaling: dict[str, Any], **changes: Any) -> dict[str, Any]:
    space = {"size": [1, 2, 4, 8], "tokens": [1e5, 2e5, 4e5]} | changes.pop("space", {})
    return {
        "name": "scaled",
        "proxy": {"kind": kind, "dataset": DATASETS[kind], "scaling": scaling},
        "space": {name: axis for name, axis in space.items() if axis is not None},
        "targets": [{"at": {"size": 32, "tokens": 4e6} | changes.pop("at", {})}],
    } | changes


def spec_of(kind: str, scaling: dict[str, Any], **changes: Any) -> SweepSpec:
    return parse(mapping(kind, scaling, **changes))


@pytest.mark.parametrize("rule", STRATEGIES)
@pytest.mark.parametrize("kind", ["convnet", "vit", "gpt"])
def test_a_shape_grows_by_its_rule(kind: str, rule: str) -> None:
    """d w^2 r^2 is as many times that of the base as the size says, along one dimension d w^2 r."""
    base = {"width": 256, "depth": 64, "resolution": 256}
    spec = spec_of(kind, {"rule": rule, **base}, at={"size": 16})
    table = tabulate(spec, {"size": np.geomspace(1, 64, 13), "tokens": 1e9})
    assert {name: table[name][0] for name in base} == base
    work = table["depth"] * table["width"] ** 2 * table["resolution"] ** (1 if kind == "gpt" else 2)
    np.testing.assert_allclose(work / work[0], table["size"], rtol=0.05)
    assert (table["width"][-1] > 256) == (STRATEGIES[rule].width > 0)
    assert (table["resolution"][-1] > 256) == (STRATEGIES[rule].resolution > 0)


@pytest.mark.parametrize("rule", STRATEGIES)
def test_a_size_is_about_the_factor_in_flops(rule: str) -> None:
    spec = spec_of("convnet", {"rule": rule, "width": 256, "depth": 64, "resolution": 256}, at={"size": 16})
    table = tabulate(spec, {"size": np.geomspace(1, 64, 13), "tokens": 1e9})
    each = table["flops"] / table["tokens_seen"]
    np.testing.assert_allclose(each / each[0], table["size"], rtol=0.07)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["mlp", "convnet", "vit", "gpt"]),
    rule=st.sampled_from(["d", "w", "dw"]),
    width=st.integers(2, 40).map(lambda half: 2 * half),
    depth=st.integers(1, 5),
    size=st.floats(0.2, 200),
)
def test_what_a_size_sets_is_taken_by_the_kind(
    kind: str, rule: str, width: int, depth: int, size: float
) -> None:
    spec = spec_of(kind, {"rule": rule, "width": width, "depth": depth}, space={"tokens": [1e6]})
    config = spec.complete({"size": size, "tokens": 1e6})
    for name in ("width", "depth", "resolution"):
        assert config[name] == round(config[name]) >= 1
    assert not list(spec.kind.problems(spec.proxy, {name: [value] for name, value in config.items()}))
    shape = spec.complete({"size": 1.0, "tokens": 1e6})
    assert (shape["width"], shape["depth"]) == (width, depth)


def test_rounding_keeps_patches_heads_and_groups() -> None:
    spec = spec_of("vit", {"rule": "wr", "width": 48, "depth": 2, "resolution": 24}, space={"patch": [3, 6]})
    table = candidates(spec)
    assert np.all(table["resolution"] % table["patch"] == 0)
    grouped = spec_of("convnet", {"rule": "dWr", **BASE, "group_width": 4})
    table = tabulate(grouped, {"size": np.geomspace(1, 100, 9), "tokens": 1e5})
    assert np.all(table["width"] % table["group_width"] == 0) and np.all(table["resolution"] % 4 == 0)
    assert table["group_width"][0] == 4 and table["group_width"][-1] > 12
    headed = mapping("gpt", {"rule": "w", "width": 24, "depth": 1})
    headed["proxy"]["heads"] = 3
    assert np.all(candidates(parse(headed))["width"] % 6 == 0)
    fixed = spec_of("convnet", {"rule": "w", "width": 24, "depth": 1}, space={"group_width": 12})
    assert np.all(candidates(fixed)["width"] % 12 == 0)


def test_one_dial_turns_every_axis_by_its_expression() -> None:
    spec = spec_of("gpt", ONE_DIAL)
    config = spec.complete({"size": 4, "tokens": 1e5})
    assert {name: config[name] for name in ("width", "depth", "batch", "lr")} == {
        "width": 64, "depth": 8, "batch": 16, "lr": 0.0025,
    }  # fmt: skip
    assert config["size"] == 4 and config["resolution"] == 64
    table = candidates(spec)
    assert len(table) == 4 * 3
    for row in range(len(table)):
        assert table.config(row) == spec.complete(table.config(row))
        assert table.config(row) == spec.complete({name: table[name][row] for name in ("size", "tokens")})
        assert table.cost(row) == spec.cost(table.config(row))
    assert surface(spec).axes == ()  # the dial leaves nothing to find


def test_a_dial_may_set_the_tokens() -> None:
    given_mapping = mapping("gpt", ONE_DIAL | {"tokens": "2e5*size**2"})
    given_mapping["space"] = {"size": {"from": 0.5, "to": 8, "steps": 9}, "weight_decay": [0.01, 0.1]}
    given_mapping["targets"] = [{"at": {"size": 32}}]
    spec = parse(given_mapping)
    table = candidates(spec)
    assert len(table) == 9 * 2
    np.testing.assert_allclose(table["tokens"], np.round(2e5 * table["size"] ** 2))
    assert spec.cost(spec.complete(spec.targets[0].at)).tokens_seen == pytest.approx(2e5 * 32**2, rel=0.01)
    assert np.all(table["width"] % 2 == 0)  # what heads need
    with pytest.raises(SpecError) as caught:
        plan_ladder(spec, Ladder(sizes=2))
    assert "proxy.scaling.tokens" in str(caught.value)


def problems(given_mapping: dict[str, Any]) -> dict[str, tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        parse(given_mapping)
    return {problem.field: (problem.given, problem.allowed) for problem in reversed(caught.value.problems)}


def test_a_scaling_is_part_of_the_specification() -> None:
    spec = spec_of("convnet", {"rule": "dWr", **BASE})
    stated = spec_of("convnet", {"resolution": 16, "depth": 2, "width": 16, "alpha": 0.8, "rule": "dWr"})
    assert spec_hash(spec) == spec_hash(stated)
    assert parse(json.loads(json.dumps(to_dict(spec)))) == spec
    assert spec_hash(spec) != spec_hash(spec_of("convnet", {"rule": "dwr", **BASE}))
    assert "scaling" not in to_dict(parse({
        "name": "x", "space": {"width": 8, "depth": 1, "tokens": 1e5},
        "targets": [{"at": {"width": 64, "depth": 1, "tokens": 1e5}}],
    }))["proxy"]  # fmt: skip


def test_ladders_and_past_runs_are_of_sizes() -> None:
    spec = spec_of("convnet", {"rule": "dWr", **BASE}, space={"lr": [1e-3, 4e-3]})
    plan = plan_ladder(spec, Ladder(sizes=3, tokens_per_param=(10.0,)))
    assert {rung.config["size"] for rung in plan.rungs} < {1.0, 2.0, 4.0, 8.0}
    columns = {"size": [2.0, 3.0], "tokens": [1e5, 1e5], "lr": [2e-3, 2e-3], "loss": [2.0, 1.9]}
    found = past_runs(spec, columns, None, "table").observations
    assert found[0].config == spec.complete({"size": 2.0, "tokens": 1e5, "lr": 2e-3})


@pytest.mark.parametrize(
    ("given_mapping", "field", "given_text", "allowed_text"),
    [
        (mapping("gpt", {}), "proxy.scaling", "{}", "at least 1 entry"),
        (mapping("gpt", {"width": 16}), "proxy.scaling.rule", "nothing", "one of d, w, r"),
        (mapping("gpt", {"rule": "dWR", **BASE}), "proxy.scaling.rule", "'dWR'", "did you mean dWr?"),
        (mapping("gpt", {"rule": "w", "width": 16}), "proxy.scaling.depth", "nothing", "of the base"),
        (mapping("gpt", {"rule": "w", "width": "x", "depth": 1}), "proxy.scaling.width", "'x'", "whole"),
        (mapping("gpt", {"rule": "w", "width": 16.5, "depth": 1}), "proxy.scaling.width", "16.5", "whole"),
        (mapping("gpt", {"rule": "w", "width": [16], "depth": 1}), "proxy.scaling.width", "[16]", "a number"),
        (mapping("gpt", {"rule": "w", **BASE, "lr": 1}), "proxy.scaling.lr", "unknown key", "the keys"),
        (mapping("gpt", {"rule": "w", **BASE, "alpha": 1}), "proxy.scaling.alpha", "unknown key", "the keys"),
        (mapping("gpt", {"rule": "dWr", **BASE, "alpha": 2}), "proxy.scaling.alpha", "2.0", "from 0 to 1"),
        (mapping("mlp", FLAT | {"rule": "dwr"}), "proxy.scaling.rule", "'dwr'", "d, w, dw, dial, since only"),
        (mapping("mlp", {"rule": "w", **BASE}), "proxy.scaling.resolution", "16.0", "from 8 to 8"),
        (mapping("gpt", {"rule": "dial"}), "proxy.scaling", "no axis", "width: 16*size"),
        (mapping("gpt", {"rule": "dial", "widht": "8*size"}), "proxy.scaling.widht", "unknown", "width?"),
        (mapping("gpt", {"rule": "dial", "width": "8*sise"}), "proxy.scaling.width", "8*sise", "alone"),
        (mapping("gpt", {"rule": "dial", "width": "8*"}), "proxy.scaling.width", "'8*'", "numbers and"),
        (mapping("gpt", ONE_DIAL, space={"lr": 0.1}), "space.lr", "an axis", "sets lr by size"),
        (mapping("gpt", {"rule": "w", **BASE}, at={"width": 8}), "targets.0.at.width", "an axis", "width by"),
        (mapping("gpt", {"rule": "w", **BASE}, space={"size": None}), "space.size", "nothing", "a number"),
        (mapping("gpt", {"rule": "w", **BASE}, at={"size": 1e-9}), "targets.0.at.size", "1e-09", "from 1e"),
        (mapping("gpt", ONE_DIAL, at={"size": 1e5}), "targets.0.at.size", "to 1.6e+06", "width from 4"),
        (mapping("convnet", {"rule": "dial", "width": "15*size", "depth": 1, "group_width": 4}), "space.size",
         "groups of 4 for width 15", "divide every width"),
        (mapping("gpt", ONE_DIAL | {"depth": "size-2"}), "proxy.scaling.depth", "is -1", "a positive number"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_named(
    given_mapping: dict[str, Any], field: str, given_text: str, allowed_text: str
) -> None:
    found = problems(given_mapping)
    assert field in found, found
    assert given_text in found[field][0]
    assert allowed_text in found[field][1]


def test_a_fit_over_sizes_answers_at_sizes() -> None:
    spec = spec_of(
        "convnet",
        {"rule": "dWr", **BASE},
        space={"size": {"from": 0.5, "to": 8, "steps": 9}, "lr": {"from": 1e-3, "to": 3e-2, "steps": 4}},
    )
    world = synthetic.World()
    ensemble = fit_ensemble(spec, synthetic.observe(spec, world, 40, seed=0), np.random.default_rng(0))
    best = optimum(spec, ensemble, {"size": 32, "tokens": 4e6})
    full = spec.complete({"size": 32, "tokens": 4e6})
    assert best.prediction.at["width"] == full["width"]
    assert {"width", "size"}.isdisjoint(best.settings)
    assert best.prediction.flops == spec.cost(best.prediction.at).flops
    (split,) = frontier(spec, ensemble, [best.prediction.flops])
    assert split.size is not None
    shape = spec.complete({"size": split.size, "tokens": split.tokens})
    assert (split.width, split.depth) == (shape["width"], shape["depth"])
    assert spec.cost(shape).params_total == pytest.approx(split.params, rel=0.3)
