"""Weights of runs, noise from replicates, objectives of the field, and intervals by bootstrap."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike
from scipy.optimize import least_squares, minimize
from scipy.stats import multivariate_normal
from typer.testing import CliRunner

from api.cli import app
from sweeps import fit, predict
from sweeps.ensemble import from_dict, to_dict
from sweeps.errors import FitError
from sweeps.estimate import Method
from sweeps.holdout import costliest, predictive, votes, windows
from sweeps.laws import LAWS
from sweeps.laws.base import Array
from sweeps.mapping import TableError
from sweeps.noise import NORMAL, NUS, SIGMA, WEIGHT, Noise, Seeds, seeds
from sweeps.robust import Huber, Student
from sweeps.study import Study
from sweeps.tables import observe

TRUE = {"E": 1.8172, "A": 477.84, "B": 2143.9, "alpha": 0.34731, "beta": 0.36718}
FAR = {"params": 7e10, "tokens": 1.4e12}
LAW, DELTA = LAWS["chinchilla"], 1e-3
Table = dict[str, Array]


def runs(n: int, seed: int = 0, noise: ArrayLike = 0.006) -> Table:
    """Runs of the additive law with noise, over nine budgets of compute."""
    rng = np.random.default_rng(seed)
    flops = np.repeat(np.geomspace(6e18, 3e21, 9), -(-n // 9))[:n]
    params = 10 ** rng.uniform(-0.8, 0.8, n) * 2.8e9 * np.sqrt(flops / 1e21)
    table = {"params": params, "tokens": flops / (6.0 * params)}
    return table | {"loss": LAW.at(TRUE, table) * np.exp(noise * rng.standard_normal(n))}


@cache
def study(objective: str, intervals: str = "posterior") -> Study:
    return fit(runs(240), laws="chinchilla", objective=objective, intervals=intervals)


def miss(found: Study) -> float:
    """Relative error far out."""
    return abs(predict(found, FAR)[0].loss / float(LAW.at(TRUE, as_columns(FAR))[0]) - 1.0)


def as_columns(at: Mapping[str, float]) -> Table:
    return {name: np.array([value]) for name, value in at.items()}


def spread(found: Study) -> float:
    one = predict(found, FAR)[0]
    return (one.mean_high - one.mean_low) / one.loss


# Objectives


def test_hubers_objective_is_that_of_scipy() -> None:
    """The field's fit: 240 points, delta 1e-3, nothing else; to 1e-6 of the minimum."""
    table, found = runs(240), study("huber")
    one, x = found.members[0].fit, found.columns({k: v for k, v in runs(240).items() if k != "loss"})
    y, huber = np.log(table["loss"]) - one.loss_centre, Huber(DELTA)

    def cost(theta: Array) -> tuple[float, Array]:
        value, gradient = LAW.evaluate(theta, x)
        return 1e3 * float(np.sum(huber.cost(value - y))), 1e3 * huber.pull(value - y) @ gradient

    starts = [one.theta, *LAW.start(x, np.exp(y), np.ones(240))[:3], np.array([-0.4, -0.8, 0.3, -1.0, -1.0])]
    options = {"ftol": 1e-15, "gtol": 1e-12, "maxiter": 5000}
    best = min(
        float(minimize(cost, start, jac=True, method="L-BFGS-B", options=options).fun) for start in starts
    )
    assert cost(one.theta)[0] == pytest.approx(best, rel=1e-6)
    assert one.objective == pytest.approx(best / 1e3, rel=1e-6)
    assert one.converged
    assert found.posterior.frame.misfit is None


def test_least_squares_are_those_of_scipy_but_for_weak_priors() -> None:
    table, found = runs(240), study("squares")
    one, x = found.members[0].fit, found.columns({k: v for k, v in runs(240).items() if k != "loss"})
    y = np.log(table["loss"]) - one.loss_centre
    plain = least_squares(lambda t: LAW.evaluate(t, x)[0] - y, one.theta, jac=lambda t: LAW.evaluate(t, x)[1])
    ours = LAW.evaluate(one.theta, x)[0]
    assert np.abs(ours - LAW.evaluate(plain.x, x)[0]).max() < 5e-4
    assert one.noise.nu == NORMAL
    assert one.noise.sigma == pytest.approx(0.006, rel=0.2)
    assert found.posterior.frame.misfit is None


