"""Prices of members of stacks, memory, and how many runs should train together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sweeps.cost import Cost, SecondsModel, Timing, fit_seconds
from sweeps.data import DIGITS
from sweeps.kinds.mlp import MLP
from sweeps.peak import BYTES, fit_memory
from sweeps.proxy import Proxy
from sweeps.stacks import learn_durations, learn_stacks, on_gpu

HERE, THERE, GPU = "CPU here", "CPU there", "Accelerator"
ALONE = SecondsModel(2e-4, 5e-9, 2e-11, 0.0, 0, per_layer=5e-5, per_parameter=2e-9)
TOGETHER = replace(ALONE, per_step=6e-4, per_layer=1e-4, per_flop=4e-11, per_parameter=6e-9)
SHAPES = [(w, d, b) for w in (8.0, 32.0, 128.0) for d in (1.0, 3.0) for b in (16.0, 64.0)]


def cost(width: float, depth: float, batch: float) -> Cost:
    shape = {"width": width, "depth": depth, "batch": batch, "resolution": 8.0, "tokens": 1000 * batch}
    return Cost(**{k: float(v) for k, v in MLP.cost(shape, Proxy("mlp", "digits"), DIGITS).items()})


def timings(sizes: tuple[int, ...] = (1, 4, 16), noise: float = 0.0, device: str = HERE) -> list[Timing]:
    rng = np.random.default_rng(0)
    return [
        Timing(
            one,
            (ALONE if n == 1 else TOGETHER)(one, n) * float(np.exp(noise * rng.standard_normal())),
            "mlp",
            n,
            n * 1.1 * one.memory,
            device,
        )
        for one in (cost(*shape) for shape in SHAPES)
        for n in sizes
    ]


def test_members_share_what_a_step_costs_whatever_its_size() -> None:
    one = cost(32.0, 2.0, 16.0)
    fixed = TOGETHER.per_step + 2 * TOGETHER.per_layer
    assert TOGETHER(one) - TOGETHER(one, 4) == pytest.approx(0.75 * fixed * one.steps)


def test_prices_of_stacks_are_learnt() -> None:
    learnt = fit_seconds([one for one in timings() if one.members > 1])
    assert learnt is not None and learnt.error < 1e-3
    for shape in ((16.0, 2.0, 32.0), (256.0, 4.0, 64.0)):
        assert learnt(cost(*shape), 8) == pytest.approx(TOGETHER(cost(*shape), 8), rel=1e-3)


def test_the_error_is_that_of_timings_left_out() -> None:
    few = [one for one in timings(noise=0.2) if one.members == 1][:7]
    learnt = fit_seconds(few)
    assert learnt is not None
    inside = np.sqrt(np.mean([(learnt(one.cost) / one.seconds - 1.0) ** 2 for one in few]))
    assert learnt.error > inside
    errors = []
    for left_out in few:
        known = fit_seconds([one for one in few if one is not left_out])
        assert known is not None
        errors.append(known(left_out.cost) / left_out.seconds - 1.0)
    assert learnt.error == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_a_kind_with_few_timings_takes_the_prices_of_others_to_scale() -> None:
    others = [one for one in timings() if one.members == 1]
    new = [replace(others[at], kind="new", seconds=3 * others[at].seconds) for at in (0, 7)]
    learnt = fit_seconds(new, others)
    assert learnt is not None and learnt.timings == 2
    far = cost(256.0, 4.0, 64.0)
    pooled, alone = fit_seconds(others), fit_seconds(new)
    assert pooled is not None and alone is not None
    assert pooled(far) < learnt(far) < 3.5 * pooled(far)
    only = fit_seconds([], others)
    assert only is not None and only(far) == pytest.approx(pooled(far))


def test_kinds_and_devices_have_prices_of_their_own() -> None:
    alone = [one for one in timings() if one.members == 1]
    slow = [replace(one, kind="vit", seconds=5 * one.seconds) for one in alone]
    older = [replace(one, device=THERE, seconds=9 * one.seconds) for one in alone]
    gpu = [replace(one, device=GPU, seconds=one.seconds / 10) for one in alone]
    every = [*alone, *slow, *older, *gpu, *(one for one in timings() if one.members > 1)]
    far = cost(256.0, 4.0, 64.0)
    found = {(k, g): learn_durations(every, every, k, g) for k in ("mlp", "vit") for g in (False, True)}
    assert all(found.values())
    told = {key: known.alone(far) / ALONE(far) for key, known in found.items() if known is not None}
    assert told[("mlp", False)] == pytest.approx(1.0, rel=1e-3)
    assert told[("vit", False)] == pytest.approx(5.0, rel=1e-3)
    assert told[("mlp", True)] == told[("vit", True)] == pytest.approx(0.1, rel=1e-3)
    assert {key for key, known in found.items() if known and known.stacks} == {("mlp", False)}
    assert learn_durations(alone, [], "mlp", gpu=True) is None
    unknown = [replace(one, device=None) for one in alone]
    assert learn_durations(unknown, [], "mlp", gpu=False) is not None
    assert on_gpu(GPU) and not on_gpu(HERE)


def test_small_runs_are_stacked_and_large_ones_are_not() -> None:
    stacks = learn_stacks(timings(), "mlp", HERE)
    assert stacks is not None
    small, large = cost(8.0, 1.0, 16.0), cost(128.0, 3.0, 64.0)
    assert float(stacks.gain(vars(small), 16)) > 3.0
    assert stacks.members(small, 1e9) == 16
    assert stacks.members(large, 1e9) == 1
    assert stacks.members(cost(512.0, 4.0, 256.0), 1e12) == 1  # far beyond what was timed
    assert learn_stacks(timings((1,)), "mlp", HERE) is None
    assert learn_stacks(timings(), "gpt", HERE) is None
    assert learn_stacks(timings(), "mlp", THERE) is None


def test_another_member_costs_less_than_a_run_alone() -> None:
    """What a stack takes is about what its first member takes and what the others add."""
    stacks = learn_stacks(timings(), "mlp", HERE)
    assert stacks is not None
    one = cost(8.0, 1.0, 16.0)
    added = float(stacks.joining(vars(one)))
    assert 0.0 < added < 1.0
    stack = 16 * stacks.together(one, 16)
    fixed = stack - 16 * added * stacks.alone(one)
    assert fixed == pytest.approx((TOGETHER.per_step + TOGETHER.per_layer) * one.steps, rel=1e-3)
    many = [cost(*shape) for shape in SHAPES]
    columns = {name: np.array([vars(each)[name] for each in many]) for name in vars(one)}
    assert [*stacks.most(columns)] == [stacks.members(each, 1e12) for each in many]
    assert stacks.joining(columns) == pytest.approx([float(stacks.joining(vars(each))) for each in many])


def test_a_gain_within_its_own_error_stacks_nothing() -> None:
    stacks = learn_stacks(timings(), "mlp", HERE)
    assert stacks is not None
    small = cost(8.0, 1.0, 16.0)
    doubtful = replace(stacks, together=replace(stacks.together, error=float(stacks.gain(vars(small), 16))))
    assert doubtful.members(small, 1e9) == 1


def test_sizes_that_are_as_good_leave_most_to_others() -> None:
    stacks = learn_stacks(timings((1, 4, 16, 64)), "mlp", HERE)
    assert stacks is not None
    small = cost(8.0, 1.0, 16.0)
    assert stacks.members(small, 1e9) == 64
    rough = replace(stacks, together=replace(stacks.together, error=2.0))
    assert rough.members(small, 1e9) < 64


def test_memory_limits_a_stack() -> None:
    stacks = learn_stacks(timings(), "mlp", HERE)
    assert stacks is not None
    small = cost(8.0, 1.0, 16.0)
    one = stacks.peaks(small)
    assert one == pytest.approx(1.1 * small.memory, rel=0.02)
    assert int(stacks.peaks.fits(vars(small), 10 * one)) == 9
    assert stacks.members(small, 10 * one) == 4
    assert stacks.members(small, 4 * one) == 1


def test_memory_is_as_counted_where_too_little_was_measured() -> None:
    one = cost(32.0, 2.0, 16.0)
    assert fit_memory([], stacked=False)(one) == pytest.approx(one.memory)
    assert fit_memory(timings()[:2], stacked=True)(one, 3) == pytest.approx(
        3 * (one.memory + BYTES * one.params_total)
    )
    unmeasured = [replace(one, memory=None) for one in timings()]
    assert fit_memory(unmeasured, stacked=False).peaks == 0
