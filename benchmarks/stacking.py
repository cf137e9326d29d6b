"""Stacked training against one process per run, and what the decision says.

    python benchmarks/stacking.py [--rounds 5] [--seconds 1]

Multilayer perceptrons on digits, batch 32. Both arms have two single-threaded processes on the same two
cores: each trains one cohort of 16 members, or cohorts of one. They take turns, and the ratio is that of the
steps of all models a second, in the median of the rounds. Asked for: 6 at about 1,000 parameters, 2 at about
10,000; at 40,000 and 100,000 the decision must not stack where that loses. The last column
is the size of stack that a calibration of this machine, taken just before, decides on.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np
import torch
from parts.options import options

from sweeps.peak import Room
from sweeps.resources import Resources
from sweeps.stacks import Packing, learn_stacks
from workers.calibrate import Shape, calibrate, make, make_spec, shape_config

MEMBERS, PROCESSES = 16, 2
SHAPES = (Shape(12, 2, 32), Shape(56, 3, 32), Shape(124, 3, 32), Shape(208, 3, 32))


def main() -> None:
    given = options(__doc__, rounds=5, seconds=1.0)
    timings = [type(one)(**{**vars(one), "device": "here"}) for one in calibrate(Resources(), "mlp")]
    stacks = learn_stacks(timings, "mlp", "here")
    assert stacks is not None
    print(f"calibration: error told {stacks.alone.error:.2f} alone, {stacks.together.error:.2f} stacked")
    heads = f"{'params':>8} {'alone/s':>9} {'stacked/s':>10} {'ratio':>6} {'low':>6} {'high':>6}"
    print(f"{heads} {'foretold':>9} decision")
    spec = make_spec(Resources(), "mlp", SHAPES)
    for shape in SHAPES:
        alone, stacked = rates(shape, given.rounds, given.seconds)
        cost = spec.cost(shape_config(spec, shape))
        ratio = np.sort(stacked / alone)
        print(
            f"{int(cost.params_total):8} {np.median(alone):9.0f} {np.median(stacked):10.0f} "
            f"{np.median(ratio):6.2f} {ratio[0]:6.2f} {ratio[-1]:6.2f} "
            f"{float(stacks.gain(vars(cost), Packing(MEMBERS))):9.2f} {stacks.pack(cost, Room(1e9)).members}",
            flush=True,
        )


def rates(shape: Shape, rounds: int, seconds: float) -> tuple[Any, Any]:
    """Steps of all models a second of both processes, alone and stacked, by round."""
    context = multiprocessing.get_context("spawn")
    barrier, told = context.Barrier(PROCESSES), context.Queue()
    processes = [
        context.Process(target=train, args=(shape, rounds, seconds, barrier, told)) for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    alone, stacked = np.sum([told.get() for _ in processes], axis=0)
    for process in processes:
        process.join()
    return alone, stacked


def train(shape: Shape, rounds: int, seconds: float, barrier: Barrier, told: Any) -> None:
    """One process of both arms, in turns."""
    torch.set_num_threads(1)
    spec = make_spec(Resources(), "mlp", SHAPES)
    cohorts = {
        members: make(spec, spec.source, shape_config(spec, shape), members) for members in (1, MEMBERS)
    }
    found: dict[int, list[float]] = {members: [] for members in cohorts}
    for _ in range(rounds):
        for members, cohort in cohorts.items():
            cohort.advance()
            barrier.wait()
            began, first = time.perf_counter(), cohort.step
            while time.perf_counter() - began < seconds and cohort.step < cohort.members[0].steps:
                cohort.advance()
            found[members].append(members * (cohort.step - first) / (time.perf_counter() - began))
    told.put([found[1], found[MEMBERS]])


if __name__ == "__main__":
    main()
