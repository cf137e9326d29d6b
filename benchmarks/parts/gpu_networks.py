"""Networks that ``gpu.py`` measures."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from sweeps.spec import SweepSpec, parse
from workers import device
from workers.cohort import Cohort
from workers.job import Job

STEPS = 10_000  # that a run has; no measurement makes as many
TOGETHER = 16  # steps between two waits for the device, as in a training


@dataclass(frozen=True)
class Size:
    """A GPT."""

    name: str
    width: int
    depth: int
    resolution: int
    batch: int


def spec_of(size: Size, **trainer: str) -> SweepSpec:
    """A sweep whose runs have the size of a network; it is never at its end."""
    gpus = int(torch.cuda.is_available())
    return parse(
        {
            "name": "gpu",
            "proxy": {"heads": max(1, size.width // 64)},
            "space": {
                "width": size.width,
                "depth": size.depth,
                "resolution": size.resolution,
                "batch": size.batch,
                "tokens": STEPS * size.batch * size.resolution,
                "lr": [1e-4, 1e-3],
            },
            "targets": [{"at": {"width": size.width, "depth": size.depth, "tokens": 1e12}}],
            "resources": {"gpus": gpus},
            "trainer": trainer,
        }
    )


def cohort_of(size: Size, members: int = 1, **trainer: str) -> Cohort:
    """Runs that differ in their learning rate."""
    spec = spec_of(size, **trainer)
    rates = torch.logspace(-4, -3, members).tolist()
    configs = [spec.complete({"lr": rate}) for rate in rates]
    return Cohort([Job(i, 0, spec, spec.source, one, "", 1e9, None) for i, one in enumerate(configs)])


def params(size: Size) -> float:
    """Of a network."""
    spec = spec_of(size)
    return spec.cost(spec.complete({"lr": 1e-3})).params_total


def step_seconds(cohort: Cohort, seconds: float) -> float:
    """Of one step of all members, in the mean of as many as fit into a time."""
    where = device.pick(cohort._spec.resources)
    for _ in range(8):  # compiles, and records graphs
        cohort.advance()
    device.wait(where)
    began, first = time.perf_counter(), cohort.step
    while time.perf_counter() - began < seconds:
        for _ in range(TOGETHER):
            cohort.advance()
        device.wait(where)
        cohort._losses.clear()
    return (time.perf_counter() - began) / (cohort.step - first)
