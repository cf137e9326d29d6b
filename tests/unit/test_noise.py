"""Weights of runs, and noise from replicates."""

from __future__ import annotations

import json

import numpy as np
import pytest
from additive import FAR, Table, runs, spread, study
from numpy.typing import ArrayLike

from sweeps import fit, predict
from sweeps.ensemble import from_dict, to_dict
from sweeps.errors import FitError
from sweeps.laws.base import Array
from sweeps.mapping import TableError
from sweeps.noise import NORMAL, NUS, SIGMA, WEIGHT, Seeds, seeds
from sweeps.tables import observe

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
