"""Runs on a real Ray: warm workers, dead workers, dead orchestrators."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from store import service
from store.db import Sessions, reading
from store.models import AttemptRow
from sweeps.cost import Cost, Timing
from sweeps.data import STDLIB
from sweeps.kinds import own
from sweeps.resources import Resources
from sweeps.runs import RunState, SweepState
from sweeps.space import specimens
from sweeps.spec import SweepSpec, parse
from workers import device, stacking
from workers import pool as pools
from workers.executor import Delivery, Networks, Subject, Unplaceable
from workers.job import Job
from workers.orchestrator import Orchestrator, Pace
from workers.owner import identity
from workers.pool import RayPool
from workers.stacking import Measured

pytestmark = pytest.mark.ray
Tiny = Callable[..., SweepSpec]
Wait = Callable[[RayPool, int, Callable[[Delivery], bool]], Delivery]
FAST = (
    "cluster.poll_seconds=0.05",
    "cluster.checkpoint_seconds=0.2",
    "cluster.lease_seconds=3",
    "tracking=none",
)


NETWORKS = """
import os, time
from torch import nn


def build(config, source):
    inputs = int(source.inputs(config["resolution"]))
    first, last = nn.Linear(inputs, config["width"]), nn.Linear(config["width"], source.outputs)
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), last)


def noisy(config, source):
    return nn.Sequential(nn.Dropout(0.1), build(config, source))


def deadly(config, source):
    os._exit(3)


def endless(config, source):
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayPool]:
    """Its workers find networks of the user's."""
    code = tmp_path_factory.mktemp("code")
    (code / "netlab.py").write_text(NETWORKS)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", f"{code}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        made = RayPool(None, identity())
    yield made
    made.close()


