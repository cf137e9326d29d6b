"""How many runs train together, by what is stored; and what is calibrated when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from store import service
from store.db import Sessions
from sweeps.cost import SecondsModel, Timing
from sweeps.resources import Resources
from sweeps.spec import SweepSpec, parse
from sweeps.stacks import ALONE, Packing
from workers import stacking
from workers.calibrator import Calibrator
from workers.executor import Calibration, Device
from workers.stacking import Measured, Stacking, alone

DEVICE = Device("CPU here", 1e9)


def spec_of(width: float = 8) -> SweepSpec:
    at = {"width": width, "depth": 1, "tokens": 1e5, "batch": 16}
    proxy = {"kind": "mlp", "dataset": "digits"}
    return parse({"name": "a", "proxy": proxy, "space": at, "targets": [{"at": at}]})


def timings(kind: str = "mlp") -> list[Timing]:
    """A device that takes a millisecond a step whatever its size, and little for a parameter."""
    one, many = SecondsModel(1e-3, 0, 0, 0, 0, 0, 1e-9), SecondsModel(1e-3, 0, 0, 0, 0, 0, 1e-7)
    costs = [spec_of(width).cost(spec_of(width).complete({})) for width in (8, 16, 32, 64, 96, 128)]
    return [
        Timing(cost, (one if size == 1 else many)(cost, size), kind, size, size * cost.memory)
        for cost in costs
        for size in (1, 4, 16)
    ]


def choose(decide: Stacking, spec: SweepSpec) -> Packing:
    return decide(spec, spec.resources, spec.complete({}))


def few(resources: Resources) -> int:
    """Workers on a machine with a GPU and 8 CPUs."""
    return int(min(8 / resources.cpus, 1 / resources.gpus if resources.gpus else 8))


def test_runs_are_stacked_once_a_calibration_says_so(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, wide = spec_of(), spec_of(256)
    decide = Measured(sessions, lambda _: DEVICE, few)
    assert choose(decide, spec) == choose(alone, spec) == ALONE
    service.record_timings(sessions, DEVICE.name, timings())
    assert choose(decide, spec) == ALONE  # looked a moment ago
    monkeypatch.setattr(stacking, "REFRESH_SECONDS", 0.0)
    decide = Measured(sessions, lambda _: DEVICE, few)
    assert choose(decide, spec) == Packing(16)
    assert choose(decide, wide) == ALONE
    small = replace(DEVICE, memory=8 * spec.cost(spec.complete({})).memory)
    assert choose(Measured(sessions, lambda _: small, few), spec) == Packing(4)
    assert choose(Measured(sessions, lambda _: None, few), spec) == ALONE
    assert choose(Measured(sessions, lambda _: Device("CPU there", 1e9), few), spec) == ALONE


def test_a_gpu_is_shared_where_that_was_asked_for_and_measured(sessions: Sessions) -> None:
    """Stacks of four would be as good as four processes, but these runs are told not to be stacked."""
    spec = replace(spec_of(), resources=Resources(gpus=1.0, sharing="measured"))
    need = spec.cost(spec.complete({})).memory
    gpu = Device("Accelerator", 1e3 * need, base=10 * need)
    one_by_one = [one for one in timings() if one.members == 1]
    stacked = [replace(one, seconds=9 * one.seconds) for one in timings() if one.members == 4]
    service.record_timings(sessions, gpu.name, one_by_one + stacked)
    asked: list[Resources] = []

    def device(resources: Resources) -> Device:
        asked.append(resources)
        return gpu

    assert choose(Measured(sessions, device, few), spec) == Packing(1, 8)  # as many as there are CPUs
    assert asked == [Resources(gpus=1.0)]
    tight = replace(gpu, memory=50 * need)
    assert choose(Measured(sessions, lambda _: tight, few), spec) == Packing(1, 4)
    assert choose(Measured(sessions, lambda _: replace(gpu, base=None), few), spec) == ALONE
    assert choose(Measured(sessions, lambda _: None, few), spec) == ALONE
    whole = replace(spec, resources=Resources(gpus=1.0))
    assert choose(Measured(sessions, lambda _: gpu, few), whole) == ALONE


def test_runs_that_ended_before_the_calibration_do_not_put_it_off(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They tell what runs take alone; stacks are looked for as often as when nothing was known."""
    seconds, spec = [0.0], spec_of()
    monkeypatch.setattr(stacking.time, "monotonic", lambda: seconds[0])
    ended = [replace(one, device=DEVICE.name) for one in timings() if one.members == 1]
    monkeypatch.setattr(service, "finished", lambda _: ended)
    decide = Measured(sessions, lambda _: DEVICE, lambda _: 1)
    assert choose(decide, spec) == ALONE
    service.record_timings(sessions, DEVICE.name, timings())
    seconds[0] = stacking.REFRESH_SECONDS
    assert choose(decide, spec).members == 16


class Fake:
    """Of a pool only what calibration asks."""

    def __init__(self) -> None:
        self.up = False
        self.asked: list[tuple[Resources, str]] = []

    def device(self, resources: Resources) -> Device | None:
        return DEVICE if self.up and resources.gpus == 0 else None

    def calibrate(self, resources: Resources, kind: str) -> Calibration | None:
        self.asked.append((resources, kind))
        return Calibration(DEVICE.name, kind, timings(kind)) if len(self.asked) % 2 == 0 else None


def test_each_kind_is_calibrated_once_when_a_sweep_first_uses_it(sessions: Sessions) -> None:
    pool: Any = Fake()
    calibrator = Calibrator(sessions, pool)
    calibrator.tick()
    assert pool.asked == []
    pool.up = True
    for _ in range(4):
        calibrator.tick()
    assert [kind for _, kind in pool.asked] == ["gpt", "gpt"]
    assert calibrator.want(spec_of()) and not calibrator.want(spec_of())
    assert calibrator.want(replace(spec_of(), resources=Resources(gpus=1.0)))  # no such worker is up
    for _ in range(4):
        calibrator.tick()
    assert [kind for _, kind in pool.asked] == ["gpt", "gpt", "mlp", "mlp"]
    assert service.calibrated(sessions, DEVICE.name, "mlp")
    again = Calibrator(sessions, pool)
    again.want(spec_of())
    for _ in range(4):
        again.tick()
    assert len(pool.asked) == 4
