"""What to train, from tables of known laws: closed forms inside intervals, commands, the documentation."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import sweeps.laws
from api.cli import app
from sweeps.allocate import allocate, cheapest, gain_worth
from sweeps.allocation import Spending, additive_cheapest, additive_optimum, best, power_multiple, surface
from sweeps.errors import FitError
from sweeps.laws import LAWS
from sweeps.laws.base import Array
from sweeps.laws.formula import floor, law, power, term
from sweeps.posterior import Quantiles
from sweeps.study import Study, fit, predict

TRUE = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.365}
REPEATED = TRUE | {"R_D": 15.0, "R_N": 5.0}
GAMMA = TRUE["alpha"] * TRUE["beta"] / (TRUE["alpha"] + TRUE["beta"])
MAP = "params=N, tokens=D, loss=loss"


def table(seed: int = 0, noise: float = 0.001) -> dict[str, Array]:
    n, ratio = (v.ravel() for v in np.meshgrid(np.geomspace(3e7, 3e9, 7), [4.0, 12.0, 36.0, 108.0]))
    d = n * ratio
    loss = TRUE["E"] + TRUE["A"] * n ** -TRUE["alpha"] + TRUE["B"] * d ** -TRUE["beta"]
    seeds = np.random.default_rng(seed).normal(0.0, noise, len(n))
    return {"params": n, "tokens": d, "loss": loss * np.exp(seeds)}


def repeated() -> dict[str, Array]:
    """Runs of which half repeat their tokens."""
    made = table(1)
    made["unique_tokens"] = np.minimum(made["tokens"], np.where(np.arange(28) % 2, 1e9, 1e11))
    loss = LAWS["repetition"].at(REPEATED, made)
    made["loss"] = loss * np.exp(np.random.default_rng(1).normal(0.0, 0.001, 28))
    return made


@pytest.fixture(scope="module")
def study() -> Study:
    return fit(table(), laws="chinchilla", target={"flops": 1e23})


@pytest.fixture(scope="module")
def repeats() -> Study:
    return fit(repeated(), laws="repetition", target={"flops": 1e22})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("allocate") / "runs.csv"
    pd.DataFrame(table()).rename(columns={"params": "N", "tokens": "D"}).to_csv(made, index=False)
    return made


def holds(one: Quantiles, true: float, wide: float) -> bool:
    """Whether the interval holds the truth, is told around its median and is not too wide to tell."""
    return one.low < true < one.high and one.low < one.median < one.high < wide * one.low


@pytest.mark.parametrize("flops", [1e20, 1e22, 1e23])
def test_the_best_split_is_the_closed_form(study: Study, flops: float) -> None:
    true, plan = additive_optimum(TRUE, flops), allocate(study, flops)
    assert holds(plan.params, true.params[0], 2.0) and holds(plan.tokens, true.tokens[0], 2.0)
    assert holds(plan.loss, true.loss[0], 1.03) and holds(plan.new, true.loss[0], 1.04)
    assert plan.new.low < plan.loss.low and plan.loss.high < plan.new.high
    assert plan.training == pytest.approx(flops) and plan.undecided == 0.0
    for n, d in (("median", "median"), ("low", "high"), ("high", "low")):
        assert 6.0 * getattr(plan.params, n) * getattr(plan.tokens, d) == pytest.approx(flops)
    (told,) = predict(study, {"params": plan.params.median, "tokens": plan.tokens.median})
    assert (plan.loss.median, plan.extrapolation) == (told.loss, told.extrapolation)
    (point,) = study.frontier([flops])
    assert plan.params.median == pytest.approx(point.params, rel=0.02)


def test_intervals_hold_as_often_as_they_say() -> None:
    held = []
    for seed in range(20):
        made = fit(table(100 + seed), laws="chinchilla", target={"flops": 1e22})
        plan, reach = allocate(made, 1e22), cheapest(made, 2.1)
        true = additive_optimum(TRUE, 1e22).params[0], additive_cheapest(TRUE, 2.1)[0]
        held += [
            one.low < value < one.high for one, value in zip((plan.params, reach.flops), true, strict=True)
        ]
    assert np.mean(held) > 0.8


def test_tokens_served_meet_the_condition_of_sardana(study: Study) -> None:
    served, c = 2e12, TRUE
    plan, without = allocate(study, 1e23, served=served), allocate(study, 1e23)
    true = best(
        lambda n, d: c["E"] + c["A"] * n ** -c["alpha"] + c["B"] * d ** -c["beta"],
        1e23,
        Spending(served=served),
    )
    assert holds(plan.params, true.params[0], 2.0) and holds(plan.tokens, true.tokens[0], 2.0)
    n, d = plan.params.median, plan.tokens.median
    assert plan.training == pytest.approx(6.0 * n * d)
    assert plan.training + 2.0 * n * served == pytest.approx(1e23)
    assert n < without.params.median and d > without.tokens.median

    def ratio(n: float, d: float) -> float:
        return (c["alpha"] * c["A"] * n ** -c["alpha"]) / (c["beta"] * c["B"] * d ** -c["beta"])

    # Parameters and tokens move against each other: the condition lies between the ends.
    ends = [(plan.params.low, plan.tokens.high), (plan.params.high, plan.tokens.low)]
    excess = [ratio(n, d) - (1.0 + served / (3.0 * d)) for n, d in ends]
    assert excess[0] > 0.0 > excess[1]
    assert ratio(n, d) == pytest.approx(1.0 + served / (3.0 * d), rel=0.1)
    reach = cheapest(study, plan.loss.median, served=served)
    assert reach.flops.low < 1e23 < reach.flops.high


def test_the_unit_of_flops_is_the_tables() -> None:
    """The same runs, with FLOPs counted in zetta."""
    runs = table()
    small = {**runs, "flops": 6e-21 * runs["params"] * runs["tokens"]}
    one = fit(runs, laws="chinchilla", target={"flops": 1e23})
    two = fit(small, laws="chinchilla", target={"flops": 1e2})
    for served in (0.0, 2e12):
        plans = allocate(one, 1e23, served=served), allocate(two, 1e2, served=served)
        assert plans[0].params.low == pytest.approx(plans[1].params.low, rel=1e-3)
        assert plans[0].training == pytest.approx(plans[1].training * 1e21, rel=1e-3)
    assert cheapest(two, 2.0).flops.median == pytest.approx(1e-21 * cheapest(one, 2.0).flops.median, rel=0.01)


def test_the_cheapest_way_to_a_loss(study: Study) -> None:
    for loss in (2.4, 2.1, 2.0):
        reach, needed = cheapest(study, loss), additive_cheapest(TRUE, loss)[0]
        true = additive_optimum(TRUE, needed)
        assert holds(reach.flops, needed, 4.0) and reach.unreached == 0.0
        assert holds(reach.params, true.params[0], 4.0) and holds(reach.tokens, true.tokens[0], 4.0)
    assert allocate(study, reach.flops.median).loss.median == pytest.approx(2.0, rel=2e-3)
    assert [one.code for one in cheapest(study, 1.9).warnings] == ["far"]


def test_what_no_compute_reaches(study: Study) -> None:
    near, below = cheapest(study, TRUE["E"]), cheapest(study, 1.2)
    assert 0.05 < near.unreached < 0.95 and near.flops.high == np.inf > near.flops.low
    assert below.unreached == 1.0 and below.flops.low == below.params.median == np.inf
    assert below.warnings == ()
    assert gain_worth(study, 1e22, 1.0).unreached == 1.0 == gain_worth(study, 1e22, 3.0).unreached


def test_a_gain_is_worth_a_multiple(study: Study) -> None:
    rest = additive_optimum(TRUE, 1e22).loss[0] - TRUE["E"]
    worth = gain_worth(study, 1e22, 0.05)
    assert holds(worth.multiple, float(np.exp(power_multiple(0.05, rest, GAMMA))), 1.5)
    assert worth.unreached == 0.0 and gain_worth(study, 1e22, 0.1).multiple.low > worth.multiple.high


def test_few_unique_tokens(repeats: Study) -> None:
    one = LAWS["repetition"]
    theta = one.internal(REPEATED, dict.fromkeys((*one.columns, "loss"), 0.0))
    true = best(surface(one, theta, others={"unique_tokens": 1e10}), 1e22)
    few, plenty = allocate(repeats, 1e22, unique_tokens=1e10), allocate(repeats, 1e22)
    assert holds(few.params, true.params[0], 2.5) and holds(few.tokens, true.tokens[0], 2.5)
    assert few.loss.low < true.loss[0] < few.loss.high
    assert holds(plenty.params, additive_optimum(TRUE, 1e22).params[0], 2.5)
    assert plenty.loss.high < few.loss.low and few.tokens.low > plenty.tokens.high
    costs = [cheapest(repeats, 2.2, unique_tokens=u).flops.median for u in (1e10, None)]
    assert costs[0] > costs[1]


def test_several_laws_are_pooled() -> None:
    plan = allocate(fit(table(), target={"flops": 1e23}), 1e23)
    assert plan.params.low < additive_optimum(TRUE, 1e23).params[0] < plan.params.high


def test_what_cannot_be_told(study: Study, repeats: Study) -> None:
    for words, ask in (
        ("flops -1; allowed: a number above 0", lambda: allocate(study, -1.0)),
        ("loss 0;", lambda: cheapest(study, 0.0)),
        ("gain nan;", lambda: gain_worth(study, 1e22, np.nan)),
        ("unique_tokens 0;", lambda: allocate(repeats, 1e22, unique_tokens=0.0)),
        ("-1 tokens served; allowed: 0 or more", lambda: allocate(study, 1e22, served=-1.0)),
        ("name laws such as repetition", lambda: allocate(study, 1e22, unique_tokens=1e9)),
    ):
        with pytest.raises(FitError, match=words):
            ask()
    alone = fit({"params": np.geomspace(1e7, 1e10, 12), "loss": 1.7 + np.geomspace(3.0, 0.3, 12)})
    with pytest.raises(FitError, match="map these two"):
        allocate(alone, 1e22)
    runs = table()
    runs["bits"] = np.where(np.arange(28) % 3, 4.0, 8.0)
    runs["loss"] = LAWS["few_bits"].at(TRUE | {"gamma": 2.5}, runs)
    with pytest.raises(FitError, match="also reads bits, which varies"):
        allocate(fit(runs, laws="few_bits"), 1e22)


def test_laws_without_a_best_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that tokens do not lower: all compute would go to parameters."""

    def loss(p: Any, x: Any) -> Any:
        return p["E"] + p["A"] * x["params"] ** -p["alpha"] + 0.0 * x["tokens"]

    constants = (floor(), term("A", "params", "alpha", "the size"), power("alpha", "parameters"))
    flat = law("flat", "L = E + A N^-alpha", "our notes, for a test", ("params", "tokens"), constants, loss)
    monkeypatch.setitem(sweeps.laws._BY_NAME, "flat", flat)
    runs = table()
    made = fit({**runs, "loss": 1.8 + 480.0 * runs["params"] ** -0.35}, laws="flat")
    with pytest.raises(FitError, match="no best split of compute; fit more sizes"):
        allocate(made, 1e22)


