"""Two recipes compared on the command line and by the service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from serving import Served, finish, serve
from typer.testing import CliRunner, Result

import conf
from api.cli import app

MAP = "params=params, tokens=tokens, loss=loss"


def frame(floor: float, seed: int) -> pd.DataFrame:
    n, ratio = (v.ravel() for v in np.meshgrid(np.geomspace(3e7, 3e9, 6), [4.0, 16.0, 64.0]))
    noise = np.random.default_rng(seed).normal(0.0, 0.001, len(n))
    loss = (floor + 480.0 * n**-0.35 + 2100.0 * (n * ratio) ** -0.365) * np.exp(noise)
    return pd.DataFrame({"params": n, "tokens": n * ratio, "loss": loss})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tables")
    one, two = frame(1.8, 0).assign(recipe="old"), frame(1.7, 1).assign(recipe="new")
    one.to_csv(made / "old.csv", index=False)
    two.to_csv(made / "new.csv", index=False)
    pd.concat([one, two, frame(1.9, 2).assign(recipe="third")]).to_csv(made / "all.csv", index=False)
    return made


def run(*arguments: object) -> Result:
    given = ["compare", *map(str, arguments), "--map", MAP, "--laws", "chinchilla"]
    return CliRunner().invoke(app, given, catch_exceptions=False)


def test_two_tables_and_two_groups_say_the_same(folder: Path) -> None:
    target = ("--target", "params=2e10,tokens=4e11", "--hours")
    tables = run(folder / "old.csv", folder / "new.csv", *target, "old.csv=3e17,new.csv=6e17", "--json")
    groups = run(
        folder / "all.csv",
        "--group",
        "recipe",
        "--between",
        "old,new",
        *target,
        "old=3e17,new=6e17",
        "--json",
    )
    assert tables.exit_code == groups.exit_code == 0, tables.stderr + groups.stderr
    one, two = (json.loads(found.stdout)["comparison"] for found in (tables, groups))
    assert one["recipes"] == ["old.csv", "new.csv"] and two["recipes"] == ["old", "new"]
    assert list(one["mean"]["better"].values()) == list(two["mean"]["better"].values())
    assert one["mean"]["better"]["new.csv"] > 0.95
    assert one["compute"]["crossing"]["probability"] < 0.3
    ratio = one["hours"]["gain"]["multiple"]["median"] / one["compute"]["gain"]["multiple"]["median"]
    assert ratio == pytest.approx(2.0, rel=0.01)


def test_both_fits_take_a_rule_of_transfer(folder: Path) -> None:
    given = (folder / "old.csv", folder / "new.csv", "--target", "params=2e10,tokens=4e11", "--json")
    assert json.loads(run(*given, "--transfer", "mup").stdout)["transfer"].startswith("mup: muP, Adam")
    refused = run(*given, "--transfer", "muq")
    assert refused.exit_code == 2 and "allowed: one of none, mup, step_law, deepseek" in refused.stderr


def test_what_people_read(folder: Path) -> None:
    given = (
        folder / "old.csv",
        folder / "new.csv",
        "--target",
        "flops=1e22",
        "--path",
        "tokens_per_param=20",
    )
    out = run(*given, "--hours", "old.csv=3e17,new.csv=6e17", "--range", "1e19,1e24").stdout
    for words in (
        "at 1e22 FLOPs", "better", "difference", "they cross", "in 1e19 to 1e24 FLOPs",
        "at equal accelerator-hours, along tokens_per_param 20", "1 with new.csv is worth",
    ):  # fmt: skip
        assert words in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["all.csv"], "a second table, or --group COLUMN"),
        (["all.csv", "old.csv", "--group", "recipe"], "a second table, or --group COLUMN"),
        (["all.csv", "--group", "recipe"], "two of old, new, third"),
        (["all.csv", "--group", "recipe", "--between", "old,odl"], "two of old, new, third"),
        (["old.csv", "new.csv", "--hours", "old=1"], "a throughput each, old.csv=3e17,new.csv=2e17"),
        (["old.csv", "new.csv", "--tokens-per-hour", "old.csv=1,new.csv=1"], "hold params fixed"),
        (["old.csv", "new.csv", "--range", "1e20"], "two numbers"),
        (["old.csv", "new.csv", "--path", "width=8"], "nothing reads width"),
        (["old.csv", "new.csv", "--target", "params=1e9"], "is missing"),
    ],
)
def test_bad_input_is_one_message(
    folder: Path, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with two finished sweeps and one that has not begun."""
    with serve(tmp_path_factory.mktemp("service")) as running:
        finish(running)
        finish(running, name="second")
        running.client.submit(conf.sweep("gpt_tiny") | {"name": "third"})
        yield running


def ask(served: Served, query: str) -> tuple[int, Any]:
    response = served.client.http.get(f"/v1/compare?{query}")
    return response.status_code, response.json()


def test_two_sweeps(served: Served) -> None:
    status, found = ask(served, "sweeps=1,2&hours=1e12,2e12")
    assert status == 200 and found["recipes"] == ["sweep 1", "sweep 2"]
    assert sum(found["mean"]["better"].values()) == pytest.approx(1.0)
    assert 0.0 <= found["compute"]["crossing"]["probability"] <= 1.0
    multiple = found["compute"]["gain"]["multiple"]
    assert multiple["low"] < 1.0 < multiple["high"]  # both follow the same law
    assert found["hours"]["gain"]["multiple"]["median"] == pytest.approx(2 * multiple["median"], rel=0.05)
    named = conf.sweep("gpt_tiny")["targets"][0]
    assert ask(served, f"sweeps=1,2&target={named['name']}")[1]["at"] == found["at"]


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("sweeps=1", 422, "sweeps"),
        ("sweeps=1,1", 422, "sweeps"),
        ("sweeps=1,x", 422, "sweeps"),
        ("", 422, "sweeps"),
        ("sweeps=1,2&hours=1", 422, "hours"),
        ("sweeps=1,2&hours=1,-2", 422, "hours"),
        ("sweeps=1,2&heigth=3", 422, "heigth"),
        ("sweeps=1,2&target=none", 404, "none"),
        ("sweeps=1,99", 404, "99"),
        ("sweeps=1,3", 409, "sweep 3: no fit yet"),
    ],
)
def test_what_is_wrong_is_a_problem(served: Served, query: str, status: int, said: str) -> None:
    code, found = ask(served, query)
    assert code == status
    assert said in json.dumps(found)
