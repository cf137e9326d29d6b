"""Processes that share a device, for ``gpu.py``."""

from __future__ import annotations

import multiprocessing
from dataclasses import astuple
from multiprocessing.synchronize import Barrier
from typing import Any, TypeAlias

import torch
from parts.gpu_networks import Size, cohort_of, spec_of, step_seconds

from workers import device

WAIT_SECONDS = 200.0  # for all to be ready
Found: TypeAlias = tuple[float, float, str]  # steps a second, bytes of the device in use, and what broke


def beside_each_other(size: Size, count: int, seconds: float, precision: str) -> list[Found]:
    """What each of so many processes found while all of them trained a run."""
    context = multiprocessing.get_context("spawn")
    barrier, told = context.Barrier(count), context.Queue()
    given = (astuple(size), count, seconds, precision, barrier, told)
    processes = [context.Process(target=train, args=given) for _ in range(count)]
    for process in processes:
        process.start()
    found = [told.get(timeout=WAIT_SECONDS + 10 * seconds) for _ in processes]
    for process in processes:
        process.join()
    return found


def train(
    size: tuple[Any, ...], count: int, seconds: float, precision: str, barrier: Barrier, told: Any
) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    resources, found = spec_of(Size(*size)).resources, (0.0, 0.0, "")
    try:
        where = device.pick(resources)
        device.keep_to(where, resources.shared(count))
        cohort = cohort_of(Size(*size), precision=precision)
        cohort.advance()
        barrier.wait(WAIT_SECONDS)
        rate, used = 1.0 / step_seconds(cohort, seconds), 0.0
        if where.type == "cuda":
            free, total = torch.cuda.mem_get_info()
            used = float(total - free)
        found = rate, used, ""
    except Exception as error:  # such as too little memory: the others are told by the barrier
        barrier.abort()
        found = 0.0, 0.0, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    told.put(found)
