"""What holds for every law: gradients, units, recovery of its own constants."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.laws import LAWS
from sweeps.laws.base import Array, Law, own
from sweeps.laws.quantities import quantity
from sweeps.robust import Huber
from sweeps.solve import Data, Prior, minimise

RANGES = {
    "experts": (1.0, 64.0),
    "streams": (1.0, 8.0),
    "kept": (0.1, 1.0),
    "members": (1.0, 16.0),
    "bits": (2.0, 16.0),
    "exponent_bits": (1.0, 8.0),
    "mantissa_bits": (1.0, 10.0),
    "block": (1.0, 512.0),
    "loss_in": (2.0, 4.0),
    "x": (1e1, 1e8),
}
UNIDENTIFIED = {"bnsl3"}  # three smooth breaks can stand in for one another


def columns(law: Law, rng: np.random.Generator, n: int = 60) -> dict[str, Array]:
    """Columns of a law in their own units, spread over a few e-folds."""
    found = {}
    for name in law.columns:
        low, high = RANGES.get(name, (1e3, 1e6))
        low, high = max(low, quantity(name).low), min(high, quantity(name).high)
        found[name] = np.exp(rng.uniform(np.log(low), np.log(high), n))
    if "unique_tokens" in found:
        found["unique_tokens"] = np.minimum(found["unique_tokens"], found["tokens"])
    return found


def centred(law: Law, given: dict[str, Array]) -> tuple[dict[str, Array], dict[str, float]]:
    """As a fit sees them, and their centres."""
    centre = {"loss": 0.7}
    for name in law.columns:
        like = quantity(name).like
        base = given[like if like in given else name]
        centre[name] = float(np.mean(np.log(base))) if quantity(name).centred else 0.0
    x = {name: np.log(given[name]) - centre[name] for name in law.columns}
    return x | {own(name): np.log(given[name]) for name in law.columns}, centre


@pytest.mark.parametrize("name", sorted(LAWS))
def test_gradient_agrees_with_finite_differences(name: str) -> None:
    law, rng = LAWS[name], np.random.default_rng(0)
    x, _ = centred(law, columns(law, rng))
    mean = np.array([parameter.mean for parameter in law.parameters])
    sd = np.array([parameter.sd for parameter in law.parameters])
    theta = mean + 0.3 * sd * rng.standard_normal((4, len(mean)))
    value, gradient = law.evaluate(theta, x)
    assert value.shape == (4, 60) and gradient.shape == (4, 60, len(mean))
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))
    step = 1e-6
    for i in range(len(mean)):
        shift = step * np.eye(len(mean))[i]
        slope = (law.evaluate(theta + shift, x)[0] - law.evaluate(theta - shift, x)[0]) / (2 * step)
        np.testing.assert_allclose(gradient[..., i], slope, rtol=1e-6, atol=1e-6 * (1 + np.abs(slope).max()))


@pytest.mark.parametrize("name", sorted(LAWS))
def test_units_do_not_matter(name: str) -> None:
    """Natural constants in the columns' own units give what internal coordinates give on centred columns."""
    law, rng = LAWS[name], np.random.default_rng(1)
    given = columns(law, rng)
    x, centre = centred(law, given)
    theta = np.array([p.mean + 0.3 * p.sd * rng.standard_normal() for p in law.parameters])
    constants = {name: float(value) for name, value in law.natural(theta, centre).items()}
    np.testing.assert_allclose(law.internal(constants, centre), theta, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        np.log(law.at(constants, given)) - centre["loss"], law.evaluate(theta, x)[0], rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("name", sorted(LAWS))
def test_own_surface_is_recovered(name: str) -> None:
    """From its starts, with a flat prior, a law finds the noise-free losses that it made itself."""
    law, rng = LAWS[name], np.random.default_rng(3)
    x, _ = centred(law, columns(law, rng, 400))
    theta = np.array([p.mean + 0.3 * p.sd * rng.standard_normal() for p in law.parameters])
    seen, held = ({key: value[half] for key, value in x.items()} for half in (slice(200), slice(200, None)))
    y, one = law.evaluate(theta, seen)[0], np.ones(200)
    data, flat = Data(seen, y, 0.01 * one, one, Huber(1e6)), Prior(np.zeros(len(theta)), np.zeros(len(theta)))
    best = None
    for start in law.start(seen, np.exp(y), one):
        found = minimise(law.evaluate, start, data, flat, iterations=400)
        best = found if best is None or found.objective < best.objective else best
        if best.objective < 1e-12:
            break
    assert best is not None
    np.testing.assert_allclose(law.evaluate(best.theta, held)[0], law.evaluate(theta, held)[0], atol=1e-6)
    if name not in UNIDENTIFIED:
        np.testing.assert_allclose(best.theta, theta, atol=1e-6)
