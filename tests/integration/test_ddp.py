"""Runs that several processes train together: the numbers of one process, and nobody hangs or is left."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from hearing import Ear
from ray.util import placement_group_table

from sweeps.axis import Axis
from sweeps.data import SOURCES
from sweeps.errors import SpecError
from sweeps.resources import Resources
from sweeps.spec import SweepSpec, parse, to_dict
from sweeps.trunks import joints
from workers.executor import Delivery, Unplaceable
from workers.inprocess import InProcessPool
from workers.job import Job, Joint
from workers.owner import identity
from workers.pool import RayPool
from workers.team import Team, hold
from workers.train import follow, train

# Processes that share nothing with this one and need not import torch each.
FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["workers.train", "workers.team"])


def spec_of(kind: str = "gpt", steps: int = 60, processes: int = 2, **settings: Any) -> SweepSpec:
    shape = {"width": 16, "depth": 1, "resolution": 16} if kind == "gpt" else {"width": 16, "depth": 2}
    tokens = steps * 8 * (16 if kind == "gpt" else 1)
    return parse(
        {
            "name": "together",
            "proxy": {"kind": kind, "dataset": "stdlib" if kind == "gpt" else "digits"},
            "space": shape | {"batch": 8, "tokens": [tokens, 2 * tokens], "lr": 5e-3},
            "targets": [{"at": {"width": 32, "depth": 1, "tokens": 1e7}}],
            "trainer": {"evaluations": 3, "eval_tokens": 128} | settings.pop("trainer", {}),
            "resources": {"cpus": 2, "processes": processes},
        }
        | settings
    )


def job_of(path: Path, spec: SweepSpec, run_id: int = 1, **config: float) -> Job:
    given = spec.complete({"tokens": spec.space["tokens"].values[0]} | config)
    return Job(run_id, 1, spec, SOURCES[spec.proxy.dataset], given, str(path / f"{run_id}.pt"), 1e9, None)


def accompany(job: Job, meeting: Any, die: bool) -> None:
    """What the second process does."""
    faulthandler.dump_traceback_later(90, exit=True)  # instead of waiting for ever
    team = Team(meeting, 1, False)
    if die:
        os._exit(1)
    follow(job, team)


@contextmanager
def second(job: Job, die: bool = False) -> Iterator[Team]:
    """A team of this process and another one."""
    meeting = hold("127.0.0.1", 2)
    process = FRESH.Process(target=accompany, args=(job, meeting, die))
    process.start()
    team = Team(meeting, 0, False)
    try:
        yield team
    finally:
        team.close()
        process.join(90)
        assert process.exitcode == int(die)


def alone(job: Job) -> Ear:
    ear = Ear()
    train([replace(job, spec=replace(job.spec, resources=Resources()))], ear)
    return ear


def together(job: Job, stop_after: int = 1 << 60, die: bool = False) -> Ear:
    calls = count(1)
    ear = Ear(lambda *_: next(calls) > stop_after)
    with second(job, die) as team:
        train([job], ear, team)
    return ear


@pytest.mark.parametrize("kind", ["gpt", "mlp"])
def test_two_processes_have_the_losses_of_one(tmp_path: Path, kind: str) -> None:
    job = job_of(tmp_path, spec_of(kind))
    one, two = alone(job), together(job)
    assert two.outcome is not None and two.outcome.status == "finished"
    assert two.provenance["processes"] == 2
    assert len(one.curve()) == len(two.curve())
    for (*at, expected), (*where, value) in zip(one.curve(), two.curve(), strict=True):
        assert at == where
        assert value == pytest.approx(expected, rel=1e-5), at


def test_they_stop_resume_and_go_on_from_the_checkpoint_of_one(tmp_path: Path) -> None:
    job = job_of(tmp_path, spec_of(steps=60))
    whole = together(job)
    stopped = together(job, stop_after=2)
    assert stopped.outcome is not None and stopped.outcome.status == "stopped"
    assert 0 < stopped.outcome.step < 60
    resumed = together(replace(job, attempt=2))
    assert resumed.curve() == whole.curve()
    stopped = alone(replace(job, max_seconds=0.0))
    assert stopped.outcome is not None and stopped.outcome.status == "stopped"


def test_they_begin_and_leave_as_one_process_does(tmp_path: Path) -> None:
    spec = spec_of("mlp", trainer={"schedule": "constant", "warmup": 4, "decay": 0.25})
    spec = parse(replace(spec, space=spec.space | {"tokens": Axis((320.0, 640.0, 1280.0))}))
    first, second = (Joint(step, str(tmp_path / f"{step}.pt")) for step in (31, 61))
    short, middle, long = (job_of(tmp_path, spec, run, tokens=320.0 * 2**run) for run in range(3))
    assert [joints(spec, one.config) for one in (short, middle, long)] == [(31,), (31, 61), (31, 61)]
    alone(replace(short, leaves=(first,)))
    ear = together(replace(long, begins=first, leaves=(second,)))
    assert ear.outcome is not None and ear.outcome.status == "finished"
    branch, whole = alone(replace(middle, begins=second)), alone(middle)
    assert branch.outcome is not None and whole.outcome is not None
    assert branch.outcome.loss == pytest.approx(whole.outcome.loss, rel=1e-5)


def test_limits_and_divergence_end_all_of_them(tmp_path: Path) -> None:
    limited = together(replace(job_of(tmp_path, spec_of(steps=5000)), max_seconds=1.0))
    assert limited.outcome is not None
    assert (limited.outcome.status, limited.outcome.reason) == ("stopped", "device-second budget")
    wild = together(job_of(tmp_path, spec_of(trainer={"warmup": 0}), run_id=2, lr=10.0))
    assert wild.outcome is not None and wild.outcome.status == "diverged"


def test_a_process_that_dies_ends_the_run_with_a_reason(tmp_path: Path) -> None:
    ear = together(job_of(tmp_path, spec_of()), die=True)
    assert ear.outcome is not None and ear.outcome.status == "failed"
    assert ear.outcome.reason is not None and "a process of the run is gone" in ear.outcome.reason
    assert not ear.outcome.hopeless


@pytest.mark.parametrize(
    ("settings", "field", "allowed"),
    [
        ({"resources": {"processes": 3}}, "resources.processes", "divides every batch, of which 8 is one"),
        ({"resources": {"processes": 2, "gpus": 1}}, "resources.gpus", "0 or 2"),
        ({"resources": {"gpus": 3}}, "resources.processes", "divides every batch"),
        ({"resources": {"processes": 0}}, "resources.processes", "1"),
    ],
)
def test_what_cannot_be_shared_is_refused(settings: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(**settings)
    (problem,) = caught.value.problems
    assert problem.field == field
    assert allowed in problem.allowed


def test_as_many_processes_as_gpus_and_one_is_left_out() -> None:
    assert spec_of(resources={"gpus": 2}).resources_of(None).processes == 2
    assert "processes" not in to_dict(spec_of(processes=1))["resources"]
    assert parse(to_dict(spec_of())).resources.processes == 2


def test_threads_of_one_process_cannot(tmp_path: Path) -> None:
    pool = InProcessPool()
    with pytest.raises(Unplaceable, match="asks for 2 processes; this executor has one"):
        pool.launch([job_of(tmp_path, spec_of())])
    pool.close()


@pytest.mark.ray
def test_on_ray(tmp_path: Path) -> None:
    pool = RayPool(None, identity())
    try:
        _on_ray(pool, tmp_path)
    finally:
        pool.close()


def _on_ray(pool: RayPool, path: Path) -> None:
    """A run to its end, one whose second process is killed, and the next one."""

    def place(job: Job) -> None:
        while pool.launch([job]) is None:
            pool.poll(0.05)

    def wait(run_id: int, enough: Callable[[Delivery], bool]) -> Delivery:
        found: list[Delivery] = []

        def look() -> bool:
            found.extend(one for one in pool.poll(0.05) if one.run_id == run_id and enough(one))
            return bool(found)

        until(look)
        return found[0]

    job = job_of(path, spec_of())
    expected = alone(job)
    place(job)
    end = wait(1, lambda one: one.outcome is not None)
    assert end.outcome is not None and end.outcome.status == "finished"
    assert expected.outcome is not None
    assert end.outcome.loss == pytest.approx(expected.outcome.loss, rel=1e-5)
    pool.forget(1)
    long = job_of(path, spec_of(steps=20_000), run_id=2)
    place(long)
    wait(2, lambda one: len(one.points) > 0)
    hosts = workers()
    (trained_by,) = [slot for slot in pool._slots if slot.resources.processes == 2]
    victim = ray.get(trained_by.crew.others[0].__ray_call__.remote(lambda _: os.getpid()))
    psutil.Process(victim).kill()
    lost = wait(2, lambda one: one.error is not None or one.outcome is not None)
    told = lost.error or (lost.outcome.reason if lost.outcome is not None else None) or ""
    assert "of the run" in told
    pool.forget(2)
    until(lambda: pool.poll(0.05) is not None and trained_by not in pool._slots)  # as it has lost a process
    again = replace(job_of(path, spec_of(), run_id=3), attempt=2)
    place(again)
    end = wait(3, lambda one: one.error is not None or one.outcome is not None)
    assert end.outcome is not None and end.outcome.status == "finished"
    pool.forget(3)
    living = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
    assert len(living) == 1
    assert trained_by not in pool._slots
    until(lambda: len(workers() & hosts) == len(hosts) - 2)


def workers() -> set[int]:
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "".join(process.cmdline()).startswith("ray::Host"):
                found.add(process.pid)
    return found


def until(what: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
