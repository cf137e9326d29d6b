"""``scalewise replay`` from end to end on a small table of a known law."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from api.cli import app

MAP = "params=N, tokens=1e9*D, loss=loss"
TUNED = "params=N, tokens=1e9*D, lr=lr, batch_tokens=2048*bsz, loss=loss"
COST = "6*params*tokens"


def frame(sizes: list[float], rates: int = 1, noise: float = 0.001) -> pd.DataFrame:
    """Runs of the law of Besiroglu et al. 2024, with a bowl where there are several rates and batches."""
    lrs = 1e-3 * np.geomspace(0.25, 4.0, rates) if rates > 1 else np.array([1e-3])
    axes = np.meshgrid(
        sizes, [5.0, 15.0, 45.0, 135.0] if rates == 1 else [20.0, 40.0], lrs, [64, 128][:rates]
    )
    size, ratio, lr, batch = (one.ravel() for one in axes)
    bowl = 0.02 * np.log(lr / (1e-3 * (size / 1e8) ** -0.3)) ** 2 + 0.01 * np.log(batch / 100.0) ** 2
    seeds = np.random.default_rng(0).normal(0.0, noise, len(size))
    loss = (1.8172 + 482.01 * size**-0.3478 + 2085.43 * (size * ratio) ** -0.3658) * np.exp(seeds)
    table = {"N": size, "D": size * ratio / 1e9, "loss": loss * np.exp(bowl if rates > 1 else 0.0)}
    return pd.DataFrame(table | {"lr": lr, "bsz": batch, "who": np.where(np.arange(len(size)) % 2, "a", "b")})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables to replay, small ones and one with rates and batches."""
    made = tmp_path_factory.mktemp("tables")
    frame(np.geomspace(1e7, 2e9, 10).tolist()).to_parquet(made / "train.parquet")
    frame([6e9, 1.2e10]).to_parquet(made / "test.parquet")
    frame(np.geomspace(1e7, 1e9, 4).tolist(), 6).to_csv(made / "tuned.csv", index=False)
    frame([3e9], 6, 0.0).to_csv(made / "cell.csv", index=False)
    return made


def run(*arguments: object) -> Result:
    given = [str(one) for one in arguments]
    laws = [] if "--laws" in given else ["--laws", "chinchilla"]
    mapping = [] if "--map" in given else ["--map", MAP]
    return CliRunner().invoke(app, ["replay", *given, *laws, *mapping], catch_exceptions=False)


def told(*arguments: object) -> Any:
    """Its document."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    """Its message for bad input."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


@pytest.fixture(scope="module")
def document(folder: Path) -> Any:
    return told(
        folder / "train.parquet", "--test", folder / "test.parquet", "--cost", COST, "--budget", "0.2,0.02",
        "--strategy", "informative,random,two_term,cheapest", "--repeats", 2,
    )  # fmt: skip


def test_every_strategy_is_told_with_every_budget(document: Any) -> None:
    assert (document["budgets"], document["repeats"], document["complete"]) == ([0.02, 0.2], 2, True)
    assert (document["rows"], document["laws"], document["asked"]["rows"]) == (40, ["chinchilla"], 8)
    assert document["cost"]["expression"] == COST
    pairs = [(one["strategy"], one["share"]) for one in document["results"]]
    names = ("informative", "random", "two_term", "cheapest")
    assert pairs == [(name, share) for name in names for share in (0.02, 0.2)]
    for one in document["results"]:
        assert one["answered"] == 2 and one["spent"] <= one["share"] and one["runs"] >= 3
        assert one["r2"]["worst"] <= one["r2"]["mean"] <= 1.0
        assert 0.0 < one["error"]["mean"] <= one["error"]["worst"]
        assert 0.0 <= one["coverage"] <= 1.0 and one["regret"] is None
        assert one["seconds"] > 0.0 and one["refit"] > 0.0
    assert len(document["replays"]) == 16 and document["unanswered"] == []


def test_informative_finds_the_law_and_what_others_need_is_told(document: Any) -> None:
    figures = {(one["strategy"], one["share"]): one for one in document["results"]}
    assert figures["informative", 0.2]["r2"]["mean"] > 0.9
    assert figures["informative", 0.2]["error"]["mean"] < figures["cheapest", 0.2]["error"]["mean"]
    assert document["equal"]["reference"] == "informative"
    needs = document["equal"]["needs"]
    assert {one["strategy"] for one in needs} == {"random", "two_term", "cheapest"}
    assert all(one["times"] > 0.0 for one in needs)