@pytest.fixture
def wait() -> Wait:
    """Polls until something is delivered for a run."""

    def poll(pool: RayPool, run_id: int, enough: Callable[[Delivery], bool]) -> Delivery:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            for delivery in pool.poll(0.05):
                if delivery.run_id == run_id and enough(delivery):
                    return delivery
        raise AssertionError(f"nothing came of run {run_id}")

    return poll


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where a Ray of our own keeps its logs; its sockets allow no long path."""
    with tempfile.TemporaryDirectory(prefix="sw-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def job(tiny: Tiny, tmp_path: Path) -> Callable[..., Job]:
    def make(run_id: int, attempt: int = 1, tokens: float = 1280, **resources: float) -> Job:
        space = {"width": [8], "depth": [1], "resolution": [16], "batch": [4], "tokens": [tokens]}
        spec = replace(tiny(space=space), resources=Resources(**resources))
        config = spec.complete({})
        return Job(run_id, attempt, spec, STDLIB, config, str(tmp_path / f"{run_id}.pt"), 0.1, None)

    return make


def kill_workers(parent: int) -> None:
    """Kills the worker processes below a process."""
    for process in psutil.Process(parent).children(recursive=True):
        with suppress(psutil.Error):
            if "".join(process.cmdline()).startswith("ray::Host"):
                process.kill()


def place(pool: RayPool, job: Job) -> None:
    """Launches as soon as Ray has the room."""
    end = time.monotonic() + 60
    while pool.launch([job]) is None:
        assert time.monotonic() < end
        pool.poll(0.05)


def attempts(sessions: Sessions, run_id: int) -> list[AttemptRow]:
    with reading(sessions) as session:
        found = select(AttemptRow).where(AttemptRow.run_id == run_id).order_by(AttemptRow.attempt)
        return list(session.scalars(found))


def test_workers_are_reused(pool: RayPool, wait: Wait, job: Callable[..., Job]) -> None:
    names = set()
    for run_id in range(1, 6):
        names.add(pool.launch([job(run_id)]))
        delivery = wait(pool, run_id, lambda one: one.outcome is not None)
        assert delivery.outcome is not None and delivery.outcome.status == "finished"
        assert delivery.points[0].seq == 1
        pool.forget(run_id)
    assert len(names) == 1


def test_points_are_delivered_until_they_are_acknowledged(
    pool: RayPool, wait: Wait, job: Callable[..., Job]
) -> None:
    pool.launch([job(10)])
    first = wait(pool, 10, lambda one: one.outcome is not None)
    again = wait(pool, 10, lambda one: one.outcome is not None)
    assert again == first
    pool.acknowledge(10, first.points[3].seq)
    later = wait(pool, 10, lambda one: len(one.points) < len(first.points))
    assert later.points == first.points[4:]
    pool.forget(10)


def test_a_killed_worker_is_replaced_and_its_run_resumes(
    pool: RayPool, wait: Wait, job: Callable[..., Job]
) -> None:
    given = job(20, tokens=200_000)
    pool.launch([given])
    before = wait(pool, 20, lambda one: len(one.points) > 0)
    checkpoint = Path(given.checkpoint)
    end = time.monotonic() + 30
    while not (checkpoint.exists() and checkpoint.stat().st_mtime > before.points[-1].at):
        assert time.monotonic() < end
        pool.poll(0.05)
    kill_workers(os.getpid())
    lost = wait(pool, 20, lambda one: one.error is not None)
    assert "died" in (lost.error or "")
    pool.forget(20)
    attempt = 2
    place(pool, replace(given, attempt=attempt))
    while (ended := wait(pool, 20, lambda one: one.error is not None or one.outcome is not None)).error:
        assert not ended.begun  # the other warm worker is gone as well, which was not known yet
        attempt += 1
        place(pool, replace(given, attempt=attempt))
    assert ended.points[0] == before.points[0]
    assert [point.seq for point in ended.points] == list(range(1, len(ended.points) + 1))
    pool.forget(20)


def test_what_no_machine_has_is_refused(pool: RayPool, job: Callable[..., Job]) -> None:
    with pytest.raises(Unplaceable, match="asks for 1 CPUs and 64 GPUs"):
        pool.launch([job(30, gpus=64)])
    assert pool.capacity(Resources(cpus=1024)) == 0


def test_idle_workers_make_way_for_larger_ones(pool: RayPool, wait: Wait, job: Callable[..., Job]) -> None:
    cpus = pool.capacity(Resources())
    place(pool, job(40, cpus=cpus))
    assert not pool.room()
    assert pool.launch([job(41)]) is None
    delivery = wait(pool, 40, lambda one: one.outcome is not None)
    assert delivery.outcome is not None and delivery.outcome.status == "finished"
    pool.forget(40)


def test_a_killed_orchestrator_loses_nothing(
    file_sessions: Sessions, home: Path, tiny: Tiny, until: Any, start: Any, ray_folder: Path
) -> None:
    space = {"width": [8], "depth": [1], "resolution": [16], "batch": [4], "tokens": [1280, 100_000, 110_000]}
    sweep, _ = service.create_sweep(file_sessions, tiny(space=space))
    first = start("-m", "workers", *FAST, log="first", RAY_TMPDIR=str(ray_folder))
    until(lambda: service.list_runs(file_sessions, sweep.id, RunState.FINISHED), "the short run")
    begun = until(lambda: [_run_of(path) for path in home.glob("checkpoints/*.pt")], "a checkpoint")
    first.kill()
    first.wait()
    start("-m", "workers", *FAST, log="second", RAY_TMPDIR=str(ray_folder))
    until(lambda: service.get_sweep(file_sessions, sweep.id).state is SweepState.FINISHED, "the sweep's end")
    runs = service.list_runs(file_sessions, sweep.id)
    assert [run.state for run in runs] == [RunState.FINISHED] * 3
    assert len(service.observations(file_sessions, sweep.id)) == 3
    for run_id in begun:
        tried = attempts(file_sessions, run_id)
        points = service.list_points(file_sessions, run_id)
        assert [one.outcome for one in tried] == ["preempted", "finished"]
        assert [point.seq for point in points] == list(range(1, len(points) + 1))
        said = "".join(path.read_text() for path in ray_folder.glob("ray/session_*/logs/worker-*.err"))
        assert re.search(rf"run.{run_id}\b.* goes on from step [1-9]", said)


def test_an_orchestrator_retries_what_broke_and_stops_cleanly(
    file_sessions: Sessions, home: Path, tiny: Tiny, until: Any, start: Any, long_space: dict[str, Any]
) -> None:
    spec = tiny(space=long_space | {"tokens": [50_000_000]}, budget={"runs": 1})
    sweep, _ = service.create_sweep(file_sessions, spec)
    process = start("-m", "workers", *FAST, log="orchestrator")
    run_id = service.list_runs(file_sessions, sweep.id)[0].id
    until(lambda: list(home.glob("checkpoints/*.pt")), "a checkpoint")
    kill_workers(process.pid)
    until(lambda: len(attempts(file_sessions, run_id)) > 1, "another attempt")
    killed_at = time.time()
    until(lambda: any(path.stat().st_mtime > killed_at for path in home.glob("checkpoints/*.pt")), "its work")
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    assert process.wait(30) == 0
    assert service.get_run(file_sessions, run_id).state is RunState.QUEUED
    first, *_, last = attempts(file_sessions, run_id)
    assert (first.outcome, last.outcome) == ("failed", "preempted")
    assert "died" in (first.reason or "")
    assert psutil.wait_procs(children, timeout=10)[1] == []


def test_networks_of_the_users_are_stacked_where_that_can_be(
    pool: RayPool, file_sessions: Sessions, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What trains alone shows in the attempts, and why in the events."""
    monkeypatch.setattr(own, "_allowed", ["netlab"])
    monkeypatch.setattr(stacking, "REFRESH_SECONDS", 0.1)
    monkeypatch.setattr(pool, "_limit", 1)
    monkeypatch.setattr(pool, "close", lambda: None)  # others need it
    default = Timing(Cost(**dict.fromkeys((one.name for one in fields(Cost)), 1.0)), 1.0)
    service.record_timings(file_sessions, device.name(device.CPU), [default])  # is not to be timed now
    noisy, plain = (
        service.create_sweep(file_sessions, _networks(entry, runs, tokens))[0].id
        for entry, runs, tokens in (("noisy", 4, 640.0), ("build", 32, 16_000.0))
    )

    def members(sweep_id: int) -> set[int]:
        runs = service.list_runs(file_sessions, sweep_id)
        return {one.members for run in runs for one in attempts(file_sessions, run.id)}

    measured, pace = Measured(file_sessions, pool.device, pool.capacity), Pace(lease=60.0, poll=0.02)
    orchestrator = Orchestrator(file_sessions, pool, "netlab", home / "checkpoints", pace, measured)
    end = time.monotonic() + 300
    while max(members(plain), default=1) == 1 and time.monotonic() < end:
        orchestrator.tick()
    orchestrator.close()
    assert max(members(plain)) > 1 and members(noisy) == {1}
    assert {run.state for run in service.list_runs(file_sessions, noisy)} == {RunState.FINISHED}
    (told,) = [one for one in service.list_events(file_sessions, noisy) if one.kind == "sweep_not_stacked"]
    assert "called random operation" in str(told.data["reason"])
    assert all(one.kind != "sweep_not_stacked" for one in service.list_events(file_sessions, plain))


