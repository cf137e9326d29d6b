"""Laws of more than parameters and tokens: published constants, recovery of known ones, closed forms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from scipy.optimize import least_squares, minimize_scalar
from scipy.special import logsumexp

from sweeps.laws import LAWS
from sweeps.laws.asymptotes import MEMBERS, data_efficiency, tokens_for, without_limit
from sweeps.laws.base import Array, Law, own
from sweeps.laws.chinchilla import CHINCHILLA
from sweeps.laws.experts import EFFECTIVE, PARTIAL, ROUTED, ROUTED_FLOOR, dense_params, saturated
from sweeps.laws.precision import (
    FEW_BITS,
    FLOATING_POINT,
    after_training,
    cheapest_bits,
    critical_tokens,
)
from sweeps.laws.precision import worth as worth_of_bits
from sweeps.laws.pruning import PRUNED_EXPONENTIAL, PRUNED_POWER, pool_for
from sweeps.laws.quantities import quantity
from sweeps.laws.saturation import SATURATION, SATURATION_FLOOR, compute_for, log_linear
from sweeps.laws.shape import GEMSTONES, WIDTH_DEPTH, best_width
from sweeps.laws.streams import STREAMS, streams_for, worth
from sweeps.laws.vocabulary import VOCABULARY, best_vocab_params

BASE = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 2000.0, "beta": 0.36}


def spread(seed: int, n: int = 160, **ranges: tuple[float, float]) -> dict[str, Array]:
    """Columns spread evenly in logarithms."""
    rng = np.random.default_rng(seed)
    return {name: np.exp(rng.uniform(np.log(low), np.log(high), n)) for name, (low, high) in ranges.items()}


def refit(law: Law, columns: Mapping[str, Array], loss: Array) -> dict[str, float]:
    """Plain least squares of ln L from the law's own starts."""
    centre = {"loss": float(np.mean(np.log(loss)))}
    for name in law.columns:
        like = quantity(name).like
        base = columns[like if like in columns else name]
        centre[name] = float(np.mean(np.log(base))) if quantity(name).centred else 0.0
    x = {name: np.log(columns[name]) - centre[name] for name in law.columns}
    x |= {own(name): np.log(columns[name]) for name in law.columns}
    y = np.log(loss) - centre["loss"]
    tries = [
        least_squares(
            lambda theta: law.evaluate(theta, x)[0] - y,
            start,
            jac=lambda theta: law.evaluate(theta, x)[1],
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
            max_nfev=3000,
        )
        for start in law.start(x, np.exp(y), np.ones(len(y)))[:3]
    ]
    best = min(tries, key=lambda one: float(one.cost))
    return {name: float(value) for name, value in law.natural(best.x, centre).items()}


RUNS = {"params": (1e7, 3e9), "tokens": (1e9, 1e12)}
TWINS: tuple[tuple[Law, dict[str, float], dict[str, tuple[float, float]]], ...] = (
    (
        MEMBERS,
        {"E": 3.0, "A": 8e4, "alpha": 0.7, "B": 0.4, "b": 0.05, "kappa": 1.0},
        {"params": (1e7, 3e9), "members": (1.0, 8.0)},
    ),
    (
        PRUNED_POWER,
        {"E": 0.05, "B": 30.0, "beta": 0.4, "q": 0.6},
        {"tokens": (1e4, 1e6), "kept": (0.1, 1.0)},
    ),
    (
        PRUNED_EXPONENTIAL,
        {"E": 0.05, "B": 0.7, "S": 2e5, "q": 0.6},
        {"tokens": (1e4, 1e6), "kept": (0.1, 1.0)},
    ),
    (FEW_BITS, BASE | {"gamma": 2.5}, RUNS | {"bits": (2.0, 12.0)}),
    (
        FLOATING_POINT,
        BASE | {"g": 0.2, "delta": 2.0, "nu": 1.5},
        RUNS | {"exponent_bits": (1.0, 5.0), "mantissa_bits": (1.0, 7.0), "block": (2.0, 512.0)},
    ),
    (
        VOCABULARY,
        {"E": 1.5, "A_1": 300.0, "a_1": 0.33, "A_2": 60.0, "a_2": 0.3, "B": 2000.0, "beta": 0.36},
        RUNS | {"vocab_params": (1e6, 5e8)},
    ),
    (
        ROUTED,
        {"a": -0.08, "b": -0.12, "c": 0.004, "d": 2.5, "E_start": 2.0, "E_max": 400.0},
        {"params": (1e7, 1e9), "experts": (1.0, 512.0)},
    ),
    (
        EFFECTIVE,
        {"E_0": 1.6, "A": 50.0, "alpha": 0.21, "share": 0.4},
        {"params": (1e7, 1e9), "experts": (1.0, 512.0)},
    ),
    (
        PARTIAL,
        {"E_0": 1.6, "g": 40.0, "gamma": 0.2, "a": 15.0, "alpha": 0.21},
        {"params": (1e7, 1e9), "experts": (1.0, 512.0)},
    ),
    (SATURATION, {"a": 40.0, "b": 1e9, "c": 0.2}, {"flops": (1e8, 1e12)}),
    (SATURATION_FLOOR, {"a": 40.0, "b": 1e9, "c": 0.2, "d": 0.1}, {"flops": (1e8, 1e12)}),
)


