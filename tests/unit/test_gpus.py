"""Which workers fit on which GPUs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sweeps.resources import Resources
from workers.gpus import fits

WHOLE = Resources(gpus=1.0)
SHARES = [WHOLE.shared(count) for count in (1, 2, 4, 8)]


def test_shares_are_what_ray_can_count() -> None:
    assert [one.gpus for one in SHARES] == [1.0, 0.5, 0.25, 0.125]
    third = Resources(gpus=1.0, sharing="measured").shared(3)
    assert third == Resources(gpus=0.3333) and third.sharers == 3 and third.undivided == WHOLE
    assert Resources().undivided == Resources() and Resources().sharers == 1
    assert Resources(gpus=4.0, processes=4).shared(1) == Resources(gpus=4.0, processes=4)


@given(
    asked=st.sampled_from(SHARES),
    placed=st.lists(st.tuples(st.sampled_from(SHARES), st.integers(0, 3), st.booleans()), max_size=12),
)
def test_what_is_said_to_fit_has_a_gpu_with_room(
    asked: Resources, placed: list[tuple[Resources, int, bool]]
) -> None:
    free = [1.0] * 4
    held: list[tuple[Resources, str | None]] = []
    for resources, gpu, known in placed:
        if free[gpu] >= resources.gpus:
            free[gpu] -= resources.gpus
            held.append((resources, str(gpu) if known else None))
    if all(one.gpus in (asked.gpus, 1.0) for one, _ in held):
        assert fits(asked, held, 4.0)  # as far as the sum goes
    elif all(place is not None for _, place in held):
        assert fits(asked, held, 4.0) == (max(free) >= asked.gpus)
    else:
        assert not fits(asked, held, 4.0) or max(free) >= asked.gpus


def test_equal_shares_need_no_places() -> None:
    half, quarter = WHOLE.shared(2), WHOLE.shared(4)
    assert fits(half, [(half, None), (WHOLE, None)], 2.0)
    assert not fits(half, [(quarter, None), (quarter, None), (WHOLE, "a")], 2.0)
    assert fits(half, [(quarter, "b"), (quarter, "b"), (WHOLE, "a")], 2.0)
    assert fits(Resources(), [(WHOLE, None)], 1.0)
    assert not fits(half, [(WHOLE, None), (half, "a"), (quarter, None)], 2.0)  # which may lie on a
    pair = Resources(gpus=2.0, processes=2)
    assert fits(WHOLE, [(pair, None), (half, "a")], 4.0)
    assert not fits(WHOLE, [(pair, None), (half, "a")], 3.0)
