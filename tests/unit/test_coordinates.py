"""The coordinate check: mup passes, standard and rules that are wrong do not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from api import check as command
from api.arguments import UsageError
from api.cli import app
from sweeps.coordinates import THRESHOLD, Coordinate, judge, panels
from sweeps.errors import FitError
from sweeps.spec import SweepSpec, parse
from workers import check
from workers.check import coordinates
from workers.parametrisation import Rule, rules

SHAPES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "mlp": ("digits", {"depth": 3}),
    "convnet": ("digits", {"depth": 1}),
    "vit": ("digits", {"depth": 1}),
    "gpt": ("stdlib", {"depth": 1, "resolution": 16}),
}


def spec(kind: str, optimizer: str = "adamw", **proxy: Any) -> SweepSpec:
    dataset, shape = SHAPES[kind]
    widths = [8, 16, 32, 64] if kind == "convnet" else [16, 32, 64, 128]
    return parse(
        {
            "name": "coordinates",
            "proxy": {"kind": kind, "dataset": dataset, "base_width": 32, "base_depth": 1} | proxy,
            "space": dict(shape)
            | {"width": widths, "tokens": 1e6, "lr": 3e-3 if optimizer == "adamw" else 0.1},
            "targets": [{"at": dict(shape) | {"width": 128, "tokens": 1e6}}],
            "trainer": {"optimizer": optimizer},
        }
    )


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_mup_passes_and_standard_fails(kind: str, optimizer: str) -> None:
    rows = coordinates(spec(kind, optimizer), steps=3, seeds=2)
    standard, mup = judge(rows, 0), judge(rows, 1)
    assert mup.passes, mup
    assert not standard.passes
    assert standard.change["head"] > 0.4


def test_heads_that_widen_pass_too() -> None:
    assert judge(coordinates(spec("vit", heads=2), steps=3, seeds=2), 1).passes


@pytest.mark.parametrize(
    ("optimizer", "broken"), [("adamw", "blocks"), ("sgd", "embedding"), ("sgd", "head")]
)
def test_a_rule_that_is_left_out_fails(monkeypatch: pytest.MonkeyPatch, optimizer: str, broken: str) -> None:
    def wrong(*given: Any) -> dict[str, Rule]:
        own = rules(*given)
        return {
            name: replace(rule, rate=1.0) if name.startswith(broken) else rule for name, rule in own.items()
        }

    monkeypatch.setattr(check, "rules", wrong)
    found = judge(coordinates(spec("mlp", optimizer), steps=3, seeds=2), 1)
    assert not found.passes
    assert found.steepest.startswith(broken) or broken == "blocks"


def rows(slope: float) -> list[Coordinate]:
    return [
        Coordinate(mup, width, step, "head", 1.0, width ** (slope * mup) * step)
        for mup in (0, 1)
        for width in (16, 64)
        for step in (0, 1)
    ]


def test_the_slope_is_of_the_last_step() -> None:
    assert judge(rows(0.5), 1).change == {"head": pytest.approx(0.5)}
    assert judge(rows(0.5), 0).passes
    assert judge(rows(THRESHOLD - 0.01), 1).passes and not judge(rows(THRESHOLD + 0.01), 1).passes
    assert not judge([replace(row, change=0.0) for row in rows(0.0)], 1).passes  # nothing moves
    with pytest.raises(FitError, match="two widths"):
        judge([row for row in rows(0.0) if row.width == 16], 1)


def test_a_panel_for_each_parametrisation() -> None:
    standard, mup = panels(rows(1.0))
    assert [line.name for line in mup.lines] == ["head"]
    assert list(mup.lines[0].x) == [16.0, 64.0] and list(mup.lines[0].y) == [16.0, 64.0]
    assert "standard" in standard.title


def run(*arguments: object) -> Result:
    given = ["check", "coords", *(str(one) for one in arguments)]
    return CliRunner().invoke(app, given, catch_exceptions=False)


def test_the_command_measures_in_a_process_of_its_own(tmp_path: Path) -> None:
    pictures = [tmp_path / name for name in ("coords.html", "coords.png")]
    plots = [part for path in pictures for part in ("--plot", path)]
    found = run("--widths", "16,32,128", "--seeds", 2, "--steps", 3, "--json", *plots)
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["passes"] and told["threshold"] == THRESHOLD
    assert [one["parametrisation"] for one in told["slopes"]] == ["standard", "mup"]
    assert len(told["coordinates"]) == 2 * 3 * 4 * 4  # parametrisations, widths, steps, layers
    assert all(path.stat().st_size > 1000 for path in pictures)


def test_the_status_is_1_where_the_check_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def measured(given: dict[str, Any], *_: object) -> tuple[dict[str, Any], list[Coordinate]]:
        asked.update(given)
        return given, rows(1.0)

    monkeypatch.setattr(command, "_measured", measured)
    found = run("gpt_tiny", "--widths", "16,32")
    assert found.exit_code == 1
    assert "mup       fails: steepest +1.00, of head; allowed up to 0.25" in found.stdout
    assert asked["space"]["width"] == [16, 32] and "budget" not in asked


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--widths", "16"], "two whole numbers"),
        (["--kind", "rnn"], "allowed: mlp, convnet, vit, gpt"),
        (["--optimizer", "lion"], "allowed: adamw or sgd"),
        (["--plot", "a.pdf"], "ends in .html or .png"),
        (["--kind", "vit", "--widths", "1,2"], "space.width"),
    ],
)
def test_what_makes_no_sense_is_refused(given: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        run(*given)
