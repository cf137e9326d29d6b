"""Loss curves: laws against brute force, fits against known constants, forecasts against synthetic runs."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.curves import LAWS, annealing, multipower
from sweeps.curves import schedule as s
from sweeps.curves.fit import Target, fit_curves, predict
from sweeps.curves.forecast import fit_ensemble, forecast, horizons, mixture_quantile
from sweeps.curves.law import Centre
from sweeps.curves.noise import Noise
from sweeps.curves.schedule import Curve, Steps, track
from sweeps.errors import FitError
from sweeps.laws.base import Array

PUBLISHED = {
    "25M": (3.04045406, 0.52468604, 0.50786857, 363.78751622, 2.06560812, 0.58279013, 0.64142257),
    "100M": (2.6514477, 0.60115152, 0.45295811, 437.9464276, 2.13245612, 0.59785199, 0.65523644),
}
WARMUP, PEAK, END = 2160, 3e-4, 3e-5
CENTRE = Centre(loss=3.0, total=0.06, steps=300.0, peak=1e-3)
TRUE = np.log([0.85, 0.12, 0.05, 0.5, 1.0, 80.0, 0.3, 0.45])
TRUE[4] = 0.08
SCHEDULES = {
    "cosine": s.cosine(1000, 1e-3, 1e-4, 50),
    "constant": s.constant(1000, 1e-3, 50),
    "two stage": s.two_stage(1000, 500, 1e-3, 2e-4, 50),
    "linear": s.linear(1000, 1e-3, 0.0, 50),
    "wsd": s.wsd(1000, 700, 1e-3, 1e-4, 50, exponential=True),
    "long": s.cosine(2500, 1e-3, 1e-4, 50),
}


def steps_of(lr: Array, count: int = 90) -> Steps:
    return np.unique(np.geomspace(55, len(lr) - 1, count).astype(np.int64))


def synthetic(name: str, *, seed: int | None = None, scale: float = 1.0, count: int = 90) -> Curve:
    """A curve of the multi-power law; with a seed its points scatter by 0.1 %, and so does the run."""
    lr = SCHEDULES[name]
    steps = steps_of(lr, count)
    loss = LAWS["multipower"].evaluate(TRUE, track(lr, steps, warm=False), CENTRE)[0] * CENTRE.loss * scale
    if seed is not None:
        rng = np.random.default_rng(seed)
        loss = loss * np.exp(1e-3 * rng.standard_normal(len(loss)) + 1e-3 * rng.standard_normal())
    return Curve(name, steps, loss, lr)


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize("step", [2160, 12_000, 23_999])
def test_multipower_law_equals_the_published_sum(size: str, step: int) -> None:
    """The sum of Luo et al. over every step, as their code has it, against the one over blocks."""
    lr = s.cosine(24_000, PEAK, END, WARMUP)
    floor, level, alpha, gain, c, beta, gamma = PUBLISHED[size]
    total, change = np.cumsum(lr), np.diff(lr)[:step]
    left = (1 + c * lr[1 : step + 1] ** -gamma * (total[step] - total[:step])) ** -beta
    brute = floor + level * total[step] ** -alpha + gain * np.sum(change * (1 - left))
    ours = multipower.published_loss(PUBLISHED[size], track(lr, np.array([step])))[0]
    assert ours == pytest.approx(brute, rel=2e-6)


def test_published_constants_give_the_published_losses() -> None:
    """Ends of cosine and constant runs of 24 000 steps, and of 72 000 steps, at 25M parameters."""
    cases = {
        3.315279: s.cosine(24_000, PEAK, END, WARMUP),
        3.346146: s.constant(24_000, PEAK, WARMUP),
        3.201842: s.cosine(72_000, PEAK, END, WARMUP),
    }
    for expected, lr in cases.items():
        at = track(lr, np.array([len(lr) - 70]))
        assert multipower.published_loss(PUBLISHED["25M"], at)[0] == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("decay", [0.99, 0.999])
def test_annealing_law_equals_its_recurrence(decay: float) -> None:
    lr = s.wsd(3000, 1500, PEAK, END, 100)
    momentum, area = 0.0, 0.0
    for fall in -np.diff(lr[100:]):
        momentum = decay * momentum + fall
        area += momentum
    expected = 3.1 + 0.5 * lr.sum() ** -0.5 - 0.4 * area
    ours = annealing.published_loss((3.1, 0.5, 0.5, 0.4), decay, track(lr, np.array([2999]), warm=False))
    assert ours[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("schedule", ["cosine", "two stage", "linear"])
def test_gradient_equals_central_differences(name: str, schedule: str) -> None:
    law, at = LAWS[name], track(SCHEDULES[schedule], steps_of(SCHEDULES[schedule], 20), warm=False)
    rng = np.random.default_rng(len(schedule))
    theta = np.array([p.mean + 0.7 * p.sd * rng.standard_normal() for p in law.parameters])
    _, gradient = law.evaluate(theta, at, CENTRE)
    numeric = [
        (law.evaluate(theta + e, at, CENTRE)[0] - law.evaluate(theta - e, at, CENTRE)[0]) / 2e-6
        for e in 1e-6 * np.eye(len(theta))
    ]
    np.testing.assert_allclose(gradient, np.stack(numeric, axis=-1), atol=1e-8, rtol=1e-5)


def test_a_constant_rate_has_no_changes() -> None:
    at = track(SCHEDULES["constant"], np.array([100, 999]), warm=False)
    assert len(at.drop) == 0 and at.total[1] == pytest.approx(SCHEDULES["constant"].sum())


def test_blocks_keep_the_whole_fall() -> None:
    lr = SCHEDULES["cosine"]
    at = track(lr, np.array([400, 999]), warm=False)
    assert at.drop[: at.count[0]].sum() == pytest.approx(lr[50] - lr[400], rel=1e-12)
    assert at.drop.sum() == pytest.approx(lr[50] - lr[-1], rel=1e-12)


def test_constants_of_a_noise_free_surface_are_recovered() -> None:
    curves = [synthetic(name, count=40) for name in SCHEDULES]
    sizes = Noise(misfit=1e-9, run=1e-9, early=1e-9, fresh=1e-9, scatter=1e-3)
    fit = fit_curves(curves, LAWS["multipower"], noise=sizes)
    assert fit.converged
    for name, true in LAWS["multipower"].natural(TRUE, CENTRE).items():
        assert fit.constants[name] == pytest.approx(true, rel=1e-4), name


def test_the_unit_of_the_loss_does_not_matter() -> None:
    names, lr = ("cosine", "constant", "two stage"), SCHEDULES["long"]
    steps = np.array([2000, 2499])
    mean = [
        predict(
            fit_curves([synthetic(n, seed=1, scale=c) for n in names], LAWS["multipower"]),
            [Target(lr, steps)],
        )
        for c in (1.0, 1.4427)
    ]
    np.testing.assert_allclose(np.exp(mean[1].mean) / 1.4427, np.exp(mean[0].mean), rtol=1e-5)


def test_intervals_cover_other_schedules_and_horizons() -> None:
    inside = []
    for seed in range(4):
        curves = [
            synthetic(name, seed=10 * seed + i) for i, name in enumerate(("cosine", "constant", "two stage"))
        ]
        ensemble = fit_ensemble(curves, laws=("multipower",))
        for name in ("linear", "wsd", "long"):
            true = synthetic(name)
            found = forecast(ensemble, true.lr, true.steps[-1:])
            inside.append(found.low[0] < true.loss[-1] < found.high[0])
            assert found.point_low[0] <= found.low[0] <= found.loss[0] <= found.high[0] <= found.point_high[0]
            assert found.loss[0] == pytest.approx(true.loss[-1], rel=6e-3)
    assert np.mean(inside) >= 0.75


def test_a_running_run_is_continued_under_its_own_schedule() -> None:
    whole = synthetic("long", seed=3)
    others = [synthetic("constant", seed=4), synthetic("two stage", seed=5)]
    before = forecast(fit_ensemble(others), whole.lr, whole.steps[-1:])
    found = forecast(fit_ensemble([*others, whole.until(1500)], run="long"), whole.lr, whole.steps[-1:])
    assert found.loss[0] == pytest.approx(whole.loss[-1], rel=5e-3)
    assert found.low[0] < whole.loss[-1] < found.high[0]
    assert found.high[0] - found.low[0] < before.high[0] - before.low[0]
    assert sum(found.weights.values()) == pytest.approx(1.0)


def test_a_constant_run_alone_is_continued_by_laws_of_the_step_too() -> None:
    whole = synthetic("constant", seed=6)
    ensemble = fit_ensemble([whole.until(500)], run="constant")
    found = forecast(ensemble, whole.lr, whole.steps[-1:])
    assert {"power", "bent"} & set(found.weights)
    assert found.loss[0] == pytest.approx(whole.loss[-1], rel=1e-2)


def test_a_trunk_reads_as_many_decayed_runs_that_err_together() -> None:
    trunk = synthetic("constant", seed=7)
    fit = fit_curves([trunk, synthetic("wsd", seed=8)], LAWS["multipower"])
    found = horizons(fit, trunk, np.array([300, 500, 800, 1000]), 1024.0, decay=0.2, end=0.1)
    assert np.all(np.diff(found.loss) < 0) and found.tokens[0] == 300 * 1024
    sd = np.sqrt(np.diag(found.covariance))
    correlation = found.covariance / np.outer(sd, sd)
    assert np.all(np.linalg.eigvalsh(found.covariance) > -1e-12) and correlation[1, 2] > 0.1
    lr = s.wsd(1000, 800, 1e-3, 1e-4, 50)
    true = LAWS["multipower"].evaluate(TRUE, track(lr, np.array([999]), warm=False), CENTRE)[0] * CENTRE.loss
    assert found.loss[-1] == pytest.approx(true[0], rel=3e-3)


def test_spikes_do_not_move_the_fit() -> None:
    curves = [synthetic(name, seed=i) for i, name in enumerate(("cosine", "constant", "two stage"))]
    spiked = curves[1].loss.copy()
    spiked[[40, 60]] *= 1.3
    target = [Target(SCHEDULES["long"], np.array([2499]))]
    curves[1:2] = [Curve("constant", curves[1].steps, spiked, curves[1].lr)]
    clean = [synthetic(name, seed=i) for i, name in enumerate(("cosine", "constant", "two stage"))]
    means = [predict(fit_curves(c, LAWS["multipower"]), target).mean[0] for c in (clean, curves)]
    assert means[1] == pytest.approx(means[0], abs=5e-4)


def test_quantiles_of_a_mixture() -> None:
    mean, sd, weight = np.array([[0.0], [10.0]]), np.ones((2, 1)), np.array([0.5, 0.5])
    assert mixture_quantile(0.25, mean, sd, weight)[0] == pytest.approx(0.0, abs=1e-6)
    assert mixture_quantile(0.9, mean[:1], sd[:1], np.ones(1))[0] == pytest.approx(1.2815516, abs=1e-6)


def bad_inputs() -> dict[str, tuple[object, str]]:
    lr, curve = SCHEDULES["constant"], synthetic("constant")
    few = Curve("few", curve.steps[:3], curve.loss[:3], lr)
    ensemble = fit_ensemble([curve], laws=("multipower",))
    return {
        "peak": (lambda: s.constant(10, -1.0), "positive"),
        "warmup": (lambda: s.cosine(10, 1.0, 0.0, 10), "0 to 9"),
        "end of exponential": (lambda: s.wsd(10, 5, 1.0, 0.0, exponential=True), "positive"),
        "end above peak": (lambda: s.linear(10, 1.0, 2.0), "0 to the peak"),
        "decay from": (lambda: s.wsd(10, 11, 1.0, 0.0), "step 0 to 10"),
        "steps beyond": (lambda: Curve("a", np.array([5, 1000]), np.ones(2), lr), "0 to 999"),
        "steps falling": (lambda: Curve("a", np.array([5, 4]), np.ones(2), lr), "rising"),
        "loss": (lambda: Curve("a", np.array([5, 6]), np.array([1.0, -1.0]), lr), "positive"),
        "lr": (lambda: Curve("a", np.array([5]), np.ones(1), -lr), "none negative"),
        "points": (lambda: fit_curves([few], LAWS["power"]), "at least 6"),
        "names": (lambda: fit_curves([curve, curve], LAWS["power"]), "name of its own"),
        "run": (lambda: fit_ensemble([curve], run="other"), "one of"),
        "laws": (lambda: fit_ensemble([curve], laws=("none",)), "some of"),
        "level": (lambda: forecast(ensemble, lr, np.array([999]), level=1.0), "between 0 and 1"),
        "forecast steps": (lambda: forecast(ensemble, lr, np.array([1000])), "0 to 999"),
        "horizon": (lambda: horizons(ensemble.fits[0], curve, np.array([2000]), 1.0), "2 to 1000"),
        "trunk": (lambda: horizons(ensemble.fits[0], few, np.array([200]), 1.0), "one of"),
    }


def test_bad_input_says_what_is_allowed() -> None:
    for name, (call, allowed) in bad_inputs().items():
        with pytest.raises(FitError, match=allowed) as raised:
            call()  # type: ignore[operator]
        assert "given" in str(raised.value), name
