"""``scalewise curves`` on synthetic curves, the tables it reads, and the example of the documentation."""

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

from api.cli import app
from sweeps.curves import schedule as s
from sweeps.curves.branches import untangle
from sweeps.curves.forecast import Horizons
from sweeps.curves.multipower import published_loss
from sweeps.curves.observed import Trunk, observed_from_horizons
from sweeps.curves.recorded import parse_schedule, record
from sweeps.curves.schedule import Curve, track
from sweeps.errors import FitError
from sweeps.laws.base import Array
from sweeps.mapping import TableError

CONSTANTS = (3.04, 0.52, 0.51, 364.0, 2.07, 0.58, 0.64)
WARMUP, PEAK, END = 200, 3e-4, 3e-5
SCHEDULES = {
    "cosine": s.cosine(4000, PEAK, END, WARMUP),
    "constant": s.constant(4000, PEAK, WARMUP),
    "stages": s.two_stage(4000, 2000, PEAK, 1e-4, WARMUP),
    "long": s.cosine(8000, PEAK, END, WARMUP),
}
MAP = "step=step,lr=lr,loss=loss"


def frame(lr: Array, seed: int = 0) -> pd.DataFrame:
    """What a logger writes every 50 steps, from the end of warm-up to the last step."""
    steps = np.append(np.arange(WARMUP, len(lr) - 1, 50), len(lr) - 1)
    noise = np.exp(5e-4 * np.random.default_rng(seed).standard_normal(len(steps)))
    return pd.DataFrame(
        {"step": steps, "lr": lr[steps], "loss": published_loss(CONSTANTS, track(lr, steps)) * noise}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("curves")
    frames = {name: frame(lr, seed) for seed, (name, lr) in enumerate(SCHEDULES.items())}
    frames["cosine"].to_csv(made / "cosine.csv", index=False)
    frames["constant"].to_parquet(made / "constant.parquet")
    frames["stages"].to_json(made / "stages.jsonl", orient="records", lines=True)
    frames["long"].to_csv(made / "long.csv", index=False)
    frames["long"].assign(loss=lambda t: t["loss"].where(t["step"] < 5000)).to_csv(
        made / "running.csv", index=False
    )
    frames["long"].drop(columns="loss").to_csv(made / "plan.csv", index=False)
    return made


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["curves", *(str(one) for one in arguments)], catch_exceptions=False)


