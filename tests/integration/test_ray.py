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
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from store import service
from store.db import Sessions, reading
from store.models import AttemptRow
from sweeps.data import STDLIB
from sweeps.resources import Resources
from sweeps.runs import RunState, SweepState
from sweeps.spec import SweepSpec
from workers.executor import Delivery, Unplaceable
from workers.job import Job
from workers.owner import identity
from workers.pool import RayPool

pytestmark = pytest.mark.ray
Tiny = Callable[..., SweepSpec]
Wait = Callable[[RayPool, int, Callable[[Delivery], bool]], Delivery]
FAST = (
    "cluster.poll_seconds=0.05",
    "cluster.checkpoint_seconds=0.2",
    "cluster.lease_seconds=3",
    "tracking=none",
)


@pytest.fixture(scope="module")
def pool() -> Iterator[RayPool]:
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
