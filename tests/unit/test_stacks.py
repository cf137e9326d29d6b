"""Prices of members of stacks, memory, and how many runs should train together."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.cost import Cost, SecondsModel, Timing, fit_seconds
from sweeps.data import DIGITS
from sweeps.kinds.mlp import MLP
from sweeps.peak import BYTES, Room, fit_memory, fit_stacked_memory
from sweeps.proxy import Proxy
from sweeps.stacks import ALONE, Packing, Stacks, learn_durations, learn_stacks, on_gpu

HERE, THERE, GPU = "CPU here", "CPU there", "Accelerator"
ALONE_PRICES = SecondsModel(2e-4, 5e-9, 2e-11, 0.0, 0, per_layer=5e-5, per_parameter=2e-9)
TOGETHER = replace(ALONE_PRICES, per_step=6e-4, per_layer=1e-4, per_flop=4e-11, per_parameter=6e-9)
SHAPES = [(w, d, b) for w in (8.0, 32.0, 128.0) for d in (1.0, 3.0) for b in (16.0, 64.0)]


def cost(width: float, depth: float, batch: float) -> Cost:
    shape = {"width": width, "depth": depth, "batch": batch, "resolution": 8.0, "tokens": 1000 * batch}
    return Cost(**{k: float(v) for k, v in MLP.cost(shape, Proxy("mlp", "digits"), DIGITS).items()})


def timings(sizes: tuple[int, ...] = (1, 4, 16), noise: float = 0.0, device: str = HERE) -> list[Timing]:
    rng = np.random.default_rng(0)
    return [
        Timing(
            one,
            (ALONE_PRICES if n == 1 else TOGETHER)(one, n) * float(np.exp(noise * rng.standard_normal())),
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
    told = {key: known.alone(far) / ALONE_PRICES(far) for key, known in found.items() if known is not None}
    assert told[("mlp", False)] == pytest.approx(1.0, rel=1e-3)
    assert told[("vit", False)] == pytest.approx(5.0, rel=1e-3)
    assert told[("mlp", True)] == told[("vit", True)] == pytest.approx(0.1, rel=1e-3)
    assert {key for key, known in found.items() if known and known.stacks and known.stacks.sizes} == {
        ("mlp", False)
    }
    assert learn_durations(alone, [], "mlp", gpu=True) is None
    unknown = [replace(one, device=None) for one in alone]
    assert learn_durations(unknown, [], "mlp", gpu=False) is not None
    assert on_gpu(GPU) and not on_gpu(HERE)


def test_small_runs_are_stacked_and_large_ones_are_not() -> None:
    stacks = learn_stacks(timings(), "mlp", HERE)
    assert stacks is not None
    small, large = cost(8.0, 1.0, 16.0), cost(128.0, 3.0, 64.0)
    assert float(stacks.gain(vars(small), Packing(16))) > 3.0
    assert stacks.pack(small, Room(1e9)).members == 16
    assert stacks.pack(large, Room(1e9)).members == 1
    assert stacks.pack(cost(512.0, 4.0, 256.0), Room(1e12)).members == 1  # far beyond what was timed
    only = learn_stacks(timings((1,)), "mlp", HERE)
    assert only is not None and only.pack(small, Room(1e9)) == ALONE
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
    assert [*stacks.most(columns)] == [stacks.pack(each, Room(1e15)).members for each in many]
    assert stacks.joining(columns) == pytest.approx([float(stacks.joining(vars(each))) for each in many])


def test_a_gain_within_its_own_error_stacks_nothing() -> None:
    stacks = learn_stacks(timings(), "mlp", HERE)
    assert stacks is not None
    small = cost(8.0, 1.0, 16.0)
    gain = float(stacks.gain(vars(small), Packing(16)))
    doubtful = replace(stacks, together=replace(stacks.together, error=gain))
    assert doubtful.pack(small, Room(1e9)).members == 1


def test_sizes_that_are_as_good_leave_most_to_others() -> None:
    stacks = learn_stacks(timings((1, 4, 16, 64)), "mlp", HERE)
    assert stacks is not None
    small = cost(8.0, 1.0, 16.0)
    assert stacks.pack(small, Room(1e9)).members == 64
    rough = replace(stacks, together=replace(stacks.together, error=2.0))
    assert rough.pack(small, Room(1e9)).members < 64


def test_memory_limits_a_stack() -> None:
    stacks = learn_stacks(timings(), "mlp", HERE)
    assert stacks is not None
    small = cost(8.0, 1.0, 16.0)
    one = stacks.peaks(small)
    assert one == pytest.approx(1.1 * small.memory, rel=0.02)
    assert stacks.peaks.fits(vars(small), 9.01 * one) == pytest.approx(9.01, rel=0.02)
    assert stacks.pack(small, Room(10 * one)).members == 4
    assert stacks.pack(small, Room(4 * one)).members == 1


def test_memory_is_as_counted_where_too_little_was_measured() -> None:
    one = cost(32.0, 2.0, 16.0)
    assert fit_memory([])(one) == pytest.approx(one.memory)
    uncounted = fit_stacked_memory(fit_memory([]), [], [])
    assert uncounted(one, 3) == pytest.approx(3 * (one.memory + BYTES * one.params_total))
    unmeasured = [replace(one, memory=None) for one in timings()]
    assert fit_memory(unmeasured).peaks == 0
    assert fit_stacked_memory(fit_memory([]), unmeasured, unmeasured) == uncounted


def test_memory_of_a_stack_is_that_of_runs_times_what_their_shapes_take_more() -> None:
    """One shape in a stack is enough; how often it was measured does not matter."""
    alone = [one for one in timings() if one.members == 1]
    more = [
        replace(one, members=n, memory=1.3 * n * (one.memory or 0.0)) for one in alone[:1] for n in (4, 16)
    ]
    model = fit_memory(alone)
    stacked = fit_stacked_memory(model, alone, more)
    new = cost(48.0, 2.0, 24.0)
    assert stacked(new, 8) == pytest.approx(8 * 1.3 * model(new), rel=1e-6)
    assert stacked.peaks == 1 and stacked.error == pytest.approx(model.error)
    worse = [replace(one, members=4, memory=2.6 * 4 * (one.memory or 0.0)) for one in alone[1:2]]
    both = fit_stacked_memory(model, alone, more + worse)
    assert both(new) == pytest.approx(1.3 * 2**0.5 * model(new), rel=1e-6)
    assert both.error == pytest.approx(math.hypot(model.error, math.log(2) / 2))


def prices_alone(timings: list[Timing], kind: str, gpu: bool) -> SecondsModel | None:
    found = learn_durations(timings, [], kind, gpu)
    return None if found is None else found.alone


def known_of(error: float = 0.0, runs: list[Timing] | None = None) -> Stacks:
    """A GPU whose stacks are slow, so that sharing it is what may pay."""
    one_by_one = [replace(one, device=GPU) for one in timings((1,))]
    slow = [replace(one, device=GPU, seconds=50 * one.seconds) for one in timings((4,))]
    found = learn_stacks(one_by_one + slow, "mlp", GPU, runs or [])
    assert found is not None
    return replace(found, peak=replace(found.peak, error=error))


@given(
    memory=st.floats(1e5, 1e10),
    base=st.floats(1e3, 1e9),
    error=st.floats(0, 1),
    width=st.sampled_from([8.0, 64.0]),
)
def test_what_shares_a_gpu_fits_into_it(memory: float, base: float, error: float, width: float) -> None:
    stacks, one = known_of(error), cost(width, 1.0, 16.0)
    counts = (1, 2, 4, 8, 16)
    found = stacks.pack(one, Room(memory, base), counts)
    needed = base + (1.0 + error) * stacks.peak(one)
    assert found == ALONE or found.sharers * needed <= memory * (1 + 1e-9)
    doubt = replace(
        stacks, alone=replace(stacks.alone, error=2 * float(stacks.gain(vars(one), Packing(1, 16))))
    )
    assert doubt.pack(one, Room(memory, base), counts) == ALONE


def test_sharing_pays_as_long_as_most_of_a_step_does_not_grow() -> None:
    stacks, room = known_of(), Room(1e12, 1e6)
    small, large = cost(8.0, 1.0, 16.0), cost(128.0, 3.0, 64.0)
    assert float(stacks.gain(vars(small), Packing(1, 4))) > 2.5
    assert stacks.pack(small, room, (1, 2, 4)) == Packing(1, 4)
    assert stacks.pack(small, room) == ALONE
    assert float(stacks.gain(vars(large), Packing(1, 4))) < float(stacks.gain(vars(small), Packing(1, 4)))
    assert stacks.pack(cost(1024.0, 8.0, 256.0), room, (1, 2, 4)) == ALONE  # far beyond what was measured
    assert stacks.pack(small, Room(1e12), (1, 2, 4)) == ALONE  # nobody measured the process
    unmeasured = replace(stacks, peak=fit_memory([]))
    assert unmeasured.pack(small, room, (1, 2, 4)) == ALONE


def test_runs_teach_how_much_sharing_slows_them_down() -> None:
    small = cost(8.0, 1.0, 16.0)
    alone = [replace(one, device=GPU, seconds=2 * one.seconds) for one in timings((1,))]  # they also evaluate
    shared = [replace(one, sharers=4, seconds=3 * ALONE_PRICES(one.cost, 4)) for one in alone]
    assert known_of(runs=alone + shared).slowdown == pytest.approx(1.5, rel=1e-3)
    assert known_of(runs=shared).slowdown == 1.0  # nothing to compare them with
    useless = [replace(one, seconds=4 * one.seconds) for one in shared]
    assert known_of(runs=alone + useless).pack(small, Room(1e12, 1e6), (1, 2, 4)) == ALONE
    mixed = prices_alone([*alone, *useless], "mlp", gpu=True)
    assert mixed is not None and mixed(small) == pytest.approx(2 * ALONE_PRICES(small), rel=1e-3)


def test_code_of_ones_own_learns_from_its_own_runs_alone() -> None:
    """The expressions for its costs are wrong by a hundred, and count neither activations nor memory."""
    name, other = "module mylab.net:build", "module mylab.net:other"
    known = timings((1,))
    runs = [
        replace(
            one,
            kind=name,
            device=GPU,
            cost=replace(one.cost, flops=100 * one.cost.flops, activations=0.0, memory=0.0, layers=1.0),
            memory=16 * one.cost.params_total + 0.01 * one.cost.flops / one.cost.steps,
        )
        for one in known
    ]
    first, far = runs[0].cost, runs[-1].cost
    own = prices_alone([*runs, *known], name, gpu=True)
    assert own is not None and own.timings == len(runs)
    assert own(far) == pytest.approx(runs[-1].seconds, rel=0.5)
    assert prices_alone([*runs, *known], other, gpu=True) is None  # whatever else ran there
    with_others, without = (prices_alone(of, "mlp", gpu=False) for of in ([*runs, *known], known))
    assert with_others == without
    gpt = prices_alone([*runs, *(replace(one, device=GPU) for one in known)], "gpt", gpu=True)
    assert gpt is not None and gpt(known[0].cost) == pytest.approx(known[0].seconds, rel=1e-3)
    stacks = learn_stacks(known, name, GPU, runs)
    assert stacks is not None and stacks.peak.peaks == len(runs)
    assert stacks.peak(first) == pytest.approx(runs[0].memory, rel=1e-6)
    assert stacks.pack(first, Room(1e12, 1e6)) == ALONE  # its stacks were never timed
    assert learn_stacks(known, other, GPU, runs) is None
