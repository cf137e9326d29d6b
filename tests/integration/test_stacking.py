"""How many runs train together, by what is stored; and what is calibrated when."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from store import service
from store.db import Sessions
from sweeps.cost import SecondsModel, Timing
from sweeps.kinds import own
from sweeps.resources import Resources
from sweeps.space import specimens
from sweeps.spec import SweepSpec, parse
from sweeps.stacks import ALONE, Packing
from workers import provenance, stacking
from workers.calibrator import Calibrator
from workers.executor import Calibration, Device, Subject
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
    first = {name: axis.values[0] for name, axis in spec.space.items()}
    return decide(spec, spec.resources, spec.complete(first))


def few_workers(resources: Resources) -> int:
    """Workers on a machine with a GPU and 8 CPUs."""
    return int(min(8 / resources.cpus, 1 / resources.gpus if resources.gpus else 8))


def test_runs_are_stacked_once_a_calibration_says_so(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, wide = spec_of(), spec_of(256)
    decide = Measured(sessions, lambda _: DEVICE, few_workers)
    assert choose(decide, spec) == choose(alone, spec) == ALONE
    service.record_timings(sessions, DEVICE.name, timings())
    assert choose(decide, spec) == ALONE  # looked a moment ago
    monkeypatch.setattr(stacking, "REFRESH_SECONDS", 0.0)
    decide = Measured(sessions, lambda _: DEVICE, few_workers)
    assert choose(decide, spec) == Packing(16)
    assert choose(decide, wide) == ALONE
    small = replace(DEVICE, memory=8 * spec.cost(spec.complete({})).memory)
    assert choose(Measured(sessions, lambda _: small, few_workers), spec) == Packing(4)
    assert choose(Measured(sessions, lambda _: None, few_workers), spec) == ALONE
    assert choose(Measured(sessions, lambda _: Device("CPU there", 1e9), few_workers), spec) == ALONE


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

    assert choose(Measured(sessions, device, few_workers), spec) == Packing(1, 8)  # as many as there are CPUs
    assert asked == [Resources(gpus=1.0)]
    tight = replace(gpu, memory=50 * need)
    assert choose(Measured(sessions, lambda _: tight, few_workers), spec) == Packing(1, 4)
    assert choose(Measured(sessions, lambda _: replace(gpu, base=None), few_workers), spec) == ALONE
    assert choose(Measured(sessions, lambda _: None, few_workers), spec) == ALONE
    whole = replace(spec, resources=Resources(gpus=1.0))
    assert choose(Measured(sessions, lambda _: gpu, few_workers), whole) == ALONE


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
        self.asked: list[tuple[Resources, Subject]] = []
        self.answers: list[Calibration] = []  # of networks

    def device(self, resources: Resources) -> Device | None:
        return DEVICE if self.up and resources.gpus == 0 else None

    def calibrate(self, resources: Resources, subject: Subject) -> Calibration | None:
        self.asked.append((resources, subject))
        if subject.networks is not None:
            return self.answers.pop(0)
        kind = subject.kind
        return Calibration(DEVICE.name, kind, timings(kind)) if len(self.asked) % 2 == 0 else None

    @property
    def kinds(self) -> list[str]:
        return [subject.kind for _, subject in self.asked]


def test_each_kind_is_calibrated_once_when_a_sweep_first_uses_it(sessions: Sessions) -> None:
    pool: Any = Fake()
    calibrator = Calibrator(sessions, pool)
    calibrator.tick()
    assert pool.asked == []
    pool.up = True
    for _ in range(4):
        calibrator.tick()
    assert pool.kinds == ["gpt", "gpt"]
    assert calibrator.want(spec_of(), 1) and not calibrator.want(spec_of(), 2)
    assert calibrator.want(replace(spec_of(), resources=Resources(gpus=1.0)), 3)  # no such worker is up
    for _ in range(4):
        calibrator.tick()
    assert pool.kinds == ["gpt", "gpt", "mlp", "mlp"]
    assert service.calibrated(sessions, DEVICE.name, "mlp")
    again = Calibrator(sessions, pool)
    again.want(spec_of(), 1)
    for _ in range(4):
        again.tick()
    assert len(pool.asked) == 4


@pytest.fixture
def netlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose networks may be trained; nobody imports it here."""
    (tmp_path / "netlab").mkdir()
    for name in ("net", "layers"):
        (tmp_path / "netlab" / f"{name}.py").write_text("raise RuntimeError('was run')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(own, "_allowed", ["netlab"])
    return tmp_path / "netlab"


def networks(*widths: float) -> SweepSpec:
    proxy = {
        "kind": "module",
        "entry": "netlab.net:build",
        "dataset": "digits",
        "cost": {"params": "9*width"},
    }
    space = {"width": list(widths), "lr": [0.001, 0.01], "tokens": 6400}
    return parse(
        {"name": "n", "proxy": proxy, "space": space, "targets": [{"at": {"width": 512, "tokens": 1e5}}]}
    )


def rehearsal(*widths: float, refused: str | None = None) -> Calibration:
    """What a worker finds that reads the code as it is now."""
    spec = networks(*widths)
    kind, sizes = spec.proxy.trainer, (1,) if refused else (1, 4, 16)
    found = [
        Timing(spec.cost(config), 1e-3 / size, kind, size, 1e6 * size)
        for config in specimens(spec, 9)
        for size in sizes
    ]
    return Calibration(DEVICE.name, kind, found, provenance.contents("netlab.net:build"), refused)


def widths_of(asked: tuple[Resources, Subject]) -> list[float]:
    found = asked[1].networks
    assert found is not None
    return [config["width"] for config in found.configs]


def orders(sessions: Sessions, pool: Fake, *wanted: tuple[SweepSpec, int], ticks: int = 3) -> None:
    """A new orchestrator's, in a device whose default kind was timed."""
    service.record_timings(sessions, DEVICE.name, timings("gpt"))
    pool.up, found = True, Calibrator(sessions, cast(Any, pool))
    for spec, sweep_id in wanted:
        assert found.want(spec, sweep_id)
    for _ in range(1 + ticks):
        found.tick()


def test_networks_are_timed_by_what_is_not_known_of_their_code(sessions: Sessions, netlab: Path) -> None:
    few, more = networks(8, 16, 32), networks(16, 32, 64)
    first = service.create_sweep(sessions, few)[0].id
    pool = Fake()
    pool.answers = [rehearsal(8, 16, 32), rehearsal(64)]
    orders(sessions, pool, (few, first), (more, first))
    orders(sessions, pool, (few, first), (more, first))
    assert [widths_of(one) for one in pool.asked] == [[8, 16, 32], [64]]
    assert choose(Measured(sessions, lambda _: DEVICE, few_workers), few) == Packing(16)
    (netlab / "layers.py").write_text("# another network\n")
    pool.answers = [rehearsal(16, 32, 64)]
    orders(sessions, pool, (more, first))
    assert widths_of(pool.asked[-1]) == [16, 32, 64]
    kind = more.proxy.trainer
    kept = [one for one in service.calibration(sessions) if one.kind == kind]
    assert len(kept) == 9  # those of the old code are gone


@pytest.mark.usefixtures("netlab")
def test_a_refusal_is_told_once_a_sweep_and_stays_with_the_code(sessions: Sessions) -> None:
    few, more = networks(8, 16), networks(16, 32)
    ids = [service.create_sweep(sessions, spec)[0].id for spec in (few, more)]
    pool = Fake()
    pool.answers = [rehearsal(8, 16), rehearsal(16, 32, refused="it draws numbers")]
    orders(sessions, pool, (few, ids[0]))
    orders(sessions, pool, (networks(8, 16, 32), ids[0]))
    assert choose(Measured(sessions, lambda _: DEVICE, few_workers), few) == ALONE
    assert {one.members for one in service.calibration(sessions) if one.kind != "gpt"} == {1}
    orders(sessions, pool, (more, ids[1]))
    assert len(pool.asked) == 2
    for sweep_id in ids:
        told = [
            one.data for one in service.list_events(sessions, sweep_id) if one.kind == "sweep_not_stacked"
        ]
        assert told == [{"reason": "it draws numbers"}]


@pytest.mark.usefixtures("netlab")
def test_what_costs_two_workers_is_not_tried_a_third_time(sessions: Sessions) -> None:
    spec = networks(8)
    sweep_id = service.create_sweep(sessions, spec)[0].id
    pool = Fake()
    pool.answers = [Calibration("unknown", "", [], trouble="the worker died", lost=True)] * 2
    orders(sessions, pool, (spec, sweep_id), ticks=5)
    assert len(pool.asked) == 2
    assert service.list_events(sessions, sweep_id)[-1].data == {"reason": "the worker died"}


@pytest.mark.usefixtures("netlab")
def test_only_what_may_run_is_timed(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = networks(8)
    calibrator = Calibrator(sessions, cast(Any, Fake()))
    own_code = replace(spec, proxy=replace(spec.proxy, kind="own"))
    assert not calibrator.want(own_code, 1)
    monkeypatch.setattr(own, "_allowed", [])
    assert not calibrator.want(spec, 1)