def test_the_same_seed_gives_the_same_answers(folder: Path) -> None:
    given = ("--test", folder / "test.parquet", "--budget", 0.02, "--repeats", 1, "--seed", 3)
    first, second = (told(folder / "train.parquet", *given)["results"] for _ in range(2))
    assert [one["error"] for one in first] == [one["error"] for one in second]


def test_every_repeat_hides_other_runs_the_same_from_all_strategies(folder: Path) -> None:
    found = told(
        folder / "train.parquet", "--test", folder / "test.parquet", "--budget", "1.0", "--repeats", 2,
        "--strategy", "cheapest,random", "--leave-out", 0.25,
    )  # fmt: skip
    assert found["leave_out"] == 0.25
    assert [one["runs"] for one in found["replays"]] == [30] * 4
    spent = {(one["strategy"], one["repeat"]): one["spent"] for one in found["replays"]}
    assert all(part < 1.0 for part in spent.values())
    assert [spent["cheapest", i] for i in (0, 1)] == pytest.approx([spent["random", i] for i in (0, 1)])
    assert spent["cheapest", 0] != pytest.approx(spent["cheapest", 1])


def test_what_hides_is_told(folder: Path) -> None:
    given = ("--test", folder / "test.parquet", "--budget", 0.5, "--repeats", 1, "--strategy", "cheapest")
    assert (
        "40 runs, 20% hidden in each repeat"
        in run(folder / "train.parquet", *given, "--leave-out", 0.2).stdout
    )


def test_a_table_for_people(folder: Path) -> None:
    given = ("--test", folder / "test.parquet", "--budget", 0.05, "--repeats", 1)
    result = run(folder / "train.parquet", *given)
    assert result.exit_code == 0
    for words in (
        "40 runs",
        "8 rows of test.parquet",
        "informative",
        "R^2",
        "in 90 %",
        "compute for the error",
    ):
        assert words in result.stdout
    assert "informative at 5%, repeat 1: " in result.stderr and "(2 of 2)" in result.stderr


def test_hyperparameters_are_scored_by_regret(folder: Path) -> None:
    found = told(
        folder / "tuned.csv", "--test", folder / "cell.csv", "--map", TUNED, "--budget", "0.2",
        "--strategy", "informative,tpe", "--repeats", 1,
    )  # fmt: skip
    ours, tpe = found["results"]
    assert 0.0 <= ours["regret"]["mean"] < 1.0 and ours["r2"] is not None
    assert tpe["regret"]["mean"] >= 0.0 and (tpe["r2"], tpe["coverage"], tpe["refit"]) == (None, None, None)
    assert set(found["replays"][1]["settings"]) == {"lr", "batch"}
    assert {one["measure"] for one in found["equal"]["needs"]} == {"regret"}


def test_a_target_has_no_truth_but_a_width(folder: Path, tmp_path: Path) -> None:
    pictures = [tmp_path / name for name in ("out.png", "out.html")]
    found = told(
        folder / "train.parquet", "--target", "params=1e10,tokens=2e11", "--budget", "0.02,0.1",
        "--repeats", 1, *(one for picture in pictures for one in ("--plot", picture)),
    )  # fmt: skip
    for one in found["results"]:
        assert (one["r2"], one["error"], one["coverage"]) == (None, None, None)
        assert one["width"]["mean"] > 0.0
    assert found["equal"]["needs"] == []
    assert pictures[0].read_bytes().startswith(b"\x89PNG")
    page = pictures[1].read_text()
    assert "informative" in page and "half of the 90 % interval" in page


def test_groups_are_replayed_apart(folder: Path, tmp_path: Path) -> None:
    given = ("--group", "who", "--budget", 0.2, "--repeats", 1, "--strategy", "random")
    found = told(
        folder / "train.parquet", "--test", folder / "test.parquet", *given, "--plot", tmp_path / "o.png"
    )  # fmt: skip
    assert set(found["groups"]) == {"a", "b"}
    assert [one["rows"] for one in found["groups"].values()] == [20, 20]
    assert {path.name for path in tmp_path.iterdir()} == {"o-a.png", "o-b.png"}