def told(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and "given" in result.stderr
    return result.stderr


def test_curves_are_fitted_and_others_predicted(folder: Path) -> None:
    out = told(
        *(folder / name for name in ("cosine.csv", "constant.parquet", "stages.jsonl")),
        *("--predict", folder / "long.csv", "--predict", folder / "plan.csv"),
        *("--schedule", f"cosine:8000,peak={PEAK},end={END},warmup={WARMUP}"),
    )
    assert [one["points"] for one in out["curves"]] == [77, 77, 77]
    assert sum(one["weight"] for one in out["laws"]) == pytest.approx(1.0)
    file, plan, asked = out["forecasts"]
    assert (file["kind"], plan["measured"], asked["kind"]) == ("file", None, "schedule")
    truth = published_loss(CONSTANTS, track(SCHEDULES["long"], np.array([7999])))[0]
    for one in (file, plan, asked):
        end = one["final"]
        assert end["step"] == 7999 and one["steps"] == 8000
        assert end["loss"] == pytest.approx(truth, rel=5e-3)
        assert end["low"] < end["mean_low"] < truth < end["mean_high"] < end["high"]
    held = file["measured"]
    assert held["points"] == 157 and held["in_warmup"] == 0
    assert held["mae"] < 0.02 and held["worst_relative_error"] < 0.01 and held["coverage"] > 0.8
    assert {one["code"] for one in out["warnings"]} == {"warmup_assumed", "no_loss"}


def test_a_running_run_is_forecast(folder: Path) -> None:
    out = told(folder / "constant.parquet", folder / "stages.jsonl", folder / "running.csv")
    (one,) = out["forecasts"]
    truth = published_loss(CONSTANTS, track(SCHEDULES["long"], np.array([7999])))[0]
    assert (one["kind"], one["name"], one["curve"]["step"][0]) == ("running", "running", 4950)
    assert one["final"]["low"] < truth < one["final"]["high"]
    assert one["final"]["loss"] == pytest.approx(truth, rel=4e-3)
    alone = told(folder / "running.csv", "--level", 0.5)
    assert alone["level"] == 0.5 and "one_curve" in {w["code"] for w in alone["warnings"]}


def test_tables_and_pictures(folder: Path) -> None:
    files = (folder / "cosine.csv", folder / "constant.parquet", "--predict", folder / "long.csv")
    pictures = (folder / "out.png", folder / "out.html")
    result = run(*files, "--plot", pictures[0], "--plot", pictures[1])
    assert result.exit_code == 0
    for words in ("held against", "multipower", "7999", "warmup_assumed"):
        assert words in result.stdout
    assert pictures[0].read_bytes().startswith(b"\x89PNG") and "long" in pictures[1].read_text()


def test_bad_files_are_refused_with_what_to_do(tmp_path: Path) -> None:
    good = frame(SCHEDULES["cosine"])

    def file(name: str, table: pd.DataFrame) -> Path:
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        return tmp_path / f"{name}.csv"

    def changed(column: str, row: int, value: object) -> pd.DataFrame:
        table = good.astype(object)
        table.loc[row, column] = value
        return table

    cases: dict[str, tuple[pd.DataFrame, str]] = {
        "missing": (good.rename(columns={"lr": "rate"}), "map.lr: given 'lr'; allowed: one of step, rate"),
        "gap": (changed("loss", 5, None), "loss=loss: given gaps or NaN in row 6; allowed: a loss in every"),
        "rate": (changed("lr", 5, None), "lr=lr: given gaps or NaN in row 6"),
        "infinite": (changed("loss", 5, np.inf), "infinite values in row 6"),
        "back": (changed("step", 5, 100), "given 100 after 400 in row 6; allowed: steps that rise"),
        "twice": (changed("step", 5, 400), "given 400 after 400 in row 6"),
        "half": (changed("step", 5, 450.5), "given 450.5 in row 6; allowed: whole steps"),
        "negative": (changed("lr", 5, -1e-4), "learning rates of 0 or more"),
        "zero": (changed("loss", 5, 0.0), "losses above 0"),
        "words": (changed("loss", 5, "bad"), "given 'bad' in row 6; allowed: numbers"),
        "few": (good[:3], "given 3 points in all; allowed: at least 6"),
        "none": (good.assign(loss=np.nan), "at least one measured loss"),
        "off": (good.assign(lr=0.0), "a learning rate above 0"),
        "far": (good.assign(step=good["step"] * 1_000_000), "map thousands of steps"),
    }
    for name, (table, words) in cases.items():
        assert words in refused(file(name, table)), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--map", "step=step,lr=lr"], "loss=COLUMN"),
        (["--map", "step=step,loss=loss"], "lr=COLUMN"),
        (["--map", "step=step,lr=lr,loss=loss,extra=lr"], "only step, lr, loss"),
        (["--schedule", "cosin:10,peak=1,end=0"], "did you mean cosine"),
        (["--schedule", "cosine:10,peak=1"], "each of peak, end, and warmup"),
        (["--schedule", "cosine:x,peak=1,end=0"], "KIND:STEPS"),
        (["--schedule", "cosine:10,peak=1,end=2"], "0 to the peak"),
        (["--schedule", "cosine:1e12,peak=1,end=0"], "10,000,000"),
        (["--level", "1"], "between 0 and 1"),
        (["--plot", "out.pdf"], ".html or .png"),
    ],
)
def test_bad_options_are_refused(folder: Path, arguments: list[str], words: str) -> None:
    assert words in refused(folder / "cosine.csv", *arguments)


