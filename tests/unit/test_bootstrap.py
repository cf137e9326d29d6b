"""Refits to runs drawn again: each at its own minimum, spread as the noise says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from sweeps.bootstrap import bootstrap, draw, refit
from sweeps.laws import LAWS
from sweeps.laws.base import Array
from sweeps.robust import Huber, Robust, Student
from sweeps.solve import Data, Prior, minimise

LAW = LAWS["chinchilla"]
TRUE = np.array([-0.4, -0.8, 0.3, np.log(0.35), np.log(0.4)])
FLAT = Prior(np.zeros(5), np.zeros(5))


def runs(n: int, loss: Robust, scale: float = 1.0, seed: int = 0) -> Data:
    """Losses of the additive law with 0.5 % noise."""
    rng = np.random.default_rng(seed)
    x = {name: rng.uniform(-3.0, 3.0, n) for name in ("params", "tokens")}
    y = LAW.evaluate(TRUE, x)[0] + 0.005 * rng.standard_normal(n)
    return Data(x, y, np.full(n, scale), np.ones(n), loss)


def mode(data: Data, prior: Prior = FLAT) -> Array:
    return minimise(LAW.evaluate, TRUE, data, prior, second_order=True, iterations=200).theta


def objective(theta: Array, data: Data, weight: Array, prior: Prior = FLAT) -> float:
    residual = (LAW.evaluate(theta, data.x)[0] - data.y) / data.scale
    penalty = 0.5 * prior.precision @ (theta - prior.mean) ** 2
    return float(weight @ data.loss.cost(residual) + penalty)


@pytest.mark.parametrize(
    ("loss", "scale"),
    [(Huber(1e-3), 1.0), (Huber(0.1), 1.0), (Student(np.array([4.0])), 0.005)],
    ids=["almost linear", "quadratic", "Student's t"],
)
def test_every_refit_reaches_the_minimum_that_scipy_finds(loss: Robust, scale: float) -> None:
    data = runs(240, loss, scale)
    start = mode(data)
    weight = draw(240, np.random.default_rng(1), 20)
    found = refit(LAW.evaluate, start, data, FLAT, weight)
    for theta, one in zip(found, weight, strict=True):
        unit = objective(start, data, one)

        def cost(at: Array, one: Array = one, unit: float = unit) -> float:
            return objective(at, data, one) / unit

        def slope(at: Array, one: Array = one, unit: float = unit) -> Array:
            value, gradient = LAW.evaluate(at, data.x)
            return np.asarray((one * data.loss.pull((value - data.y) / scale)) @ gradient / scale / unit)

        tries = [
            minimize(cost, at, jac=slope, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-12})
            for at in (start, theta)
        ]
        best = min(float(one_try.fun) for one_try in tries)
        assert cost(theta) <= best * (1.0 + 1e-6)


def test_a_prior_takes_part() -> None:
    data, prior = runs(30, Huber(1.0), 0.005), Prior(TRUE, np.full(5, 50.0))
    start, weight = mode(data, prior), draw(30, np.random.default_rng(2), 10)
    found = refit(LAW.evaluate, start, data, prior, weight)
    for theta, one in zip(found, weight, strict=True):
        alone = minimise(LAW.evaluate, start, replace(data, weight=one), prior, second_order=True)
        assert objective(theta, data, one, prior) == pytest.approx(alone.objective, rel=1e-8)


def test_own_weights_of_runs_are_kept() -> None:
    data = runs(60, Huber(1.0), 0.005)
    half = replace(data, weight=np.where(np.arange(60) < 30, 1.0, 0.0))
    only = replace(half, x={name: column[:30] for name, column in data.x.items()}, y=data.y[:30],
                   scale=data.scale[:30], weight=np.ones(30))  # fmt: skip
    weight = draw(60, np.random.default_rng(3), 5)
    one = refit(LAW.evaluate, mode(half), half, FLAT, weight)
    two = refit(LAW.evaluate, mode(only), only, FLAT, weight[:, :30])
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_the_spread_is_that_of_the_noise() -> None:
    """With normal noise and a quadratic loss, the covariance is that of least squares."""
    data = runs(240, Huber(100.0), 0.005)
    start = mode(data)
    found = bootstrap(LAW.evaluate, start, data, FLAT, np.random.default_rng(4), 1000)
    assert found.shape == (1000, 5)
    gradient = LAW.evaluate(start, data.x)[1] / 0.005
    expected = np.sqrt(np.diag(np.linalg.inv(gradient.T @ gradient)))
    np.testing.assert_allclose(found.std(axis=0), expected, rtol=0.25)
    np.testing.assert_array_less(np.abs(found.mean(axis=0) - start), expected)


def test_runs_of_a_group_are_drawn_together() -> None:
    """Points that share their error say no more than one: the block bootstrap is as wide as the groups."""
    rng = np.random.default_rng(5)
    groups = np.repeat([f"curve {i}" for i in range(40)], 6)
    x = {name: np.repeat(rng.uniform(-3.0, 3.0, 40), 6) for name in ("params", "tokens")}
    y = LAW.evaluate(TRUE, x)[0] + np.repeat(0.005 * rng.standard_normal(40), 6)
    data = Data(x, y, np.full(240, 0.005), np.ones(240), Huber(100.0))
    start = mode(data)
    at = {name: np.array([5.0]) for name in x}
    spreads = []
    for labels in (None, groups):
        found = bootstrap(LAW.evaluate, start, data, FLAT, np.random.default_rng(6), 400, labels)
        spreads.append(float(np.std(LAW.evaluate(found, at)[0])))
    assert spreads[1] == pytest.approx(np.sqrt(6.0) * spreads[0], rel=0.3)


def test_draws_count_every_group_equally_often() -> None:
    groups = ["b", "a", "b", "c"]
    drawn = draw(4, np.random.default_rng(7), 500, groups)
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 2])
    np.testing.assert_array_equal(drawn[:, [0, 1, 3]].sum(axis=1), 3.0)
    np.testing.assert_allclose(drawn.mean(axis=0), 1.0, atol=0.15)
    np.testing.assert_array_equal(draw(9, np.random.default_rng(7), 50).sum(axis=1), 9.0)


def test_labels_for_other_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="one label for each of 4 runs"):
        draw(4, np.random.default_rng(0), 10, ["a", "b"])


def test_the_same_generator_gives_the_same_refits() -> None:
    data = runs(40, Huber(1e-3))
    start = mode(data)
    one, two = (bootstrap(LAW.evaluate, start, data, FLAT, np.random.default_rng(8), 70) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert bootstrap(LAW.evaluate, start, data, FLAT, np.random.default_rng(8), 0).shape == (0, 5)
