"""``scalewise fit`` on small tables drawn from published constants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from api.cli import app

# Besiroglu et al. 2024, arXiv 2404.10102, table 1
E, A, B, ALPHA, BETA = 1.8172, 482.01, 2085.43, 0.3478, 0.3658
MAP = "params=Model Size, tokens=1e9*Tokens (B), loss=loss"
KEYS = {
    "file", "group", "rows", "mapping", "derived", "scales", "laws", "predictions", "frontier", "no_frontier",
    "settings_at", "settings", "test", "recount", "warnings", "checklist",
}  # fmt: skip


def loss_of(n: Any, d: Any) -> Any:
    """The published law."""
    return E + A * n**-ALPHA + B * d**-BETA


def frame(scales: tuple[float, float] = (5e7, 2e9), n: int = 6, noise: float = 0.001) -> pd.DataFrame:
    """A grid of sizes and horizons, with a tenth of a percent of seed noise."""
    sizes = np.geomspace(*scales, n)
    params, ratio = (one.ravel() for one in np.meshgrid(sizes, [5.0, 15.0, 45.0, 135.0]))
    tokens = params * ratio
    seeds = np.random.default_rng(0).normal(0.0, noise, len(params))
    loss = loss_of(params, tokens) * np.exp(seeds)
    table = {
        "Model Size": params,
        "Tokens (B)": tokens / 1e9,
        "loss": loss,
        "body": 0.9 * params,
        "who": "us",
    }
    return pd.DataFrame(table)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables to fit and to test on."""
    made = tmp_path_factory.mktemp("tables")
    frame().to_csv(made / "runs.csv", index=False)
    frame((5e9, 2e10), 2).to_parquet(made / "test.parquet")
    other = frame().assign(who="them", loss=lambda table: table["loss"] * 0.95)
    pd.concat([frame(), other]).to_csv(made / "two.csv", index=False)
    return made


def run(*arguments: object) -> Result:
    """The command with the published law, which is quick."""
    given = [str(one) for one in arguments]
    laws = [] if "--laws" in given else ["--laws", "chinchilla"]
    mapping = [] if "--map" in given else ["--map", MAP]
    return CliRunner().invoke(app, ["fit", *given, *laws, *mapping], catch_exceptions=False)


def told(*arguments: object) -> Any:
    """Its document."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    """Its message for bad input."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    return result.stderr


def test_everything_is_in_the_document(folder: Path) -> None:
    out = told(folder / "runs.csv", "--target", "params=2e10,tokens=4e11", "--test", folder / "test.parquet")
    assert set(out) == KEYS
    assert (out["rows"], out["group"], out["recount"]) == (24, None, None)
    assert out["mapping"] == "params=Model Size, tokens=1e9*Tokens (B), loss=loss"
    assert out["derived"] == {"flops": "6 params tokens"}
    (law,) = out["laws"]
    assert law["law"] == "chinchilla" and law["weight"] == pytest.approx(1.0) and law["holdout"] < 0.01
    for name, value in {"E": E, "alpha": ALPHA, "beta": BETA}.items():
        found = law["constants"][name]
        assert found["low"] < value < found["high"]
        assert found["low"] < found["value"] < found["high"]
    (at,) = out["predictions"]
    assert at["at"] == {"params": 2e10, "tokens": 4e11}
    assert at["low"] < at["mean_low"] < at["loss"] < at["mean_high"] < at["high"]
    assert at["loss"] == pytest.approx(loss_of(2e10, 4e11), rel=0.01)
    assert at["extrapolation"] == pytest.approx(8e21 / (135 * 4e18))
    amounts = [one["flops"] for one in out["frontier"]]
    assert amounts == sorted(amounts) and amounts[-1] == pytest.approx(6 * 8e21, rel=0.01)
    for one in out["frontier"]:
        assert one["params_low"] <= one["params"] <= one["params_high"]
        assert 6 * one["params"] * one["tokens"] == pytest.approx(one["flops"])
    assert out["checklist"]["runs"] == 24


def test_a_test_is_told_by_row_and_in_sum(folder: Path) -> None:
    test = told(folder / "runs.csv", "--test", folder / "test.parquet")["test"]
    measured = frame((5e9, 2e10), 2)["loss"].to_numpy()
    predicted = np.array([row["loss"] for row in test["rows"]])
    assert [row["measured"] for row in test["rows"]] == pytest.approx(measured)
    assert [row["error"] for row in test["rows"]] == pytest.approx(predicted / measured - 1.0)
    assert [row["row"] for row in test["rows"]] == [*range(1, 9)]
    total = test["summary"]
    assert total["rows"] == 8
    assert total["mean_relative_error"] == pytest.approx(np.mean(np.abs(predicted / measured - 1.0)))
    assert total["max_relative_error"] < 0.01
    spread = np.sum((measured - measured.mean()) ** 2)
    assert (
        total["r2"] == pytest.approx(1.0 - np.sum((measured - predicted) ** 2) / spread)
        and total["r2"] > 0.97
    )
    assert total["coverage"] == np.mean([row["inside"] for row in test["rows"]])