def test_schedules_by_name() -> None:
    np.testing.assert_array_equal(
        parse_schedule(f"cosine:8000,peak={PEAK},end={END},warmup={WARMUP}"), SCHEDULES["long"]
    )
    np.testing.assert_array_equal(
        parse_schedule("wsd:1000, peak=1e-3, end=0, decay_from=0.8, warmup=0.05"),
        s.wsd(1000, 800, 1e-3, 0.0, 50),
    )
    np.testing.assert_array_equal(
        parse_schedule("two_stage:4000,peak=3e-4,end=1e-4,change_at=2000,warmup=200"), SCHEDULES["stages"]
    )
    for kind in (
        "constant:10,peak=1",
        "linear:10,peak=1,end=0",
        "wsd_exponential:10,peak=1,end=.1,decay_from=5",
    ):
        assert len(parse_schedule(kind)) == 10


def test_rates_between_and_before_rows() -> None:
    for name, lr in SCHEDULES.items():
        found = record(name, frame(lr), MAP)
        exact = np.abs(np.arange(len(lr)) - 2000) > 25 if name == "stages" else np.full(len(lr), True)
        exact[:WARMUP] = False
        np.testing.assert_allclose(found.lr[exact], lr[exact], rtol=1e-3, err_msg=name)
        assert found.lr[0] == 0.0 and not found.running
        assert found.lr.sum() == pytest.approx(lr.sum(), rel=1e-2)
        assert [note.code for note in found.notes] == ["warmup_assumed"]
    short = record("a", frame(SCHEDULES["constant"]), MAP, warmup=20)
    assert short.lr[19] < PEAK and np.all(short.lr[20:] == PEAK) and not short.notes
    whole = record("a", {"step": [0, 1, 2, 3], "lr": [0.0, 0.5, 1.0, 1.0], "loss": [9.0, 8.0, 7.0, 6.0]}, MAP)
    assert whole.steps.tolist() == [1, 2, 3] and [note.code for note in whole.notes] == ["before_training"]
    with pytest.raises(TableError, match="one length"):
        record("a", {"step": [1, 2], "lr": [1.0], "loss": [1.0, 1.0]}, MAP)


def test_what_branches_share_counts_once() -> None:
    trunk = record("trunk", frame(SCHEDULES["constant"]), MAP).curve()
    late = trunk.steps >= 2000
    loss = np.where(late, 0.99 * trunk.loss, trunk.loss)
    branch = Curve("branch", trunk.steps, loss, SCHEDULES["stages"])
    copy = Curve("copy", trunk.steps[:50], trunk.loss[:50], trunk.lr)
    found, runs, notes = untangle([branch, trunk, copy])
    assert [(one.name, len(one.steps)) for one in found] == [("branch", 77), ("trunk", int(late.sum()))]
    assert runs == {"branch": "branch", "trunk": "branch", "copy": "branch"}
    assert [note.code for note in notes] == ["branch", "branch"]


def test_horizons_become_a_table() -> None:
    def trunk(params: float, correlation: float) -> Trunk:
        steps = np.array([100, 200, 400])
        covariance = 1e-6 * (correlation + (1 - correlation) * np.eye(3))
        return Trunk(params, Horizons(steps, 1e4 * steps, 3.0 - 1e-4 * steps, covariance))

    found = observed_from_horizons([trunk(1e6, 0.999), trunk(4e6, 0.0)])
    assert found.columns["tokens"].tolist() == [1e6, 2e6, 4e6] * 2
    assert found.columns["flops"][-1] == pytest.approx(6 * 4e6 * 4e6)
    assert found.notes[-1].code == "horizons_err_together" and "4.0 runs" in found.notes[-1].message
    with pytest.raises(FitError, match="one of each"):
        observed_from_horizons([trunk(1e6, 0.0), trunk(1e6, 0.0)])
    with pytest.raises(FitError, match="at least one"):
        observed_from_horizons([])


def test_the_example_of_the_documentation_runs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "curves.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(block, "docs/curves.md", "exec"), names)
    assert printed.getvalue().count("(") == 1
    for found, lr in (("end", names["running"].lr), ("asked", names["other"])):
        constants = (1.7 + 380 * 25e6**-0.34, 0.52, 0.51, 364.0, 2.07, 0.58, 0.64)
        truth = published_loss(constants, track(lr, np.array([len(lr) - 1])))[0]
        assert names[found].point_low[0] < truth < names[found].point_high[0]
