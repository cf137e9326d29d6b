"""Published rules for hyperparameters, the fit of Step Law and regret."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.errors import FitError
from sweeps.hyper import (
    RULES,
    SEQUENCE,
    Runs,
    deepseek,
    edge,
    fit_step_law,
    porian,
    regret,
    step_law,
)


def bowls(noise: float = 0.0, seed: int = 0, reach: float = 3.0) -> Runs:
    """Runs of 12 cells on a grid around the optimum of Step Law, ``reach`` e-folds wide each way."""
    rng, rows = np.random.default_rng(seed), []
    for params in (6e7, 1.2e8, 2.4e8, 4.8e8):
        for tokens in (2e9, 8e9, 3.2e10):
            best = step_law(params, tokens)
            for u in np.linspace(-reach, reach, 13):
                for v in np.linspace(-reach, reach, 13):
                    loss = 2.5 * np.exp(0.01 * (u**2 + v**2) + noise * rng.standard_normal())
                    rows.append((params, tokens, best.lr * np.exp(u), best.batch * np.exp(v), loss))
    return Runs(*np.array(rows).T)


@pytest.mark.parametrize(
    ("params", "tokens", "lr", "batch"), [(1e9, 1e11, 0.0016325, 1.1077e6), (7e9, 1.4e12, 9.166e-4, 4.9988e6)]
)
def test_step_law_gives_the_published_values(params: float, tokens: float, lr: float, batch: float) -> None:
    found = step_law(params, tokens)
    assert found.lr == pytest.approx(lr, rel=5e-5)
    assert found.batch == pytest.approx(batch, rel=5e-5)


def test_deepseek_gives_the_published_values_at_1e20_flops() -> None:
    found = deepseek(1e20 / 6e10, 1e10)
    assert found.lr == pytest.approx(9.860e-4, rel=5e-5)
    assert found.batch == pytest.approx(1.0171e6, rel=5e-5)


def test_porian_gives_the_published_values_at_1e9_params() -> None:
    found = porian(1e9, 2e10)
    assert found.lr == pytest.approx(0.002238, rel=2e-4)
    assert found.batch / SEQUENCE == pytest.approx(705.5, rel=1e-4)
    assert RULES.keys() == {"step_law", "deepseek", "porian"}


def test_step_law_is_found_again_from_its_own_runs() -> None:
    law = fit_step_law(bowls(), np.random.default_rng(0), draws=50)
    np.testing.assert_allclose(law.lr, [np.log(1.79), -0.713, 0.307], atol=1e-9)
    np.testing.assert_allclose(law.batch, [np.log(0.58), 0.571], atol=1e-9)
    assert law.cells == 12
    assert law.edges == ()
    assert law(1e9, 1e11).lr == pytest.approx(step_law(1e9, 1e11).lr)


def test_bootstrap_covers_the_truth_under_noise() -> None:
    law = fit_step_law(bowls(noise=0.001), np.random.default_rng(0), draws=300)
    low, high = np.quantile(law.lr_draws[:, 1], [0.005, 0.995])
    assert low <= -0.713 <= high
    assert law.batch_draws.shape == (300, 2)


def test_cells_with_their_best_run_on_the_edge_are_left_out_and_reported() -> None:
    runs = bowls()
    best = step_law(6e7, 2e9)
    cut = (runs.params == 6e7) & (runs.tokens == 2e9) & (runs.lr > 0.5 * best.lr)
    law = fit_step_law(runs.take(np.flatnonzero(~cut)), np.random.default_rng(0), draws=10)
    assert [(one.params, one.tokens, one.axes) for one in law.edges] == [(6e7, 2e9, ("lr",))]
    assert law.cells == 11
    np.testing.assert_allclose(law.lr[1:], [-0.713, 0.307], atol=1e-9)
    kept = fit_step_law(runs.take(np.flatnonzero(~cut)), np.random.default_rng(0), draws=10, keep_edges=True)
    assert kept.cells == 12
    assert kept.edges == ()


def test_step_law_refuses_too_few_cells() -> None:
    runs = bowls()
    with pytest.raises(FitError, match="3 cells"):
        fit_step_law(runs.take(np.flatnonzero(runs.params == 6e7)), np.random.default_rng(0))


def test_regret_is_zero_at_the_best_run_and_linear_between_runs() -> None:
    cell = bowls().cells()[0]
    best = step_law(6e7, 2e9)
    assert edge(cell) == ()
    assert regret(cell, best.lr, best.batch).interpolated == pytest.approx(0.0, abs=1e-9)
    halfway = regret(cell, best.lr * np.exp(0.25), best.batch)
    assert halfway.interpolated == pytest.approx(50.0 * np.expm1(0.01 * 0.25), rel=1e-6)
    assert regret(cell, best.lr * np.exp(0.2), best.batch).nearest == pytest.approx(0.0, abs=1e-9)


def test_regret_far_from_good_runs_is_the_nearest_runs() -> None:
    cell = bowls().cells()[0]
    best = step_law(6e7, 2e9)
    far = regret(cell, best.lr * np.exp(3.0), best.batch)
    assert far.interpolated == far.nearest == pytest.approx(100.0 * np.expm1(0.09))


def test_regret_of_a_single_batch_is_the_nearest_runs() -> None:
    cell = bowls().cells()[0]
    row = cell.take(np.flatnonzero(np.isclose(cell.batch, step_law(6e7, 2e9).batch)))
    found = regret(row, step_law(6e7, 2e9).lr, float(row.batch[0]))
    assert found.interpolated == found.nearest == pytest.approx(0.0, abs=1e-9)
