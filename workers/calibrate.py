"""Short measured trainings, from which the seconds of others are foretold."""

from __future__ import annotations

import time
from dataclasses import asdict, replace

import torch

from sweeps.cost import Timing
from sweeps.data import STDLIB
from sweeps.spec import Config, Resources, SweepSpec, parse
from workers import device
from workers.cohort import Cohort
from workers.job import Job

SHAPES = ((8, 1, 8), (16, 2, 32), (48, 2, 8), (64, 3, 16), (96, 4, 8))  # width, depth, batch
WARM_STEPS = 2


def calibrate(resources: Resources, seconds: float = 3.0) -> list[Timing]:
    """Trains models of several shapes for a few steps each.

    Args:
        resources: of one run.
        seconds: to spend in all, about; reading the text comes on top.

    Returns:
        One timing a shape; its cost is that of the steps that were timed.
    """
    threads = torch.get_num_threads()
    one = resources.processes  # what the others of a run that several train have is not timed
    spec = _spec(replace(resources, cpus=resources.cpus / one, gpus=resources.gpus / one, processes=1))
    try:
        return [_time(spec, shape, seconds / len(SHAPES)) for shape in SHAPES]
    finally:
        torch.set_num_threads(threads)


def _spec(resources: Resources) -> SweepSpec:
    widths, depths, batches = ([float(value) for value in values] for values in zip(*SHAPES, strict=True))
    return parse(
        {
            "name": "calibration",
            "space": {"width": widths, "depth": depths, "batch": batches, "tokens": 1e9},
            "targets": [{"at": {"width": max(widths), "depth": max(depths), "tokens": 1e9}}],
            "resources": asdict(resources),
        }
    )


def _time(spec: SweepSpec, shape: tuple[int, int, int], seconds: float) -> Timing:
    """Times at least one step of a model."""
    config: Config = spec.complete(dict(zip(("width", "depth", "batch"), map(float, shape), strict=True)))
    cohort = Cohort([Job(0, 0, spec, STDLIB, config, "", 0.0, None)])
    where = device.pick(spec.resources)
    for _ in range(WARM_STEPS):
        cohort.advance()
    device.wait(where)
    began, first = time.perf_counter(), cohort.step
    while True:
        cohort.advance()
        device.wait(where)
        spent = time.perf_counter() - began
        if spent >= seconds:
            break
    steps = cohort.step - first
    timed = config | {"tokens": steps * config["batch"] * config["resolution"]}
    return Timing(spec.cost(timed), spent)
