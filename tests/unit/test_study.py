"""Fits of any table and answers from them, through the library's front door."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import ArrayLike

from sweeps import fit, predict
from sweeps.errors import FitError
from sweeps.laws import LAWS
from sweeps.laws.base import Array
from sweeps.study import Study

TRUE = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
REPEATED = {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.35, "beta": 0.35, "R_D": 15.4, "R_N": 5.3}
Table = dict[str, Array]


def exact(params: ArrayLike, tokens: ArrayLike) -> Array:
    n, d = np.asarray(params, dtype=float), np.asarray(tokens, dtype=float)
    return np.asarray(TRUE["E"] + TRUE["A"] * n ** -TRUE["alpha"] + TRUE["B"] * d ** -TRUE["beta"])


def noise(n: int, seed: int, size: float = 0.003) -> Array:
    return np.exp(size * np.random.default_rng(seed).standard_normal(n))


def grid(seed: int = 0, size: float = 0.003) -> Table:
    """Six model sizes by five amounts of tokens."""
    mesh = np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(2e8, 2e10, 5))
    params, tokens = (column.ravel() for column in mesh)
    return {"params": params, "tokens": tokens, "loss": exact(params, tokens) * noise(30, seed, size)}


@cache
def world() -> Study:
    return fit(grid())


def best_lr(params: Array | float) -> Array:
    return np.asarray(2e-3 * (np.asarray(params) / 2e8) ** -0.4)


def best_batch(tokens: Array | float) -> Array:
    return np.asarray(3.7e5 * (np.asarray(tokens) / 5e9) ** 0.5)


@cache
def tuned() -> Study:
    rng = np.random.default_rng(1)
    params, tokens = rng.choice(np.geomspace(3e7, 1e9, 5), 120), rng.choice(np.geomspace(1e9, 3e10, 5), 120)
    lr, batch = rng.choice(np.geomspace(1e-4, 6.4e-3, 7), 120), rng.choice(2.0 ** np.arange(16, 22), 120)
    bowl = 0.02 * np.log(lr / best_lr(params)) ** 2 + 0.01 * np.log(batch / best_batch(tokens)) ** 2
    loss = exact(params, tokens) * np.exp(bowl) * noise(120, 2, 0.002)
    return fit({"params": params, "tokens": tokens, "lr": lr, "batch": batch, "loss": loss})


def codes(study: Study) -> set[str]:
    return {warning.code for warning in study.warnings}


def test_an_additive_world_is_recovered() -> None:
    found = world()
    assert found.scales == ("params", "tokens")
    assert {"chinchilla", "coupled", "kaplan", "farseer", "overtraining"} == set(found.ensemble.laws)
    assert sum(found.ensemble.laws.values()) == pytest.approx(1.0)
    constants = next(m.fit.constants for m in found.members if m.fit.law == "chinchilla")
    assert constants["E"][0] == pytest.approx(TRUE["E"], rel=0.05)
    for name in ("alpha", "beta"):
        value, low, high = constants[name]
        assert value == pytest.approx(TRUE[name], rel=0.15)
        assert low < value < high
    assert found.checklist["runs"] == 30
    assert found.checklist["scales"] == ["params", "tokens"]
    assert found.checklist["hyperparameters"] == []
    assert "no_holdout" not in codes(found)


def test_the_interval_holds_the_truth() -> None:
    at = {"params": [2e9, 5e9], "tokens": [4e10, 1e11]}
    for one, truth in zip(predict(world(), at), exact(at["params"], at["tokens"]), strict=True):
        assert one.low < one.mean_low < one.loss < one.mean_high < one.high
        assert one.mean_low < truth < one.mean_high
        assert one.loss == pytest.approx(truth, rel=0.01)
        assert (one.high - one.low) / one.loss < 0.05
        assert one.extrapolation == pytest.approx(one.at["params"] * one.at["tokens"] / 2e19)
        assert set(one.by_law) == set(world().ensemble.laws)


@pytest.mark.parametrize("seed", range(1, 5))
def test_the_interval_holds_the_truth_of_other_runs(seed: int) -> None:
    (one,) = predict(fit(grid(seed), laws=["chinchilla", "coupled"]), {"params": 3e9, "tokens": 6e10})
    assert one.low < exact(3e9, 6e10) < one.high


def test_the_same_seed_gives_the_same_answer() -> None:
    one, two = (predict(fit(grid(), laws="chinchilla"), {"params": 3e9, "tokens": 6e10}) for _ in range(2))
    assert one == two


def test_a_target_far_above_is_flagged() -> None:
    near, far = predict(world(), {"params": [3e9, 3e10], "tokens": [6e10, 6e11]})
    assert "far" not in {warning.code for warning in near.warnings}
    assert "far" in {warning.code for warning in far.warnings}
    assert far.high - far.low > near.high - near.low


def test_tokens_in_proportion_to_params_are_flagged() -> None:
    params = np.geomspace(1e7, 1e9, 10)
    found = fit({"params": params, "tokens": 20 * params, "loss": exact(params, 20 * params)})
    assert "collinear" in codes(found)
    assert "collinear" not in codes(world())


def test_few_sizes_are_flagged() -> None:
    table = grid()
    keep = np.isin(table["params"], [table["params"].min(), table["params"].max()])
    found = fit({name: column[keep] for name, column in table.items()}, laws="chinchilla")
    (message,) = [warning.message for warning in found.warnings if warning.code == "few_scales"]
    assert message.startswith("params takes 2 values")


def test_too_few_runs_to_hold_out_are_flagged() -> None:
    rows = [0, 3, 7, 12, 20, 26, 29]
    found = fit({name: column[rows] for name, column in grid().items()}, laws="chinchilla")
    assert "no_holdout" in codes(found)
    assert all(member.holdout is None for member in found.members)


def test_an_exact_law_has_no_misfit_to_warn_of() -> None:
    assert "misfit" not in codes(fit(grid(size=1e-4), laws="chinchilla"))


def test_compute_alone_is_enough() -> None:
    flops = np.geomspace(1e17, 1e20, 12)
    found = fit({"flops": flops, "loss": (1.7 + 2000 * flops**-0.17) * noise(12, 0, 0.002)})
    (one,) = predict(found, {"flops": 1e21})
    assert one.low < 1.7 + 2000 * 1e21**-0.17 < one.high
    assert one.extrapolation == pytest.approx(10.0)


def test_params_alone_are_enough() -> None:
    params = np.geomspace(1e7, 1e9, 12)
    found = fit({"params": params, "loss": (1.7 + 200 * params**-0.3) * noise(12, 0, 0.002)})
    (one,) = predict(found, {"params": 1e10})
    assert one.low < 1.7 + 200 * 1e10**-0.3 < one.high


def test_hyperparameters_get_their_best_values_and_plateaus() -> None:
    found, at = tuned(), {"params": 2e9, "tokens": 6e10}
    assert found.scales == ("params", "tokens")
    assert sorted(found.checklist["hyperparameters"]) == ["batch", "lr"]
    settings = found.settings(at)
    truth = {"lr": float(best_lr(2e9)), "batch": float(best_batch(6e10))}
    bowl = {"lr": 0.02, "batch": 0.01}
    for name, one in settings.items():
        assert one.value == pytest.approx(truth[name], rel=0.15)
        assert one.low < one.value < one.high
        assert one.wide_plateau[0] < one.plateau[0] < one.value < one.plateau[1] < one.wide_plateau[1]
        reach = np.sqrt(0.001 / bowl[name])
        assert np.log(one.plateau[1] / one.plateau[0]) == pytest.approx(2 * reach, rel=0.3)


def test_hyperparameters_left_out_are_at_their_best() -> None:
    found, at = tuned(), {"params": 1e9, "tokens": 3e10}
    best = {name: one.value for name, one in found.settings(at).items()}
    (alone,), (given,) = predict(found, at), predict(found, at | best)
    (off,) = predict(found, at | best | {"lr": 4 * best["lr"]})
    assert alone.loss == pytest.approx(given.loss, rel=1e-6)
    assert np.log(off.loss / alone.loss) == pytest.approx(0.02 * np.log(4) ** 2, rel=0.2)


def test_a_table_of_experts_takes_laws_of_experts() -> None:
    rng = np.random.default_rng(3)
    params, experts = rng.choice(np.geomspace(1e7, 1e9, 6), 50), rng.choice(2.0 ** np.arange(6), 50)
    loss = 60 * params**-0.2 * experts**-0.1
    found = fit({"params": params, "experts": experts, "loss": loss * noise(50, 3)})
    assert set(found.scales) == {"params", "experts"}
    assert all(name.startswith("experts") for name in found.ensemble.laws)
    (one,) = predict(found, {"params": 2e9, "experts": 32})
    assert one.low < 60 * 2e9**-0.2 * 32**-0.1 < one.high


def test_a_table_of_streams_takes_the_law_of_streams() -> None:
    rng = np.random.default_rng(4)
    params, streams = rng.choice(np.geomspace(3e7, 3e9, 6), 40), rng.choice(2.0 ** np.arange(4), 40)

    def truth(n: Array | float, p: Array | float) -> Array:
        return np.asarray(1.5 + (1.2e7 / (n * (0.4 * np.log(p) + 1))) ** 0.2)

    found = fit({"params": params, "streams": streams, "loss": truth(params, streams) * noise(40, 4)})
    assert set(found.ensemble.laws) == {"streams"}
    (one,) = predict(found, {"params": 1e10, "streams": 8})
    assert one.low < truth(1e10, 8) < one.high


def test_a_table_of_repeated_data_takes_laws_of_repetition() -> None:
    rng = np.random.default_rng(5)
    params, unique = (rng.choice(np.geomspace(*ends, 5), 60) for ends in ((3e7, 3e9), (1e8, 1e10)))
    tokens = unique * rng.choice([1.0, 2.0, 4.0, 8.0, 16.0], 60)
    columns = {"params": params, "tokens": tokens, "unique_tokens": unique}
    loss = LAWS["repetition"].at(REPEATED, columns) * noise(60, 5)
    found = fit(columns | {"loss": loss})
    assert set(found.scales) == {"params", "tokens", "unique_tokens"}
    assert {"repetition", "repetition_overfit"} <= set(found.ensemble.laws)
    assert all("unique_tokens" in LAWS[name].columns for name in found.ensemble.laws)
    at = {"params": 5e9, "tokens": 4e10, "unique_tokens": 1e10}
    (one,) = predict(found, at)
    truth = LAWS["repetition"].at(REPEATED, {name: np.array([value]) for name, value in at.items()})[0]
    assert one.low < truth < one.high


def test_laws_are_taken_by_name_or_as_they_are() -> None:
    table = grid()
    assert set(fit(table, laws="kaplan").ensemble.laws) == {"kaplan"}
    assert set(fit(table, laws=["chinchilla", "kaplan"]).ensemble.laws) == {"chinchilla", "kaplan"}
    assert set(fit(table, laws=[LAWS["overtraining"]]).ensemble.laws) == {"overtraining"}


def test_an_unknown_law_is_named() -> None:
    with pytest.raises(FitError, match=r"no law 'chinchila'.*chinchilla"):
        fit(grid(), laws=["chinchilla", "chinchila"])


def test_a_law_of_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(FitError, match="repetition reads unique_tokens"):
        fit(grid(), laws="repetition")


def test_a_table_without_a_scale_is_refused() -> None:
    lr = np.geomspace(1e-4, 1e-2, 8)
    with pytest.raises(FitError, match="no law reads what varies"):
        fit({"params": np.full(8, 1e8), "lr": lr, "loss": 3 + np.log(lr / 1e-3) ** 2})


@pytest.mark.parametrize("at", [{"params": 1e9}, {"tokens": 1e9}, {}])
def test_a_prediction_asks_for_what_the_laws_read(at: dict[str, float]) -> None:
    with pytest.raises(FitError, match="missing; the laws of this table read params, tokens"):
        predict(world(), at)


def test_tokens_follow_from_compute() -> None:
    (one,) = predict(world(), {"params": 2e9, "tokens": 4e10})
    (two,) = predict(world(), {"params": 2e9, "flops": 6 * 2e9 * 4e10})
    assert two.loss == pytest.approx(one.loss, rel=1e-9)


@pytest.mark.parametrize("value", [0.0, -1e9, float("nan"), float("inf")])
def test_a_prediction_refuses_what_is_no_scale(value: float) -> None:
    with pytest.raises(FitError, match="tokens"):
        predict(world(), {"params": 1e9, "tokens": value})


def test_a_prediction_refuses_columns_of_other_lengths() -> None:
    with pytest.raises(FitError, match="length"):
        predict(world(), {"params": [1e9, 2e9], "tokens": [1e9, 2e9, 3e9]})


def test_the_frontier_follows_the_closed_form() -> None:
    flops = [1e19, 1e20, 1e21]
    found = world().frontier(flops)
    a, b = TRUE["alpha"], TRUE["beta"]
    gain = (a * TRUE["A"] / (b * TRUE["B"])) ** (1 / (a + b))
    for amount, one in zip(flops, found, strict=True):
        best = gain * (amount / 6) ** (b / (a + b))
        assert one.params == pytest.approx(best, rel=0.2)
        assert one.params_low < one.params < one.params_high
        assert 6 * one.params * one.tokens == pytest.approx(amount, rel=1e-6)
        assert one.tokens_low < one.tokens < one.tokens_high
        assert one.low < one.loss < one.high
        assert one.loss == pytest.approx(float(exact(best, amount / 6 / best)), rel=0.01)
    for less, more in pairwise(found):
        assert less.params < more.params
        assert less.tokens < more.tokens
        assert less.loss > more.loss


def test_a_frontier_needs_params_and_tokens() -> None:
    flops = np.geomspace(1e17, 1e20, 12)
    alone = fit({"flops": flops, "loss": 1.7 + 2000 * flops**-0.17}, laws="power")
    with pytest.raises(FitError, match="frontier needs laws of params and tokens"):
        alone.frontier([1e21])
