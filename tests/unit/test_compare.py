"""Two recipes on tables drawn from known constants."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import World, observe, spec

from sweeps.allocation import additive_optimum
from sweeps.compare import Comparison, compare
from sweeps.ensemble import fit_ensemble
from sweeps.errors import FitError
from sweeps.laws.base import Array
from sweeps.paths import of_study, of_sweep, path
from sweeps.posterior import quantiles
from sweeps.study import Study, fit, predict

PLAIN = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.365}
# Worse when small, better when large.
STEEP = {"E": 1.72, "A": 1400.0, "B": 5500.0, "alpha": 0.40, "beta": 0.40}
TARGET = {"params": 2e10, "tokens": 4e11}


def table(constants: dict[str, float], seed: int, per_token: float = 6.0) -> dict[str, Array]:
    """Runs of a world with a tenth of a percent of noise."""
    c = constants
    n, ratio = (v.ravel() for v in np.meshgrid(np.geomspace(3e7, 3e9, 7), [4.0, 12.0, 36.0, 108.0]))
    d = n * ratio
    noise = np.random.default_rng(seed).normal(0.0, 0.001, len(n))
    loss = (c["E"] + c["A"] * n ** -c["alpha"] + c["B"] * d ** -c["beta"]) * np.exp(noise)
    return {"params": n, "tokens": d, "flops": per_token * n * d, "loss": loss}


def best(constants: dict[str, float], flops: Array) -> Array:
    """Lowest loss for compute, in closed form."""
    return additive_optimum(constants, flops).loss


@pytest.fixture(scope="module")
def plain() -> Study:
    return fit(table(PLAIN, 1), laws="chinchilla")


@pytest.fixture(scope="module")
def steep() -> Study:
    return fit(table(STEEP, 2), laws="chinchilla")


@pytest.fixture(scope="module")
def pair(plain: Study, steep: Study) -> Comparison:
    return compare(plain, steep, TARGET, names=("plain", "steep"), hours=(1e17, 2e17))


def test_a_known_crossing_is_found(pair: Comparison) -> None:
    flops = np.geomspace(1e17, 1e24, 100_000)
    ahead = best(STEEP, flops) < best(PLAIN, flops)
    true = flops[np.argmax(ahead)]
    assert not ahead[0] and ahead[-1] and 1e19 < true < 1e20
    crossing = pair.compute.crossing
    assert crossing.probability > 0.95 and crossing.above["steep"] > 0.95
    assert crossing.at is not None
    assert crossing.at.low < true < crossing.at.high < 5.0 * crossing.at.low
    first, last = pair.compute.ranking[0], pair.compute.ranking[-1]
    assert first.better["plain"] > 0.95 and last.better["steep"] > 0.95
    assert (first.amount, last.amount) == (crossing.low, crossing.high)


def test_a_range_without_a_crossing_says_so(plain: Study, steep: Study) -> None:
    found = compare(plain, steep, flops=1e23, span=(1e22, 1e24)).compute.crossing
    assert found.probability < 0.05 and found.at is None
    assert found.above["A"] + found.above["B"] == pytest.approx(found.probability)


def test_losses_at_a_target(pair: Comparison, plain: Study, steep: Study) -> None:
    assert pair.flops == pytest.approx(4.8e22)
    for name, study in (("plain", plain), ("steep", steep)):
        (told,) = predict(study, TARGET)
        assert pair.mean.loss[name].median == pytest.approx(told.loss, rel=1e-3)
        assert pair.mean.loss[name].low == pytest.approx(told.mean_low, rel=2e-3)
        assert pair.new.loss[name].high == pytest.approx(told.high, rel=3e-3)
    assert sum(pair.mean.better.values()) == pytest.approx(1.0) and pair.mean.better["steep"] > 0.95
    mean, new = pair.mean.difference, pair.new.difference
    true = PLAIN["E"] - STEEP["E"]
    for size, power, scale in (("params", "alpha", "A"), ("tokens", "beta", "B")):
        true += PLAIN[scale] * TARGET[size] ** -PLAIN[power] - STEEP[scale] * TARGET[size] ** -STEEP[power]
    assert mean.low < true < mean.high
    assert new.high - new.low > mean.high - mean.low


def test_equal_recipes_are_even(plain: Study) -> None:
    same = compare(plain, plain, TARGET)
    assert same.mean.better == {"A": 0.5, "B": 0.5}
    assert same.mean.difference.median == pytest.approx(0.0, abs=1e-9)
    assert same.compute.gain.multiple.median == pytest.approx(1.0, rel=1e-6)
    shares = [
        compare(plain, fit(table(PLAIN, seed), laws="chinchilla"), TARGET).mean.better["B"]
        for seed in range(10, 20)
    ]
    assert 0.25 < np.mean(shares) < 0.75


def test_half_the_compute_is_a_multiple_of_two(plain: Study) -> None:
    half = fit(table(PLAIN, 1, per_token=3.0), laws="chinchilla")
    gain = compare(plain, half, flops=1e22).compute.gain
    assert gain.multiple.median == pytest.approx(2.0, rel=0.005)
    assert gain.multiple.low < 2.0 < gain.multiple.high
    assert gain.local.median == pytest.approx(2.0, rel=0.1)
    assert gain.unreached == 0.0
    back = compare(half, plain, flops=1e22).compute.gain
    assert back.multiple.median == pytest.approx(0.5, rel=0.005)


def test_a_multiple_agrees_with_the_closed_form(pair: Comparison) -> None:
    flops = np.geomspace(1e20, 1e24, 100_000)
    needed = flops[np.argmax(best(STEEP, flops) < best(PLAIN, np.array([pair.flops])))]
    gain = pair.compute.gain
    assert gain.at == pair.flops
    assert gain.multiple.low < pair.flops / needed < gain.multiple.high


def test_a_loss_out_of_reach_is_no_multiple(plain: Study) -> None:
    high = fit(table(PLAIN | {"E": 2.4}, 4), laws="chinchilla")
    gain = compare(plain, high, flops=1e23).compute.gain
    assert gain.multiple.high == 0.0 and gain.unreached == 1.0


def test_hours_move_the_second_curve(pair: Comparison, plain: Study, steep: Study) -> None:
    """At twice the throughput the second needs half the hours for the same compute."""
    assert pair.hours is not None and pair.hours.unit == "accelerator-hours"
    assert pair.hours.gain.at == pytest.approx(pair.flops / 1e17)
    assert pair.hours.gain.multiple.median == pytest.approx(2 * pair.compute.gain.multiple.median, rel=0.01)
    assert pair.hours.crossing.at is not None and pair.compute.crossing.at is not None
    assert pair.hours.crossing.at.median < pair.compute.crossing.at.median / 1e17
    fixed = {"params": 1e9}
    tokens = compare(plain, steep, along=fixed, hours=(1e8, 1e8), per_hour="tokens").hours
    flops = compare(plain, steep, along=fixed, hours=(6e17, 6e17)).hours
    assert tokens is not None and flops is not None
    assert tokens.crossing.low == pytest.approx(flops.crossing.low)
    assert tokens.gain.multiple.median == pytest.approx(flops.gain.multiple.median)


def test_paths(plain: Study) -> None:
    recipe, flops = of_study(plain, "A"), np.array([1e20, 1e22])
    told = {"params": np.full(2, 1e9), "tokens": flops / 6e9}
    for along, at in (
        ({"params": 1e9}, told),
        (
            {"tokens_per_param": 20.0},
            {"params": np.sqrt(flops / 120.0), "tokens": 20.0 * np.sqrt(flops / 120.0)},
        ),
    ):
        x = path(recipe, flops, along)
        wanted = plain.columns(at)
        for name in wanted:
            np.testing.assert_allclose(x[name], wanted[name], rtol=1e-9, atol=1e-9)
    split = plain.frontier(flops.tolist())
    x = path(recipe, flops, {})
    for i, one in enumerate(split):
        assert np.exp(x["ln params"][i]) == pytest.approx(one.params, rel=0.05)
    loss = np.exp(quantiles(*plain.posterior.draws(x)).median)
    np.testing.assert_allclose(loss, best(PLAIN, flops), rtol=0.01)


def test_tables_of_compute_alone() -> None:
    compute = np.geomspace(1e18, 1e21, 12)
    rng = np.random.default_rng(0)
    one, two = (
        fit({"flops": compute, "loss": e + a * (compute / 1e18) ** -g * np.exp(rng.normal(0, 1e-3, 12))})
        for e, a, g in ((1.9, 1.0, 0.15), (1.7, 1.3, 0.15))
    )
    found = compare(one, two, {"flops": 1e22})
    assert found.flops == pytest.approx(1e22)
    true = 1e18 * (0.3 / 0.2) ** (1 / 0.15)
    crossing = found.compute.crossing
    assert crossing.at is not None and crossing.at.low < true < crossing.at.high
    sizes = np.geomspace(1e7, 1e10, 12)
    lone = fit({"params": sizes, "loss": 1.7 + 3.0 * (sizes / 1e7) ** -0.2})
    assert compare(lone, lone, {"params": 1e11}).flops == pytest.approx(1e11)


def test_fits_of_sweeps() -> None:
    asked = spec()
    recipes = []
    for name, world in (("one", World()), ("two", World(floor=1.2))):
        fitted = fit_ensemble(asked, observe(asked, world, 40, seed=1), np.random.default_rng(0))
        recipes.append(of_sweep(asked, fitted, name))
    found = compare(*recipes, dict(asked.targets[0].at))
    assert found.mean.better["two"] > 0.95 and found.compute.gain.multiple.median > 1.5
    assert found.mean.difference.low < 0.2 < found.mean.difference.high


def test_what_cannot_be_compared(plain: Study, steep: Study) -> None:
    for words, changes in (
        ("a name of its own", {"names": ("A", "A")}),
        ("hold params fixed", {"hours": (1e8, 1e8), "per_hour": "tokens"}),
        ("nothing reads width", {"along": {"width": 8.0}}),
        ("above its start", {"span": (1e22, 1e20)}),
        ("above 0", {"flops": -1.0}),
        ("above 0", {"hours": (0.0, 1.0)}),
        ("is missing", {"at": {"params": 1e9}}),
    ):
        with pytest.raises(FitError, match=words):
            compare(plain, steep, **changes)
    rng = np.random.default_rng(0)
    n, d, u = (np.exp(rng.uniform(15, 20, 30)) for _ in range(3))
    u = np.minimum(u, d)
    loss = 1.8 + 400 * n**-0.35 + 900 * (u + 15 * u * (1 - np.exp((1 - d / u) / 15))) ** -0.35
    given = {"params": n, "tokens": d, "unique_tokens": u, "loss": loss}
    repeated = fit(given, laws="repetition")
    with pytest.raises(FitError, match="hold all but params and tokens fixed"):
        compare(repeated, repeated)
    held = compare(repeated, repeated, along={"unique_tokens": 1e8})
    assert held.compute.gain.multiple.median == pytest.approx(1.0, rel=0.01)


def test_far_targets_are_told(plain: Study, steep: Study) -> None:
    far = compare(plain, steep, {"params": 1e12, "tokens": 2e13})
    assert [one.code for one in far.warnings] == ["far", "far"]