@pytest.mark.parametrize(("law", "constants", "ranges"), TWINS, ids=[twin[0].name for twin in TWINS])
def test_a_law_recovers_its_constants(
    law: Law, constants: dict[str, float], ranges: dict[str, tuple[float, float]]
) -> None:
    columns = spread(0, **ranges)
    found = refit(law, columns, law.at(constants, columns))
    assert found == pytest.approx(constants, rel=1e-3)


def test_no_two_laws_share_a_name_and_all_are_registered() -> None:
    ours = {
        *(twin[0].name for twin in TWINS),
        *(law.name for law in (STREAMS, WIDTH_DEPTH, GEMSTONES, ROUTED_FLOOR)),
        "experts_fine_grained",
    }
    assert len(ours) == len(TWINS) + 5
    assert ours <= set(LAWS)


# ParScale's own fitting script, refitted on the losses in it (24 runs each; R^2 0.99783 and 0.99868).
STACK = {"E": 0.69129, "A": 0.0113072e9, "alpha": 0.189405, "k": 0.393427}
PILE = {"E": 1.28885, "A": 0.197279e9, "alpha": 0.196363, "k": 0.334431}


@pytest.mark.parametrize(
    ("constants", "first", "last"), [(STACK, 1.172818, 0.979679), (PILE, 2.110698, 1.778546)]
)
def test_published_constants_of_parallel_streams(
    constants: dict[str, float], first: float, last: float
) -> None:
    given = {"params": np.array([535813376.0, 4414502408.0]), "streams": np.array([1.0, 8.0])}
    np.testing.assert_allclose(STREAMS.at(constants, given), [first, last], atol=2e-6)
    billions = given["params"] / 1e9 * (constants["k"] * np.log(given["streams"]) + 1.0)
    same = constants["E"] + (constants["A"] / 1e9 / billions) ** constants["alpha"]
    np.testing.assert_allclose(STREAMS.at(constants, given), same, rtol=1e-12)
    sizes, streams = np.geomspace(5.4e8, 4.4e9, 6), np.array([1.0, 2.0, 4.0, 8.0])
    columns = {"params": np.tile(sizes, 4), "streams": np.repeat(streams, 6)}
    assert refit(STREAMS, columns, STREAMS.at(constants, columns)) == pytest.approx(constants, rel=1e-4)


def test_streams_are_worth_parameters() -> None:
    k = PILE["k"]
    bigger = STREAMS.at(PILE, {"params": 1e9 * worth(8.0, k), "streams": np.array([1.0])})
    np.testing.assert_allclose(
        STREAMS.at(PILE, {"params": np.array([1e9]), "streams": np.array([8.0])}), bigger
    )
    np.testing.assert_allclose(streams_for(worth(8.0, k), k), 8.0)


# Gemstones' fits, Huber's delta 1e-3, to runs beyond 100e9 tokens (GitHub: mcleish7/gemstone-scaling-laws).
GEMSTONES_EXPONENTS = (0.205281, 0.474142, 0.372096, 0.511648)
GEMSTONES_LEVELS = (1.073881, -0.209760, 6.217454, 10.904052)
GEMSTONES_FLOOR = 0.396640


def gemstones() -> dict[str, float]:
    found = {"E": float(np.exp(GEMSTONES_FLOOR))}
    columns = ("width", "depth", "params", "tokens")
    for name, level, slope in zip(columns, GEMSTONES_LEVELS, GEMSTONES_EXPONENTS, strict=True):
        found |= {f"C_{name}": float(np.exp(level)), f"e_{name}": slope}
    return found