def run(command: str, *arguments: object) -> Result:
    return CliRunner().invoke(app, [command, *(str(one) for one in arguments)], catch_exceptions=False)


def told(file: Path, *arguments: object) -> Any:
    result = run("allocate", file, "--map", MAP, "--laws", "chinchilla", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_plans_from_the_command_line(file: Path, study: Study) -> None:
    out = told(file, "--flops", 1e22, "--flops", 1e23)
    assert (out["rows"], out["reach"], out["gains"]) == (28, None, [])
    assert out["transfer"] == "none: weak priors"
    assert out["laws"] == {"chinchilla": pytest.approx(1.0)}
    assert [one["flops"] for one in out["plans"]] == [1e22, 1e23]
    assert out["plans"][1]["params"]["low"] == pytest.approx(allocate(study, 1e23).params.low)
    (served,) = told(file, "--flops", 1e23, "--served", 2e12)["plans"]
    assert served["training"] < 1e23 and served["params"]["high"] < out["plans"][1]["params"]["low"]
    text = run(
        "allocate", file, "--map", MAP, "--laws", "chinchilla", "--flops", 1e25, "--served", 2e12
    ).stdout
    for words in ("runs.csv: 28 runs", "chinchilla 100.0%", "2e12 tokens", "to train", "a new run", "far"):
        assert words in text


def test_losses_and_gains_from_the_command_line(file: Path) -> None:
    reach = told(file, "--loss", 2.0)["reach"]
    assert reach["flops"]["low"] < additive_cheapest(TRUE, 2.0)[0] < reach["flops"]["high"]
    assert told(file, "--loss", 1.2)["reach"]["flops"] == {"median": None, "low": None, "high": None}
    (worth,) = told(file, "--flops", 1e22, "--gain", 0.05)["gains"]
    assert worth["multiple"]["low"] < 2.6 < worth["multiple"]["high"]
    given = ("allocate", file, "--map", MAP, "--laws", "chinchilla")
    text = run(*given, "--loss", 1.2).stdout
    assert "1.2000" in text and "probability 100.0% no compute is enough" in text
    assert "times the compute (90 %" in run(*given, "--flops", 1e22, "--gain", 0.05).stdout


def test_unique_tokens_from_the_command_line(tmp_path: Path) -> None:
    pd.DataFrame(repeated()).to_parquet(tmp_path / "a.parquet")
    mapping = "params=params, tokens=tokens, unique_tokens=unique_tokens, loss=loss"
    given = ("allocate", tmp_path / "a.parquet", "--map", mapping, "--laws", "repetition", "--flops", 1e22)
    assert "1e10 tokens, which repeat beyond" in run(*given, "--unique-tokens", 1e10).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "allowed: --flops C, --loss L, or --gain dL --flops C"),
        (["--flops", 1e22, "--loss", 2.0], "allowed: --flops C, --loss L"),
        (["--gain", 0.1], "allowed: --flops C, --loss L"),
        (["--flops", 0], "--flops 0; allowed: a number above 0"),
        (["--loss", -1], "loss -1; allowed: a number above 0"),
        (["--flops", 1e22, "--gain", 0], "gain 0; allowed: a number above 0"),
        (["--flops", 1e22, "--served", -1], "-1 tokens served; allowed: 0 or more"),
        (["--flops", 1e22, "--unique-tokens", 1e9], "name laws such as repetition"),
        (["--flops", 1e22, "--laws", "chinchila"], "no law 'chinchila'"),
        (["--flops", 1e22, "--transfer", "muq"], "allowed: one of none, mup, step_law, deepseek"),
        (["--flops", 1e22, "--map", "params=n, loss=loss"], "map.params: given 'n'"),
        (["--flops", 1e22, "--map", "params=N, loss=loss", "--laws", "power"], "map these two"),
    ],
)
def test_bad_input_is_refused(file: Path, arguments: list[object], words: str) -> None:
    result = run("allocate", file, "--map", MAP, "--laws", "chinchilla", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and words in result.stderr


def test_shapes_of_networks() -> None:
    rows = {one["strategy"]: one for one in json.loads(run("shapes", 4, "--json").stdout)}
    assert (rows["d"]["depth"], rows["w"]["width"], rows["r"]["resolution"]) == (4.0, 2.0, 2.0)
    assert rows["dWr"]["activations"] == pytest.approx(4.0**0.6) and rows["dwr"]["params"] == pytest.approx(
        4 ** (2 / 3)
    )
    assert all(one["flops"] == pytest.approx(4.0) for one in rows.values())
    assert np.log(rows["efficientnet"]["depth"]) / np.log(rows["efficientnet"]["width"]) == pytest.approx(
        np.log(1.2) / np.log(1.1)
    )
    text = run("shapes", 0.5).stdout
    assert "arXiv 2103.06877" in text and "arXiv 1905.11946" in text
    assert run("shapes", 0).exit_code == 2


def test_the_example_of_the_documentation_runs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "allocation.md").read_text()
    block = "".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(block, "docs/allocation.md", "exec"), names)
    assert len(printed.getvalue().splitlines()) == 8
    assert (
        names["found"][0].strategy == "w"
        and names["found"][0].mean_low < names["true"] < names["found"][0].mean_high
    )
    assert names["plan"].params.low < additive_optimum(TRUE, 1e23).params[0] < names["plan"].params.high
