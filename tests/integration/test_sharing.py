"""Several workers on one GPU. Ray counts GPUs that are not there; runs train on the CPU in their place."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from sqlalchemy import select

from store import service
from store.db import Sessions, reading
from store.models import AttemptRow
from sweeps.cost import SecondsModel, Timing
from sweeps.resources import Resources
from sweeps.runs import RunState, SweepState
from sweeps.spec import SweepSpec
from workers import crew
from workers import pool as pools
from workers.executor import Device
from workers.host import Host, Mates
from workers.orchestrator import Orchestrator, Pace
from workers.pool import RayPool
from workers.stacking import Measured

pytestmark = pytest.mark.ray
Tiny = Callable[..., SweepSpec]

NAME, MEMORY, BASE = "Accelerator", 8e9, 5e8
WHOLE = Resources(gpus=1.0)
LARGE = 12  # a width for which a share of a GPU has too little memory


class FakeGpuHost(Host):
    """A worker for which every question to torch.cuda is answered, and which trains on the CPU."""

    def prepare(self, mates: Mates | None = None) -> Device:
        from workers import cohort, device, memory

        share = self._resources.gpus
        seen = device.os.environ["CUDA_VISIBLE_DEVICES"]
        build = cohort.proxies.build

        def build_within_memory(config: Any, *given: Any) -> torch.nn.Module:
            if config["width"] >= LARGE and share < 1.0:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
            return build(config, *given)

        answers: list[tuple[Any, str, Any]] = [
            (device, "pick", lambda _: device.CPU),
            (device, "name", lambda _=None: NAME),
            (device, "base", lambda _: BASE),
            (device, "place", lambda _: seen),
            (memory, "available", lambda _: MEMORY * share),
            (cohort.proxies, "build", build_within_memory),
        ]
        for where, name, answer in answers:
            setattr(where, name, answer)
        return super().prepare(mates)


@pytest.fixture(scope="module")
def pool() -> Iterator[RayPool]:
    """Of a machine with two GPUs, whatever this one has, on one of which a worker has started."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", functools.partial(ray.init, num_cpus=6, num_gpus=2))
        patch.setattr(crew, "_Worker", ray.remote(FakeGpuHost))
        patch.setattr(pools, "WARM", 0)
        made = RayPool(None, "test")
        made._open(WHOLE)
        while made.device(WHOLE) is None:
            made.poll(0.05)
        yield made
        made.close()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def learn(sessions: Sessions, spec: SweepSpec) -> None:
    """A calibration of a device on which a step takes as long whatever its size, and stacks take longer."""
    costs = [
        spec.cost(spec.complete({"tokens": tokens, "width": w})) for w in (8, 12) for tokens in (1280, 5120)
    ]
    alone = SecondsModel(1e-3, 0.0, 0.0, 0.0, 0)
    timings = [Timing(one, alone(one), "gpt", 1, 1e9, NAME) for one in costs]
    slow = [replace(one, members=4, memory=4e9, seconds=9 * one.seconds) for one in timings]
    service.record_timings(sessions, NAME, timings + slow)


def test_workers_with_shares_of_a_gpu_stand_beside_one_with_a_whole_one(pool: RayPool, until: Any) -> None:
    half = WHOLE.shared(2)
    for _ in range(2):
        assert pool._make_room(half) is not None
    until(lambda: (pool.poll(0.05), all(slot.ready for slot in pool._slots))[1], "the workers")
    first, *others = [slot.place for slot in pool._slots]
    assert others == [others[0]] * 2 and others[0] != first
    device = pool.device(half)
    assert device is not None and (device.memory, device.base) == (MEMORY / 2, None)
    assert pool.device(WHOLE) == Device(NAME, MEMORY, BASE, first)
    assert (pool.capacity(WHOLE), pool.capacity(half)) == (2, 4)
    assert pool._make_room(WHOLE.shared(4)) is None  # idle ones make way, one at a time
    assert len(pool._slots) == 2


def test_runs_share_gpus_by_their_memory_and_get_a_whole_one_where_a_share_is_too_little(
    file_sessions: Sessions,
    tiny: Tiny,
    until: Any,
    pool: RayPool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each takes 1 GB beside the half that its process does: four fit into 8 GB, but for the wide ones."""
    space = {
        "width": [8, LARGE],
        "depth": [1],
        "resolution": [16],
        "batch": [4],
        "tokens": [1280, 2560],
    }
    spec = tiny(
        space=space,
        budget={"runs": 4},
        strategy={"name": "grid", "first_batch": 4},
        resources={"gpus": 1, "sharing": "measured"},
        trainer={"eval_tokens": 1024, "evaluations": 4, "retries": 0},
    )
    learn(file_sessions, spec)
    stacking = Measured(file_sessions, pool.device, pool.capacity)
    orchestrator = Orchestrator(file_sessions, pool, "one", tmp_path, Pace(30.0, 0.05, 5.0), stacking)
    monkeypatch.setattr(pool, "close", lambda: None)
    stopping = threading.Event()
    thread = threading.Thread(target=orchestrator.run, args=(stopping,))
    thread.start()
    try:
        sweep, _ = service.create_sweep(file_sessions, spec)
        until(lambda: service.get_sweep(file_sessions, sweep.id).state is not SweepState.RUNNING, "its end")
    finally:
        stopping.set()
        thread.join(60)
    runs = service.list_runs(file_sessions, sweep.id)
    assert [run.state for run in runs] == [RunState.FINISHED] * 4
    with reading(file_sessions) as session:
        attempts = list(session.scalars(select(AttemptRow).order_by(AttemptRow.started_at)))
    told = {(one.run_id, one.attempt): one for one in attempts}
    assert [told[run.id, 1].sharers for run in runs][:2] == [4, 4]
    assert {one.device for one in attempts if one.outcome == "finished"} == {NAME}
    for run in runs:
        large = run.config["width"] == LARGE
        assert (run.undivided, run.out_of_memory, run.attempt) == (large, False, 1 + large)
        first, last = told[run.id, 1], told[run.id, run.attempt]
        assert first.sharers > 1 and (last.sharers == 1) == large
        assert not large or "out of memory on a share" in (first.reason or "")
