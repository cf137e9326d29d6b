"""Laws at published constants: values, optima, inverses and limits that their papers state."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.laws import LAWS
from sweeps.laws.base import Array, own
from sweeps.laws.critical_batch import allocation, critical_batch, hyperbola, least_examples, least_steps
from sweeps.laws.downstream import ERROR, SCORE
from sweeps.laws.modules import best_modules, least_params
from sweeps.laws.overtraining import best_ratio, cheapest, from_code
from sweeps.laws.pools import Pool, mixed
from sweeps.laws.power import reached_at
from sweeps.laws.regimes import Regime, label, pooling_warning
from sweeps.laws.repetition import best_split
from sweeps.laws.sigmoid import midpoint


def at(name: str, constants: dict[str, float], **columns: float) -> float:
    return float(LAWS[name].at(constants, {key: np.array([value]) for key, value in columns.items()})[0])


# Kaplan et al. 2020, arXiv 2001.08361.
JOINT = {"N_c": 6.4e13, "D_c": 1.8e13, "a_N": 0.076, "a_D": 0.103}
BY_STEPS = {"N_c": 8.8e13, "a_N": 0.076, "S_c": 2.1e3, "a_S": 0.76}
BY_BATCH = BY_STEPS | {"B_c": 2e8, "a_B": 0.21}


def test_kaplan_values() -> None:
    params = {"A": 8.8e13**0.076, "gamma": 0.076}
    assert at("plain_params", params, params=1.5e9) == pytest.approx(2.3036, abs=5e-5)
    tokens = {"A": 5.4e13**0.095, "gamma": 0.095}
    assert at("plain_tokens", tokens, tokens=2.3e10) == pytest.approx(2.0903, abs=5e-5)
    assert at("kaplan", JOINT, params=1.5e9, tokens=2.3e10) == pytest.approx(2.3101, abs=5e-5)
    assert at("kaplan_steps", BY_STEPS, params=1e8, steps=1e4) == pytest.approx(3.1354, abs=5e-5)
    assert float(critical_batch(BY_BATCH, 3.0)) == pytest.approx(1.069e6, rel=5e-4)


def test_kaplan_optimum_is_the_minimum_along_a_product() -> None:
    law, centre = LAWS["kaplan"], {"params": 20.0, "tokens": 22.0, "loss": 1.0}
    assert law.split is not None
    best = float(law.split(law.internal(JOINT, centre), centre, np.asarray(44.0)))
    log_n = best + np.linspace(-0.5, 0.5, 1001)
    loss = law.at(JOINT, {"params": np.exp(log_n), "tokens": np.exp(44.0 - log_n)})
    assert log_n[np.argmin(loss)] == pytest.approx(best, abs=2e-3)


def test_exponents_of_a_compute_budget_use_it_up() -> None:
    found = allocation(BY_BATCH)
    assert found["N"] + found["B"] + found["S"] == pytest.approx(1.0)
    assert 1.0 / found["L"] == pytest.approx(1 / 0.076 + 1 / 0.21 + 1 / 0.76)


@pytest.mark.parametrize("column", ["params", "tokens", "x"])
def test_power_laws_are_inverted(column: str) -> None:
    constants = {"E": 1.7, "A": 400.0, "gamma": 0.34}
    loss = at(f"power_{column}", constants, **{column: 3e9})
    assert reached_at(constants, loss) == pytest.approx(3e9)
    with pytest.raises(ValueError, match=r"above the floor 1\.7"):
        reached_at(constants, 1.7)
    plain = {"A": 11.9, "gamma": 0.066}
    assert reached_at(plain, at(f"plain_{column}", plain, **{column: 1e8})) == pytest.approx(1e8)


def test_loss_at_a_batch_solves_its_own_equation() -> None:
    for params, steps, batch in ((1e7, 1e3, 1e4), (1e8, 1e4, 5e5), (1e10, 3e5, 1e7), (1e6, 50.0, 10.0)):
        loss = at("kaplan_batch", BY_BATCH, params=params, steps=steps, batch=batch)
        critical = critical_batch(BY_BATCH, loss)
        least = float(least_steps(steps, batch, critical))
        assert at("kaplan_steps", BY_STEPS, params=params, steps=least) == pytest.approx(loss, rel=1e-12)
    plenty = at("kaplan_batch", BY_BATCH, params=1e8, steps=1e4, batch=1e15)
    assert plenty == pytest.approx(at("kaplan_steps", BY_STEPS, params=1e8, steps=1e4), rel=1e-8)


def test_hyperbola_gives_the_critical_batch_back() -> None:
    batch, critical = np.geomspace(1e4, 1e8, 7), 1.069e6
    steps = 2e3 * (1.0 + critical / batch)
    found = hyperbola(steps, steps * batch)
    np.testing.assert_allclose(found, (2e3, 2e3 * critical), rtol=1e-9)
    np.testing.assert_allclose(least_steps(steps, batch, critical), 2e3, rtol=1e-12)
    np.testing.assert_allclose(least_examples(steps * batch, batch, critical), 2e3 * critical, rtol=1e-12)
    with pytest.raises(ValueError, match="both sides"):
        hyperbola(steps[:1], steps[:1] * batch[:1])


# Farseer, arXiv 2506.10972, before rounding.
FARSEER = {
    "a1": -1.665630816,
    "b1": 3.133347198805445,
    "alpha": 0.0458999999999619,
    "a2": 230.73437075885855,
    "b2": -1.544209554,
    "beta": -0.1729,
    "a3": -0.062465473,
    "b3": 0.1284880679442551,
    "gamma": 0.13,
}


def farseer(n: Array, d: Array) -> Array:
    c = FARSEER
    level = np.exp(c["a2"] * n ** c["beta"] + c["b2"])
    exponent = np.exp(c["a1"] * n ** c["alpha"] + c["b1"])
    return np.exp(c["a3"] * n ** c["gamma"] + c["b3"]) + level * d**-exponent


def test_farseer_at_published_constants_is_its_formula_in_any_units() -> None:
    law, rng = LAWS["farseer"], np.random.default_rng(0)
    n, d = np.exp(rng.uniform(np.log(1e8), np.log(2e10), 50)), np.exp(rng.uniform(21, 28, 50))
    np.testing.assert_allclose(law.at(FARSEER, {"params": n, "tokens": d}), farseer(n, d), rtol=1e-10)
    centre = {"params": float(np.log(n).mean()), "tokens": float(np.log(d).mean()), "loss": -0.5}
    theta = law.internal(FARSEER, centre)
    x = {"params": np.log(n) - centre["params"], "tokens": np.log(d) - centre["tokens"]}
    x |= {own("params"): np.log(n), own("tokens"): np.log(d)}
    np.testing.assert_allclose(law.evaluate(theta, x)[0] - 0.5, np.log(farseer(n, d)), atol=1e-10)
    for name, value in law.natural(theta, centre).items():
        assert float(value) == pytest.approx(FARSEER[name], rel=1e-9), name
    mean, sd = (np.array([getattr(one, key) for one in law.parameters]) for key in ("mean", "sd"))
    assert np.all(np.abs(theta - mean) < 2.5 * sd)


def test_farseer_ratios_of_tokens_to_parameters() -> None:
    ratios = {1e20: 25.0, 1e21: 26.5, 1e22: 40.6, 1e23: 84.0, 1e24: 224.0, 1e25: 732.0}
    for flops, ratio in ratios.items():
        n = np.exp(np.linspace(np.log(1e7), np.log(1e13), 60001))
        d = flops / 6.0 / n
        best = int(np.argmin(LAWS["farseer"].at(FARSEER, {"params": n, "tokens": d})))
        assert d[best] / n[best] == pytest.approx(ratio, rel=2e-2), flops


def test_farseer_prior_draws_are_sane() -> None:
    law, rng = LAWS["farseer"], np.random.default_rng(0)
    mean, sd = (np.array([getattr(one, key) for one in law.parameters]) for key in ("mean", "sd"))
    params, tokens = rng.uniform(-2.0, 2.0, 200), rng.uniform(-2.0, 2.0, 200)
    x = {"params": params, "tokens": tokens, own("params"): params + 20.0, own("tokens"): tokens + 23.5}
    value, gradient = law.evaluate(mean + sd * rng.standard_normal((2000, len(mean))), x)
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))
    assert np.mean(np.abs(value).max(axis=1) < 2.5) > 0.8


# Gadre et al. 2024, arXiv 2403.08540: fits of the authors' code form to three corpora.
CORPORA = {
    "RedPajama": (166.211, 366.687, -0.272851, 1.836648),
    "C4": (113.693, 189.516, -0.242472, 1.508261),
    "RefinedWeb": (125.096, 246.207, -0.254395, 1.734462),
}


@pytest.mark.parametrize("corpus", sorted(CORPORA))
def test_overtraining_is_the_form_of_its_code(corpus: str) -> None:
    p0, p1, p2, floor = CORPORA[corpus]
    constants, n, m = from_code(p0, p1, p2, floor), 1.4e9, 640.0
    loss = at("overtraining", constants, params=n, tokens=m * n)
    assert loss == pytest.approx(p0 * n**p2 + p1 * 6 ** (p2 / 2) * (m * n) ** p2 + floor, rel=1e-12)
    eta, c = constants["eta"], 6.0 * m * n**2
    height = constants["a"] * m**eta + constants["b"] * m**-eta
    assert loss == pytest.approx(floor + height * c**-eta, rel=1e-12)
    assert cheapest(constants, loss, m) == pytest.approx(c)
    least = cheapest(constants, loss)
    best = best_ratio(constants)
    assert least < c and least < min(cheapest(constants, loss, best * f) for f in (0.9, 1.1))
    n = np.sqrt(least / 6.0 / best)
    assert at("overtraining", constants, params=n, tokens=best * n) == pytest.approx(loss)
    law = LAWS["overtraining"]
    assert law.split is not None
    centre = {"params": 20.0, "tokens": 23.0, "loss": 1.0}
    split = law.split(law.internal(constants, centre), centre, np.asarray(np.log(least / 6.0)))
    assert float(np.exp(split)) == pytest.approx(n)


def test_error_follows_the_loss_and_back() -> None:
    constants = {"eps": 0.856992, "k": 2.20649, "gamma": 0.714591}
    loss = np.array([1.9, 2.4, 3.5])
    error = 0.856992 - 2.20649 * np.exp(-0.714591 * loss)
    np.testing.assert_allclose(ERROR.law.at(constants, {"loss_in": loss}), error, rtol=1e-12)
    np.testing.assert_allclose(ERROR.value(constants, loss), error, rtol=1e-12)
    np.testing.assert_allclose(ERROR.loss(constants, error), loss, rtol=1e-12)
    assert np.isnan(ERROR.loss(constants, np.array([0.9]))[0])  # above that of an untrained model
    assert ERROR.value(constants, np.array([0.5]))[0] > 0  # where the formula alone is below 0


def test_score_follows_the_loss_and_back() -> None:
    constants = {"a": -0.7, "b": 0.95, "k": 9.0, "L_0": 0.8}
    loss = np.array([0.3, 0.8, 1.2])
    score = SCORE.law.at(constants, {"loss_in": loss})
    np.testing.assert_allclose(score, -0.7 / (1 + np.exp(-9.0 * (loss - 0.8))) + 0.95, rtol=1e-12)
    np.testing.assert_allclose(SCORE.value(constants, loss), score, rtol=1e-12)
    np.testing.assert_allclose(SCORE.loss(constants, score), loss, rtol=1e-9)
    assert score[1] == pytest.approx(0.6)


@pytest.mark.parametrize("link", [ERROR, SCORE])
def test_links_compose_draw_by_draw(link: type(ERROR)) -> None:
    rng, centre = np.random.default_rng(0), {"loss": -0.6, "loss_in": 0.9}
    theta = np.array([p.mean for p in link.law.parameters]) + 0.1 * rng.standard_normal(
        (5, len(link.law.parameters))
    )
    loss = rng.uniform(2.0, 3.0, (5, 4))
    both = link.after(theta, centre, loss)
    assert both.shape == (5, 4)
    for row, one, given in zip(both, theta, loss, strict=True):
        x = {"loss_in": np.log(given) - 0.9, own("loss_in"): np.log(given)}
        np.testing.assert_allclose(row, np.exp(link.law.evaluate(one, x)[0] - 0.6), rtol=1e-10)
        np.testing.assert_allclose(link.after(one, centre, given), row, rtol=1e-12)


# Muennighoff et al. 2023, arXiv 2305.16264, with the constants of the authors' code.
REPEATED = {
    "E": float(np.exp(0.6254804)),
    "A": float(np.exp(6.255414)),
    "B": float(np.exp(7.3049974)),
    "alpha": 0.3526596,
    "beta": 0.3526596,
    "R_D": 15.387756,
    "R_N": 5.309743,
}


def test_repetition_values() -> None:
    one = at("repetition", REPEATED, params=6.34e9, tokens=242e9, unique_tokens=25e9)
    two = at("repetition", REPEATED, params=8.67e9, tokens=178e9, unique_tokens=25e9)
    assert one == pytest.approx(2.2256440889984477, rel=1e-14)
    assert two == pytest.approx(2.2269634075087867, rel=1e-14)


def test_repetition_optimum() -> None:
    params, tokens, loss = best_split("repetition", REPEATED, 1e22, 25e9)
    assert params == pytest.approx(7.0224e9, rel=1e-3)
    assert tokens == pytest.approx(2.3734e11, rel=1e-3)
    published = at("repetition", REPEATED, params=7.0224e9, tokens=1e22 / 6 / 7.0224e9, unique_tokens=25e9)
    assert loss <= published


def test_repetition_of_plenty_is_the_additive_law() -> None:
    base = {key: REPEATED[key] for key in ("E", "A", "B", "alpha", "beta")}
    plain = at("chinchilla", base, params=1e9, tokens=1e11)
    assert at("repetition", REPEATED, params=1e9, tokens=1e11, unique_tokens=1e11) == pytest.approx(plain)
    harm = base | {"P": 0.01, "kappa": 0.7, "R_D": 15.0, "delta": 0.8}
    for name, extra in (("overfit", {}), ("penalty", {}), ("overfit_coupled", {"k": 1.0})):
        given = harm | extra
        found = at(f"repetition_{name}", given, params=1e9, tokens=1e11, unique_tokens=1e11)
        assert found == pytest.approx(plain), name
        few, more = (
            at(f"repetition_{name}", given, params=1e11, tokens=1e9 * epochs, unique_tokens=1e9)
            for epochs in (20, 80)
        )
        assert more > few, name  # a model of 100 parameters a token is hurt by more epochs


def test_broken_law_is_its_formula() -> None:
    """The one-break fit to 4-digit addition (Caballero et al. 2022, arXiv 2210.14891)."""
    a, b, c0, c1, d1, f1 = 0.413885, 2.277272, 0.0550774, 5.662909, 612.5837, 0.0591931
    x = np.linspace(150.0, 1000.0, 18)
    found = LAWS["bnsl1"].at({"a": a, "b": b, "c0": c0, "c1": c1, "d1": d1, "f1": f1}, {"x": x})
    np.testing.assert_allclose(found, a + b * x**-c0 * (1 + (x / d1) ** (1 / f1)) ** (-c1 * f1), rtol=1e-12)


def test_family_m_is_its_formulas() -> None:
    x = np.geomspace(1.0, 1e8, 20)
    eps_inf, eps_0, alpha, beta, c = 0.2, 2.3, 1.4, 3.0, 0.3
    constants = {"eps_inf": eps_inf, "eps_0": eps_0, "alpha": alpha, "beta": beta, "c": c}
    found = LAWS["m4"].at(constants, {"x": x})
    assert np.all((found > eps_inf) & (found < eps_0)) and np.all(np.diff(found) < 0)
    np.testing.assert_allclose((found - eps_inf) / (eps_0 - found) ** alpha, beta * x**-c, rtol=1e-9)
    third = LAWS["m3"].at({"beta": beta, "gamma": 1e-4, "c": c}, {"x": x})
    np.testing.assert_allclose(third, beta * (1 / x + 1e-4) ** c, rtol=1e-12)
    second = LAWS["m2"].at({"eps_inf": eps_inf, "beta": beta, "c": c}, {"x": x})
    np.testing.assert_allclose(second - eps_inf, LAWS["m1"].at({"beta": beta, "c": c}, {"x": x}), rtol=1e-9)


def test_bounded_laws_keep_their_bounds() -> None:
    constants = {"R_0": 0.2, "A": 0.61, "C_mid": 2e3, "B": 1.7}
    score = LAWS["sigmoid"].at(constants, {"compute": np.array([1e-6, 2e3, 1e15])})
    np.testing.assert_allclose(score, [0.2, 0.405, 0.61], rtol=1e-9)
    c = midpoint(constants, 0.9)
    assert at("sigmoid", constants, compute=c) == pytest.approx(0.2 + 0.9 * 0.41)
    with pytest.raises(ValueError, match="between 0 and 1"):
        midpoint(constants, 1.0)
    powers = {"alpha": 0.3, "beta": 0.4, "gamma": 0.2, "delta": 0.5}
    law, centre = LAWS["sigmoid"], {"compute": 7.0, "loss": -1.0}
    again = law.natural(law.internal(constants, centre), centre)
    assert {key: float(value) for key, value in again.items()} == pytest.approx(constants)
    bounded = {"E": 1.5, "L_0": 10.8, "a": 100.0, "b": 200.0, "c": 0.1} | powers
    untrained = at("bounded", bounded, params=1e9, tokens=1e-6, unique_tokens=1e-6)
    plenty = at("bounded", bounded, params=1e30, tokens=1e30, unique_tokens=1e30)
    assert untrained == pytest.approx(10.8, rel=1e-3) and plenty == pytest.approx(1.5, rel=1e-3)


def test_regimes() -> None:
    assert label(0.34, 0.30, 0.38).regime is Regime.RESOLUTION
    plenty = label(0.98, 0.90, 1.06, "parameters")
    assert plenty.regime is Regime.VARIANCE and "parameters are plentiful" in plenty.text
    assert label(0.8, 0.4, 1.2).regime is Regime.UNDECIDED
    assert "no regime explains" in label(1.6, 1.4, 1.8).text
    assert label(0.02, -0.05, 0.1).regime is Regime.UNDECIDED
    with pytest.raises(ValueError, match="does not hold"):
        label(0.5, 0.6, 0.7)
    both = {"tokens": label(0.34, 0.30, 0.38), "parameters": plenty}
    assert "do not pool" in (pooling_warning(both) or "")
    assert pooling_warning({"tokens": both["tokens"], "width": label(0.8, 0.4, 1.2)}) is None


def test_modules_divide_by_their_exponents() -> None:
    constants = {"E": 1.0, "A": 50.0, "p_e": 0.2, "p_d": 0.3}
    first, second = best_modules(constants, 1e9)
    assert first / second == pytest.approx(0.2 / 0.3) and first + second == pytest.approx(1e9)
    shares = np.linspace(0.01, 0.99, 99)
    loss = LAWS["modules"].at(
        constants, {"encoder_params": 1e9 * shares, "decoder_params": 1e9 * (1 - shares)}
    )
    assert shares[np.argmin(loss)] == pytest.approx(0.4)
    assert least_params(constants, float(loss.min())) == pytest.approx(1e9)


def test_pools_decay_by_epoch() -> None:
    a, b, d, tau, unique = 1e-5, 0.18, 0.02, 2.5, 1e6
    constants = {"a": a, "b": b, "d": d, "tau": tau}
    loss = [at("pools", constants, tokens=unique * k, unique_tokens=unique) for k in (1.0, 2.0, 3.0, 3.5)]
    term = (a * unique) ** -b
    expected = [d + term]
    for k, (start, end) in enumerate(((1.0, 2.0), (2.0, 3.0), (3.0, 3.5)), start=1):
        term *= (end / start) ** (-b * 0.5 ** (k / tau))
        expected.append(d + term)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    assert at("pools", constants, tokens=4e5, unique_tokens=unique) == pytest.approx(d + (a * 4e5) ** -b)
    assert mixed([Pool(b, tau)], a, d, 3.5e6, unique) == pytest.approx(expected[3], rel=1e-12)
    # Two like pools are one that lasts as long in its own epochs: every tau counts epochs of the mixture.
    assert mixed([Pool(b, tau)] * 2, a, d, 3.5e6, unique) == pytest.approx(
        mixed([Pool(b, 2 * tau)], a, d, 3.5e6, unique)
    )
    with pytest.raises(ValueError, match="at least one"):
        mixed([], a, d, 1e6, 1e6)
