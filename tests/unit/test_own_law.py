"""A law of one's own, as the documentation shows it, in every place where laws are used."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import observe, spec
from typer.testing import CliRunner

import conf
import sweeps.laws
from api.app import create_app
from api.cli import app
from sweeps import fit, predict
from sweeps.answers import optimum
from sweeps.answers import predict as answer
from sweeps.ensemble import fit_ensemble
from sweeps.errors import FitError, SpecError
from sweeps.laws import LAWS, load, register
from sweeps.laws.base import Array, Law
from sweeps.laws.check import LawError, check
from sweeps.runs import Observation, Spent
from sweeps.scheduler import Look, step
from sweeps.spec import SweepSpec, parse, to_dict
from workers.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
TRUTH = {"E": 1.7, "A": 300.0, "B": 800.0, "G": 0.9, "alpha": 0.34, "beta": 0.33, "gamma": 0.6}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The documented module in the current directory; what is registered is forgotten afterwards."""
    found = re.search(
        r"```python\n(# mylaws\.py\n.*?)```", (ROOT / "docs" / "laws.md").read_text(), re.DOTALL
    )
    assert found is not None
    (tmp_path / "mylaws.py").write_text(found[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(LAWS)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(LAWS) - known:
        del sweeps.laws._BY_NAME[name]
    sys.modules.pop("mylaws", None)


@pytest.fixture
def deep(module: Path, monkeypatch: pytest.MonkeyPatch) -> Law:
    monkeypatch.syspath_prepend(module)
    (law,) = load(["mylaws:DEEP"])
    return law


def table(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    n, d, depth = np.exp(rng.uniform([16, 20, 1], [21, 25, 4], (48, 3))).T
    loss = TRUTH["E"] + TRUTH["A"] * n ** -TRUTH["alpha"] + TRUTH["B"] * d ** -TRUTH["beta"]
    loss = (loss + TRUTH["G"] * depth ** -TRUTH["gamma"]) * np.exp(rng.normal(0, 1e-3, 48))
    return {"params": n, "tokens": d, "depth": depth, "loss": loss}


def test_it_is_fitted_weighed_and_asked_like_any_other(deep: Law) -> None:
    assert LAWS["deep"] is deep is register(deep)
    alone = fit(table(), laws=[deep])
    assert alone.scales == ("params", "tokens", "depth")
    at = {"params": 3e9, "tokens": 1e11, "depth": 80.0}
    true = TRUTH["E"] + TRUTH["A"] * 3e9**-0.34 + TRUTH["B"] * 1e11**-0.33 + TRUTH["G"] * 80.0**-0.6
    (told,) = predict(alone, at)
    assert told.low < true < told.high and told.loss == pytest.approx(true, rel=0.02)
    both = fit(table(), laws=["chinchilla", "deep"])
    assert both.ensemble.laws["deep"] > 0.9
    assert both.checklist["formulas"]["deep"] == deep.formula
    assert "deep" in fit(table(), laws="auto").ensemble.laws


@pytest.mark.usefixtures("deep")
def test_it_takes_part_in_a_sweep() -> None:
    asked = spec(laws={"names": ["deep", "chinchilla"]})
    assert asked.laws.names == ("chinchilla", "deep")
    assert parse(to_dict(asked)) == asked
    base = observe(asked, _World(), 36, seed=1)
    fitted = fit_ensemble(asked, base, np.random.default_rng(0))
    assert fitted.sources["depth"] == "depth" and set(fitted.laws) == {"deep", "chinchilla"}
    assert fitted.laws["deep"] > 0.5
    target = dict(asked.targets[0].at)
    assert answer(asked, fitted, target).by_law["deep"] > 0.0
    assert optimum(asked, fitted, target).split is not None  # chinchilla tells parameters from tokens
    remaining = Spent(asked.budget.runs, 3e12, np.inf)
    look = Look(asked, base[:12], [], [], [], remaining, 3, None)
    now = step(look, np.random.default_rng(0))
    assert now.ensemble is not None and "deep" in now.ensemble.laws
    assert now.decisions and now.predictions["big"].laws["deep"] > 0.0
    first = step(replace(look, observations=[]), np.random.default_rng(0))
    assert len({d.config["depth"] for d in first.decisions}) >= 3


class _World:
    """Depth counts beside parameters."""

    def loss(self, spec: SweepSpec, config: dict[str, float], rng: Any = None) -> float:
        cost = spec.cost(spec.complete(config))
        base = 1.2 + 0.5 * (cost.params_total / 1e5) ** -0.35 + 0.6 * (cost.tokens_seen / 5e5) ** -0.4
        base += 0.8 * config["depth"] ** -0.7
        return float(base * np.exp(0.002 * rng.standard_normal()))


def test_what_a_run_costs_can_be_read() -> None:
    asked = spec(laws={"names": ["kaplan_steps"]})
    base = observe(asked, _World(), 30, seed=2)
    fitted = fit_ensemble(asked, base, np.random.default_rng(0))
    assert fitted.sources == {
        "tokens": "tokens_seen", "flops": "flops", "params": "params_total", "steps": "steps",
    }  # fmt: skip
    assert answer(asked, fitted, dict(asked.targets[0].at)).loss > 0.0


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["depe"], "did you mean deep"),
        (["repetition"], "'repetition', which reads unique_tokens"),
        (["kaplan_batch"], "batch varies here and has an optimum"),
        (["downstream_error"], "laws of the loss"),
        (["m4"], "which reads x"),
    ],
)
@pytest.mark.usefixtures("deep")
def test_a_sweep_refuses_laws_that_it_has_no_columns_for(names: list[str], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(laws={"names": names})
    assert said in str(caught.value)


def test_a_batch_that_is_held_fixed_may_be_read() -> None:
    given = to_dict(spec())
    given["space"]["batch"] = [16]
    assert parse(given | {"laws": {"names": ["kaplan_batch"]}}).laws.names == ("kaplan_batch",)


def test_a_law_that_is_gone_is_named(deep: Law) -> None:
    asked = spec(laws={"names": ["deep"]})
    kept = to_dict(asked)
    runs: list[Observation] = observe(asked, _World(), 12, seed=1)
    del sweeps.laws._BY_NAME[deep.name]
    with pytest.raises(SpecError, match=r"laws\.names"):
        parse(kept)
    again = parse(kept, stored=True)
    assert again == asked
    with pytest.raises(FitError, match="no law deep is registered"):
        fit_ensemble(again, runs, np.random.default_rng(0))


def broken(law: Law) -> Iterator[tuple[Any, str]]:
    """Laws with something wrong, and what is said of it."""

    def steep(theta: Array, x: Any) -> tuple[Array, Array]:
        value, gradient = law.evaluate(theta, x)
        return value, gradient * 1.1

    def fails(_theta: Array, _x: Any) -> tuple[Array, Array]:
        raise KeyError("layers")

    yield "deep", "allowed: a sweeps.laws.base.Law"
    yield replace(law, evaluate=steep), "its gradient in E is"
    yield replace(law, evaluate=fails), "KeyError: 'layers'"
    yield replace(law, evaluate=lambda t, x: (law.evaluate(t, x)[0][..., :3], t)), "its ln L is"
    yield replace(law, evaluate=lambda t, x: tuple(v * np.nan for v in law.evaluate(t, x))), "is not finite"
    yield replace(law, value=lambda t, x: law.evaluate(t, x)[0] + 1.0), "its value is another ln L"
    yield replace(law, internal=lambda *_: np.zeros(7)), "internal does not undo natural"
    yield replace(law, start=lambda *_: np.zeros(7)), "its starts are (7,)"
    yield replace(law, name="our law"), "letters, digits and underscores"
    yield replace(law, measures="bits"), "one of loss, error, score"
    yield replace(law, columns=()), "reads no column"


def test_a_wrong_law_is_refused_in_words(deep: Law) -> None:
    for wrong, said in broken(deep):
        with pytest.raises(LawError) as caught:
            check(wrong)
        assert said in str(caught.value)
    for taken in ("deep", "chinchilla"):
        with pytest.raises(LawError, match="there is another law"):
            register(replace(deep, name=taken))


@pytest.mark.parametrize("name", sorted(LAWS))
def test_the_laws_of_the_catalogue_pass(name: str) -> None:
    assert check(LAWS[name]) is LAWS[name]


@pytest.mark.parametrize(
    ("entry", "said"),
    [("mylaws", "package.module:NAME"), ("nolaws:DEEP", "ModuleNotFoundError"), ("mylaws:DEPE", "DEPE")],
)
def test_an_entry_that_cannot_be_loaded_is_named(
    module: Path, entry: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(module)
    with pytest.raises(LawError, match=said):
        load([entry])


def test_settings_name_laws() -> None:
    assert conf.load()["laws"] == []
    assert conf.load("laws=[a.b:C,d:E]")["laws"] == ["a.b:C", "d:E"]
    assert conf.load("laws=a.b:C")["laws"] == ["a.b:C"]
    for given in ("laws=[a]", "laws=3", "laws={a:b}"):
        with pytest.raises(ValueError, match=r"a list of package\.module:NAME"):
            conf.load(given)


def test_the_service_loads_them(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(module)
    create_app(conf.load("laws=[mylaws:DEEP]"))
    assert "deep" in LAWS
    with pytest.raises(ValueError, match="nolaws"):
        create_app(conf.load("laws=[nolaws:DEEP]"))
    assert main(["laws=[nolaws:DEEP]", f"home={module}"]) == 2


def test_the_command_line_loads_them(module: Path) -> None:
    pd.DataFrame(table()).to_csv(module / "runs.csv", index=False)
    given = ["fit", "runs.csv", "--map", "params=params, tokens=tokens, depth=depth, loss=loss", "--json"]
    own = ["--law", "mylaws:DEEP", "--laws"]
    found = CliRunner().invoke(app, [*given, *own, "chinchilla,deep"])
    assert found.exit_code == 0, found.stderr
    laws = {law["law"]: law for law in json.loads(found.stdout)["laws"]}
    assert set(laws) == {"chinchilla", "deep"} and laws["deep"]["formula"].startswith("L = E")
    unused = json.loads(CliRunner().invoke(app, [*given, *own, "chinchilla"]).stdout)
    assert "law_unused" in [one["code"] for one in unused["warnings"]]
    wrong = CliRunner().invoke(app, [*given, "--law", "nolaws:DEEP"])
    assert wrong.exit_code == 2 and "cannot load the law 'nolaws:DEEP'" in wrong.stderr
