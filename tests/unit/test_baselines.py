"""Baselines: budgets are hard, no run comes twice, published scores are what their papers say."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from sweeps.baselines import COST_EXPONENT, cheapest, cost_random, d_optimal, grid, two_term
from sweeps.choice import Situation
from sweeps.design import Belief, beliefs, features
from sweeps.errors import FitError
from sweeps.laws.base import Columns
from sweeps.mapping import parse_mapping
from sweeps.prices import Prices
from sweeps.recorded import task_of
from sweeps.replay import Task
from sweeps.runs import Spent
from sweeps.samplers import SAMPLERS, tune
from sweeps.strategies import STRATEGIES


def table(rates: int = 1) -> dict[str, np.ndarray]:
    """Runs of a known law, with a bowl over learning rates where there are several."""
    size, ratio, lr = (
        one.ravel()
        for one in np.meshgrid(np.geomspace(1e7, 1e9, 5), [5.0, 20.0, 80.0], np.geomspace(1e-4, 1e-2, rates))
    )
    best = 1e-3 * (size / 1e8) ** -0.3
    loss = (1.8 + 480 * size**-0.35 + 2100 * (size * ratio) ** -0.365) * np.exp(0.02 * np.log(lr / best) ** 2)
    found = {"params": size, "tokens": size * ratio, "loss": loss}
    return found | ({"lr": lr} if rates > 1 else {})


def task(laws: str = "auto", rates: int = 1) -> Task:
    columns = table(rates)
    mapping = parse_mapping(", ".join(f"{name}={name}" for name in columns))
    target = {"params": 4e9, "tokens": 8e10}
    return task_of(columns, mapping, None, target=target, laws=laws)


TASK = task(laws=["chinchilla", "kaplan", "coupled"])


def some(x: Columns, rows: list[int]) -> dict[str, np.ndarray]:
    return {name: column[rows] for name, column in x.items()}


def narrow(belief: Belief, seed: int) -> Belief:
    """As a fit would leave it: a correlated covariance much smaller than the prior's."""
    p = len(belief.theta)
    mixed = np.random.default_rng(seed).normal(size=(p, p)) / np.sqrt(p)
    root = 0.05 * np.sqrt(belief.covariance) @ mixed
    return replace(belief, covariance=root @ root.T + 1e-8 * np.eye(p))


def situation(wanted: int = 5, flops: float = np.inf, seed: int = 0) -> Situation:
    problem = TASK.problem
    family = [
        replace(narrow(belief, i), weight=weight)
        for i, (belief, weight) in enumerate(
            zip(beliefs(problem.models, problem.frame, None), (0.5, 0.2, 0.3), strict=True)
        )
    ]
    prices = Prices(TASK.flops, np.zeros(len(TASK.flops)))
    budget, rng = Spent(np.inf, flops, np.inf), np.random.default_rng(seed)
    if not np.isfinite(flops):
        budget = Spent(np.inf, float(TASK.flops.sum()), np.inf)
    return Situation(
        family, problem.frame, problem.x, prices, TASK.asked, None, None, budget, wanted, rng
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(STRATEGIES)),
    share=st.floats(1e-4, 1.0),
    wanted=st.integers(0, 20),
    seed=st.integers(0, 99),
)
def test_no_strategy_exceeds_its_budget_or_takes_a_run_twice(
    name: str, share: float, wanted: int, seed: int
) -> None:
    at = situation(wanted, share * float(TASK.flops.sum()), seed)
    picks = [pick.index for pick in STRATEGIES[name](at)]
    assert len(picks) == len(set(picks)) <= wanted
    assert TASK.flops[picks].sum() <= at.budget.flops * (1 + 1e-12)
    if wanted and TASK.flops.min() <= at.budget.flops:
        assert picks


def test_cheapest_goes_upwards() -> None:
    picks = [pick.index for pick in cheapest(situation(6))]
    assert picks == np.argsort(TASK.flops, kind="stable")[:6].tolist()


def test_draws_by_cost_have_the_probability_of_one_over_cost() -> None:
    at = situation(1)
    drawn = np.bincount([next(cost_random(at)).index for _ in range(4000)], minlength=len(TASK.flops))
    expected = 4000 / TASK.flops / np.sum(1.0 / TASK.flops)
    assert np.all(np.abs(drawn - expected) < 4.5 * np.sqrt(expected) + 3)


def test_a_grid_is_even() -> None:
    picks = sorted(pick.index for pick in grid(situation(5)))
    assert np.diff(picks).tolist() == [3, 3, 3, 3]