@pytest.mark.parametrize("objective", ["student", "huber", "squares"])
def test_every_objective_foretells_with_an_interval(objective: str) -> None:
    found = study(objective)
    assert miss(found) < 0.01
    one = predict(found, FAR)[0]
    assert one.low < one.mean_low < one.loss < one.mean_high < one.high
    assert found.checklist["objective"].startswith(
        {"student": "maximum posterior", "huber": "sum of Huber", "squares": "maximum"}[objective]
    )
    again = from_dict(json.loads(json.dumps(to_dict(found.ensemble))))
    assert again.members[0].fit.noise == found.members[0].fit.noise


def test_the_default_learns_tails_and_misfit() -> None:
    found = fit(runs(240), laws="chinchilla")
    assert found.posterior.frame.misfit is not None
    assert {member.fit.noise.nu for member in found.members} <= set(NUS)
    assert found.members[0].fit.theta.tolist() == study("student").members[0].fit.theta.tolist()


def test_few_runs_and_hyperparameters_under_every_objective() -> None:
    rng, table = np.random.default_rng(2), runs(30, seed=2)
    lr = rng.choice(np.geomspace(1e-4, 1.6e-3, 5), 30)
    table |= {"lr": lr, "loss": table["loss"] * np.exp(0.02 * np.log(lr / 4e-4) ** 2)}
    laws = ["chinchilla", "coupled"]
    for objective in ("huber", "squares"):
        for intervals in ("posterior", "bootstrap"):
            found = fit(table, laws=laws, objective=objective, intervals=intervals)
            one = predict(found, FAR)[0]
            assert 0.0 < one.low < one.loss < one.high
            assert 2e-4 < found.settings(FAR)["lr"].value < 8e-4


@pytest.mark.parametrize("given", [{"objective": "mse"}, {"intervals": "jackknife"}])
def test_an_unknown_method_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(FitError, match=r"allowed: (student, huber, squares|posterior, bootstrap)"):
        fit(runs(20), **given)


def test_what_hubers_estimate_knows_of_a_place() -> None:
    """Between the median (delta to 0) and the mean (delta to infinity) under normal noise."""
    normal, unit = Student(np.array([[NORMAL]])), np.array([[1.0]])
    assert Huber(1e-4).information(normal, unit)[0, 0] == pytest.approx(2.0 / np.pi, rel=1e-2)
    assert Huber(30.0).information(normal, unit)[0, 0] == pytest.approx(1.0, rel=1e-2)
    assert Huber(1.345).information(normal, unit)[0, 0] == pytest.approx(0.95, rel=1e-2)


def test_the_interval_of_hubers_fit_is_about_that_of_its_refits() -> None:
    assert 0.5 < spread(study("huber", "bootstrap")) / spread(study("huber")) < 2.0


# Weights


def test_a_weight_of_one_changes_nothing() -> None:
    table = runs(60)
    weighed = fit(table | {"weight": np.ones(60)}, laws="chinchilla")
    plain = fit(table, laws="chinchilla")
    assert predict(weighed, FAR) == predict(plain, FAR)
    assert weighed.members[0].fit.evidence == plain.members[0].fit.evidence
    assert plain.checklist["weights"].startswith("none")


