"""Spending compute: published optima, numeric answers against closed forms, draws."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.allocation import (
    Spending,
    additive_cheapest,
    additive_optimum,
    balance,
    best,
    best_of_law,
    cheapest,
    compute_multiple,
    power_multiple,
    surface,
)
from sweeps.laws import LAWS
from sweeps.laws.base import Array, Law
from sweeps.laws.chinchilla import CHINCHILLA

# Besiroglu et al. 2024, arXiv 2404.10102, and Muennighoff et al. 2023, arXiv 2305.16264 (its repository).
BESIROGLU = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
MUENNIGHOFF = {
    "E": float(np.exp(0.6254804)),
    "A": float(np.exp(6.255414)),
    "B": float(np.exp(7.3049974)),
    "alpha": 0.3526596,
    "beta": 0.3526596,
}


def origin(law: Law) -> dict[str, float]:
    return dict.fromkeys((*law.columns, "loss"), 0.0)


def additive(params: Array, tokens: Array) -> Array:
    c = BESIROGLU
    return np.asarray(c["E"] + c["A"] * params ** -c["alpha"] + c["B"] * tokens ** -c["beta"])


def draws(law: Law, constants: dict[str, float], count: int = 20) -> Array:
    theta = law.internal(constants, origin(law))
    return theta + 0.02 * np.random.default_rng(0).standard_normal((count, len(theta)))


@pytest.mark.parametrize(
    ("flops", "params", "tokens", "loss"),
    [(5.76e23, 7.225e10, 1.329e12, 1.9744), (1e21, 2.7785e9, 5.9985e10, 2.30553)],
)
def test_published_optima(flops: float, params: float, tokens: float, loss: float) -> None:
    closed = additive_optimum(BESIROGLU, flops)
    numeric = best(additive, flops)
    by_law = best_of_law(
        CHINCHILLA, CHINCHILLA.internal(BESIROGLU, origin(CHINCHILLA)), origin(CHINCHILLA), flops
    )
    for found in (closed, numeric, by_law):
        assert found.params[0] == pytest.approx(params, rel=2e-4)
        assert found.tokens[0] == pytest.approx(tokens, rel=2e-4)
        assert found.loss[0] == pytest.approx(loss, abs=5e-5)
        assert 6.0 * found.params[0] * found.tokens[0] == pytest.approx(flops)
    np.testing.assert_allclose(numeric.params, closed.params, rtol=1e-9)


def test_equal_exponents_keep_the_ratio() -> None:
    for flops in (1e19, 5.76e23):
        found = additive_optimum(MUENNIGHOFF, flops)
        assert found.tokens[0] / found.params[0] == pytest.approx(19.61, abs=0.005)


def test_the_outer_exponent_does_not_move_the_optimum() -> None:
    coupled = BESIROGLU | {"k": 0.5}
    law = LAWS["coupled"]
    theta = law.internal(coupled, origin(law))
    closed, plain = additive_optimum(coupled, 1e21), additive_optimum(BESIROGLU, 1e21)
    numeric = best(surface(law, theta), 1e21)
    np.testing.assert_allclose(closed.params, plain.params)
    np.testing.assert_allclose(numeric.params, closed.params, rtol=1e-9)
    np.testing.assert_allclose(numeric.loss, closed.loss)
    np.testing.assert_allclose(additive_cheapest(coupled, closed.loss), 1e21)


@pytest.mark.parametrize("name", ["chinchilla", "coupled", "overtraining"])
def test_numeric_optimum_is_the_closed_form_for_every_draw(name: str) -> None:
    law = LAWS[name]
    constants = BESIROGLU | {"k": 0.6}
    if name == "overtraining":
        constants = {"E": 1.7, "a": 200.0, "b": 900.0, "eta": 0.15}
    theta = draws(law, constants)
    closed, numeric = best_of_law(law, theta, origin(law), 1e21), best(surface(law, theta), 1e21)
    assert closed.params.shape == (20,) and len(set(closed.params)) == 20
    np.testing.assert_allclose(numeric.params, closed.params, rtol=1e-8)
    np.testing.assert_allclose(numeric.loss, closed.loss, rtol=1e-12)


def test_each_draw_is_taken_with_its_own_points() -> None:
    for name, others in (("chinchilla", {}), ("repetition", {"unique_tokens": 1e10})):
        law = LAWS[name]
        constants = BESIROGLU | {"R_D": 15.0, "R_N": 5.0}
        theta = draws(law, constants, 3)
        loss = surface(law, theta, others=others)
        params, tokens = np.array([[1e9], [2e9], [3e9]]), np.array([[1e11], [2e11], [3e11]])
        apart = loss(params, tokens)[:, 0]
        np.testing.assert_allclose(apart, np.diag(loss(params[:, 0], tokens[:, 0])))


def test_centred_coordinates_give_the_same() -> None:
    centre = {"params": 20.0, "tokens": 25.0, "loss": 1.0}
    theta = CHINCHILLA.internal(BESIROGLU, centre)
    np.testing.assert_allclose(best(surface(CHINCHILLA, theta, centre), 1e21).params, 2.77845946e9)
    np.testing.assert_allclose(best_of_law(CHINCHILLA, theta, centre, 1e21).params, 2.77845946e9)


def test_cheapest_compute_for_a_loss() -> None:
    theta = draws(CHINCHILLA, BESIROGLU)
    constants = CHINCHILLA.natural(theta, origin(CHINCHILLA))
    found = cheapest(surface(CHINCHILLA, theta), 2.31)
    np.testing.assert_allclose(found.flops, additive_cheapest(constants, 2.31), rtol=1e-8)
    np.testing.assert_allclose(found.loss, 2.31)
    np.testing.assert_allclose(6.0 * found.params * found.tokens, found.flops)
    each = cheapest(surface(CHINCHILLA, theta), np.linspace(2.2, 2.5, 20))
    np.testing.assert_allclose(each.loss, np.linspace(2.2, 2.5, 20))


def test_no_compute_reaches_the_floor() -> None:
    found = cheapest(additive, 1.8)
    assert np.isinf(found.flops[0]) and np.isnan(found.params[0])
    assert np.isinf(additive_cheapest(BESIROGLU, 1.8)[0])
    theta = np.stack([CHINCHILLA.internal(BESIROGLU | {"E": e}, origin(CHINCHILLA)) for e in (1.5, 2.4)])
    mixed = cheapest(surface(CHINCHILLA, theta), 2.3)
    assert np.isfinite(mixed.flops[0]) and np.isinf(mixed.flops[1])


def test_a_gain_is_worth_a_multiple_of_compute() -> None:
    alpha, beta = BESIROGLU["alpha"], BESIROGLU["beta"]
    gamma = alpha * beta / (alpha + beta)
    at = additive_optimum(BESIROGLU, 1e21).loss
    found = compute_multiple(additive, 1e21, 0.05)
    np.testing.assert_allclose(found, power_multiple(0.05, at - BESIROGLU["E"], gamma), rtol=1e-8)
    small = power_multiple(1e-6, at - BESIROGLU["E"], gamma)
    np.testing.assert_allclose(small, 1e-6 / (gamma * (at - BESIROGLU["E"])), rtol=1e-5)
    assert np.isinf(compute_multiple(additive, 1e21, 0.6)[0])
    assert np.isinf(compute_multiple(additive, 1e21, 3.0)[0])
    assert np.isinf(power_multiple(0.6, 0.5, gamma))


def test_tokens_served_shift_the_optimum_to_smaller_models() -> None:
    served = 2e12
    spending = Spending(served=served)
    found = best(additive, 1e23, spending)
    n, d, c = found.params[0], found.tokens[0], BESIROGLU
    assert 6.0 * n * d + 2.0 * n * served == pytest.approx(1e23)
    ratio = (c["alpha"] * c["A"] * n ** -c["alpha"]) / (c["beta"] * c["B"] * d ** -c["beta"])
    assert ratio == pytest.approx(1.0 + served / (3.0 * d), rel=1e-6)
    assert balance(additive, n, d)[0] == pytest.approx(ratio, rel=1e-6)
    back = cheapest(additive, found.loss, spending)
    np.testing.assert_allclose([back.flops[0], back.params[0]], [1e23, n], rtol=1e-7)
    without = additive_optimum(BESIROGLU, additive_cheapest(BESIROGLU, found.loss[0]))
    assert n < without.params[0] and d > without.tokens[0]


def test_few_unique_tokens_are_repeated_for_a_while() -> None:
    law = LAWS["repetition"]
    theta = law.internal(MUENNIGHOFF | {"R_D": 15.387756, "R_N": 5.309743}, origin(law))
    limited = best(surface(law, theta, others={"unique_tokens": 25e9}), 1e22)
    # Muennighoff's own grid search: 2.3734e11 tokens (9.49 epochs) and 7.0224e9 parameters.
    assert limited.tokens[0] == pytest.approx(2.3734e11, rel=1e-3)
    assert limited.params[0] == pytest.approx(7.0224e9, rel=1e-3)
    plenty = best(surface(law, theta, others={"unique_tokens": 1e15}), 1e22)
    # Once tokens do not repeat, the law's kink at the size that is optimal for them is the optimum itself.
    np.testing.assert_allclose(plenty.params, additive_optimum(MUENNIGHOFF, 1e22).params, rtol=5e-4)
    assert limited.loss[0] > plenty.loss[0]


def test_without_an_optimum_there_is_no_answer() -> None:
    found = best(lambda params, tokens: 1.0 + params**-0.3 + 0.0 * tokens, 1e21)
    assert np.isnan(found.params[0]) and np.isnan(found.loss[0])


def test_a_missing_column_is_named() -> None:
    law = LAWS["few_bits"]
    theta = law.internal(BESIROGLU | {"gamma": 2.5}, origin(law))
    with pytest.raises(ValueError, match="also reads bits"):
        surface(law, theta)
    fewer = best(surface(law, theta, others={"bits": 4.0}), 1e21)
    more = best(surface(law, theta, others={"bits": 16.0}), 1e21)
    assert fewer.params[0] > more.params[0] and fewer.loss[0] > more.loss[0]
