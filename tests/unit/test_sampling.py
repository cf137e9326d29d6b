"""Batches are a function of seed and step, whoever trains beside a run."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.sampling import BLOCK, Sampler

CPU = torch.device("cpu")


@given(st.integers(0, 2**31), st.integers(0, 2**20), st.integers(1, 9), st.integers(1, 2**40))
def test_places_are_a_function_of_seed_and_step(seed: int, step: int, batch: int, places: int) -> None:
    drawn = Sampler(places, [seed], batch, CPU)(step)
    assert drawn.shape == (1, batch)
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < places
    beside = Sampler(places, [seed + 1, seed], batch, CPU)
    beside(max(0, step - BLOCK))
    assert torch.equal(beside(step)[1], drawn[0])


def test_other_steps_and_seeds_draw_other_places() -> None:
    sampler = Sampler(10**6, [0, 1], 4, CPU)
    drawn = [tuple(row.tolist()) for step in (0, 1, BLOCK) for row in sampler(step)]
    assert len(set(drawn)) == len(drawn)


def test_those_that_stay_draw_what_they_would_have() -> None:
    every, kept = Sampler(1000, [5, 6, 7], 3, CPU), Sampler(1000, [5, 6, 7], 3, CPU)
    kept(0)
    kept.keep([2, 0])
    assert torch.equal(kept(1), every(1)[[2, 0]])
