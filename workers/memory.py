"""Peak bytes of trainings, and what a device has of them."""

from __future__ import annotations

import os

import torch
from torch.profiler import ProfilerActivity, profile

from sweeps.resources import Resources
from workers import device
from workers.cohort import Cohort


def step_peak(cohort: Cohort, where: torch.device) -> float:
    """Makes one step more, and tells how many bytes were alive at most, the data set not counted.

    On a CPU every allocation of that step is recorded, which takes some tens of milliseconds.
    """
    standing = len(cohort.members) * sum(
        part.nbytes
        for parts in cohort.engine.state(0).values()
        if isinstance(parts, dict)
        for part in parts.values()
    )
    if where.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        cohort.advance()
        return float(standing + torch.cuda.max_memory_allocated() - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        cohort.advance()
    recorded = profiler.profiler.kineto_results.events()
    events = [event for event in recorded if event.name() == "[memory]"]
    used = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        used += event.nbytes()
        peak = max(peak, used)
    return float(standing + peak)


def available(resources: Resources) -> float:
    """Bytes that one worker may count on: its share of the GPU, or of the machine's memory by its CPUs."""
    where = device.pick(resources)
    share = resources.gpus if where.type == "cuda" else resources.cpus / (os.cpu_count() or 1)
    return device.memory(where) * min(1.0, share)