def test_a_strategy_without_an_answer_is_named(folder: Path) -> None:
    given = ("--target", "params=1e10,tokens=2e11", "--strategy", "random", "--repeats", 1)
    result = run(folder / "train.parquet", *given, "--budget", "1e-9,0.05")
    assert result.exit_code == 0 and "no answer" in result.stdout and "at least 3" in result.stdout
    none = run(folder / "train.parquet", *given, "--budget", "1e-9")
    assert none.exit_code == 2 and "no replay came to an answer" in none.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "given neither or both; allowed: --test TABLE, or --target"),
        (("--target", "params=1e9", "--test", "t.csv"), "given neither or both"),
        (("--target", "params=1e9"), "tokens is missing; the laws of this table read params, tokens"),
        (("--target", "params=1e9,tokens=-1"), "tokens=-1; allowed: a number above 0"),
        (("--test", "nowhere.csv"), "nowhere.csv: No such file"),
        (
            ("--target", "params=1e9,tokens=1e9", "--budget", "0.1,2"),
            "given --budget 2; allowed: shares above 0",
        ),
        (("--target", "params=1e9,tokens=1e9", "--budget", "0"), "given --budget 0;"),
        (("--target", "params=1e9,tokens=1e9", "--budget", "some"), "given --budget some;"),
        (("--target", "params=1e9,tokens=1e9", "--budget", "nan"), "given --budget nan;"),
        (("--target", "params=1e9,tokens=1e9", "--strategy", "informatve"), "did you mean informative?"),
        (
            ("--target", "params=1e9,tokens=1e9", "--strategy", "tpe"),
            "tpe tune hyperparameters, and no mapped",
        ),
        (("--target", "params=1e9,tokens=1e9", "--repeats", "0"), "--repeats"),
        (
            ("--target", "params=1e9,tokens=1e9", "--cost", "6*N*D"),
            "the columns mapped: params, tokens, flops",
        ),
        (
            ("--target", "params=1e9,tokens=1e9", "--cost", "cost()"),
            "cost: given 'cost()'; allowed: numbers and",
        ),
        (("--target", "params=1e9,tokens=1e9", "--cost", "params-params"), "a positive number in every row"),
        (("--target", "params=1e9,tokens=1e9", "--laws", "nolaw"), "there is no law 'nolaw'"),
        (("--target", "params=1e9,tokens=1e9", "--plot", "out.pdf"), "a file that ends with .html or .png"),
        (
            ("--target", "params=1e9,tokens=1e9", "--map", "params=N, loss=nothing"),
            "map.loss: given 'nothing'",
        ),
        (("--target", "params=1e9,tokens=1e9", "--group", "nobody"), "group: given 'nobody'"),
    ],
)
def test_nonsense_is_refused(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(folder / "train.parquet", *arguments)


def test_groups_need_rows_in_both_tables(folder: Path, tmp_path: Path) -> None:
    frame([6e9]).assign(who="a").to_csv(tmp_path / "one.csv", index=False)
    given = (folder / "train.parquet", "--test", tmp_path / "one.csv", "--group", "who")
    assert "who b in one of the tables alone; in both: a" in refused(*given)


def _listen() -> None:
    """A suite that runs in the background of a shell has Ctrl-C switched off, and so have its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_shows_what_is_done(folder: Path) -> None:
    command = [
        sys.executable, "-m", "api.cli", "replay", str(folder / "train.parquet"), "--map", MAP, "--laws",
        "chinchilla", "--target", "params=1e10,tokens=2e11", "--strategy", "random", "--budget", "0.05",
        "--repeats", "1000", "--json",
    ]  # fmt: skip
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=_listen, **pipes) as running:
        assert running.stderr is not None
        assert "repeat 1: " in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    found = json.loads(out)
    assert not found["complete"] and 1 <= len(found["replays"]) < 1000
    assert "stopped after" in err and "Traceback" not in err


def test_the_example_of_the_documentation_runs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "replay.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(block, "docs/replay.md", "exec"), names)
    assert printed.getvalue().count("R^2") == 4
    assert {(one.strategy, one.share) for one in names["needs"]} == {("random", 0.02), ("random", 0.2)}
