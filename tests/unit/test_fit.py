"""Fits, ensembles and answers on a world whose law is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic import SPACE, World, observe, random_world, spec

from sweeps.answers import frontier, optimum, predict
from sweeps.ensemble import fit_ensemble, from_dict, to_dict
from sweeps.errors import FitError
from sweeps.spec import Laws

SPEC, WORLD = spec(), World()
TARGET = dict(SPEC.targets[0].at)


@pytest.fixture(scope="module")
def ensemble():
    return fit_ensemble(SPEC, observe(SPEC, WORLD, 40, seed=1), np.random.default_rng(0))


def test_prediction_holds_the_truth_and_is_close(ensemble) -> None:
    found = predict(SPEC, ensemble, TARGET)
    true = WORLD.loss(SPEC, found.at)
    assert found.low < true < found.high
    assert found.loss == pytest.approx(true, rel=0.03)
    assert found.low <= found.mean_low <= found.loss <= found.mean_high <= found.high


def test_interval_covers_over_many_worlds() -> None:
    """A 90 % interval may miss rarely: 12 worlds, at least 9 hits (probability of fewer: 0.4 %)."""
    rng, hits = np.random.default_rng(3), 0
    for seed in range(12):
        world = random_world(rng)
        fitted = fit_ensemble(SPEC, observe(SPEC, world, 35, seed), np.random.default_rng(seed))
        found = predict(SPEC, fitted, TARGET)
        hits += found.low < world.loss(SPEC, found.at, rng) < found.high
    assert hits >= 9


def test_optimal_settings_lie_near_the_true_ones(ensemble) -> None:
    found = optimum(SPEC, ensemble, TARGET)
    lr, batch = WORLD.best(SPEC, TARGET)
    assert found.settings["lr"].value == pytest.approx(lr, rel=0.5)
    assert found.settings["batch"].value == pytest.approx(batch, rel=0.7)
    best = WORLD.loss(SPEC, TARGET | {"lr": lr, "batch": round(batch)})
    assert WORLD.loss(SPEC, found.prediction.at) < 1.006 * best
    low, high = found.settings["lr"].plateau
    assert low < found.settings["lr"].value < high
    assert found.settings["weight_decay"].low is None


def test_compute_optimal_split_spends_the_compute(ensemble) -> None:
    split = optimum(SPEC, ensemble, TARGET).split
    cost = SPEC.cost(
        SPEC.complete(TARGET | {"width": split.width, "depth": split.depth, "tokens": split.tokens})
    )
    assert cost.params_total == pytest.approx(split.params, rel=0.25)
    assert cost.flops == pytest.approx(split.flops, rel=0.4)
    assert split.params_low < split.params < split.params_high
    assert split.tokens_low < split.tokens < split.tokens_high


def test_frontier_falls_with_compute(ensemble) -> None:
    splits = frontier(SPEC, ensemble, [1e11, 1e12, 1e13])
    assert [split.flops for split in splits] == [1e11, 1e12, 1e13]
    assert splits[0].loss > splits[1].loss > splits[2].loss
    assert splits[0].params < splits[2].params and splits[0].tokens < splits[2].tokens


def test_given_hyperparameters_are_kept(ensemble) -> None:
    high = predict(SPEC, ensemble, TARGET | {"lr": 0.05})
    assert high.at["lr"] == 0.05
    assert high.loss > predict(SPEC, ensemble, TARGET).loss


def test_a_law_of_compute_alone_loses_its_weight() -> None:
    asked = spec(laws={"names": ["power", "chinchilla", "coupled"]})
    fitted = fit_ensemble(asked, observe(asked, WORLD, 40, seed=1), np.random.default_rng(0))
    weights = fitted.laws
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["power"] < 0.1


def test_without_a_law_of_parameters_and_tokens_there_is_no_split() -> None:
    alone = spec(laws=Laws(names=("power",)).__dict__)
    fitted = fit_ensemble(alone, observe(alone, WORLD, 12, seed=2), np.random.default_rng(0))
    assert optimum(alone, fitted, TARGET).split is None
    with pytest.raises(FitError, match="chinchilla or coupled"):
        frontier(alone, fitted, [1e12])


def test_json_gives_the_same_answer(ensemble) -> None:
    again = from_dict(json.loads(json.dumps(to_dict(ensemble))))
    ours, theirs = predict(SPEC, ensemble, TARGET), predict(SPEC, again, TARGET)
    assert theirs.loss == pytest.approx(ours.loss, rel=1e-4)
    assert theirs.high == pytest.approx(ours.high, rel=1e-4)


def test_same_seed_same_fit() -> None:
    runs = observe(SPEC, WORLD, 12, seed=4)
    one, two = (fit_ensemble(SPEC, runs, np.random.default_rng(5)) for _ in range(2))
    assert to_dict(one) == to_dict(two)


def test_more_runs_narrow_the_interval() -> None:
    runs = observe(SPEC, WORLD, 48, seed=6)
    widths = []
    for n in (8, 48):
        found = predict(SPEC, fit_ensemble(SPEC, runs[:n], np.random.default_rng(0)), TARGET)
        widths.append(found.high - found.low)
    assert widths[1] < 0.5 * widths[0]


def test_impossible_observations_are_refused() -> None:
    runs = observe(SPEC, WORLD, 4, seed=7)
    with pytest.raises(FitError, match="at least 3"):
        fit_ensemble(SPEC, runs[:2], np.random.default_rng(0))
    broken = [*runs[:3], runs[3].__class__(runs[3].config, runs[3].cost, float("nan"))]
    with pytest.raises(FitError, match="positive"):
        fit_ensemble(SPEC, broken, np.random.default_rng(0))


def test_warnings_have_codes(ensemble) -> None:
    far = predict(SPEC, ensemble, {"width": 512, "depth": 8, "tokens": 1e9})
    assert "far" in [warning.code for warning in far.warnings]
    near = predict(SPEC, ensemble, {"width": 8, "depth": 1, "tokens": 1e5})
    assert "inside" in [warning.code for warning in near.warnings]


def test_answers_tell_the_rate_of_a_training(ensemble) -> None:
    assert predict(SPEC, ensemble, TARGET).lr_used is None
    ruled = replace(SPEC, trainer=replace(SPEC.trainer, batch_rule="sqrt", base_batch=4))
    found = optimum(ruled, ensemble, TARGET | {"batch": 64}).prediction
    assert found.lr_used == pytest.approx(4.0 * found.at["lr"])
    fast = found.at | {"lr": 1.2 * found.at["lr"]}
    (told,) = [
        one.message
        for one in predict(ruled, ensemble, TARGET | {"batch": 64}, [fast]).warnings
        if one.code == "diverged_near"
    ]
    assert f"diverged at lr {1.2 * found.lr_used:.3g}" in told  # as the runs' metric has it


def test_a_run_that_diverged_near_the_rate_taken_is_told(ensemble) -> None:
    small = TARGET | {"width": 8, "depth": 1, "tokens": 1e5}
    best, little = predict(SPEC, ensemble, TARGET).at, predict(SPEC, ensemble, small).at
    assert little["lr"] > 2.0 * best["lr"]

    def told(at: dict[str, float], *diverged: dict[str, float]) -> bool:
        found = predict(SPEC, ensemble, at, diverged).warnings
        return [one.code for one in found].count("diverged_near") == 1

    for there in (best, little):  # 1.5 times the best rate of its own scale is close, 3 times is not
        near, far = there | {"lr": 1.5 * there["lr"]}, there | {"lr": 3.0 * there["lr"]}
        assert told(TARGET, near) and told(TARGET, far, near) and not told(TARGET, far)
        assert optimum(SPEC, ensemble, TARGET, [near]).prediction.warnings
    wild = little | {"lr": 3.0 * little["lr"]}
    assert told(best | {"lr": 2.0 * best["lr"]}, wild)  # close to a rate that was given
    assert not told(TARGET)


def test_where_the_rate_is_fixed_a_run_that_diverged_is_told() -> None:
    fixed = spec(space=SPACE | {"lr": 4e-3})
    fitted = fit_ensemble(fixed, observe(fixed, WORLD, 12, seed=3), np.random.default_rng(0))
    bad = fixed.complete({"width": 8, "depth": 1, "tokens": 1e5, "batch": 32})
    (told,) = (w for w in predict(fixed, fitted, TARGET, [bad]).warnings if w.code == "diverged_near")
    assert "1 times the lr taken" in told.message


def test_settings_stay_within_what_was_tried() -> None:
    """The world's best batch at a far target lies above 32 sequences; the nearest tried value is taken."""
    far = TARGET | {"tokens": 6e7}
    fitted = fit_ensemble(SPEC, observe(SPEC, WORLD, 40, seed=1), np.random.default_rng(0))
    found = predict(SPEC, fitted, far)
    assert found.at["batch"] == 32.0
    assert "batch_outside" in [warning.code for warning in found.warnings]
    for name in ("lr", "batch"):
        values = SPEC.space[name].values
        assert values[0] <= found.at[name] <= values[-1]
