"""Calibration times real steps of every kind, and the models of seconds and memory learn from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sweeps.cost import fit_seconds
from sweeps.kinds import BUILT_IN
from sweeps.peak import fit_memory
from sweeps.resources import Resources
from workers import calibrate as calibration
from workers.calibrate import DATA, SHAPES, Shape, calibrate, grown

FEW = {
    "mlp": (Shape(8, 2, 16, (1, 3)), Shape(16, 1, 32), Shape(32, 2, 16)),
    "convnet": (Shape(4, 1, 8, (1, 2)),),
    "vit": (Shape(8, 1, 8, (1, 2)),),
    "gpt": (Shape(8, 1, 4, (1, 2)),),
}


def test_every_kind_is_calibrated_alone_and_stacked() -> None:
    assert set(SHAPES) == set(DATA) == set(BUILT_IN)
    for shapes in SHAPES.values():
        assert sum(shape.members != (1,) for shape in shapes) >= 2
        assert all(shape.members[0] == 1 for shape in shapes)


@pytest.mark.parametrize("kind", BUILT_IN)
def test_calibration_describes_the_steps_it_timed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "SHAPES", FEW)
    threads = torch.get_num_threads()
    timings = calibrate(Resources(), kind, 0.1)
    assert torch.get_num_threads() == threads
    assert [one.members for one in timings] == [n for shape in FEW[kind] for n in shape.members]
    for one in timings:
        assert one.kind == kind and one.seconds > 0 and one.cost.steps >= 1
        assert one.memory is not None
        assert 0.5 < one.memory / (one.members * one.cost.memory) < 4.0
    model = fit_seconds([one for one in timings if one.members == 1])
    assert model is not None and model(timings[0].cost) > 0
    if kind == "mlp":
        assert fit_memory([one for one in timings if one.members == 1]).peaks == 3


def test_a_cohort_is_timed_again_until_two_rounds_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    left: Any = {
        "quiet": [3.0, 2.05, 2.0, 4.0, 5.0],
        "busy": [9.0, 8.0, 7.0, 6.0, 5.0, 1.0, 4.0, 1.05],
        "never": [2.0**number for number in range(10)],
    }
    monkeypatch.setattr(calibration, "_one", lambda cohort, *_: left[cohort].pop(0))
    cohorts: Any = ["quiet", "busy", "never"]
    assert calibration.quickest(cohorts, torch.device("cpu"), 1.0) == [2.0, 1.0, 1.0]
    assert not any(left.values())


def test_faster_devices_get_larger_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration.device, "peak_flops", lambda *_: 1000 * calibration.CPU_FLOPS)
    (shape,) = grown([Shape(8, 2, 16, (1, 4))], torch.device("cuda"))
    assert shape == Shape(80, 2, 160, (1, 4))
    assert grown([shape], torch.device("cpu")) == [shape]
