"""Figures of a replay: each against the truth, over repeats, and at equal answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sweeps.arithmetic import parse_expression
from sweeps.errors import SpecError
from sweeps.mapping import parse_mapping
from sweeps.recorded import task_of
from sweeps.replay import Outcome, Task, replay
from sweeps.replay_score import Score, Spread, Summary, Unanswered, campaign, equal, score, summarise
from sweeps.samplers import _scale

MAPPING = "params=params, tokens=tokens, lr=lr, batch=batch, loss=loss"


def table(sizes: tuple[float, ...]) -> dict[str, np.ndarray]:
    """A bowl over rate and batch at every size; the best is lr 1e-3 and batch 1e5."""
    axes = np.meshgrid(sizes, [2e8, 4e8], [5e-4, 1e-3, 2e-3], [5e4, 1e5, 2e5])
    params, tokens, lr, batch = (one.ravel() for one in axes)
    bowl = 0.02 * np.log(lr / 1e-3) ** 2 + 0.01 * np.log(batch / 1e5) ** 2
    loss = (1.8 + 480 * params**-0.35 + 2100 * tokens**-0.365) * np.exp(bowl)
    return {"params": params, "tokens": tokens, "lr": lr, "batch": batch, "loss": loss}


def task() -> Task:
    return task_of(
        table((1e7, 3e7, 1e8)), parse_mapping(MAPPING), None, test=table((1e9,)), laws=["chinchilla"]
    )


def outcome(asked: Task, off: float = 0.0, **changes: object) -> Outcome:
    """Predictions that are off by a factor, with intervals of 2 per cent."""
    truth = asked.truth
    assert truth is not None
    loss = truth * (1.0 + off)
    settings = {"lr": 1e-3, "batch": 1e5}
    found = Outcome(
        "informative",
        0.1,
        0,
        20,
        0.099,
        loss,
        0.98 * loss,
        1.02 * loss,
        settings,
        0.01,
        0.5,
        {"chinchilla": 1.0},
    )
    return replace(found, **changes)


def test_a_perfect_answer() -> None:
    asked = task()
    found = score(asked, outcome(asked))
    assert (found.r2, found.error, found.regret) == pytest.approx((1.0, 0.0, 0.0), abs=1e-9)
    assert (found.coverage, found.best_held) == (1.0, True)
    assert found.width == pytest.approx(0.02)


def test_a_worse_answer() -> None:
    asked = task()
    truth = asked.truth
    assert truth is not None
    found = score(asked, outcome(asked, 0.03, settings={"lr": 2e-3, "batch": 1e5}))
    spread = np.sum((truth - truth.mean()) ** 2)
    assert found.r2 == pytest.approx(max(-1.0, 1.0 - np.sum((0.03 * truth) ** 2) / spread))
    assert found.error == pytest.approx(0.03)
    assert (found.coverage, found.best_held) == (0.0, False)
    assert found.regret == pytest.approx(100 * (np.exp(0.02 * np.log(2.0) ** 2) - 1.0), rel=1e-6)
    assert score(asked, outcome(asked, 0.5)).r2 == -1.0


def test_hidden_runs_are_not_bought_and_not_tuned_with() -> None:
    asked = task().without(0.5, np.random.default_rng(0))
    assert len(asked.offered) == 27 and len(asked.flops) == 54
    assert set(_scale(asked, 1e30)) <= set(asked.offered)
    found = replay(asked, "grid", 1.0)
    assert (found.runs, found.spent) == (
        27,
        pytest.approx(asked.flops[asked.offered].sum() / asked.flops.sum()),
    )


def test_what_is_not_said_is_none() -> None:
    asked = task()
    nothing = np.full(len(asked.asked["flops"]), np.nan)
    silent = score(asked, outcome(asked, loss=nothing, low=nothing, high=nothing, refit=np.nan))
    assert (silent.r2, silent.error, silent.width, silent.coverage, silent.best_held) == (None,) * 5
    assert silent.refit is None and silent.regret is not None
    unknown = score(replace(asked, truth=None), outcome(asked))
    assert (unknown.r2, unknown.error, unknown.coverage, unknown.regret) == (None,) * 4
    assert unknown.width == pytest.approx(0.02)


def scored(strategy: str, share: float, error: float | None, repeat: int = 0) -> Score:
    r2 = None if error is None else 1.0 - error
    return Score(
        strategy, share, repeat, 10, share, r2, error, 0.1, 0.5, repeat == 0, None, {}, 0.1, None, {}
    )  # fmt: skip


def test_repeats_in_the_mean_and_at_their_worst() -> None:
    some: list[Score | Unanswered] = [
        scored("a", 0.1, 0.02),
        scored("a", 0.1, 0.04, 1),
        Unanswered("a", 0.1, 2, "too little"),
        Unanswered("b", 0.1, 0, "too little"),
    ]
    a, b = summarise(some)
    assert a.answered == 2
    assert a.error == Spread(pytest.approx(0.03), 0.04) and a.r2 == Spread(pytest.approx(0.97), 0.96)
    assert (a.best_held, a.coverage, a.refit, a.regret) == (0.5, 0.5, None, None)
    assert (b.answered, b.error, b.runs) == (0, None, None)


def curve(strategy: str, errors: list[float | None]) -> list[Summary]:
    shares = (0.01, 0.04, 0.16)
    return summarise([scored(strategy, x, y) for x, y in zip(shares, errors, strict=True)])


def test_compute_at_equal_error() -> None:
    summaries = [
        *curve("informative", [0.08, 0.02, 0.005]),
        *curve("random", [0.16, 0.04, 0.01]),
        *curve("good", [0.01, 0.01, 0.01]),
        *curve("mute", [None, None, None]),
    ]
    found = {(one.strategy, one.share): one for one in equal(summaries, "informative")}
    assert set(found) == {(name, share) for name in ("random", "good") for share in (0.01, 0.04, 0.16)}
    # Random errs with 0.16 * (0.01 / x), so that half the error takes twice the compute.
    assert found["random", 0.01].needed == pytest.approx(0.02) and found["random", 0.01].bound is None
    assert found["random", 0.04].times == pytest.approx(2.0)
    assert (found["random", 0.16].needed, found["random", 0.16].bound) == (None, "least")
    assert found["random", 0.16].times == pytest.approx(1.0)
    assert (found["good", 0.04].needed, found["good", 0.04].bound) == (0.01, "most")
    assert found["good", 0.16].bound == "least"


def test_a_replay_without_an_answer_does_not_end_the_others() -> None:
    told: list[tuple[str, float]] = []
    found = list(
        campaign(task(), ["random"], [1e-9, 0.3], 1, 0, lambda name, share, *_: told.append((name, share)))
    )
    assert isinstance(found[0], Unanswered) and "at least 3" in found[0].reason
    assert isinstance(found[1], Score) and found[1].runs >= 3 and found[1].spent <= 0.3
    assert set(told) == {("random", 0.3)}


def test_what_is_left_out_is_at_its_optimum() -> None:
    """A target without settings is predicted at the best ones, not in the middle of those tried."""
    columns = table((1e7, 3e7, 1e8))
    columns = {name: column[columns["lr"] != 1e-3] for name, column in columns.items()}
    asked = task_of(
        columns, parse_mapping(MAPPING), None, target={"params": 1e8, "tokens": 4e8}, laws=["chinchilla"]
    )
    (found,) = campaign(asked, ["random"], [1.0], 1)
    assert isinstance(found, Score)
    assert set(found.settings) == {"lr", "batch"} and found.width is not None
    assert found.settings["lr"] == pytest.approx(1e-3, rel=0.3)


def test_cost_stands_for_compute_that_a_table_does_not_tell() -> None:
    plain = table((1e7, 3e7, 1e8))
    columns = {"params": plain["params"], "experts": plain["tokens"] / 1e8, "loss": plain["loss"]}
    mapping = parse_mapping("params=params, experts=experts, loss=loss")
    target = {"params": 1e9, "experts": 8.0}
    made = task_of(columns, mapping, parse_expression("params*experts"), target=target)
    assert made.flops == pytest.approx(columns["params"] * columns["experts"])
    assert made.problem.target == pytest.approx(8e9)
    with pytest.raises(SpecError, match="does not tell FLOPs \\(params, experts\\)"):
        task_of(columns, mapping, None, target=target)
