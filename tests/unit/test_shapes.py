"""Shapes of convolutional networks: strategies, counts, ranking."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.shapes import (
    STRATEGIES,
    TINYNET,
    Caps,
    Complexity,
    Multipliers,
    Seconds,
    Shape,
    Stage,
    complexity,
    enumerate_shapes,
    fast,
    fit_seconds,
    rank,
    rounded,
    shares,
)

BASE = Shape(224, (Stage(1, 32), Stage(2, 64), Stage(4, 128)))


# d, w, r, parameters, activations (Dollar et al. 2021, arXiv 2103.06877).
@pytest.mark.parametrize(
    ("name", "exponents"),
    [
        ("w", (0, 1 / 2, 0, 1, 1 / 2)),
        ("d", (1, 0, 0, 1, 1)),
        ("r", (0, 0, 1 / 2, 0, 1)),
        ("dw", (1 / 2, 1 / 4, 0, 1, 3 / 4)),
        ("dr", (1 / 2, 0, 1 / 4, 1 / 2, 1)),
        ("wr", (0, 1 / 4, 1 / 4, 1 / 2, 3 / 4)),
        ("dwr", (1 / 3, 1 / 6, 1 / 6, 2 / 3, 5 / 6)),
        ("dWr", (0.1, 0.4, 0.05, 0.9, 0.6)),
    ],
)
def test_exponents_of_strategies(name: str, exponents: tuple[float, ...]) -> None:
    one = STRATEGIES[name]
    found = (one.depth, one.width, one.resolution, one.params, one.activations)
    assert found == pytest.approx(exponents)
    assert one.depth + 2.0 * one.width + 2.0 * one.resolution == pytest.approx(1.0)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
def test_fast_scaling_gives_its_share_to_width(alpha: float) -> None:
    one = fast(alpha)
    assert (one.depth, one.width, one.resolution) == pytest.approx(
        ((1 - alpha) / 2, alpha / 2, (1 - alpha) / 4)
    )
    assert (one.params, one.activations) == pytest.approx(((1 + alpha) / 2, 1 - alpha / 2))
    assert (fast().depth, fast().width) == pytest.approx((shares(1, 8, 1).depth, shares(1, 8, 1).width))


def test_wrong_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        fast(1.2)
    with pytest.raises(ValueError, match="none below 0"):
        shares(1, -1, 1)
    with pytest.raises(ValueError, match="one above"):
        shares(0, 0, 0)


def test_published_multipliers() -> None:
    one = STRATEGIES["efficientnet"].at(1.2 * 1.1**2 * 1.15**2)  # phi = 1
    assert (one.depth, one.width, one.resolution) == pytest.approx((1.2, 1.1, 1.15))
    # EfficientNet-B0 takes 224 pixels; the small models take 184, 152 and 106.
    sides = [224 * TINYNET[name].resolution for name in "CDE"]
    assert [int(side) // 2 * 2 for side in sides] == [184, 152, 106]


def test_rounding() -> None:
    assert [rounded(value, 8) for value in (1.0, 11.9, 12.0, 35.0)] == [8, 8, 16, 32]
    assert [rounded(value, 1) for value in (0.2, 1.5, 2.4)] == [1, 2, 2]
    assert rounded(224 * 0.825, 4) == 184


def test_counts_by_hand() -> None:
    found = complexity(Shape(32, (Stage(1, 8), Stage(2, 16, stride=2)), channels=3, kernel=3))
    weights = (9 * 3 * 8, 9 * 8 * 16, 9 * 16 * 16)
    assert found.params == sum(weights)
    assert found.flops == 2 * (weights[0] * 16**2 + (weights[1] + weights[2]) * 8**2)
    assert found.activations == 8 * 16**2 + 2 * 16 * 8**2
    grouped = complexity(Shape(32, (Stage(1, 16, stride=1, group=4),), channels=16))
    assert grouped.params == 9 * 4 * 16


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_counts_grow_as_the_strategy_says(name: str) -> None:
    base = Shape(256, (Stage(16, 512, stride=1),), channels=512)
    times, strategy = 16.0, STRATEGIES[name]
    grown = base.scaled(strategy.at(times))
    before, after = complexity(base), complexity(Shape(grown.resolution, grown.stages, grown.stages[0].width))
    assert after.flops / before.flops == pytest.approx(times, rel=0.05)
    assert after.params / before.params == pytest.approx(times**strategy.params, rel=0.05)
    assert after.activations / before.activations == pytest.approx(times**strategy.activations, rel=0.05)


def test_scaled_groups_divide_the_width() -> None:
    grown = Shape(64, (Stage(2, 64, group=16),)).scaled(Multipliers(width=1.7)).stages[0]
    assert grown.width == 112 and grown.group == 28
    smallest = Shape(64, (Stage(2, 64, group=16),)).scaled(Multipliers(0.01, 0.01, 0.01))
    assert smallest == Shape(4, (Stage(1, 8, group=1),))


def test_seconds_are_learned_and_never_negative() -> None:
    rng = np.random.default_rng(0)
    truth = Seconds(1e-3, 2e-9, 0.0)
    sizes = [complexity(one) for one in enumerate_shapes(BASE, (1, 2), (0.5, 1, 2), (0.5, 1))]
    found = fit_seconds([(one, truth(one) * float(np.exp(0.01 * rng.standard_normal()))) for one in sizes])
    assert found.per_activation == pytest.approx(truth.per_activation, rel=0.1)
    assert min(found.fixed, found.per_activation, found.per_flop) >= 0.0
    for one in sizes:
        assert found(one) == pytest.approx(truth(one), rel=0.05)
    with pytest.raises(ValueError, match="three shapes"):
        fit_seconds([(sizes[0], 1.0)])


def test_shapes_are_enumerated_once() -> None:
    shapes = list(enumerate_shapes(BASE, (1.0, 1.01), (1.0,), (1.0, 0.5)))
    assert shapes == [BASE, BASE.scaled(Multipliers(resolution=0.5))]


def test_ranking_keeps_within_caps_and_marks_the_best_for_their_time() -> None:
    shapes = list(enumerate_shapes(BASE, (0.5, 1.0, 2.0), (0.5, 1.0, 2.0), (0.5, 1.0)))
    seconds = Seconds(1e-3, 2e-9, 1e-12)

    def loss(shape: Shape, size: Complexity) -> float:
        return float(1.0 + size.params**-0.2 + 10.0 * shape.resolution**-1.0)

    caps = Caps(flops=complexity(BASE).flops, params=1e6, activations=1e6, seconds=4e-3)
    ranked = rank(shapes, caps, loss, seconds)
    sizes = [complexity(one) for one in shapes]
    fit = [
        one.flops <= caps.flops and one.params <= 1e6 and one.activations <= 1e6 and seconds(one) <= 4e-3
        for one in sizes
    ]
    assert 0 < sum(fit) < len(shapes) and len(ranked) == sum(fit)
    assert [one.loss for one in ranked] == sorted(one.loss for one in ranked)
    for one in ranked:
        rivals = [other for other in ranked if other.seconds <= one.seconds and other.loss < one.loss]
        assert one.best_for_time == (not rivals)
    assert len(rank(shapes, Caps(), loss)) == len(shapes)
    assert rank(shapes, Caps(), lambda *_: float("nan")) == []
