"""Which way to scale a shape, where the truth is known: tables of runs, a sweep, the command."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import SPACE, World, observe, spec
from typer.testing import CliRunner, Result

import sweeps.laws
from api.cli import app
from sweeps.cost import SecondsModel
from sweeps.ensemble import fit_ensemble
from sweeps.errors import FitError
from sweeps.laws.base import Array
from sweeps.laws.formula import floor, law, power, term
from sweeps.runs import Observation
from sweeps.shape_choice import Choice, choose, choose_in_sweep
from sweeps.spec import Config, parse
from sweeps.study import Study, fit

BASE = {"width": 512.0, "depth": 8.0, "params": 12 * 8 * 512.0**2, "tokens": 1e10}
MAP = "width=d, depth=l, params=N, tokens=D, loss=loss"


def true(at: dict[str, Any]) -> Any:
    """The law of width, depth, parameters and tokens of this world."""
    terms = 20 * at["width"] ** -0.6 + 0.5 * at["depth"] ** -0.8 + 60 * at["params"] ** -0.3
    return 1.6 + terms + 1000 * at["tokens"] ** -0.35


def table() -> dict[str, Array]:
    width, depth = (
        v.ravel() for v in np.meshgrid([256.0, 384.0, 512.0, 768.0, 1024.0], [4.0, 8.0, 16.0, 32.0])
    )
    rng = np.random.default_rng(0)
    made = {"width": width, "depth": depth, "params": 12 * depth * width**2}
    made["tokens"] = 10.0 ** rng.uniform(9.5, 10.5, len(width))
    return made | {"loss": true(made) * np.exp(rng.normal(0.0, 0.001, len(width)))}


def seconds(at: dict[str, Any]) -> Any:
    """A machine that moves activations as dearly as it multiplies."""
    return 6e-18 * at["params"] * at["tokens"] + 3e-12 * at["depth"] * at["width"] * at["tokens"]


@pytest.fixture(scope="module")
def study() -> Study:
    return fit(table(), target={"flops": 1e20})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shapes") / "runs.csv"
    names = {"width": "d", "depth": "l", "params": "N", "tokens": "D"}
    pd.DataFrame(table() | {"s": seconds(table())}).rename(columns=names).to_csv(made, index=False)
    return made


def by(found: list[Choice]) -> dict[str, Choice]:
    return {one.strategy: one for one in found}


def test_the_shape_of_the_lowest_loss_comes_first(study: Study) -> None:
    assert study.ensemble.laws.keys() == {"gemstones"}  # the law of the catalogue that reads these columns
    found = choose(study, 4.0, base=BASE)
    # No run tells what resolution is worth.
    assert {found[0].strategy, found[1].strategy} == {"free", "w"}  # nearly the same shape here
    assert [one.strategy for one in found[2:]] == ["dw", "d"]
    assert [one.best for one in found] == [True, False, False, False]
    for one in found:
        assert one.flops == pytest.approx(4.0) and one.params == pytest.approx(4.0)
        assert one.low < one.mean_low < one.loss < one.mean_high < one.high
        assert one.low < true(one.at) < one.high and one.loss == pytest.approx(true(one.at), rel=0.004)
        assert one.at["tokens"] == 1e10 and one.at["flops"] == pytest.approx(4 * 6 * BASE["params"] * 1e10)
        assert one.seconds is None and not one.best_for_time and one.warnings == ()
    assert by(found)["w"].at["width"] == pytest.approx(1024.0) and by(found)["w"].at["depth"] == 8.0
    depths = np.geomspace(8.0, 32.0, 500)  # at smaller ones the width is beyond all runs
    every = {"depth": depths, "width": 2 * 512 * (8 / depths) ** 0.5, "params": 4 * BASE["params"]}
    assert true(by(found)["free"].at) < 1.002 * true(every | {"tokens": 1e10}).min()
    assert found[0].extrapolation == pytest.approx(found[1].extrapolation)


def test_a_budget_of_activations(study: Study) -> None:
    found = by(choose(study, 4.0, base=BASE, budget="activations"))
    assert all(one.activations == pytest.approx(4.0) for one in found.values())
    assert (found["w"].flops, found["d"].flops) == pytest.approx((16.0, 4.0))
    assert found["w"].at["params"] == pytest.approx(16.0 * BASE["params"])


def test_seconds_are_learned_from_the_runs(study: Study) -> None:
    found = choose(study, 4.0, base=BASE, seconds=seconds(table()))
    for one in found:
        assert one.seconds == pytest.approx(seconds(one.at), rel=1e-6)
    assert [one.best_for_time for one in found] == [
        True,
        False,
        False,
        False,
    ]  # the widest is the fastest too
    capped = choose(study, 4.0, base=BASE, budget="activations", seconds=seconds(table()))
    assert all(one.best_for_time for one in capped if one.strategy != "free")
    with pytest.raises(FitError, match="map width and depth too"):
        plain = {name: column for name, column in table().items() if name not in ("width", "depth")}
        choose(fit(plain, laws="chinchilla"), 4.0, seconds=seconds(table()))


def test_where_resolution_is_known_every_strategy_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    own = law(
        "convolutional",
        "L = E + A N^-alpha + R resolution^-rho",
        "our notes",
        ("params", "resolution"),
        (
            floor(),
            term("A", "params", "alpha", "what parameters cost"),
            term("R", "resolution", "rho", "what resolution costs"),
            power("alpha", "params"),
            power("rho", "resolution"),
        ),
        lambda p, x: p["E"] + p["A"] * x["params"] ** -p["alpha"] + p["R"] * x["resolution"] ** -p["rho"],
    )
    monkeypatch.setitem(sweeps.laws._BY_NAME, own.name, own)
    params, resolution = (
        v.ravel() for v in np.meshgrid(np.geomspace(1e6, 1e8, 6), [96.0, 128.0, 192.0, 256.0])
    )
    flops = 1e6 * params * resolution**2

    def loss(n: Any, r: Any) -> Any:
        return 0.6 + 20.0 * n**-0.25 + 12.0 * r**-0.8

    made = {"params": params, "resolution": resolution, "flops": flops, "loss": loss(params, resolution)}
    base = {"params": 1e7, "resolution": 128.0, "flops": 1e13 * 128.0**2}
    found = choose(fit(made, laws=own.name), 8.0, base=base)
    assert len(found) == 9
    truth = [loss(one.at["params"], one.at["resolution"]) for one in found]
    assert truth[0] < 1.001 * min(truth) and 1.0 < found[0].by.resolution < 8.0**0.5
    for one, value in zip(found, truth, strict=True):
        assert one.loss == pytest.approx(value, rel=0.01)
        assert one.at["flops"] == pytest.approx(8.0 * base["flops"])


def test_laws_of_parameters_alone_cannot_tell_depth_from_width() -> None:
    plain = {name: column for name, column in table().items() if name not in ("width", "depth")}
    found = choose(fit(plain, laws="chinchilla"), 4.0)
    assert len({round(one.loss, 6) for one in found}) == 1
    assert [one.strategy for one in found] == ["w", "dw", "d"]  # equals by their activations
    assert {one.warnings[0].code for one in found} == {"shape_unread"}
    largest = int(np.argmax(plain["params"] * plain["tokens"]))
    assert found[0].at["params"] == pytest.approx(4.0 * plain["params"][largest])


def test_what_cannot_be_answered_is_refused(study: Study) -> None:
    compute = {"flops": np.geomspace(1e18, 1e21, 8), "loss": np.geomspace(3.0, 2.0, 8)}
    with pytest.raises(FitError, match="map width and depth, or params"):
        choose(fit(compute), 4.0)
    with pytest.raises(FitError, match="given factor -1; allowed: a number above 0"):
        choose(study, -1.0)
    with pytest.raises(FitError, match="given budget 'flop'; allowed: one of flops, activations"):
        choose(study, 4.0, budget="flop")
    with pytest.raises(FitError, match="width is missing"):
        choose(study, 4.0, base={"params": 1e8, "tokens": 1e10})


@pytest.mark.parametrize("budget", ["flops", "activations"])
def test_a_sweep_counts_its_own_costs(budget: str) -> None:
    asked = spec(space=SPACE | {"resolution": [32, 64]})
    fitted = fit_ensemble(asked, observe(asked, World(), 30, seed=1), np.random.default_rng(0))
    at, model = asked.targets[0].at, SecondsModel(1e-3, 1e-9, 1e-12, 0.1, 9)
    found = by(choose_in_sweep(asked, fitted, at, 3.0, budget=budget, seconds=model))
    assert {"w", "d", "dw", "dWr"} <= set(found)
    for one in found.values():
        assert getattr(one, budget) == pytest.approx(3.0, rel=0.2)
        assert one.at["width"] % 4 == 0.0 and all(
            one.at[n] == round(one.at[n]) for n in ("depth", "resolution")
        )
        assert one.seconds == model(asked.cost(one.at))
        assert one.warnings[0].code == "shape_unread"
    assert found["w"].at["depth"] == at["depth"] and found["d"].at["width"] == at["width"]
    assert found["dWr"].by.resolution > 1.0
    fixed = spec()
    again = fit_ensemble(fixed, observe(fixed, World(), 30, seed=1), np.random.default_rng(0))
    assert set(by(choose_in_sweep(fixed, again, at, 3.0))) == {"w", "d", "dw"}


@pytest.mark.parametrize(
    ("budget", "by_size", "by_depth"), [("flops", 0.25, 0.0), ("activations", 0.25, 0.0), ("flops", 0.0, 0.6)]
)
def test_a_sweep_over_three_axes_finds_its_best_shape(budget: str, by_size: float, by_depth: float) -> None:
    """The best resolution grows with the parameters, or with the depth alone."""
    space = {"width": [8, 12, 16, 24], "depth": [1, 2, 3], "resolution": [8, 12, 16, 24], "tokens": 20_000}
    asked = parse(
        {
            "name": "shapes",
            "proxy": {"kind": "convnet", "dataset": "glyphs"},
            "space": space,
            "targets": [{"at": {"width": 24, "depth": 3, "resolution": 24, "tokens": 20_000}}],
            "laws": {"names": ["width_depth"]},
        }
    )

    def loss(at: Config) -> float:
        best = 12.0 * (asked.cost(at).params_total / 5e4) ** by_size * (at["depth"] / 2) ** by_depth
        shape = 0.5 + 4.0 * at["width"] ** -0.5 + 0.3 * at["depth"] ** -0.7
        return float(shape * np.exp(0.2 * np.log(at["resolution"] / best) ** 2))

    rng, seen = np.random.default_rng(0), []
    for width, depth, resolution in product(*(space[name] for name in ("width", "depth", "resolution"))):
        at = asked.complete({"width": width, "depth": depth, "resolution": resolution})
        if asked.cost(at).flops < 1e12:
            seen.append(Observation(at, asked.cost(at), loss(at) * np.exp(rng.normal(0.0, 0.002))))
    fitted = fit_ensemble(asked, seen, rng)
    base = {"width": 12.0, "depth": 2.0, "resolution": 16.0, "tokens": 20_000.0}
    found = by(choose_in_sweep(asked, fitted, base, 2.0, budget=budget))
    assert len(found) == 10 and all(one.at["resolution"] % 4 == 0.0 for one in found.values())
    within = [one for one in found.values() if getattr(one, budget) <= 2.0]  # others gain by rounding
    assert found["free"].loss == min(one.loss for one in within)
    assert loss(found["free"].at) < 1.005 * min(loss(one.at) for one in within)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["shapes", *map(str, arguments)], catch_exceptions=False)


def test_the_command(file: Path) -> None:
    base = ",".join(f"{name}={value:g}" for name, value in BASE.items())
    rows = json.loads(run(4, file, "--map", f"{MAP}, seconds=s", "--base", base, "--json").stdout)
    assert [row["strategy"] for row in rows[2:]] == ["dw", "d"] and rows[0]["best"]
    assert {row["strategy"]: row["seconds"] for row in rows}["w"] == pytest.approx(251.7, rel=0.01)
    text = run(4, file, "--map", MAP, "--budget", "activations").stdout
    assert "best" in text and "width 4096" in text and "a new run" in text
    assert (
        "shape_unread"
        in run(2, file, "--map", "params=N, tokens=D, loss=loss", "--laws", "chinchilla").stdout
    )
    listed = json.loads(run(4, "--budget", "activations", "--json").stdout)
    assert all(row["activations"] == pytest.approx(4.0) for row in listed)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([0], "allowed: a number above 0"),
        ([4, "--budget", "memory"], "given --budget memory; allowed: flops or activations"),
        ([4, "--map", MAP], "a table together with --map"),
        ([4, "FILE"], "a table together with --map"),
        ([4, "FILE", "--map", MAP, "--sweep", 1], "not both"),
        ([4, "FILE", "--map", "params=N, loss=loss, seconds=s"], "map width and depth too"),
        ([4, "FILE", "--map", MAP, "--base", "params=1e8,tokens=1e9"], "width is missing"),
    ],
)
def test_bad_input_is_refused(file: Path, arguments: list[object], words: str) -> None:
    result = run(*(file if one == "FILE" else one for one in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and words in result.stderr