def test_d_optimal_is_the_rise_of_the_log_determinant() -> None:
    at = situation(2)
    belief = at.family[0]
    _, gradient = belief.model.evaluate(belief.theta, at.candidates)
    noise = features([replace(belief, weight=1.0)], at.frame, at.candidates)[1]
    information, free = np.linalg.inv(belief.covariance), np.ones(len(noise), dtype=bool)
    for pick in d_optimal(at):
        more = [information + np.outer(g, g) / v for g, v in zip(gradient, noise, strict=True)]
        rise = np.array([np.linalg.slogdet(one)[1] for one in more]) - np.linalg.slogdet(information)[1]
        score = np.where(free, 0.5 * rise / at.prices.share(at.budget) ** COST_EXPONENT, -np.inf)
        assert pick.index == int(np.argmax(score))
        assert pick.score == pytest.approx(score.max(), rel=1e-5)
        information, free[pick.index] = more[pick.index], False


def test_two_term_is_its_definition() -> None:
    """The drop of the mixture's variance at the targets, every integral by adaptive quadrature."""
    at = replace(situation(2), candidates=some(TASK.problem.x, [0, 4, 7, 14]))
    at = replace(at, prices=at.prices.among(np.array([0, 4, 7, 14])), targets=some(TASK.problem.x, [13, 14]))
    weights = np.array([belief.weight for belief in at.family])
    covariances = [belief.covariance for belief in at.family]
    free = np.ones(4, dtype=bool)
    picks = list(two_term(at))
    assert len(picks) == 2
    for pick in picks:
        score = np.full(4, -np.inf)
        for i in np.flatnonzero(free):
            score[i] = (
                _drop(at, int(i), weights, covariances) / at.prices.share(at.budget)[i] ** COST_EXPONENT
            )
        assert pick.index == int(np.argmax(score))
        assert pick.score == pytest.approx(score.max(), rel=1e-3)
        free[pick.index] = False
        for k, belief in enumerate(at.family):
            _, g = belief.model.evaluate(belief.theta, some(at.candidates, [pick.index]))
            spread = covariances[k] @ g[0]
            covariances[k] = covariances[k] - np.outer(spread, spread) / (
                _noise(belief, at, pick.index) + g[0] @ spread
            )


def _noise(belief: Belief, at: Situation, index: int) -> float:
    alone = [replace(belief, weight=1.0)]
    return float(features(alone, at.frame, some(at.candidates, [index]))[1][0])


def _drop(at: Situation, index: int, weights: np.ndarray, covariances: list[np.ndarray]) -> float:
    within, middle, spread, moved, answers = 0.0, [], [], [], []
    for belief, covariance, weight in zip(at.family, covariances, weights, strict=True):
        value, g = belief.model.evaluate(belief.theta, some(at.candidates, [index]))
        answer, h = belief.model.evaluate(belief.theta, at.targets)
        cross, variance = h @ covariance @ g[0], _noise(belief, at, index) + g[0] @ covariance @ g[0]
        within += weight * np.mean(cross**2) / variance
        middle.append(value[0])
        spread.append(np.sqrt(variance))
        moved.append(cross / variance)
        answers.append(answer)

    def between(shares: np.ndarray, of: np.ndarray) -> float:
        return float(np.mean(shares @ (of - shares @ of) ** 2))

    def after(y: float) -> float:
        density = weights * norm.pdf(y, middle, spread)
        of = np.array([a + m * (y - mid) for a, m, mid in zip(answers, moved, middle, strict=True)])
        return float(density.sum() * between(density / density.sum(), of))

    low, high = (
        np.min(np.array(middle) - 6 * np.array(spread)),
        np.max(np.array(middle) + 6 * np.array(spread)),
    )
    expected = quad(after, low, high, limit=400, points=sorted(middle))[0]
    return within + max(0.0, between(weights, np.array(answers)) - expected)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_samplers_keep_to_their_budget_and_tune_at_one_scale(sampler: str) -> None:
    columns, tuned = table(9), task("chinchilla", rates=9)
    found = tune(tuned, sampler, 0.02, seed=1)
    assert found.runs == 9 and 0.0 < found.spent <= 0.02  # all that one scale has
    assert np.isnan(found.loss).all() and found.laws == {}
    cells = np.stack([columns["params"], columns["tokens"]], axis=1)
    best = [
        columns["lr"][rows][np.argmin(columns["loss"][rows])]
        for rows in (np.all(cells == cell, axis=1) for cell in np.unique(cells, axis=0))
    ]
    assert min(abs(np.log(found.settings["lr"] / np.array(best)))) < 1e-9
    assert tune(tuned, sampler, 0.0005, seed=1).spent <= 0.0005
    again = tune(tuned, sampler, 0.0005, seed=1), tune(tuned, sampler, 0.0005, seed=1)
    assert again[0].settings == again[1].settings


def test_samplers_say_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FitError, match="tpe tunes hyperparameters, and none of them varies"):
        tune(TASK, "tpe", 0.1)
    with pytest.raises(FitError, match="buys 0 runs"):
        tune(task("chinchilla", rates=3), "tpe", 1e-9)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(FitError, match=r"pip install 'scalewise\[replay\]'"):
        tune(TASK, "tpe", 0.1)