def test_networks_that_kill_or_hold_a_worker_end_their_calibration(
    pool: RayPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "_allowed", ["netlab"])
    for function, told, seconds in (("deadly", "died", 60.0), ("endless", "took longer than 1 s", 1.0)):
        monkeypatch.setattr(pools, "CALIBRATION_SECONDS", seconds)
        spec = _networks(function, 4, 640.0)
        subject = Subject(spec.proxy.trainer, Networks(spec, spec.source, specimens(spec, 1)))
        end = time.monotonic() + 60
        while (found := pool.calibrate(Resources(), subject)) is None and time.monotonic() < end:
            pool.poll(0.05)
            if not pool._slots:
                pool._open(Resources())
        assert found is not None and found.lost and found.timings == []
        assert told in (found.trouble or "")


def _networks(function: str, runs: int, tokens: float) -> SweepSpec:
    proxy = {
        "kind": "module",
        "entry": f"netlab:{function}",
        "dataset": "digits",
        "cost": {"params": "75*width"},
    }
    return parse(
        {
            "name": function,
            "proxy": proxy,
            "space": {"width": [8], "seed": list(range(runs)), "tokens": tokens},
            "targets": [{"at": {"width": 16, "tokens": 1e6}}],
            "budget": {"runs": runs},
            "strategy": {"name": "grid", "first_batch": runs},
            "trainer": {"evaluations": 1, "eval_tokens": 64},
        }
    )


def test_a_worker_on_a_cluster_outlives_its_orchestrator(
    file_sessions: Sessions, tiny: Tiny, until: Any, start: Any, long_space: dict[str, Any]
) -> None:
    port = _free_port()
    ray = str(Path(sys.executable).with_name("ray"))
    head = (ray, "start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false")
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    small = ("--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--disable-usage-stats")
    cluster = start(*head, *small, log="ray", **secret)
    until(lambda: _listens(port), "Ray's head")
    spec = tiny(space=long_space | {"tokens": [150_000]}, budget={"runs": 1})
    sweep, _ = service.create_sweep(file_sessions, spec)
    run_id = service.list_runs(file_sessions, sweep.id)[0].id
    given = (*FAST, "cluster=ray")
    address = secret | {"RAY_ADDRESS": f"127.0.0.1:{port}"}
    first = start("-m", "workers", *given, log="first", **address)
    until(lambda: service.get_run(file_sessions, run_id).step > 0, "a point")
    first.kill()
    first.wait()
    start("-m", "workers", *given, log="second", **address)
    until(lambda: service.get_run(file_sessions, run_id).state is RunState.FINISHED, "its end")
    (only,) = attempts(file_sessions, run_id)
    assert only.outcome == "finished"
    assert f":{first.pid}:" in (only.worker or "")
    points = service.list_points(file_sessions, run_id)
    assert [point.seq for point in points] == list(range(1, len(points) + 1))
    assert cluster.poll() is None


def _run_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
