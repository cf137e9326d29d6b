"""Every law: gradients against finite differences, recovery of known constants, closed-form optima."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.laws import LAWS
from sweeps.laws.base import Array, Law
from sweeps.robust import Huber
from sweeps.solve import Data, Prior, minimise

EXPONENT = st.floats(0.1, 0.9)
CENTRE = {"params": np.log(1e8), "tokens": np.log(1e10), "flops": np.log(6e18), "loss": 0.0}


def columns(n: int, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    params, tokens = rng.uniform(-3, 3, n), rng.uniform(-3, 3, n)
    return {"params": params, "tokens": tokens, "flops": params + tokens}


def flat(law: Law) -> Prior:
    return Prior(np.zeros(len(law.parameters)), np.zeros(len(law.parameters)))


@pytest.mark.parametrize("name", ["power", "chinchilla", "coupled"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=25)
def test_gradient_equals_central_differences(name: str, seed: int) -> None:
    law, x = LAWS[name], columns(7, seed)
    rng = np.random.default_rng(seed)
    theta = np.array([p.mean + 0.7 * p.sd * rng.standard_normal() for p in law.parameters])
    _, gradient = law.evaluate(theta, x)
    step = 1e-6 * np.eye(len(theta))
    numeric = np.stack(
        [(law.evaluate(theta + e, x)[0] - law.evaluate(theta - e, x)[0]) / 2e-6 for e in step], axis=-1
    )
    np.testing.assert_allclose(gradient, numeric, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("name", ["power", "chinchilla", "coupled"])
def test_many_thetas_at_once_equal_one_at_a_time(name: str) -> None:
    law, x = LAWS[name], columns(5, 1)
    thetas = np.random.default_rng(2).normal(-0.5, 0.5, (4, len(law.parameters)))
    values, gradients = law.evaluate(thetas, x)
    for theta, value, gradient in zip(thetas, values, gradients, strict=True):
        np.testing.assert_allclose(law.evaluate(theta, x)[0], value)
        np.testing.assert_allclose(law.evaluate(theta, x)[1], gradient)


def additive(n: Array, d: Array, e: float, a: float, b: float, alpha: float, beta: float) -> Array:
    return e + a * n**-alpha + b * d**-beta


@given(
    alpha=EXPONENT,
    beta=EXPONENT,
    floor=st.floats(0.5, 2.0),
    at_n=st.floats(0.2, 1.0),
    at_d=st.floats(0.2, 1.0),
)
@settings(max_examples=30)
def test_additive_law_is_recovered_from_exact_losses(
    alpha: float, beta: float, floor: float, at_n: float, at_d: float
) -> None:
    """Noise-free losses give the constants back (the polish reaches machine precision)."""
    law = LAWS["chinchilla"]
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6)))
    a, b = at_n * 1e8**alpha, at_d * 1e10**beta
    loss = additive(n, d, floor, a, b, alpha, beta)
    x = {"params": np.log(n) - CENTRE["params"], "tokens": np.log(d) - CENTRE["tokens"]}
    one = np.ones(len(loss))
    start = law.start(x, loss, one)[0]
    data = Data(x, np.log(loss), one, one, Huber(1e-3))
    found = minimise(law.evaluate, start, data, flat(law), second_order=True, iterations=200, tolerance=1e-14)
    constants = law.natural(found.theta, CENTRE)
    for name, true in {"E": floor, "A": a, "B": b, "alpha": alpha, "beta": beta}.items():
        assert constants[name] == pytest.approx(true, rel=1e-3), name


def test_coupled_law_with_outer_exponent_one_is_the_additive_law() -> None:
    x = columns(9, 3)
    theta = np.array([-0.4, -0.8, 0.3, np.log(0.3), np.log(0.5)])
    plain, _ = LAWS["chinchilla"].evaluate(theta, x)
    coupled, _ = LAWS["coupled"].evaluate(np.append(theta, 0.0), x)
    np.testing.assert_allclose(plain, coupled)


@pytest.mark.parametrize("name", ["chinchilla", "coupled"])
def test_natural_constants_give_the_same_loss(name: str) -> None:
    law, x = LAWS[name], columns(11, 4)
    theta = np.array([-0.4, -0.8, 0.3, np.log(0.3), np.log(0.5), np.log(0.7)])[: len(law.parameters)]
    c = law.natural(theta, CENTRE)
    n, d = np.exp(x["params"] + CENTRE["params"]), np.exp(x["tokens"] + CENTRE["tokens"])
    loss = c["E"] + (c["A"] * n ** -c["alpha"] + c["B"] * d ** -c["beta"]) ** c.get("k", 1.0)
    np.testing.assert_allclose(np.log(loss), law.evaluate(theta, x)[0])


@pytest.mark.parametrize("name", ["chinchilla", "coupled"])
def test_split_is_the_minimum_along_constant_compute(name: str) -> None:
    law = LAWS[name]
    theta = np.array([-0.4, -0.8, 0.3, np.log(0.3), np.log(0.5), np.log(0.7)])[: len(law.parameters)]
    product = CENTRE["params"] + CENTRE["tokens"] + 2.0
    assert law.split is not None
    best = float(law.split(theta, CENTRE, np.asarray(product)))
    offsets = np.linspace(-0.5, 0.5, 1001)
    x = {"params": best + offsets - CENTRE["params"], "tokens": product - best - offsets - CENTRE["tokens"]}
    assert abs(offsets[np.argmin(law.evaluate(theta, x)[0])]) < 2e-3


def test_published_optimum_of_the_additive_law() -> None:
    """Besiroglu et al. 2024 (arXiv 2404.10102): N* 7.2e10 and D* 1.33e12 at 5.76e23 FLOPs."""
    law = LAWS["chinchilla"]
    e, a, b, alpha, beta = 1.8172, 482.01, 2085.43, 0.3478, 0.3658
    level_n = np.log(a) - alpha * CENTRE["params"]
    level_d = np.log(b) - beta * CENTRE["tokens"]
    level = np.logaddexp(level_n, level_d)
    theta = np.array([np.log(e), level, level_n - level_d, np.log(alpha), np.log(beta)])
    assert law.split is not None
    params = float(np.exp(law.split(theta, CENTRE, np.asarray(np.log(5.76e23 / 6)))))
    assert params == pytest.approx(7.225e10, rel=5e-3)
    assert 5.76e23 / 6 / params == pytest.approx(1.329e12, rel=5e-3)
