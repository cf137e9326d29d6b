"""Fixed ladders: their rungs, their cost, what they are expected to tell, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from synthetic import SPACE, spec
from typer.testing import CliRunner

import conf
from api.cli import app
from sweeps.checks import MIN_STEPS
from sweeps.cost import SecondsModel
from sweeps.errors import SpecError, SweepError
from sweeps.kinds import own
from sweeps.ladder import KIND, Ladder, LadderPlan, plan_ladder
from sweeps.prospects import outlook
from sweeps.space import tabulate_configs
from sweeps.spec import parse

ASKED = spec()
SECONDS = SecondsModel(per_step=2e-3, per_activation=0.0, per_flop=4e-11, error=0.1, timings=8)


def made(kind: str = "sizes", **changes: Any) -> LadderPlan:
    return plan_ladder(ASKED, Ladder(kind, **changes), SECONDS)  # type: ignore[arg-type]


def refused(kind: str = "sizes", asked: Any = ASKED, **changes: Any) -> tuple[str, str]:
    with pytest.raises(SpecError) as caught:
        plan_ladder(asked, Ladder(kind, **changes))  # type: ignore[arg-type]
    problem = caught.value.problems[0]
    return problem.field, problem.allowed


def test_sizes_are_geometric_at_one_number_of_tokens_a_parameter() -> None:
    found = made(sizes=4, tokens_per_param=(20.0,))
    params = np.array([rung.params for rung in found.rungs])
    assert len(params) == 4 and params[0] == 4864 and params[-1] == 135168
    steps = np.diff(np.log(params))
    assert steps.max() < 2.0 * steps.min()  # as even as the shapes of the space allow
    assert all(abs(rung.tokens / rung.params - 20.0) < 1.0 for rung in found.rungs)
    assert any("no law can tell parameters from tokens" in one for one in found.warnings)


def test_the_cost_is_that_of_the_runs() -> None:
    found = made("multiples", sizes=3, tokens_per_param=(10.0, 40.0))
    costs = [ASKED.cost(rung.config) for rung in found.rungs]
    assert [rung.flops for rung in found.rungs] == [cost.flops for cost in costs]
    assert found.flops == pytest.approx(sum(cost.flops for cost in costs))
    assert found.memory == max(cost.memory for cost in costs)
    assert found.seconds == pytest.approx(sum(SECONDS(cost) for cost in costs))
    assert np.all(np.diff([rung.flops for rung in found.rungs]) >= 0)
    blind = plan_ladder(ASKED, Ladder("sizes", tokens_per_param=(20.0,)))
    assert blind.seconds is None and blind.rungs[0].seconds is None
    assert any("calibrated" in one for one in blind.warnings)


def test_multiples_are_sizes_times_tokens() -> None:
    found = made("multiples", sizes=3, tokens_per_param=(10.0, 20.0, 40.0))
    assert len(found.rungs) == 9 and len({rung.params for rung in found.rungs}) == 3
    ratios = sorted(round(rung.tokens / rung.params) for rung in found.rungs)
    assert np.allclose(ratios, [10] * 3 + [20] * 3 + [40] * 3, atol=1)


def test_profiles_have_equal_compute() -> None:
    found = made("isoflop", computes=(2e10, 1e11), sizes=5)
    flops = np.array([rung.flops for rung in found.rungs])
    for compute in (2e10, 1e11):
        profile = np.abs(flops / compute - 1.0) < 0.05
        assert 3 <= profile.sum() <= 5
        assert (
            len({rung.params for rung, here in zip(found.rungs, profile, strict=True) if here})
            == profile.sum()
        )
    assert len(made("isoflop").rungs) > 6


def test_an_l_shape_is_the_boundary_and_every_setting_at_its_corner() -> None:
    found = made("l_shape", sizes=4)
    least, smallest = SPACE["tokens"]["from"], min(rung.params for rung in found.rungs)  # type: ignore[index]
    for rung in found.rungs:
        assert rung.config["tokens"] == least or rung.params == smallest
    corner = [r for r in found.rungs if r.config["tokens"] == least and r.params == smallest]
    settings = {(rung.config["lr"], rung.config["batch"]) for rung in corner}
    assert len(settings) == len(corner) == 6 * 3
    elsewhere = {(r.config["lr"], r.config["batch"]) for r in found.rungs if r not in corner}
    assert len(elsewhere) == 1
    fixed = made("l_shape", at={"lr": 5e-3, "batch": 12})
    assert {(rung.config["lr"], rung.config["batch"]) for rung in fixed.rungs} == {(5e-3, 12.0)}


@pytest.mark.parametrize("kind", KIND)
def test_every_kind_narrows_the_interval_and_has_a_rival(kind: str) -> None:
    found = made(kind)
    assert all(rung.tokens > 0 and ASKED.cost(rung.config).steps >= MIN_STEPS for rung in found.rungs)
    assert 0 < found.half_width_after["big"] < found.half_width_before["big"]
    other = found.informative
    assert other is not None and other.runs > 0 and other.seconds is not None
    assert other.ratio == pytest.approx(other.flops / found.flops)


def test_the_informative_plan_costs_less_than_several_ratios_at_every_size() -> None:
    found = made("multiples", tokens_per_param=(5.0, 10.0, 20.0))
    assert found.informative is not None and found.informative.ratio < 0.7


def test_more_rungs_tell_more() -> None:
    few, many = made("multiples", sizes=3), made("multiples", sizes=8)
    assert many.half_width_after["big"] < few.half_width_after["big"]


def test_targets_keep_their_names_in_any_order() -> None:
    """A question sorts its targets by compute."""
    large = {"name": "large", "at": {"width": 96, "depth": 4, "tokens": 1.2e6}}
    small = {"name": "little", "at": {"width": 64, "depth": 4, "tokens": 4e5}}
    runs = [{"width": 48.0, "depth": 4.0, "tokens": 4e5, "lr": 4e-3, "batch": 16.0}]
    asked = [spec(targets=[large, small]), spec(targets=[small, large])]
    one, two = (outlook(each, tabulate_configs(each, runs)).half_widths for each in asked)
    assert one["little"] < one["large"] and two == pytest.approx(one)


def test_a_ladder_beyond_the_budget_is_planned_with_a_warning() -> None:
    found = plan_ladder(spec(budget={"runs": 3, "flops": 1e11, "flops_per_run": 5e10}), Ladder("sizes"))
    assert {one.split(":")[0] for one in found.warnings} >= {
        "budget.runs",
        "budget.flops",
        "budget.flops_per_run",
    }


def test_what_makes_no_sense_is_refused() -> None:
    field, allowed = refused(sizes=40)
    assert field == "ladder.sizes" and "at most" in allowed
    assert refused(tokens_per_param=(5.0, 10.0))[0] == "ladder.tokens_per_param"
    field, allowed = refused(tokens_per_param=(0.1,))
    assert field == "ladder.tokens_per_param" and "at least 10 steps" in allowed
    assert "at most 1e+15 tokens" in refused(tokens_per_param=(1e15,))[1]
    field, allowed = refused("isoflop", computes=(1e25,))
    assert field == "ladder.computes" and "about" in allowed
    assert refused(computes=(1e10,))[0] == "ladder.computes"
    assert refused("l_shape", tokens_per_param=(5.0,))[0] == "ladder.tokens_per_param"
    assert refused(at={"width": 8.0})[0] == "ladder.at.width"
    assert refused(at={"lr": 100.0}) == ("ladder.at.lr", "a number from 1e-08 to 10")
    field, allowed = refused(at={"lrr": 1.0})
    assert field == "ladder.at.lrr" and "did you mean lr?" in allowed
    single = spec(space=SPACE | {"tokens": 4e5})
    assert refused("l_shape", asked=single)[0] == "space.tokens"
    many = spec(space=SPACE | {"batch": list(range(8, 258))})
    assert refused("l_shape", asked=many)[0] == "ladder"


# The command without a service

OWN = {
    "name": "networks of one's own",
    "proxy": {
        "kind": "own",
        "entry": "mylab.nets:train",
        "cost": {"params": "12*depth*width**2", "flops": "8*params*tokens"},
    },
    "space": {"width": [16, 32, 64, 128], "depth": 2, "tokens": [1e4, 1e5], "lr": [1e-3, 1e-2]},
    "targets": [{"at": {"width": 512, "depth": 2, "tokens": 1e7}}],
    "metric": {"name": "loss", "unit": "nats"},
    "budget": {"runs": 8},
}


def command(*arguments: object) -> str:
    """What the command prints as JSON where there is no service."""
    given = ["--url", "http://127.0.0.1:9", "ladder", *map(str, arguments), "--json"]
    return CliRunner().invoke(app, given, catch_exceptions=False).stdout


def test_a_specification_is_planned_without_a_service() -> None:
    out = json.loads(command("--spec", "gpt_tiny", "budget.runs=7", "--sizes", 3, "--tokens-per-param", 4))
    found = plan_ladder(
        parse(conf.sweep("gpt_tiny", "budget.runs=7")), Ladder(sizes=3, tokens_per_param=(4.0,))
    )
    assert out["flops"] == found.flops and out["memory"] == found.memory and out["seconds"] is None
    assert [one["config"] for one in out["rungs"]] == [one.config for one in found.rungs]
    assert out["informative"]["flops"] == found.informative.flops  # type: ignore[union-attr]
    with pytest.raises(SweepError, match="given no sweep; allowed: a preset or file"):
        command()
    with pytest.raises(SpecError, match=r"ladder.tokens_per_param.0: given -4.0; allowed: a number above 0"):
        command("--spec", "gpt_tiny", "--tokens-per-param", "-4")


def test_the_operators_settings_are_known_without_a_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Proxy kind, space, target and costs come from the file, what may train from the settings."""
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(OWN))
    given = ("--spec", tmp_path / "own.yaml", "--sizes", 3, "--tokens-per-param", 20)
    monkeypatch.setattr(own, "_allowed", [])
    with pytest.raises(SpecError, match=r"proxy\.entry"):
        command(*given)
    settings = conf.load("trainers=[mylab]")
    monkeypatch.setattr(conf, "load", lambda *_: settings)
    rungs = json.loads(command(*given))["rungs"]
    assert [one["params"] for one in rungs] == [12 * 2 * w**2 for w in (16, 64, 128)]
    assert all(one["flops"] == pytest.approx(8 * one["params"] * one["tokens"]) for one in rungs)