def test_what_people_read(folder: Path) -> None:
    given = (folder / "runs.csv", "--target", "params=2e10,tokens=4e11", "--test", folder / "test.parquet")
    out = run(*given).stdout
    for words in (
        "runs.csv: 24 runs", "flops = 6 params tokens", "hold-out error", "chinchilla: L = ", "90 % interval",
        "for a new run", "for the mean", "compute-optimal", "R^2", "coverage", "inside",
    ):  # fmt: skip
        assert words in out


def test_the_same_seed_gives_the_same(folder: Path) -> None:
    first, second = (told(folder / "runs.csv", "--seed", "3")["laws"] for _ in range(2))
    assert first == second


def test_auto_weighs_several_laws(folder: Path) -> None:
    out = told(folder / "runs.csv", "--laws", "auto")
    weights = [law["weight"] for law in out["laws"]]
    assert (
        len(weights) > 1 and sum(weights) == pytest.approx(1.0) and weights == sorted(weights, reverse=True)
    )
    assert all(law["formula"] and law["source"] for law in out["laws"])
    named = told(folder / "runs.csv", "--laws", "coupled, chinchilla")
    assert {law["law"] for law in named["laws"]} == {"coupled", "chinchilla"}


def test_groups_are_fitted_apart(folder: Path) -> None:
    out = told(folder / "two.csv", "--group", "who", "--target", "params=2e10,tokens=4e11")
    assert out["group"] == "who" and list(out["groups"]) == ["us", "them"]
    us, them = (out["groups"][name] for name in ("us", "them"))
    assert set(us) == KEYS and (us["group"], us["rows"]) == ("us", 24)
    assert them["predictions"][0]["loss"] < 0.97 * us["predictions"][0]["loss"]
    printed = run(folder / "two.csv", "--group", "who").stdout
    assert "two.csv, who us: 24 runs" in printed and "two.csv, who them: 24 runs" in printed
    out = told(folder / "two.csv", "--group", "who", "--test", folder / "test.parquet")
    assert out["groups"]["us"]["test"]["summary"]["rows"] == 8 and out["groups"]["them"]["test"] is None


def test_another_count_of_parameters(folder: Path) -> None:
    target = "params=2e10,tokens=4e11"
    out = told(folder / "runs.csv", "--count", "body", "--target", target, "--test", folder / "test.parquet")
    again = out["recount"]
    assert again["mapping"].startswith("params=body, tokens=")
    assert again["ratio"] == {"low": pytest.approx(0.9), "high": pytest.approx(0.9)}
    assert again["predictions"][0]["at"] == {"params": pytest.approx(1.8e10), "tokens": 4e11}
    assert abs(again["moved"]["loss"]) < 0.003  # a constant ratio moves only the constants
    was, now = again["moved"]["constants"]["chinchilla"]["A"]
    assert now / was == pytest.approx(0.9**ALPHA, rel=0.2)
    assert again["test"]["summary"]["rows"] == 8
    printed = run(folder / "runs.csv", "--count", "body", "--target", target).stdout
    assert "under the count params=body" in printed and "moved" in printed


def test_a_target_of_compute_alone_is_split(folder: Path) -> None:
    out = told(folder / "runs.csv", "--target", "flops=1e22")
    (at,) = out["predictions"]
    assert 6 * at["at"]["params"] * at["at"]["tokens"] == pytest.approx(1e22)
    assert "target_split" in {one["code"] for one in out["warnings"]}
    far = told(folder / "runs.csv", "--target", "params=20,tokens=400")
    assert "target_units" in {one["code"] for one in far["warnings"]}


