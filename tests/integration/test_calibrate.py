"""Calibration times real steps, and the price model learns from them."""

from __future__ import annotations

import torch

from sweeps.cost import fit_seconds
from sweeps.spec import Resources
from workers.calibrate import SHAPES, calibrate


def test_calibration_describes_the_steps_it_timed() -> None:
    threads = torch.get_num_threads()
    timings = calibrate(Resources(), 0.2)
    assert torch.get_num_threads() == threads
    assert len(timings) == len(SHAPES)
    assert all(timing.seconds > 0 and timing.cost.steps >= 1 for timing in timings)
    for timing, (width, depth, batch) in zip(timings, SHAPES, strict=True):
        assert timing.cost.params_body == 12 * depth * width**2
        assert timing.cost.tokens_seen == timing.cost.steps * batch * 64
    model = fit_seconds(timings)
    assert model is not None
    assert model(timings[-1].cost) > 0