@pytest.mark.parametrize("objective", ["student", "squares"])
def test_weights_tell_which_runs_to_trust(objective: str) -> None:
    """Noise of 0.3 % over the root of the weight: it is found, and the fit is the better for it."""
    weight = np.where(np.arange(120) % 2, 1.0, 0.01)
    better = 0
    for seed in range(4):
        table = runs(120, seed, 0.003 / np.sqrt(weight))
        weighed = fit(table | {"weight": weight}, laws="chinchilla", objective=objective)
        assert weighed.scales == ("params", "tokens")
        assert weighed.checklist["hyperparameters"] == []
        assert weighed.checklist["weights"].startswith("as mapped, 0.01 to 1")
        one = weighed.members[0].fit
        assert one.noise.sigma * np.sqrt(1.0 + 3.0 / one.noise.nu) == pytest.approx(0.003, rel=0.4)
        assert 100.0 < one.degrees < 120.0
        better += spread(weighed) < spread(fit(table, laws="chinchilla", objective=objective))
        heavy, light = (predict(weighed, FAR | {"weight": w})[0] for w in (1.0, 0.01))
        assert light.high - light.low > 3.0 * (heavy.high - heavy.low)
    assert better == 4


def test_a_mean_of_runs_may_stand_for_them() -> None:
    """Four runs of each configuration, or their geometric mean with the weight 4."""
    rng, places = np.random.default_rng(5), runs(40, 5, 0.0)
    each = {name: np.repeat(column, 4) for name, column in places.items()}
    each["loss"] = each["loss"] * np.exp(0.004 * rng.standard_normal(160))
    mean = places | {"loss": np.exp(np.log(each["loss"]).reshape(40, 4).mean(axis=1))}
    found = [
        fit(table, laws="chinchilla", objective="squares")
        for table in (each, mean | {"weight": np.full(40, 4.0)})
    ]
    first, second = (predict(one, FAR)[0].loss for one in found)
    assert first == pytest.approx(second, rel=1e-3)
    assert spread(found[0]) == pytest.approx(spread(found[1]), rel=0.35)


def test_hubers_losses_are_multiplied() -> None:
    """A weight of 2 is the run twice."""
    table = runs(60, 3)
    twice = {name: np.concatenate([column, column[:30]]) for name, column in table.items()}
    weight = np.where(np.arange(60) < 30, 2.0, 1.0)
    one = fit(table | {"weight": weight}, laws="chinchilla", objective="huber").members[0].fit
    other = fit(twice, laws="chinchilla", objective="huber").members[0].fit
    assert one.objective == pytest.approx(other.objective, rel=1e-6)


def test_a_weight_is_a_number_above_0() -> None:
    table = runs(20) | {"w": np.r_[0.0, np.ones(19)]}
    with pytest.raises(TableError, match="weight=w"):
        observe(table, "params=params, tokens=tokens, loss=loss, weight=w")
    with pytest.raises(FitError, match="weight"):
        predict(study("student"), FAR | {"weight": -1.0})


# Replicates


def test_replicates_tell_the_noise() -> None:
    place = np.repeat(np.arange(10.0), 3)
    rest = np.tile([-0.001, 0.0, 0.001], 10)
    found = seeds({"params": place, "flops": place}, place + rest)
    assert found == Seeds(pytest.approx(0.001), 20.0, 30, pytest.approx(0.0, abs=1e-6))
    assert found.scale(np.array([NORMAL]))[0] == pytest.approx(0.001, rel=1e-4)
    assert found.scale(np.array([3.0]))[0] == pytest.approx(0.001 / np.sqrt(2.0))
    lighter = seeds({"params": place, "flops": place, WEIGHT: np.full(30, 0.25)}, place + rest)
    assert lighter.deviation == pytest.approx(0.0005)


