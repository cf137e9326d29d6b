"""Short measured trainings, from which the seconds of others are foretold."""

from __future__ import annotations

import platform
import time

import torch

from sweeps.cost import Timing
from sweeps.spec import Config, SweepSpec, parse
from workers import train

SHAPES = ((8, 1, 8), (16, 2, 32), (48, 2, 8), (64, 3, 16), (96, 4, 8))  # width, depth, batch
WARM_STEPS = 2


def device() -> str:
    """Name of what ``calibrate`` times on, the same for all machines of a kind."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def calibrate(seconds: float = 3.0) -> list[Timing]:
    """Trains models of several shapes for a few steps each, on the GPU if there is one, else on one thread.

    Args:
        seconds: to spend in all, about; reading the text comes on top.

    Returns:
        One timing a shape; its cost is that of the steps that were timed.
    """
    threads = torch.get_num_threads()
    spec = _spec()
    try:
        return [_time(spec, shape, seconds / len(SHAPES)) for shape in SHAPES]
    finally:
        torch.set_num_threads(threads)


def _spec() -> SweepSpec:
    widths, depths, batches = ([float(value) for value in values] for values in zip(*SHAPES, strict=True))
    return parse(
        {
            "name": "calibration",
            "space": {"width": widths, "depth": depths, "batch": batches, "tokens": 1e9},
            "targets": [{"at": {"width": max(widths), "depth": max(depths), "tokens": 1e9}}],
            "resources": {"cpus": 1, "gpus": int(torch.cuda.is_available())},
        }
    )


def _time(spec: SweepSpec, shape: tuple[int, int, int], seconds: float) -> Timing:
    """Times at least one step of a model."""
    config: Config = spec.complete(dict(zip(("width", "depth", "batch"), map(float, shape), strict=True)))
    training = train.start(spec, config)
    for _ in range(WARM_STEPS):
        train.advance(training)
    _wait(training)
    began, first = time.perf_counter(), training.progress.step
    while True:
        train.advance(training)
        _wait(training)
        spent = time.perf_counter() - began
        if spent >= seconds:
            break
    steps = training.progress.step - first
    timed = config | {"tokens": steps * config["batch"] * config["resolution"]}
    return Timing(spec.cost(timed), spent)


def _wait(training: train.Training) -> None:
    """Lets the device finish what was asked of it."""
    training.losses[-1].item()