def test_published_constants_of_width_and_depth() -> None:
    columns = spread(1, width=(256, 4096), depth=(3, 80), params=(5e7, 2e9), tokens=(1e10, 4e11))
    matrix = np.stack([columns[name] for name in ("width", "depth", "params", "tokens")])
    terms = np.array(GEMSTONES_LEVELS)[:, None] - np.array(GEMSTONES_EXPONENTS)[:, None] * np.log(matrix)
    log_loss = logsumexp(np.vstack([terms, np.full(matrix.shape[1], GEMSTONES_FLOOR)]), axis=0)
    np.testing.assert_allclose(GEMSTONES.at(gemstones(), columns), np.exp(log_loss), rtol=1e-12)
    plain = {
        "E": float(np.exp(0.668162)),
        "A": float(np.exp(4.900842)),
        "B": float(np.exp(12.850969)),
        "alpha": 0.259113,
        "beta": 0.597268,
    }
    one = {"width": 2048.0, "depth": 26.0, "params": 1.3e9, "tokens": 3.5e11}
    given = {name: np.array([value]) for name, value in one.items()}
    # Two laws of the same runs, so they nearly agree within them.
    assert GEMSTONES.at(gemstones(), given)[0] == pytest.approx(CHINCHILLA.at(plain, given)[0], rel=0.02)


def test_the_best_width_is_where_the_law_is_lowest() -> None:
    constants, params = gemstones(), 1e9
    found = float(best_width(constants, params))

    def loss(log_width: float) -> float:
        width = np.exp(np.array([log_width]))
        columns = {"width": width, "depth": params / (12.0 * width**2), "params": np.array([params])}
        return float(GEMSTONES.at(constants, columns | {"tokens": np.array([1e11])})[0])

    lowest = minimize_scalar(loss, bounds=(4.0, 11.0), method="bounded", options={"xatol": 1e-9})
    assert np.log(found) == pytest.approx(lowest.x, abs=1e-5)


def test_asymptotes_are_limits_of_the_law() -> None:
    constants = {"E": 3.0, "A": 8e4, "alpha": 0.7, "B": 0.4, "b": 0.05, "kappa": 1.0}

    def at(params: float, members: float) -> float:
        return float(MEMBERS.at(constants, {"params": np.array([params]), "members": np.array([members])})[0])

    assert float(without_limit(constants)) == constants["E"]
    assert float(without_limit(constants, params=3e8)) == pytest.approx(at(3e8, 1e12))
    assert float(without_limit(constants, params=3e8, members=4.0)) == pytest.approx(at(3e8, 4.0))
    assert float(without_limit(constants | {"b": 0.0}, members=1.0)) == pytest.approx(3.4)
    assert np.isinf(without_limit(constants | {"b": -0.1}, members=1.0))
    draws = constants | {"E": np.array([2.9, 3.0, 3.1])}
    np.testing.assert_allclose(without_limit(draws), [2.9, 3.0, 3.1])


def test_data_efficiency_is_a_ratio_of_tokens() -> None:
    better, reference = {"E": 1.9, "B": 400.0, "beta": 0.25}, {"E": 1.9, "B": 600.0, "beta": 0.25}
    np.testing.assert_allclose(data_efficiency(2e8, better, reference), 1.5**4)
    np.testing.assert_allclose(data_efficiency(2e8, better, better), 1.0)
    assert np.isinf(tokens_for(1.8, better))
    assert np.isinf(data_efficiency(1e30, better, reference | {"E": 2.0}))


@pytest.mark.parametrize("law", [PRUNED_POWER, PRUNED_EXPONENTIAL], ids=lambda law: law.name)
def test_the_pool_that_pruning_needs_gives_the_loss(law: Law) -> None:
    constants = {"E": 0.05, "B": 0.7, "S": 2e5, "q": 0.6}
    if law is PRUNED_POWER:
        constants = {"E": 0.05, "B": 30.0, "beta": 0.4, "q": 0.6}
    kept = np.array([0.1, 0.5, 1.0])
    pool = pool_for(0.2, kept, constants)
    np.testing.assert_allclose(law.at(constants, {"tokens": pool, "kept": kept}), 0.2)
    trained = pool * kept
    assert np.all(np.diff(trained) > 0) and np.all(np.diff(pool) < 0)
    assert np.isinf(pool_for(0.05, 1.0, constants))


def test_tokens_beyond_the_critical_ones_hurt_in_low_precision() -> None:
    constants = BASE | {"g": 0.2, "delta": 2.0, "nu": 1.5}
    critical = float(critical_tokens(constants, 1e9, 2.0, 1.0, 128.0))

    def at(tokens: float) -> float:
        fixed = {"params": 1e9, "exponent_bits": 2.0, "mantissa_bits": 1.0, "block": 128.0}
        columns = {name: np.array([value]) for name, value in (fixed | {"tokens": tokens}).items()}
        return float(FLOATING_POINT.at(constants, columns)[0])

    assert at(critical) < min(at(0.9 * critical), at(1.1 * critical))
    assert np.isinf(critical_tokens(constants, 1e9, 2.0, 1.0, 1.0))


