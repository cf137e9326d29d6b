"""Short measured trainings of networks that the user's code builds, and whether these can be stacked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sweeps.cost import Timing
from sweeps.peak import Room
from sweeps.resources import Resources
from sweeps.spec import Config, SweepSpec
from workers import device, provenance
from workers.calibrate import LENGTH, ROUNDS, STACKED, WARM_STEPS, held_to, make, quickest
from workers.cohort import Cohort
from workers.executor import Calibration, Networks
from workers.memory import available, step_peak
from workers.train import out_of_memory

SECONDS = 2.0  # to spend on timed steps, about
LONGEST = 30.0  # seconds after which nothing more is built
ALIKE = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 5e-2}  # relative, what stacks and single runs agree in
TOLD = 300  # characters of what an error says


class Refusal(Exception):
    """Networks cannot be stacked, and why."""


def rehearse(resources: Resources, kind: str, networks: Networks, peaks: bool = True) -> Calibration:
    """Trains networks of several shapes for a few steps each, alone and, where that works, stacked.

    A stack counts only if its first member has the losses and gradient norms that it has alone, and if no
    step changes a buffer. Otherwise no stack of these networks does, and what is found tells why. Shapes
    that raise are left out, as is what would take too long or too much memory.

    Args:
        resources: of one run.
        kind: as ``Proxy.trainer`` gives it.
        networks: what is timed.
        peaks: whether memory is measured; not where other threads train: PyTorch's profiler may crash then.

    Returns:
        One timing a shape and number of members, of one step.
    """
    code = provenance.imported_contents(networks.spec.proxy.entry or "")
    with held_to(resources) as (own, where):
        rehearsal = _Rehearsal(networks, own, where, peaks)
        for config in networks.configs:
            rehearsal.time(config)
        found = [one for one in rehearsal.timings if one.members == 1 or rehearsal.refused is None]
        trouble = rehearsal.refused if found else rehearsal.broke
        timings = [replace(one, kind=kind) for one in found]
        return Calibration(device.name(where), kind, timings, code, trouble)


@dataclass(frozen=True)
class _Seen:
    """The first steps of a cohort.

    Args:
        numbers: losses and gradient norms of its first member.
        changed: name of a buffer that they changed, None where there is none.
        seconds: of the last of them.
        peak: bytes of one, None where that is not measured.
    """

    cohort: Cohort
    numbers: Tensor
    changed: str | None
    seconds: float
    peak: float | None

    @property
    def members(self) -> int:
        return len(self.cohort.members)


class _Rehearsal:
    """What was timed so far.

    Args:
        own: what the networks are trained with.
        where: they are trained.
    """

    def __init__(self, networks: Networks, own: Resources, where: torch.device, peaks: bool) -> None:
        self._spec = _plain(networks.spec, own)
        self._source = networks.source
        self._where, self._peaks = where, peaks
        self._room = Room(available(own)).of(1)
        self._share = SECONDS / len(networks.configs)
        self._ends = time.monotonic() + LONGEST
        self.timings: list[Timing] = []
        self.refused = networks.refused
        self.broke: str | None = None  # what the last shape raised that does not train

    def time(self, config: Config) -> None:
        """Adds the timings of a shape.

        Args:
            config: of one step.
        """
        if self.timings and time.monotonic() > self._ends:
            return
        try:
            seen = [self._first_steps(config, 1)]
        except Exception as error:
            self.broke = _told(error)
            return
        try:
            seen += self._stacks(config, seen[0])
        except Refusal as why:
            self.refused = str(why)
        devices, cost = self._spec.resources.gpus or self._spec.resources.cpus, self._spec.cost(config)
        took = quickest([one.cohort for one in seen], self._where, self._share)
        for one, step in zip(seen, took, strict=True):
            one.cohort.stop_reading()
            seconds = devices * step / one.members
            self.timings.append(Timing(cost, seconds, members=one.members, memory=one.peak))

    def _stacks(self, config: Config, alone: _Seen) -> Iterator[_Seen]:
        """Ever larger ones, as long as time and memory suffice.

        Raises:
            Refusal: the shape cannot be stacked.
        """
        latest = alone
        for members in STACKED[1:]:
            times = members / latest.members
            rounds = ROUNDS * times * latest.seconds
            slow, large = time.monotonic() + rounds > self._ends, (latest.peak or 0.0) * times > self._room
            if slow or large or self.refused is not None:
                return
            if alone.changed is not None:
                raise Refusal(
                    f"a step changes the buffer {alone.changed}, which members of a stack would share"
                )
            try:
                latest = self._first_steps(config, members)
            except Exception as error:
                if out_of_memory(error):
                    return
                raise Refusal(_told(error)) from None
            self._compare(alone.numbers, latest.numbers)
            yield latest

    def _first_steps(self, config: Config, members: int) -> _Seen:
        cohort = make(self._spec, self._source, config | {"tokens": LENGTH * config["batch"]}, members)
        model, numbers, began = cohort.engine.model(0), list[Tensor](), 0.0
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        try:
            for _ in range(WARM_STEPS + 1):
                began = time.monotonic()
                numbers += [cohort.advance()[0].detach(), cohort.engine.norms[0].detach()]
                device.wait(self._where)
            seconds = time.monotonic() - began
            peak = step_peak(cohort, self._where) if self._peaks else None
        except BaseException:
            cohort.stop_reading()
            raise
        now = dict(cohort.engine.model(0).named_buffers())
        changed = next((name for name, buffer in before.items() if not torch.equal(buffer, now[name])), None)
        return _Seen(cohort, torch.stack(numbers).double().cpu(), changed, seconds, peak)

    def _compare(self, alone: Tensor, stacked: Tensor) -> None:
        within = ALIKE[self._spec.trainer.precision]
        if not torch.allclose(stacked, alone, rtol=within, atol=0.0, equal_nan=True):
            one, other = (
                f"loss {loss:.6g}, gradient norm {norm:.6g}"
                for loss, norm in (alone[-2:].tolist(), stacked[-2:].tolist())
            )
            raise Refusal(
                f"a member of a stack does not train as it does alone: {one} alone, {other} stacked"
            )


def _plain(spec: SweepSpec, own: Resources) -> SweepSpec:
    """A specification that takes configurations as they are and compiles nothing before the first step."""
    return replace(
        spec,
        resources=own,
        proxy=replace(spec.proxy, scaling=None),
        trainer=replace(spec.trainer, execution="plain"),
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:TOLD]}"