def test_hyperparameters_have_a_plateau(tmp_path: Path) -> None:
    n, lr = (one.ravel() for one in np.meshgrid([1e7, 3e7, 1e8, 3e8], np.geomspace(1e-4, 1.6e-2, 8)))
    best = 2e-3 * (n / 1e8) ** -0.2
    d = 20.0 * n * np.where(np.arange(len(n)) % 2, 1.0, 3.0)
    loss = loss_of(n, d) * (1.0 + 0.02 * np.log(lr / best) ** 2)
    pd.DataFrame({"n": n, "d": d, "lr": lr, "loss": loss}).to_json(
        tmp_path / "a.jsonl", orient="records", lines=True
    )
    given = (tmp_path / "a.jsonl", "--map", "params=n, tokens=d, lr=lr, loss=loss")
    out = told(*given, "--target", "params=1e9,tokens=2e10")
    assert out["settings_at"] == {"params": 1e9, "tokens": 2e10}
    found = out["settings"]["lr"]
    assert found["value"] == pytest.approx(2e-3 * 10**-0.2, rel=0.15)
    assert found["wide_plateau"][0] < found["plateau"][0] < found["value"] < found["plateau"][1]
    assert found["plateau"][1] < found["wide_plateau"][1]
    assert "loss within 0.1 %" in run(*given).stdout
    ruled = told(*given, "--transfer", "step_law")
    assert ruled["checklist"]["transfer"].startswith("step_law: ") and ruled["settings"] != out["settings"]
    assert "allowed: one of none, mup, step_law, deepseek" in refused(*given, "--transfer", "muq")


def test_plots(folder: Path, tmp_path: Path) -> None:
    given = (folder / "runs.csv", "--target", "params=2e10,tokens=4e11", "--test", folder / "test.parquet")
    run(*given, "--plot", tmp_path / "a.png", "--plot", tmp_path / "a.html")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "a.html").read_text()
    assert "target: predicted" in page and "test: predicted" in page and 'src="http' not in page
    run(folder / "two.csv", "--group", "who", "--plot", tmp_path / "b.png")
    assert {path.name for path in tmp_path.iterdir()} >= {"b-us.png", "b-them.png"}


def test_a_table_of_one_scale(tmp_path: Path) -> None:
    compute = np.geomspace(1e18, 1e21, 12)
    loss = 1.7 + 3.0 * (compute / 1e18) ** -0.15
    pd.DataFrame({"C": compute, "L": loss}).to_csv(tmp_path / "a.csv", index=False)
    given = (tmp_path / "a.csv", "--map", "flops=C, loss=L", "--laws", "auto", "--target", "flops=1e22")
    out = told(*given, "--plot", tmp_path / "a.png")
    assert out["predictions"][0]["loss"] == pytest.approx(1.7 + 3.0 * 1e4**-0.15, rel=0.02)
    assert out["frontier"] == [] and out["no_frontier"] and out["scales"] == ["flops"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "no compute-optimal split" in run(*given).stdout


def test_a_table_of_parameters_alone(tmp_path: Path) -> None:
    n = np.geomspace(1e7, 1e10, 12)
    pd.DataFrame({"N": n, "L": 1.7 + 3.0 * (n / 1e7) ** -0.2}).to_csv(tmp_path / "a.csv", index=False)
    given = (tmp_path / "a.csv", "--map", "params=N, loss=L", "--laws", "auto", "--target", "params=1e11")
    out = told(*given, "--plot", tmp_path / "a.png", "--test", tmp_path / "a.csv")
    (at,) = out["predictions"]
    assert at["at"] == {"params": 1e11} and at["loss"] == pytest.approx(1.7 + 3.0 * 1e4**-0.2, rel=0.02)
    assert out["test"]["summary"]["max_relative_error"] < 0.01
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no.csv"], "No such file"),
        (["runs.csv", "--map", "params=N, loss=loss"], "map.params: given 'N'"),
        (["runs.csv", "--map", "params"], "allowed: quantity=column"),
        (
            ["runs.csv", "--map", "params=who, loss=loss"],
            "params=who: given 'us' in rows 1, 2, 3, 4, 5 and 19 more",
        ),
        (["runs.csv", "--laws", "chinchila"], "no law 'chinchila'"),
        (["runs.csv", "--target", "params"], "allowed: key=value"),
        (["runs.csv", "--target", "params=big"], "allowed: a number"),
        (["runs.csv", "--target", "params=-1,tokens=1"], "params=-1; allowed: a number above 0"),
        (["runs.csv", "--target", "params=1e9"], "tokens is missing"),
        (["runs.csv", "--group", "whom"], "did you mean who?"),
        (["runs.csv", "--group", "loss"], "loss "),
        (["runs.csv", "--count", "heads"], "map.params: given 'heads'"),
        (["runs.csv", "--group", "body", "--test", "test.parquet"], "given the test's body 4500000000.0, "),
        (["runs.csv", "--test", "no.parquet"], "No such file"),
        (["runs.csv", "--plot", "a.pdf"], "allowed: a file that ends with .html or .png"),
        (["runs.csv", "--plot", "no/a.png"], "in a folder that exists"),
    ],
)
def test_bad_input_is_one_message(
    folder: Path, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert said in refused(*arguments)
    assert said in refused(*arguments, "--json")