def test_few_bits_count_for_fewer_parameters() -> None:
    constants = BASE | {"gamma": 2.5}
    columns = {"params": np.array([1e9]), "tokens": np.array([1e11]), "bits": np.array([4.0])}
    effective = {"params": 1e9 * worth_of_bits(4.0, 2.5), "tokens": np.array([1e11])}
    np.testing.assert_allclose(FEW_BITS.at(constants, columns), CHINCHILLA.at(BASE, effective))
    bits = float(cheapest_bits(2.5))
    per_bit = [float(worth_of_bits(b, 2.5, tensors=3)) / b for b in (0.95 * bits, bits, 1.05 * bits)]
    assert per_bit[1] == max(per_bit)
    with pytest.raises(ValueError, match="fewer than 2"):
        cheapest_bits(2.5, tensors=1)
    added = after_training({"C_T": 0.1, "g_D": 0.5, "g_N": 0.5, "g": 2.0}, 1e9, np.array([1e10, 4e10]), 4.0)
    assert added[1] == pytest.approx(2.0 * added[0])


def test_the_best_vocabulary_is_where_a_parameter_is_worth_the_same() -> None:
    constants = {"E": 1.5, "A_1": 300.0, "a_1": 0.33, "A_2": 60.0, "a_2": 0.3, "B": 2000.0, "beta": 0.36}
    best = float(best_vocab_params(constants, 1e9))
    total = 1e9 + best

    def loss(vocabulary: float) -> float:
        given = {"params": total - vocabulary, "vocab_params": vocabulary, "tokens": 1e11}
        return float(VOCABULARY.at(constants, {name: np.array([value]) for name, value in given.items()})[0])

    assert loss(best) < min(loss(0.99 * best), loss(1.01 * best))
    grown = float(best_vocab_params(constants, 1e10))
    assert np.log10(grown / best) == pytest.approx(1.33 / 1.3)


def test_experts_saturate_at_both_ends() -> None:
    start, most = 2.0, 199.0
    assert saturated(1.0, start, most) == pytest.approx(start)
    assert saturated(1e9, start, most) == pytest.approx(400.0, rel=1e-5)
    assert np.all(np.diff(saturated(np.arange(1.0, 600.0), start, most)) > 0)


def test_a_mixture_equals_a_dense_model_of_its_effective_parameters() -> None:
    routed = {"a": -0.08, "b": -0.12, "c": 0.004, "d": 2.5, "E_start": 2.0, "E_max": 400.0}
    effective = {"E_0": 1.6, "A": 50.0, "alpha": 0.21, "share": 0.4}
    experts = np.array([1.0, 8.0, 128.0])
    for law, constants in ((ROUTED, routed), (EFFECTIVE, effective)):
        dense = dense_params(constants, 1e8, experts)
        mixture = law.at(constants, {"params": np.full(3, 1e8), "experts": experts})
        np.testing.assert_allclose(law.at(constants, {"params": dense, "experts": np.ones(3)}), mixture)
        assert dense[0] == pytest.approx(1e8) and np.all(np.diff(dense) > 0)


@pytest.mark.parametrize("law", [SATURATION, SATURATION_FLOOR], ids=lambda law: law.name)
def test_compute_for_an_error_gives_the_error(law: Law) -> None:
    constants = {"a": 40.0, "b": 1e9, "c": 0.2} | ({"d": 0.1} if law is SATURATION_FLOOR else {})
    errors = np.array([0.2, 0.4])
    np.testing.assert_allclose(law.at(constants, {"flops": compute_for(errors, constants)}), errors)
    assert float(compute_for(0.99, constants)) == 0.0
    assert np.isinf(compute_for(0.05, {**constants, "d": 0.1}))


def test_two_points_make_a_line_in_the_logarithm() -> None:
    line = log_linear(np.array([1e6, 1e7, 1e8]), (1e6, 1e7), (3.0, 2.6))
    np.testing.assert_allclose(line, [3.0, 2.6, 2.2])
    draws = log_linear(1e8, (1e6, 1e7), (np.array([3.0, 3.1]), np.array([2.6, 2.6])))
    np.testing.assert_allclose(draws, [2.2, 2.1])
    with pytest.raises(ValueError, match="differ"):
        log_linear(1e8, (1e6, 1e6), (3.0, 3.0))