def test_without_replicates_the_noise_is_guessed() -> None:
    place = np.arange(30.0)
    for x, y in ((place, place), (np.repeat(place[:15], 2), np.repeat(place[:15], 2)), (place // 1.1, place)):
        found = seeds({"params": x, "flops": x}, y)
        assert found == Seeds()
        assert found.scale(np.array(NUS)).tolist() == [SIGMA, SIGMA]


def replicates(slope: float, places: ArrayLike, times: int, seed: int) -> tuple[Table, Array]:
    """Columns and ln L of runs that are repeated, with noise of 0.3 % in the middle."""
    at = np.repeat(np.asarray(places, dtype=float), times)
    rest = 0.003 * np.exp(slope * at) * np.random.default_rng(seed).standard_normal(len(at))
    return {"params": np.round(np.arange(len(at)) // times * 1.0), "flops": at}, rest - 0.1 * at


@pytest.mark.parametrize("slope", [-0.2, 0.0, 0.2])
def test_replicates_at_several_scales_tell_how_noise_grows(slope: float) -> None:
    found = [seeds(*replicates(slope, np.linspace(-4.0, 4.0, 12), 4, seed)) for seed in range(20)]
    assert np.mean([one.slope for one in found]) == pytest.approx(slope, abs=0.05)
    assert np.mean([one.deviation for one in found]) == pytest.approx(0.003, rel=0.1)


def test_a_slope_needs_several_scales_and_not_one_odd_run() -> None:
    assert seeds(*replicates(0.2, np.ones(12), 4, 0)).slope == 0.0
    x, y = replicates(0.0, np.linspace(-4.0, 4.0, 12), 4, 0)
    odd = y.copy()
    odd[-1] += 0.3
    assert abs(seeds(x, odd).slope - seeds(x, y).slope) < 0.15
    few = [abs(seeds(*replicates(0.2, [-1.0, 1.0], 4, seed)).slope) for seed in range(20)]
    assert np.mean(few) < 0.15  # two scales near one another tell less than the prior


def test_noise_by_scale_reaches_intervals_and_choice() -> None:
    """Noise that halves with ten times the compute: new runs at the target lie closer than those below."""
    slope = -0.3
    places = {name: np.tile(column, 4) for name, column in runs(36, 8, 0.0).items()}
    c = np.log(places["params"] * places["tokens"])
    own = 0.004 * np.exp(slope * (c - c.mean()))
    table = places | {"loss": places["loss"] * np.exp(own * np.random.default_rng(4).standard_normal(len(c)))}
    found = fit(table, laws="chinchilla", target=FAR)
    noise = found.members[0].fit.noise
    assert noise.slope == pytest.approx(slope, abs=0.1)
    assert found.checklist["replicates"]["slope"] == noise.slope
    at = {
        name: np.array([column[np.argmin(c)], FAR[name]]) for name, column in places.items() if name != "loss"
    }
    x = found.columns(at)
    below, there = np.sqrt(noise.variance(np.zeros(2), x))
    reach = np.log(FAR["params"] * FAR["tokens"])
    assert below / (0.004 * np.exp(slope * (c.min() - c.mean()))) == pytest.approx(1.0, abs=0.4)
    assert there / (0.004 * np.exp(slope * (reach - c.mean()))) == pytest.approx(1.0, abs=0.5)
    assert from_dict(json.loads(json.dumps(to_dict(found.ensemble)))).members[0].fit.noise.slope != 0.0


def test_replicates_are_in_the_checklist_and_draw_sigma() -> None:
    rng, places = np.random.default_rng(8), runs(24, 8, 0.0)
    table = {name: np.repeat(column, 2) for name, column in places.items()}
    table["loss"] = table["loss"] * np.exp(0.001 * rng.standard_normal(48))
    found = fit(table, laws="chinchilla")
    assert found.checklist["replicates"]["runs"] == 48
    assert found.checklist["replicates"]["deviation"] == pytest.approx(0.001, rel=0.4)
    noise = found.members[0].fit.noise
    assert noise.sigma * np.sqrt(1.0 + 3.0 / noise.nu) == pytest.approx(0.001, rel=0.4)
    assert study("student").checklist["replicates"] == {"runs": 0, "deviation": None, "slope": None}


# Outliers


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_gross_outliers_change_an_answer_little(sign: float) -> None:
    """Five of 120 runs are off by 10 to 40 %; laws are weighed and intervals stretched as without them."""
    table, rng = runs(120), np.random.default_rng(5)
    wrong = table["loss"].copy()
    wrong[rng.choice(120, 5, replace=False)] *= np.exp(sign * rng.uniform(0.1, 0.4, 5))
    laws = ["chinchilla", "kaplan"]
    one, other = (
        predict(fit(given, laws=laws, target=FAR), FAR)[0] for given in (table, table | {"loss": wrong})
    )
    assert abs(other.loss / one.loss - 1.0) < 0.005
    assert abs(other.loss - one.loss) < 0.2 * (one.high - one.low)
    assert other.high - other.low < 2.0 * (one.high - one.low)


def test_the_density_of_held_out_runs_is_exact_for_normal_noise() -> None:
    rng = np.random.default_rng(6)
    gradient, root = rng.standard_normal((7, 3)), rng.standard_normal((3, 3))
    scale, covariance = rng.uniform(0.5, 2.0, 7), root @ root.T
    error = rng.standard_normal(7)
    exact = multivariate_normal(np.zeros(7), gradient @ covariance @ gradient.T + np.diag(scale**2))
    found, own = predictive(error, gradient, scale, NORMAL, covariance)
    assert found == pytest.approx(exact.logpdf(error), rel=1e-4)
    shared = covariance @ gradient.T @ np.linalg.solve(exact.cov, error)
    np.testing.assert_allclose(own, error - gradient @ shared, rtol=1e-3, atol=1e-4)


def test_an_outlier_is_no_error_of_the_law() -> None:
    gradient, scale = np.ones((20, 1)), np.full(20, 0.003)
    error = 0.05 + 0.003 * np.random.default_rng(7).standard_normal(20)
    error[3] += 0.4
    _, own = predictive(error, gradient, scale, 3.0, np.array([[0.01]]))
    assert own[3] == pytest.approx(0.4, abs=0.01)
    assert np.abs(np.delete(own, 3)).max() < 0.01


@given(arrays(float, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(-1e4, 1e4)))
def test_no_cut_decides_for_the_others(densities: Array) -> None:
    found, cuts = votes(densities), densities.shape[1]
    assert found.sum() == pytest.approx(1.0) and np.all(found >= 0.0)
    changed = densities.copy()
    changed[0, 0] += 1e5  # one hold-out is certain
    assert np.all(np.abs(votes(changed) - found) <= 1.0 / cuts + 1e-9)
    best = np.all(densities[0] >= densities)
    assert not best or found[0] >= found.max() - 1e-9


# Many runs with a bowl


def test_where_small_models_mislead_the_costlier_runs_are_fitted_alone() -> None:
    """The best rate falls with compute from the middle on alone; all runs together give one slope."""
    rng, count = np.random.default_rng(9), 720
    flops = np.repeat(np.geomspace(1e18, 1e21, 24), count // 24)
    params = np.sqrt(flops / 120.0) * np.exp(rng.uniform(-0.7, 0.7, count))
    table = {"params": params, "tokens": flops / (6.0 * params), "lr": 10.0 ** rng.uniform(-4.0, -1.5, count)}
    best = 3e-3 * np.minimum(1.0, (flops / 3e19) ** -0.45)
    bowl = 0.01 * np.log(table["lr"] / best) ** 2
    table["loss"] = LAW.at(TRUE, table) * np.exp(bowl + 0.001 * rng.standard_normal(count))
    found = fit(table, laws="chinchilla", target={"params": 5e9, "tokens": 1e11})
    used = {member.fit.n: 0.0 for member in found.members}
    for member in found.members:
        used[member.fit.n] += member.weight
    assert set(used) <= {720, 360, 180} and used[720] < 0.5
    assert sum(used.values()) == pytest.approx(1.0)
    assert "costliest" in found.checklist["filters"]
    truth = 3e-3 * (6.0 * 5e9 * 1e11 / 3e19) ** -0.45
    assert found.settings({"params": 5e9, "tokens": 1e11})["lr"].value == pytest.approx(truth, rel=0.25)


def test_shares_of_the_runs_need_a_bowl_and_very_many() -> None:
    flat, bowl = (study.problem.models[0] for study in (fit(runs(20), laws="chinchilla"), with_rates(20)))
    assert windows(flat, 10_000, Method()) == windows(bowl, 200, Method()) == (1.0,)
    assert windows(bowl, 10_000, Method()) == (1.0, 0.5, 0.25)
    assert windows(bowl, 10_000, Method("huber")) == (1.0,)
    flops = np.array([3.0, 1.0, 4.0, 2.0])
    assert costliest(flops, 0.5).tolist() == [0, 2] and costliest(flops, 1.0).tolist() == [0, 1, 2, 3]


def with_rates(n: int) -> Study:
    return fit(runs(n) | {"lr": np.geomspace(1e-3, 1e-2, n)}, laws="chinchilla")


# Intervals


def test_refits_spread_as_the_posterior() -> None:
    posterior, refits = study("squares"), study("squares", "bootstrap")
    assert 0.6 < spread(refits) / spread(posterior) < 1.6
    assert predict(refits, FAR)[0].loss == pytest.approx(predict(posterior, FAR)[0].loss, rel=2e-3)
    assert "drawn with replacement" in refits.checklist["intervals"]
    assert "for itself" in refits.checklist["intervals"]


def test_refits_with_a_misfit() -> None:
    assert 0.5 < spread(study("student", "bootstrap")) / spread(study("student")) < 2.0


def test_rows_of_a_run_are_drawn_together() -> None:
    """Five rows of each run with the same noise: rows drawn alone would look five times as many."""
    places = runs(40, 9)
    table = {name: np.repeat(column, 5) for name, column in places.items()}
    table["tokens"] = table["tokens"] * (1.0 + 1e-3 * np.tile(np.arange(5), 40))
    label = np.repeat([f"run {i}" for i in range(40)], 5)
    mapping = "params=params, tokens=tokens, loss=loss"
    given: dict[str, ArrayLike] = {**table, "name": label}
    alone, together = (
        fit(observe(given, words), laws="chinchilla", objective="squares", intervals="bootstrap")
        for words in (mapping, mapping + ", run=name")
    )
    assert spread(together) > 1.4 * spread(alone)
    assert together.checklist["intervals"].endswith("rows of a run together")
    assert together.checklist["hyperparameters"] == []


def test_a_label_in_every_row() -> None:
    given: dict[str, ArrayLike] = {**runs(5), "run": np.array(["a", None, "b", "", "c"], dtype=object)}
    with pytest.raises(TableError, match=r"2 missing or NaN in rows 2, 4"):
        observe(given)


def test_methods_are_equal_where_they_say_the_same() -> None:
    assert Method() == Method("student", "posterior")
    assert Noise(0.01, 3.0, 0.1, 0.002).scale(np.zeros(1), {"flops": np.zeros(1), WEIGHT: 4.0 * np.ones(1)})[
        0
    ] == pytest.approx(0.005)


# The command


def test_the_command_takes_them(tmp_path: Path) -> None:
    table, path = runs(60), tmp_path / "runs.csv"
    rows = zip(table["params"], table["tokens"], table["loss"], strict=True)
    body = [f"{n},{d},{loss},{1 + i % 2},r{i // 2}" for i, (n, d, loss) in enumerate(rows)]
    path.write_text("\n".join(["N,D,L,w,r", *body]))
    mapping = "params=N, tokens=D, loss=L, weight=w, run=r"
    asked = ["fit", str(path), "--map", mapping, "--laws", "chinchilla", "--test", str(path), "--json"]
    found = CliRunner().invoke(app, [*asked, "--objective", "huber", "--intervals", "bootstrap"])
    assert found.exit_code == 0, found.output
    checklist = json.loads(found.stdout)["checklist"]
    assert checklist["objective"].startswith("sum of Huber")
    assert checklist["intervals"].endswith("rows of a run together")
    assert checklist["weights"] == "as mapped, 1 to 2: weight times the loss of a run"
    wrong = CliRunner().invoke(app, [*asked, "--objective", "mse"])
    assert wrong.exit_code == 2
    assert "student, huber, squares" in wrong.output
