"""Numbers and times as people read them."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from synthetic import spec

from api.guard import is_loopback
from api.render import duration, number, rate, runs, size
from sweeps.answers import Prediction
from sweeps.runs import Branch, Role, Run, RunState


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12.0, "12"),
        (32000, "32000"),
        (0.0032, "0.0032"),
        (1.15e6, "1.15e6"),
        (3e12, "3e12"),
        (2e-5, "2e-5"),
        (None, "-"),
        (math.nan, "-"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@given(st.floats(1e-30, 1e30))
def test_a_number_is_short_and_nearly_itself(value: float) -> None:
    assert float(number(value)) == pytest.approx(value, rel=0.006)
    assert len(number(value)) <= 9


def test_a_prediction_says_which_rate_is_which() -> None:
    asked = spec()
    none = Prediction({"batch": 64.0, "lr": 1e-3}, 2.0, 1.9, 2.1, 1.9, 2.1, 1.0, 1.0, 1.0, {}, {}, (), ())
    assert rate(asked, none) == []
    assert rate(asked, replace(none, lr_used=2e-3)) == [
        ("rate used", "0.002 in training at batch 64; lr is that at batch 16")
    ]


def test_duration_and_size() -> None:
    assert [duration(s) for s in (None, 5, 119.9, 3700)] == ["unknown", "5 s", "2 min 0 s", "1 h 1 min"]
    assert [size(b) for b in (12, 1.6e6, 3e12)] == ["12 B", "1.6 MB", "3 TB"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "0.0.0.0", "10.0.0.1", "example.com", ""]
)
def test_loopback(host: str) -> None:
    assert is_loopback(host) is (host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"))


def a_run(reason: str | None = None, branch: Branch | None = None) -> Run:
    asked, at = spec(), datetime(2026, 1, 1, tzinfo=UTC)
    config = asked.complete({"width": 8, "depth": 1, "tokens": 1e5, "lr": 4e-3, "batch": 8})
    return Run(
        id=7,
        sweep_id=1,
        role=Role.PROXY,
        state=RunState.CANCELLED,
        config=config,
        cost=asked.cost(config),
        attempt=1,
        step=3,
        tokens=0,
        loss=None,
        seconds=0.0,
        reason=reason,
        target=None,
        decision_id=None,
        created_at=at,
        started_at=at,
        finished_at=at,
        branch=branch,
    )


def shown(run: Run) -> str:
    console = Console(width=120)
    with console.capture() as text:
        console.print(runs(spec(), [run]))
    return " ".join(text.get().split())


def test_why_a_run_was_stopped_is_not_cut_off() -> None:
    reason = "stopped early: " + "very " * 40 + "little"
    assert f"run 7: {reason}" in shown(a_run(reason))


def test_where_a_branch_begins_is_shown() -> None:
    assert "from run 3, step 400" in shown(a_run(branch=Branch(3, 400)))
    assert "from run" not in shown(a_run())
