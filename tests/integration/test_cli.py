"""The command line against a running service, and on its own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from serving import Served, finish, serve, train
from typer.main import get_command
from typer.testing import CliRunner

import conf
from api.cli import app
from api.live import wait, watch
from sweeps.errors import SweepError

COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
ASKED = {"up", "submit", "plan", "list", "show", "watch", "runs", "optimum", "predict", "frontier", "verify"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service whose sweep 1 is finished."""
    with serve(tmp_path_factory.mktemp("cli")) as running:
        finish(running)
        yield running


def scalewise(served: Served, *arguments: str) -> str:
    """Output of a command that works."""
    result = CliRunner().invoke(app, ["--url", served.url, *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(served: Served, *arguments: str) -> str:
    """Message of a command that does not."""
    with pytest.raises(SweepError) as caught:
        CliRunner().invoke(app, ["--url", served.url, *arguments], catch_exceptions=False)
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_and_an_example(name: str) -> None:
    command = COMMANDS[name]
    assert "Example: scalewise " + name in command.help
    assert all(getattr(parameter, "help", None) for parameter in command.params)
    assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


def test_the_commands_are_there() -> None:
    assert set(COMMANDS) >= ASKED | {"pause", "resume", "cancel", "extend", "demo"}


def test_a_problem_is_one_line_and_a_status() -> None:
    command = [sys.executable, "-m", "api.cli", "--url", "http://127.0.0.1:9", "show", "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr == "error: no service at http://127.0.0.1:9; start it with `scalewise up`\n"


def test_submit_a_preset_and_a_file(served: Served, tmp_path: Path) -> None:
    out = json.loads(scalewise(served, "submit", "gpt_tiny", "budget.runs=7", "--json"))
    assert out["spec"]["budget"]["runs"] == 7
    assert "scalewise watch" in scalewise(served, "submit", "gpt_tiny")
    for name in ("own.json", "own.yaml"):
        (tmp_path / name).write_text(json.dumps(conf.sweep("gpt_tiny") | {"name": "my own"}))
        given = (str(tmp_path / name), "budget.flops=1e12", "--json")
        out = json.loads(scalewise(served, "submit", *given))
        assert (out["name"], out["spec"]["budget"]["flops"]) == ("my own", 1e12)
    for sweep in served.client.sweeps("running"):
        scalewise(served, "cancel", str(sweep.id))
    assert "cancelled" in scalewise(served, "list", "--state", "cancelled")


def test_submitting_twice_with_one_key_is_one_sweep(served: Served) -> None:
    given = ("submit", "gpt_tiny", "--key", "mine", "--json")
    assert json.loads(scalewise(served, *given))["id"] == json.loads(scalewise(served, *given))["id"]


def test_problems_are_listed_field_by_field(served: Served) -> None:
    message = refused(served, "submit", "gpt_tiny", "budget.runs=0", "seed=-1")
    assert message.splitlines()[0] == "2 fields are wrong"
    assert "budget.runs: given 0; allowed: at least 1" in message
    assert "presets are digits_mlp, glyphs_convnet, glyphs_shapes, gpt_stdlib" in refused(
        served, "plan", "nothing"
    )
    assert "cannot read" in refused(served, "plan", "nothing.yaml")
    assert "key=value" in refused(served, "optimum", "1", "width")
    assert "an axis" in refused(served, "predict", "1", "widht=8")
    assert "there is no sweep 99" in refused(served, "show", "99")


def test_plan(served: Served) -> None:
    out = scalewise(served, "plan", "gpt_tiny")
    assert "8 of 144 candidates" in out and "target small" in out
    assert json.loads(scalewise(served, "plan", "gpt_tiny", "--json"))["runs"] == 8


def test_ladder(served: Served) -> None:
    out = scalewise(served, "ladder", "gpt_tiny", "--sizes", "3", "--tokens-per-param", "4")
    assert "sizes, 3 runs" in out and "target small" in out and "times the ladder's" in out
    given = ("ladder", "gpt_tiny", "--kind", "multiples", "--sizes", "2", "--at", "lr=5e-3,batch=4", "--json")
    found = json.loads(scalewise(served, *given))
    assert len(found["rungs"]) == 8 and {rung["config"]["lr"] for rung in found["rungs"]} == {5e-3}
    assert found["informative"]["ratio"] > 0
    assert "sizes, multiples, isoflop, l_shape" in refused(served, "ladder", "gpt_tiny", "--kind", "steps")
    assert "allowed: numbers" in refused(served, "ladder", "gpt_tiny", "--computes", "1e9;1e10")
    assert "ladder.sizes: given 40; allowed: at most" in refused(
        served, "ladder", "gpt_tiny", "--sizes", "40"
    )


def test_show_list_and_runs(served: Served) -> None:
    out = scalewise(served, "show", "1")
    assert "8 finished" in out and "target small" in out and "(" in out
    assert json.loads(scalewise(served, "show", "1", "--json"))["state"] == "finished"
    assert len(scalewise(served, "runs", "1").splitlines()) == 9
    assert len(json.loads(scalewise(served, "runs", "1", "--state", "finished", "--json"))) == 8
    assert json.loads(scalewise(served, "list", "--json"))[-1]["id"] == 1


def test_decisions_say_why_and_what_was_expected(served: Served) -> None:
    decided = served.client.decisions(1)
    assert len(decided) == 8
    told = " ".join(scalewise(served, "decisions", "1").split())
    for one in decided:
        assert one.reason in told
        assert f"{one.expected['half_width_before']:.2%} to {one.expected['half_width_after']:.2%}" in told
    (first, *_) = json.loads(scalewise(served, "decisions", "1", "--json"))
    assert (first["reason"], first["expected"]) == (decided[0].reason, decided[0].expected)


def test_answers(served: Served) -> None:
    out = scalewise(served, "optimum", "1", "width=48", "depth=2", "tokens=1e5")
    assert "90 % interval" in out and "plateau" in out and "compute-optimal" in out
    assert (
        json.loads(scalewise(served, "optimum", "1", "target=small", "--json"))["settings"]["lr"]["value"] > 0
    )
    assert "compute of the largest run" in scalewise(served, "predict", "1", "target=small", "lr=0.01")
    assert len(scalewise(served, "frontier", "1", "1e11", "1e12").splitlines()) == 3
    base = ("--base", "width=48,depth=2,tokens=1e5")
    assert "best" in scalewise(served, "shapes", "2", "--sweep", "1", *base)
    assert len(json.loads(scalewise(served, "shapes", "2", "--sweep", "1", "--json"))) == 3


def test_pause_resume_and_extend(served: Served) -> None:
    id = str(served.client.submit(conf.sweep("gpt_tiny")).id)
    assert "paused" in scalewise(served, "pause", id)
    assert "running" in scalewise(served, "resume", id)
    scalewise(served, "extend", id, "--runs", "12", "--tolerance", "0.1")
    assert served.client.sweep(int(id)).spec.budget.runs == 12
    assert "nothing to change" in refused(served, "extend", id)
    assert "can be resumed" in refused(served, "resume", id)


def test_watch_without_a_terminal_is_one_line_an_event(served: Served) -> None:
    lines = scalewise(served, "watch", "1").splitlines()
    assert all(line.startswith("[") and " s] " in line for line in lines[:-1])
    assert "sweep 1 created" in lines[0]
    assert sum(" chosen: " in line for line in lines) == 8
    assert sum(" finished  loss " in line for line in lines) == 8
    fits = [line for line in lines if "] fit on " in line]
    assert "spent 8 of 8 runs" in fits[-1] and "first +-" in fits[-1]
    assert lines[-1].startswith("sweep 1 is finished: ")


def test_watch_on_a_terminal_shows_budget_prediction_and_reasons(served: Served) -> None:
    screen = io.StringIO()
    sweep = watch(served.client, 1, Console(file=screen, force_terminal=True, width=160, height=60))
    assert sweep.state == "finished"
    shown = screen.getvalue()
    for words in ("tiny gpt", "8 finished", "8 of 8", "small", "first +-", "run 8 chosen: "):
        assert words in shown


def test_a_waiting_run_is_shown_until_it_ends(served: Served) -> None:
    run = served.client.verify(1, "small", {"lr": 0.02})
    train(served, 1)
    for terminal in (False, True):
        screen = io.StringIO()
        ended = wait(served.client, run.id, Console(file=screen, force_terminal=terminal, width=160))
        assert ended.state == "finished" and ended.loss is not None
