from __future__ import annotations

from dataclasses import asdict, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.cost import Cost, SecondsModel, Timing, fit_seconds
from sweeps.data import STDLIB
from sweeps.kinds.gpt import GPT
from sweeps.kinds.transformer import heads
from sweeps.proxy import Proxy

SHAPES = st.fixed_dictionaries(
    {
        "width": st.integers(2, 200).map(lambda half: 2.0 * half),
        "depth": st.integers(1, 12).map(float),
        "resolution": st.integers(8, 256).map(float),
        "tokens": st.integers(10**4, 10**8).map(float),
        "batch": st.integers(1, 64).map(float),
    }
)


def cost(shape: dict[str, float], head_count: int | None = None) -> Cost:
    return Cost(
        **{name: float(value) for name, value in GPT.cost(shape, Proxy(heads=head_count), STDLIB).items()}
    )


@given(SHAPES)
def test_groups_of_parameters_sum_to_the_total(shape: dict[str, float]) -> None:
    one = cost(shape)
    assert one.params_embedding + one.params_body + one.params_head == one.params_total
    assert one.params_active == one.params_total - one.params_embedding
    assert all(value > 0 for value in asdict(one).values())


@given(SHAPES, st.sampled_from(["width", "depth", "resolution", "batch"]))
def test_a_larger_shape_never_needs_less_memory(shape: dict[str, float], axis: str) -> None:
    larger = shape | {axis: 2 * shape[axis]}
    assert cost(larger, 1).memory >= cost(shape, 1).memory
    assert cost(larger, 1).params_total >= cost(shape, 1).params_total


@given(SHAPES)
def test_whole_steps_see_nearly_the_tokens_asked_for(shape: dict[str, float]) -> None:
    one = cost(shape)
    a_step = shape["batch"] * shape["resolution"]
    assert one.steps == round(one.steps) >= 1
    assert one.tokens_seen == one.steps * a_step
    assert one.steps == 1 or abs(one.tokens_seen - shape["tokens"]) <= a_step / 2


@given(SHAPES)
def test_training_flops_count_every_matrix_product_three_times(shape: dict[str, float]) -> None:
    one = cost(shape)
    attention = 4 * shape["depth"] * shape["resolution"] * shape["width"]
    assert one.flops == pytest.approx(3 * (2 * one.params_active + attention) * one.tokens_seen)
    assert one.flops_6nd == pytest.approx(6 * one.params_total * one.tokens_seen)


def test_columns_cost_what_their_rows_cost() -> None:
    columns = {
        "width": np.array([8.0, 32.0, 96.0]),
        "depth": np.array([1.0, 2.0, 4.0]),
        "resolution": np.array([64.0]),
        "tokens": np.array([1e5, 1e6, 1e6]),
        "batch": np.array([8.0, 16.0, 32.0]),
    }
    table = GPT.cost(columns, Proxy(), STDLIB)
    for row in range(3):
        shape = {name: float(np.broadcast_to(column, 3)[row]) for name, column in columns.items()}
        alone = cost(shape)
        for field in fields(Cost):
            assert np.broadcast_to(table[field.name], 3)[row] == getattr(alone, field.name)


@given(st.integers(2, 4096).map(lambda half: 2 * half))
def test_heads_divide_the_width_into_even_parts(width: int) -> None:
    count = heads(width)
    assert width % count == 0
    assert (width // count) % 2 == 0
    assert count == 1 or width // count >= 16


def test_stated_heads_stand() -> None:
    assert heads(64, 2) == 2
    assert heads(64) == 4


MODELS = st.builds(
    SecondsModel,
    per_step=st.floats(1e-4, 1e-2),
    per_activation=st.floats(1e-10, 1e-8),
    per_flop=st.floats(1e-12, 1e-10),
    error=st.just(0.0),
    timings=st.just(0),
)


@given(MODELS)
def test_prices_are_learnt_from_timings_that_follow_them(model: SecondsModel) -> None:
    shapes = [
        {"width": width, "depth": depth, "resolution": 64.0, "tokens": tokens, "batch": batch}
        for width in (8.0, 64.0, 128.0)
        for depth in (1.0, 4.0)
        for tokens in (1e5, 1e6)
        for batch in (8.0, 32.0)
    ]
    costs = [cost(shape) for shape in shapes]
    learnt = fit_seconds([Timing(one, model(one)) for one in costs])
    assert learnt is not None
    assert learnt.timings == len(costs)
    assert learnt.error < 1e-6
    for one in costs:
        assert learnt(one) == pytest.approx(model(one), rel=1e-4)


def test_one_timing_prices_runs_like_it_and_none_prices_nothing() -> None:
    one = cost({"width": 16.0, "depth": 2.0, "resolution": 64.0, "tokens": 1e5, "batch": 8.0})
    assert fit_seconds([]) is None
    assert fit_seconds([Timing(one, 0.0)]) is None
    learnt = fit_seconds([Timing(one, 3.0)])
    assert learnt is not None
    assert learnt(one) == pytest.approx(3.0)
    assert min(learnt.per_step, learnt.per_activation, learnt.per_flop) >= 0


def test_timings_that_are_alike_teach_too() -> None:
    one = cost({"width": 16.0, "depth": 2.0, "resolution": 64.0, "tokens": 1e5, "batch": 8.0})
    learnt = fit_seconds([Timing(one, 3.0)] * 2)
    assert learnt is not None
    assert learnt(one) == pytest.approx(3.0)
    assert learnt.error == pytest.approx(0.0, abs=1e-9)
