from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.bounds import MAX_CONFIGURATIONS
from sweeps.errors import SpecError
from sweeps.spec import SweepSpec, parse, spec_hash, to_dict, warnings

SMALL: dict[str, Any] = {
    "name": "small",
    "space": {"width": [8, 16], "depth": 1, "tokens": {"from": 2e4, "to": 2e5, "steps": 4}, "batch": [8]},
    "targets": [{"name": "big", "at": {"width": 64, "depth": 2, "tokens": 1e6}}],
    "budget": {"runs": 12},
}


def small(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(SMALL) | changes


def space(**axes: Any) -> dict[str, Any]:
    return small(space=copy.deepcopy(SMALL["space"]) | axes)


def problems(mapping: Any) -> dict[str, tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        parse(mapping)
    assert str(caught.value)
    return {problem.field: (problem.given, problem.allowed) for problem in reversed(caught.value.problems)}


def backwards(value: Any) -> Any:
    """The same mapping with its keys in the opposite order."""
    if isinstance(value, Mapping):
        return {key: backwards(value[key]) for key in reversed(list(value))}
    return [backwards(item) for item in value] if isinstance(value, list) else value


WIDTHS = st.lists(st.sampled_from([8, 12, 16, 24, 32, 48, 64]), min_size=1, max_size=4)
RATES = st.one_of(
    st.floats(1e-4, 1.0),
    st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=4),
    st.builds(
        lambda low, factor, steps, scale: {"from": low, "to": low * factor, "steps": steps, "scale": scale},
        st.floats(1e-4, 1e-2),
        st.floats(1.5, 90.0),
        st.integers(2, 8),
        st.sampled_from(["log", "linear"]),
    ),
)
SPECS = st.builds(
    lambda widths, rates, tokens, runs, flops, seed, laws, cpus: small(
        space={"width": widths, "depth": [1, 2], "tokens": tokens, "lr": rates},
        budget={"runs": runs, "flops": flops},
        seed=seed,
        laws={"names": laws},
        resources={"cpus": cpus},
    ),
    WIDTHS,
    RATES,
    st.lists(st.integers(20_000, 10**7), min_size=1, max_size=3),
    st.integers(1, 100),
    st.one_of(st.none(), st.floats(1e15, 1e20)),
    st.integers(0, 2**32),
    st.lists(st.sampled_from(["power", "chinchilla", "coupled"]), min_size=1, max_size=5),
    st.integers(1, 8),
)


@given(SPECS)
def test_a_specification_survives_json_with_its_hash(mapping: dict[str, Any]) -> None:
    spec = parse(mapping)
    again = parse(json.loads(json.dumps(to_dict(spec))))
    assert again == spec
    assert parse(spec) == spec
    assert spec_hash(again) == spec_hash(spec)


@given(SPECS)
def test_the_hash_does_not_depend_on_the_order_of_keys_or_values(mapping: dict[str, Any]) -> None:
    other = backwards(mapping)
    other["space"]["width"] = [*reversed(mapping["space"]["width"]), mapping["space"]["width"][0]]
    other["laws"]["names"] = [*reversed(mapping["laws"]["names"])]
    assert spec_hash(parse(other)) == spec_hash(parse(mapping))


@given(SPECS)
def test_axes_are_ascending_and_finite(mapping: dict[str, Any]) -> None:
    for axis in parse(mapping).space.values():
        assert list(axis.values) == sorted(set(axis.values))
        assert all(math.isfinite(value) for value in axis.values)


def test_defaults_and_stated_defaults_have_one_hash() -> None:
    stated = small(
        resources={"cpus": 1, "gpus": 0},
        stop={"tolerance": None},
        strategy={"name": "informative", "first_batch": 10},
        metric={"name": "val_loss", "unit": "nats/byte"},
        proxy={"kind": "gpt", "dataset": "stdlib", "heads": None},
        seed=0,
    )
    assert spec_hash(parse(stated)) == spec_hash(parse(small()))


def test_a_change_of_any_value_changes_the_hash() -> None:
    hashes = {
        spec_hash(parse(mapping))
        for mapping in (small(), small(seed=1), small(budget={"runs": 13}), space(width=[8, 24]))
    }
    assert len(hashes) == 4


def test_weights_of_what_is_asked() -> None:
    given = space(lr=[1e-3, 1e-2]) | {"strategy": {"weights": {"split": 0, "lr": 3, "loss": 1}}}
    spec = parse(given)
    assert spec.strategy.weights == {"lr": 3.0, "split": 0.0}  # 1 is what it is without
    given["strategy"]["weights"].pop("loss")
    assert spec_hash(parse(given)) == spec_hash(spec)
    assert parse(json.loads(json.dumps(to_dict(spec)))) == spec


def test_what_was_stored_before_there_were_weights_is_read() -> None:
    stored = to_dict(parse(small()))
    del stored["strategy"]["weights"]
    assert parse(stored, stored=True) == parse(small())


def test_short_forms_of_an_axis() -> None:
    forms = space(
        width=[16, 8, 8],
        depth=2,
        tokens={"from": 1e5, "to": 1.6e6, "steps": 7},
        lr={"from": 0.001, "to": 0.003, "steps": 3, "scale": "linear"},
        weight_decay={"values": [0.1, 0.0], "scale": "linear"},
    )
    axes = parse(forms).space
    assert axes["width"].values == (8.0, 16.0)
    assert axes["width"].scale == "linear"
    assert axes["depth"].values == (2.0,)
    assert axes["tokens"].values == (100000, 158740, 251984, 400000, 634960, 1007940, 1600000)
    assert axes["tokens"].scale == "log"
    assert axes["lr"].values == (0.001, 0.002, 0.003)
    assert axes["weight_decay"].values == (0.0, 0.1)
    assert parse(space(lr=[1e-3, 1e-2])).space["lr"].scale == "log"


def test_a_range_of_tokens_is_whole() -> None:
    assert parse(space(tokens={"from": 2e4, "to": 2e5, "steps": 4})).space["tokens"].values[1] == 43089


def test_complete_fills_single_values_and_defaults() -> None:
    spec = parse(space(lr=[0.002]))
    filled = spec.complete({"width": 8, "tokens": 2e4})
    assert filled["depth"] == 1
    assert filled["lr"] == 0.002
    assert filled["resolution"] == 64
    assert spec.complete({"lr": 0.5})["lr"] == 0.5
    assert "width" not in spec.complete({})


@pytest.mark.parametrize(
    ("mapping", "field", "given_text", "allowed_text"),
    [
        (space(width=[]), "space.width", "[]", "at least 1 entry"),
        (small(space={}), "space", "{}", "at least 1 entry"),
        (small(space=[8]), "space", "[8]", "names with values"),
        (space(width=[-8]), "space.width", "-8", "from 4 to 65536"),
        (space(width=[8.5]), "space.width", "8.5", "a whole number"),
        (space(width=[9]), "space.width", "9", "an even number"),
        (space(width=["a"]), "space.width.0", "'a'", "a number"),
        (space(width=[math.nan]), "space.width.0", "nan", "a finite number"),
        (space(lr=[math.inf]), "space.lr.0", "inf", "a finite number"),
        (space(width="8"), "space.width", "'8'", "{from, to, steps, scale}"),
        (space(width=None), "space.width", "None", "a list of numbers"),
        (space(width=[True]), "space.width.0", "True", "a number"),
        (space(lr=[0.0, 0.1]), "space.lr", "0", "from 1e-08 to 10"),
        (space(lr={"from": 0, "to": 1, "steps": 3}), "space.lr", "'from': 0", "above 0 on a log scale"),
        (space(lr={"from": 0.1, "to": 1, "steps": 1}), "space.lr", "'steps': 1", "at least 2"),
        (space(lr={"from": 0.1, "steps": 3}), "space.lr", "'from': 0.1", "to: nothing was given"),
        (space(lr={"from": 0.1, "to": 1, "step": 3}), "space.lr", "'step': 3", "did you mean steps?"),
        (space(lr={"values": [1], "scal": "log"}), "space.lr.scal", "unknown key 'scal'", "values, scale"),
        (space(lr={"values": [1], "scale": "ln"}), "space.lr.scale", "'ln'", "one of log, linear"),
        (space(weight_decay={"values": [0, 1], "scale": "log"}), "space.weight_decay", "0", "above 0"),
        (space(widht=[8]), "space.widht", "unknown axis 'widht'", "did you mean width?"),
        (small(space={3: [1]}), "space.3", "3", "a name"),
        (small(space={"width": [8], "depth": 1}), "space.tokens", "nothing", "{from, to, steps, scale}"),
        (space(tokens=[100]), "space.tokens", "100", "10 steps of the smallest batch"),
        (
            space(
                tokens={"from": 1e5, "to": 1e6, "steps": 10_000},
                lr={"from": 0.1, "to": 1, "steps": 10_000},
                weight_decay={"from": 0.1, "to": 1, "steps": 10_000},
            ),
            "space",
            "2e+12 configurations",
            f"at most {MAX_CONFIGURATIONS:.0e}",
        ),
        (small(name=3), "name", "3", "text"),
        (small(name=""), "name", "''", "some text"),
        (small(name="x" * 201), "name", "x", "at most 200 characters"),
        (small(nam="x"), "nam", "unknown key 'nam'", "did you mean name?"),
        (small(seed=-1), "seed", "-1", "at least 0"),
        (small(seed=1 << 60), "seed", "1152921504606846976", "below"),
        (small(targets=[]), "targets", "[]", "at least 1 entry"),
        (small(targets={}), "targets", "{}", "a list"),
        (small(targets=SMALL["targets"] * 17), "targets", "[{", "at most 16 entries"),
        (small(targets=SMALL["targets"] * 2), "targets.1.name", "'big'", "of its own"),
        (small(targets=[{}]), "targets.0.at", "nothing", "names with values"),
        (small(targets=[{"at": {"width": 64}}]), "targets.0.at.depth", "nothing", "the target's depth"),
        (small(targets=[{"at": {"widht": 64}}]), "targets.0.at.widht", "unknown axis", "did you mean width?"),
        (small(targets=[{"at": {"width": "x"}}]), "targets.0.at.width", "'x'", "a number"),
        (small(targets=[{"at": {}, "nam": "x"}]), "targets.0.nam", "unknown key", "did you mean name?"),
        (small(budget=3), "budget", "3", "runs, flops, device_seconds, flops_per_run"),
        (small(budget=None), "budget", "None", "runs, flops"),
        (small(budget={"runs": 0}), "budget.runs", "0", "at least 1"),
        (small(budget={"runs": 2.5}), "budget.runs", "2.5", "a whole number"),
        (small(budget={"runs": "many"}), "budget.runs", "'many'", "a whole number"),
        (small(budget={"runs": True}), "budget.runs", "True", "a number"),
        (small(budget={"flops": -1}), "budget.flops", "-1", "above 0"),
        (small(budget={"flops": math.nan}), "budget.flops", "nan", "a finite number"),
        (small(budget={"flops": 1e6}), "budget.flops", "1e+06", "cost of the cheapest run"),
        (small(budget={"flops_per_run": 1e6}), "budget.flops_per_run", "1e+06", "cost of the cheapest run"),
        (small(budget={"rns": 8}), "budget.rns", "unknown key 'rns'", "did you mean runs?"),
        (small(strategy={"name": "clever"}), "strategy.name", "'clever'", "one of informative, random, grid"),
        (small(strategy={"first_batch": 2}), "strategy.first_batch", "2", "at least 3"),
        (small(strategy={"weights": 2}), "strategy.weights", "2", "names with values"),
        (small(strategy={"weights": {"loss": -1}}), "strategy.weights.loss", "-1", "at least 0"),
        (small(strategy={"weights": {"loss": math.inf}}), "strategy.weights.loss", "inf", "a finite number"),
        (small(strategy={"weights": {"los": 1}}), "strategy.weights.los", "'los'", "did you mean loss?"),
        (small(strategy={"weights": {"lr": 2}}), "strategy.weights.lr", "'lr'", "one of loss, split"),
        (small(strategy={"weights": {"width": 2}}), "strategy.weights.width", "'width'", "one of loss"),
        (
            small(strategy={"weights": {"loss": 0, "split": 0}}),
            "strategy.weights",
            "{'loss': 0.0, 'split': 0.0}",
            "one above 0, of loss, split",
        ),
        (
            small(strategy={"weights": {"loss": 0}}, laws={"names": ["power"]}),
            "strategy.weights",
            "{'loss': 0.0}",
            "one above 0, of loss",
        ),
        (small(laws={"names": "power"}), "laws.names", "'power'", "a list"),
        (small(laws={"names": ["powr"]}), "laws.names", "'powr'", "did you mean power?"),
        (small(laws={"names": []}), "laws.names", "[]", "at least 1 entry"),
        (small(laws={"count": "all"}), "laws.count", "'all'", "one of total, body, active"),
        (small(stop={"tolerance": 1}), "stop.tolerance", "1", "below 1"),
        (small(proxy={"kind": "gtp"}), "proxy.kind", "'gtp'", "did you mean gpt?"),
        (
            small(resources={"gpus": 0.5, "sharing": "measured"}),
            "resources.sharing",
            "measured, with 0.5 GPUs for 1 processes",
            "none, or measured with gpus: 1",
        ),
        (small(proxy={"dataset": "web"}), "proxy.dataset", "'web'", "one of stdlib"),
        (small(proxy={"heads": 3}), "proxy.heads", "3 heads for width 8", "divide every width"),
        (small(proxy={"heads": 0}), "proxy.heads", "0", "at least 1"),
        (small(metric={"name": "loss"}), "metric.name", "'loss'", "val_loss"),
        (small(metric={"unit": "bits"}), "metric.unit", "'bits'", "nats/byte"),
        (small(metric={"direction": "maximize"}), "metric.direction", "'maximize'", "minimize"),
        (small(resources={"cpus": 0}), "resources.cpus", "0", "above 0"),
        (small(trainer={"warmup": 0.6}), "trainer.warmup", "0.6", "at most 0.5"),
        (
            small(trainer={"schedule": "constant", "warmup": 0.5, "decay": 0.6}),
            "trainer.decay",
            "0.5 warm-up and 0.6 decay",
            "at most 1",
        ),
        (["name"], "spec", "['name']", "name, space, targets"),
        (None, "spec", "None", "name, space, targets"),
    ],
)
def test_what_makes_no_sense_is_named(mapping: Any, field: str, given_text: str, allowed_text: str) -> None:
    found = problems(mapping)
    assert field in found, found
    assert given_text in found[field][0]
    assert allowed_text in found[field][1]


def test_no_message_speaks_of_the_validator() -> None:
    mapping = small(space={"width": [], "depth": ["x"]}, targets=[{"at": 3}], budget={"runs": [], "x": 1})
    text = " ".join(f"{given} {allowed}" for given, allowed in problems(mapping).values())
    for word in ("Tuple", "Input", "dictionary", "validation", "Field", "instance"):
        assert word not in text


def test_every_problem_is_reported_at_once() -> None:
    found = problems(small(seed=-1, foo=1, budget={"runs": 0, "rns": 1}, laws={"count": "all"}))
    assert set(found) == {"seed", "foo", "budget.runs", "budget.rns", "laws.count"}


def test_only_one_problem_for_an_axis_full_of_mistakes() -> None:
    assert list(problems(space(depth={"from": 1, "to": 9, "steps": 500}))) == ["space.depth"]


def test_a_target_inside_the_space_warns() -> None:
    inside = small(targets=[{"name": "near", "at": {"width": 12, "depth": 1, "tokens": 1e5}}])
    assert any("targets.near" in text and "inside the space" in text for text in warnings(parse(inside)))
    assert warnings(parse(small())) == []


def test_a_budget_below_the_first_batch_warns() -> None:
    assert any("strategy.first_batch" in text for text in warnings(parse(small(budget={"runs": 5}))))


def test_a_specification_cannot_be_changed() -> None:
    spec: SweepSpec = parse(small())
    with pytest.raises(AttributeError):
        spec.seed = 3  # type: ignore[misc]


def test_a_target_may_ask_for_resources_of_its_own() -> None:
    big = {"name": "big", "at": {"width": 64, "depth": 2, "tokens": 1e6}, "resources": {"cpus": 2}}
    small = {"name": "small", "at": {"width": 48, "depth": 2, "tokens": 1e6}}
    space = {"width": [8, 16], "depth": 2, "tokens": [1e5, 2e5]}
    spec = parse({"name": "x", "space": space, "targets": [big, small]})
    assert spec.resources_of("big").cpus == 2
    assert spec.resources_of("small") == spec.resources_of(None) == spec.resources
