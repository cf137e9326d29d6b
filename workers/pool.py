"""Runs on Ray: long-lived workers, one cohort at a time each, on a cluster or on a Ray of our own."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from sweeps.resources import Resources
from workers.crew import NAMESPACE, clear, find, hire, parts
from workers.executor import (
    CALIBRATION_SECONDS,
    Attempt,
    Calibration,
    Delivery,
    Device,
    Subject,
    Unplaceable,
)
from workers.gpus import fits
from workers.job import Job, Outcome
from workers.slot import Slot

log = logging.getLogger(__name__)

_ray: Any = ray  # some of Ray is untyped
OBJECT_STORE_BYTES = 100 * 2**20  # points are small; the default is a third of the memory
WARM = 8  # workers started before they are asked for
JOINING_SECONDS = 30.0  # a cluster's other machines may still be joining
START_SECONDS = 300.0  # a worker that has not started by then never will
ADOPT_SECONDS = 5.0  # for a worker to say what it trains
SILENCE_SECONDS = 120.0  # a worker that lives answers within a poll
STOP_SECONDS = 60.0  # a run that was asked to stop notices within seconds
PING_SECONDS = 5.0  # idle workers end themselves when no orchestrator calls
IDLE_SECONDS = 60.0  # others may want what an idle worker holds on a shared cluster

State: TypeAlias = tuple[list[Attempt], Resources]


class RayPool:
    """The executor on Ray.

    Args:
        address: of a cluster; None starts a Ray of our own, which ends with this process.
        owner: unique among orchestrators; names of workers begin with it.
        slots: at most so many runs at once; None is what the resources allow.
    """

    def __init__(self, address: str | None, owner: str, slots: int | None = None) -> None:
        self._owner = owner
        self._limit = slots
        self._external = address is not None
        self._numbers = itertools.count(1)
        self._slots: list[Slot] = []
        self._devices: dict[Resources, Device] = {}
        self._calibration: Calibration | None = None
        self._timing = ""  # the kind of proxy that is calibrated
        self._news: list[Delivery] = []
        self._nodes: list[dict[str, float]] = []
        self._nodes_at = -1.0
        _connect(address)
        self._connected_at = time.monotonic()
        if not self._external:
            for _ in range(min(WARM, self.capacity(Resources()))):
                self._open(Resources())

    @property
    def durable(self) -> bool:
        """On a cluster workers outlive the orchestrator, on a Ray of our own they do not."""
        return self._external

    def capacity(self, resources: Resources) -> int:
        """How many runs that ask for these resources fit at once when nothing else runs."""
        asked = parts(resources)
        processes = sum(
            int(min(node.get(kind, 0.0) / amount + 1e-9 for kind, amount in asked.items() if amount > 0))
            for node in self._machines()
        )
        fit = processes // resources.processes
        return fit if self._limit is None else min(fit, self._limit)

    def room(self) -> bool:
        """Whether fewer runs than slots are under way and a processor is free."""
        taken = [slot for slot in self._slots if not slot.idle]
        total = sum(node.get("CPU", 0.0) for node in self._machines())
        within = self._limit is None or len(taken) < self._limit
        return within and sum(slot.resources.cpus for slot in taken) < total - 1e-9

    def launch(self, jobs: Sequence[Job]) -> str | None:
        """Starts attempts on a warm worker, or on a new one where there is none."""
        asked = jobs[0].spec.resources
        if self.capacity(asked) == 0:
            if self._external and time.monotonic() - self._connected_at < JOINING_SECONDS:
                return None
            raise Unplaceable(self._why_not(asked))
        if not self.room():
            return None
        free = [slot for slot in self._slots if slot.idle and slot.resources == asked]
        slot = min(free, key=lambda slot: not slot.ready) if free else self._make_room(asked)
        if slot is None:
            return None
        attempts = [(job.run_id, job.attempt) for job in jobs]
        slot.training, slot.waiting = {*attempts}, list(jobs)
        slot.acknowledged |= dict.fromkeys(attempts, 0)
        self._advance(slot, 0.0)
        return slot.name

    def poll(self, timeout: float) -> list[Delivery]:
        """Waits at most ``timeout`` seconds for an end or a loss, then says what came of every attempt."""
        for slot in list(self._slots):
            if self._external and slot.spare and time.monotonic() - slot.idle_since > IDLE_SECONDS:
                self._drop(slot)
            else:
                self._advance(slot, timeout)
            if slot in self._slots and (trouble := slot.crew.trouble()) is not None:
                self._lose(slot, trouble)
        calls = {slot.ref: slot for slot in self._slots if slot.ref is not None}
        if calls:
            _, waiting = ray.wait(list(calls), num_returns=1, timeout=timeout)
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0) if waiting else ([], [])
            for ref, slot in calls.items():
                if ref not in waiting:
                    self._answer(slot)
                else:
                    self._check_silence(slot)
        else:
            time.sleep(timeout)
        found, self._news = self._news, []
        return found

    def acknowledge(self, run_id: int, seq: int) -> None:
        """The points up to ``seq`` are stored; the next drain lets the worker forget them."""
        for slot, attempt in self._of(run_id):
            slot.acknowledged[attempt] = max(slot.acknowledged[attempt], seq)

    def forget(self, run_id: int) -> None:
        """The worker need not keep the outcome any longer."""
        for slot, attempt in list(self._of(run_id)):
            if slot.ready:
                slot.actor.forget.remote(*attempt)
            slot.waiting = [job for job in slot.waiting if job.run_id != run_id]
            del slot.acknowledged[attempt]
            slot.end(attempt)

    def abandon(self, run_id: int) -> None:
        """Another orchestrator has the attempt now; its worker is left alone."""
        for slot, _ in list(self._of(run_id)):
            if slot in self._slots:
                self._slots.remove(slot)

    def stop(self, run_id: int) -> None:
        """Asks an attempt to write a checkpoint and end."""
        for slot, attempt in self._of(run_id):
            if attempt in slot.stopped or attempt not in slot.training:
                continue
            slot.stopped[attempt] = time.monotonic()
            if not slot.waiting:
                slot.actor.stop.remote(*attempt)
            elif slot.call != "launch":
                slot.waiting = [job for job in slot.waiting if job.run_id != run_id]
                never = Outcome("stopped", None, 0, 0, 0.0, "stopped before its worker was ready")
                self._news.append(Delivery(*attempt, [], never))
                slot.end(attempt)

    def adopt(self, worker: str, run_id: int, attempt: int) -> bool:
        """Finds a detached worker by its name; False when it is gone or does something else by now."""
        try:
            actor: Any = ray.get_actor(worker, namespace=NAMESPACE)
            state: State = ray.get(actor.holds.remote(), timeout=ADOPT_SECONDS)
            held, resources = state
            if (run_id, attempt) not in held:
                return False
            slot = next((slot for slot in self._slots if slot.name == worker), None)
            if slot is None:
                slot = Slot(worker, find(worker, actor, resources), resources, ready=True)
                self._slots.append(slot)
        except (ValueError, RayActorError, GetTimeoutError):
            clear(worker)
            return False
        slot.training.add((run_id, attempt))
        slot.acknowledged[run_id, attempt] = 0
        return True

    def device(self, resources: Resources) -> Device | None:
        """What the worker with these resources trains on that started first."""
        return self._devices.get(resources)

    def calibrate(self, resources: Resources, subject: Subject) -> Calibration | None:
        """Occupies a warm worker with the timing of small trainings; None until they are done."""
        found = self._calibration
        if found is not None:
            self._calibration = None
            return found if found.kind == subject.kind else None
        if not any(slot.busy for slot in self._slots):
            for slot in self._slots:
                if slot.idle and slot.ready and slot.ref is None and slot.resources == resources:
                    slot.busy, self._timing = True, subject.kind
                    slot.ask("calibrate", slot.actor.calibrate.remote(subject))
                    break
        return None

    def close(self) -> None:
        """Ends every worker, on a cluster only those that do not train, and leaves Ray."""
        for slot in self._slots:
            if not self._external or not slot.acknowledged:
                slot.crew.dismiss()
        self._slots.clear()
        ray.shutdown()

    def _of(self, run_id: int) -> Iterator[tuple[Slot, Attempt]]:
        return (
            (slot, attempt) for slot in self._slots for attempt in slot.acknowledged if attempt[0] == run_id
        )

    def _machines(self) -> list[dict[str, float]]:
        """Resources of every live machine, asked for at most once in five seconds."""
        if self._nodes_at < 0 or time.monotonic() - self._nodes_at > 5.0:
            self._nodes = [node["Resources"] for node in _ray.nodes() if node["Alive"]]
            self._nodes_at = time.monotonic()
        return self._nodes

    def _why_not(self, asked: Resources) -> str:
        most = {
            kind: max((node.get(kind, 0.0) for node in self._machines()), default=0)
            for kind in ("CPU", "GPU")
        }
        shared = f" for {asked.processes} processes" if asked.processes > 1 else ""
        return (
            f"the run asks for {asked.cpus:g} CPUs and {asked.gpus:g} GPUs{shared}; the cluster's largest "
            f"machines have {most['CPU']:g} CPUs and {most['GPU']:g} GPUs; ask for less in resources or add "
            "a machine"
        )

    def _make_room(self, asked: Resources) -> Slot | None:
        """A new worker, where its resources are free; otherwise an idle one of another shape makes way."""
        free = _ray.available_resources()
        total = {kind: sum(node.get(kind, 0.0) for node in self._machines()) for kind in ("CPU", "GPU")}
        ours = {
            "CPU": sum(slot.resources.cpus for slot in self._slots),
            "GPU": sum(slot.resources.gpus for slot in self._slots),
        }
        needed = {"CPU": asked.cpus, "GPU": asked.gpus}
        lacking = {
            kind
            for kind, amount in needed.items()
            if amount > min(free.get(kind, 0.0), total[kind] - ours[kind]) + 1e-9
        }
        if not fits(asked, [(slot.resources, slot.place) for slot in self._slots], total["GPU"]):
            lacking.add("GPU")
        if not lacking:
            return self._open(asked)
        for slot in self._slots:
            has = {"CPU"} | ({"GPU"} if slot.resources.gpus > 0 else set())
            if slot.spare and slot.resources != asked and lacking & has:
                self._drop(slot)
                break
        return None

    def _open(self, resources: Resources) -> Slot:
        name = f"{self._owner}-{next(self._numbers)}"
        try:
            crew = hire(name, resources, detached=self._external)
        except ValueError as error:
            raise Unplaceable(
                f"Ray refuses {resources.cpus:g} CPUs and {resources.gpus:g} GPUs: {error}"
            ) from None
        slot = Slot(name, crew, resources)
        slot.ask("prepare", crew.prepare())
        self._slots.append(slot)
        return slot

    def _advance(self, slot: Slot, timeout: float) -> None:
        """Makes the next call to a worker that has answered the last one."""
        if slot.ref is not None:
            return
        if slot.waiting:
            slot.ask("launch", slot.actor.launch.remote(slot.waiting))
        elif slot.acknowledged:
            slot.ask("drain", slot.actor.drain.remote(slot.acknowledged, timeout))
        elif time.monotonic() - slot.called_at > PING_SECONDS:
            slot.ask("holds", slot.actor.holds.remote())

    def _answer(self, slot: Slot) -> None:
        call, ref = slot.call, slot.ref
        slot.call = slot.ref = None
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            if call != "calibrate":
                self._lose(slot, _plain(error))
                return
            answer = Calibration("unknown", self._timing, [], trouble=_plain(error))
        except RayError as error:
            self._lose(slot, _plain(error), out_of_memory=isinstance(error, OutOfMemoryError))
            return
        if call == "prepare":
            slot.ready, slot.place = True, answer.place
            self._devices.setdefault(slot.resources, answer)
        elif call == "calibrate":
            self._calibration, slot.busy = answer, False
        elif call == "launch":
            slot.waiting = []
            if not answer:
                self._lose(slot, "the worker was training other runs")
            for attempt in slot.stopped:
                slot.actor.stop.remote(*attempt)
        elif call == "drain":
            for delivery in answer:
                attempt = delivery.run_id, delivery.attempt
                if attempt in slot.acknowledged:
                    self._news.append(delivery)
                    if delivery.outcome is not None or delivery.error is not None:
                        slot.end(attempt)

    def _check_silence(self, slot: Slot) -> None:
        now = time.monotonic()
        if slot.call == "prepare" and now - slot.called_at > START_SECONDS:
            self._lose(slot, f"no worker could be started within {START_SECONDS:g} s")
        elif slot.call in ("launch", "drain") and now - slot.called_at > SILENCE_SECONDS:
            self._lose(slot, f"the worker did not answer for {SILENCE_SECONDS:g} s")
        elif slot.call == "calibrate" and now - slot.called_at > CALIBRATION_SECONDS:
            self._lose(slot, f"small trainings took longer than {CALIBRATION_SECONDS:g} s")
        elif any(now - asked > STOP_SECONDS for asked in slot.stopped.values()):
            self._lose(slot, f"the run did not stop within {STOP_SECONDS:g} s")

    def _lose(self, slot: Slot, error: str, out_of_memory: bool = False) -> None:
        for attempt in slot.acknowledged:
            begun = not slot.waiting or not slot.ready
            self._news.append(Delivery(*attempt, [], error=error, begun=begun, out_of_memory=out_of_memory))
        if slot.busy:
            self._calibration = Calibration("unknown", self._timing, [], trouble=error, lost=True)
        elif not slot.acknowledged:
            log.warning("worker %s was lost: %s", slot.name, error)
        self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        self._slots.remove(slot)
        slot.crew.dismiss()


def _connect(address: str | None) -> None:
    """Joins the cluster at an address, or starts a Ray of our own that says nothing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    # What Ray would print of dead workers comes to the log with the run they had.
    vars(ray._private.worker)["_worker_logs_enabled"] = False
    quiet: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "configure_logging": False,
        "logging_level": logging.ERROR,
    }
    if address is not None:
        ray.init(address=address, **quiet)
        return
    with _importable():
        ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Lets the workers of a Ray of our own import this code from wherever we were started."""
    before = os.environ.get("PYTHONPATH")
    root = str(Path(__file__).resolve().parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _plain(error: RayError) -> str:
    """One line that a user can do something with."""
    if isinstance(error, RayTaskError):
        return f"the worker failed: {type(error.cause).__name__}: {error.cause}"
    text = " ".join(str(error).split())
    detail = text.partition("Worker exit detail: ")[2].partition(" Some common causes")[0] or text
    return f"the worker died: {detail[:500]}"
