"""The bowl around the optimal hyperparameters."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.spec import SweepSpec, parse
from sweeps.surface import Surface, surface, surface_over


def spec(**space: object) -> SweepSpec:
    base = {"width": [8, 16, 32], "depth": [1, 2], "tokens": [1e5, 1e6]}
    targets = [{"at": {"width": 64, "depth": 2, "tokens": 4e6}}]
    return parse({"name": "bowl", "space": base | space, "targets": targets})


def rows(bowl: Surface, n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    names = ["params", "tokens", "flops", *(axis.name for axis in bowl.axes)]
    return {name: rng.normal(0, 1.5, n) for name in names}


FULL = surface(spec(lr=[1e-3, 3e-3, 1e-2], batch=[8, 16, 32], weight_decay=[0.0, 0.1]))


def test_axes_with_an_optimum_are_those_that_vary() -> None:
    assert [axis.name for axis in FULL.axes] == ["batch", "weight_decay", "lr"]
    plain = {"width": [8, 16], "depth": [1], "tokens": [1e5, 1e6], "lr": [1e-3, 1e-2]}
    targets = [{"at": {"width": 64, "depth": 1, "tokens": 1e6}}]
    (lr,) = surface(parse({"name": "x", "space": plain, "targets": targets})).axes
    assert [column for column, _, _ in lr.slopes] == ["params", "tokens"]  # no batch to follow


def test_coordinates_and_values_are_inverse() -> None:
    for axis in FULL.axes:
        values = np.array([0.001, 0.05, 1.0])
        np.testing.assert_allclose(axis.value(axis.coordinate(values)), values)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30)
def test_gradient_equals_central_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    theta = np.array([p.mean + p.sd * rng.standard_normal() for p in FULL.parameters])
    x = rows(FULL, 6, seed)
    _, gradient = FULL.evaluate(theta, x)
    step = 1e-6 * np.eye(len(theta))
    numeric = np.stack(
        [(FULL.evaluate(theta + e, x)[0] - FULL.evaluate(theta - e, x)[0]) / 2e-6 for e in step], axis=-1
    )
    np.testing.assert_allclose(gradient, numeric, atol=1e-5 * (1 + np.abs(numeric).max()))


def test_priors_are_those_of_the_rate_in_training() -> None:
    """Two bowls over one axis of batches: the rate of training, and the rate that the batch scales to it."""
    varied = {"lr": [1e-3, 1e-2], "batch": [8.0, 32.0]}
    for power in (0.5, 1.0):
        used, asked = surface_over(varied), surface_over(varied, batch_power=power)
        x = rows(used, 50, 1)
        scaled = x | {"lr": x["lr"] - power * x["batch"]}
        ours, theirs = (np.array([p.mean for p in one.parameters]) for one in (used, asked))
        best, there = used.joint(ours, x), asked.joint(theirs, scaled)
        np.testing.assert_allclose(there["lr"] + power * there["batch"], best["lr"], atol=1e-12)
        for one, other in zip(used._walls(ours), asked._walls(theirs), strict=True):
            z = {n: x[n] - best[n] for n in best}
            o = {n: scaled[n] - there[n] for n in there}
            true, found = (
                of[wall.axis] + (wall.lean * of[wall.other] if wall.other else 0.0)
                for wall, of in ((one, z), (other, o))
            )
            ratio = true / found
            np.testing.assert_allclose(ratio, ratio[0])  # the same wall, but for its curvature


def drawn(seed: int, *, inside: bool) -> np.ndarray:
    """Parameters as the priors have them, with optima inside or outside of the values that are tried."""
    rng = np.random.default_rng(seed)
    theta = np.array([p.mean + p.sd * rng.standard_normal() for p in FULL.parameters])
    for axis in FULL.axes:
        share = rng.uniform(-1.0, 1.0) if inside else rng.choice([-1.0, 1.0]) * rng.uniform(1.1, 3.0)
        theta[FULL.offsets[axis.name]] = share * axis.reach
    return theta


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30)
def test_bowl_is_zero_at_the_optimum_and_never_below(seed: int) -> None:
    theta, x = drawn(seed, inside=True), rows(FULL, 20, seed)
    assert FULL.evaluate(theta, x)[0].min() >= 0
    best = dict(x)
    for axis in FULL.axes:  # each after those it follows
        best[axis.name] = FULL.optimum(theta, best)[axis.name]
    np.testing.assert_allclose(FULL.evaluate(theta, best)[0], 0.0, atol=1e-20)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30)
def test_beyond_what_was_tried_the_bowl_begins_at_the_nearest_value(seed: int) -> None:
    """A wall that no run has climbed is no part of the loss of those that stand at its edge."""
    theta = drawn(seed, inside=False)
    x = dict.fromkeys(("params", "tokens", "flops"), np.zeros(1))
    edge = {axis.name: np.sign(theta[FULL.offsets[axis.name], None]) * axis.reach for axis in FULL.axes}
    np.testing.assert_allclose(FULL.evaluate(theta, x | edge)[0], 0.0, atol=1e-12)
    assert FULL.evaluate(theta, x | FULL.joint(theta, x))[0] < 0.0
