"""What one GPU does: stacks, processes that share it, shares of its peak, compiled steps, data.

    python benchmarks/gpu.py [--out results.json] [--only stack,share] [--tiny]

It takes under 8 minutes on one GPU. ``--tiny`` runs every part on what is there, on a CPU in seconds; its
numbers say nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from parts.gpu_networks import Size, cohort_of, params, spec_of, step_seconds
from parts.gpu_sharing import beside_each_other

from sweeps.cost import fit_seconds
from sweeps.data import SOURCES
from workers import device, provenance
from workers.calibrate import SHAPES, Shape, grown, make_spec, measure
from workers.datasets import load

ASKED_RATIO, ASKED_SHARE = 8.0, 0.40
LIMIT_SECONDS = 400.0  # nothing is begun after that
_began = time.perf_counter()
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured: how large, and for how long each.

    Args:
        stacked: the network of which many learning rates train at once, (members) of them.
        large: the network that is to use the device well.
        sizes: for step times.
        ladder: widths at which stacking may pay, with members.
        seconds: of each measurement.
        run_steps: of a run, over which the start of its process counts.
        sharers: numbers of processes that have the device together.
        calibrated: shapes from which what sharing brings is foretold.
    """

    stacked: Size
    members: int
    large: Size
    sizes: tuple[Size, ...]
    ladder: tuple[int, ...]
    counts: tuple[int, ...]
    seconds: float
    run_steps: int
    images: int
    pixels: int
    sharers: tuple[int, ...]
    calibrated: tuple[Shape, ...]


FULL = Plan(
    stacked=Size("1M", 128, 5, 128, 16),
    members=32,
    large=Size("100M", 768, 14, 1024, 8),
    sizes=(Size("1M", 128, 5, 128, 16), Size("10M", 320, 8, 256, 16), Size("100M", 768, 14, 1024, 8)),
    ladder=(32, 64, 128, 256, 512),
    counts=(4, 16, 64),
    seconds=2.0,
    run_steps=1000,
    images=4096,
    pixels=32,
    sharers=(2, 4, 8),
    calibrated=SHAPES["gpt"],
)
TINY = Plan(
    stacked=Size("tiny", 8, 1, 16, 4),
    members=3,
    large=Size("large", 16, 1, 16, 4),
    sizes=(Size("tiny", 8, 1, 16, 4),),
    ladder=(8, 16),
    counts=(2,),
    seconds=0.05,
    run_steps=10,
    images=16,
    pixels=8,
    sharers=(2,),
    calibrated=(Shape(8, 1, 4),),
)


def timed(size: Size, seconds: float, members: int = 1, **trainer: str) -> Row:
    """Seconds of a step, or why there are none."""
    if time.perf_counter() - _began > LIMIT_SECONDS:
        return {"seconds": None, "error": f"not begun after {LIMIT_SECONDS:g} s"}
    try:
        where = device.pick(spec_of(size).resources)
        device.forget_peak(where)
        found: Row = {"seconds": step_seconds(cohort_of(size, members, **trainer), seconds)}
        if where.type == "cuda":
            found["memory_gib"] = torch.cuda.max_memory_allocated() / device.GIB
    except Exception as error:  # such as too little memory: the other rows go on
        found = {"seconds": None, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        traceback.clear_frames(error.__traceback__)
    release()
    return found


def release() -> None:
    """Gives back what networks took that are no more."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def start_seconds(size: Size) -> float:
    """A process from nothing to its first step."""
    code = f"from benchmarks.parts import gpu_networks as gpu; gpu.cohort_of(gpu.{size}).advance().tolist()"
    root = str(Path(__file__).resolve().parent.parent)
    given = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=given)
    return time.perf_counter() - began


def stack(plan: Plan) -> Iterator[Row]:
    """Learning rates of a small GPT as one stack, against one process after the other."""
    start = start_seconds(plan.stacked)
    for precision in ("float32", "tf32", "bfloat16"):
        alone = timed(plan.stacked, plan.seconds, precision=precision)["seconds"]
        for execution in ("plain", "compiled"):
            given = {"precision": precision, "execution": execution}
            found = timed(plan.stacked, plan.seconds, plan.members, **given)
            row = given | {"members": plan.members, "params": params(plan.stacked)}
            if found["seconds"] and alone:
                one, all_ = alone * plan.run_steps, found["seconds"] * plan.run_steps
                row |= {
                    "runs_per_hour": 3600.0 * plan.members / all_,
                    "ratio_of_steps": plan.members * one / all_,
                    "ratio_with_start": plan.members * (one + start) / (all_ + start),
                    "start_seconds": start,
                    "asked": ASKED_RATIO,
                }
            yield row | found


def share(plan: Plan) -> Iterator[Row]:
    """The part of the measured rate of matrix products that a large network reaches in bfloat16."""
    spec = spec_of(plan.large)
    where = device.pick(spec.resources)
    cost = spec.cost(spec.complete({"lr": 1e-3}))
    peak = device.peak_flops(where.type, "bfloat16", torch.get_num_threads())
    for execution in ("plain", "compiled"):
        found = timed(plan.large, plan.seconds, precision="bfloat16", execution=execution)
        row: Row = {"execution": execution, "params": cost.params_total, "peak_flops": peak}
        if found["seconds"]:
            rate = cost.flops / cost.steps / found["seconds"]
            row |= {"flops": rate, "share": rate / peak, "asked": ASKED_SHARE}
        yield row | found


def steps(plan: Plan) -> Iterator[Row]:
    """Seconds of a step by size, precision and execution; compiled stacks are CUDA graphs."""
    for size in plan.sizes:
        for members, precision, execution in (
            (1, "float32", "plain"),
            (1, "tf32", "plain"),
            (1, "tf32", "compiled"),
            (1, "bfloat16", "plain"),
            (1, "bfloat16", "compiled"),
            (4, "tf32", "plain"),
            (4, "tf32", "compiled"),
        ):
            given = {"precision": precision, "execution": execution}
            found = timed(size, plan.seconds / 2, members, **given)
            yield {"size": size.name, "members": members} | given | found


def pays(plan: Plan) -> Iterator[Row]:
    """The largest network of which a stack is faster than its members one after the other."""
    given = {"precision": "tf32", "execution": "compiled"}
    largest: dict[int, float] = dict.fromkeys(plan.counts, 0.0)
    for width in plan.ladder:
        size = Size(str(width), width, 4, plan.stacked.resolution, plan.stacked.batch)
        alone = timed(size, plan.seconds / 2, precision="tf32")["seconds"]
        for members in plan.counts:
            found = timed(size, plan.seconds / 2, members, **given)
            row: Row = {"params": params(size), "members": members} | found
            if alone and found["seconds"]:
                row["ratio"] = members * alone / found["seconds"]
                if row["ratio"] > 1.0:
                    largest[members] = max(largest[members], params(size))
            yield row
    for members, count in largest.items():
        yield {"members": members, "largest_params_that_pay": count}


def sharing(plan: Plan) -> Iterator[Row]:
    """Processes that train one run each on the same device, against one of them, beside what is foretold."""
    resources = spec_of(plan.stacked).resources
    where = device.pick(resources)
    shapes = [replace(one, members=(1,)) for one in grown(plan.calibrated, where)]
    known = fit_seconds(measure(make_spec(resources, "gpt", shapes), shapes, where, plan.seconds))
    release()
    for size in plan.sizes:
        spec = spec_of(size)
        cost = spec.cost(spec.complete({"lr": 1e-3}))
        alone = timed(size, plan.seconds, precision="tf32")["seconds"]
        for count in plan.sharers:
            row: Row = {"size": size.name, "processes": count}
            if time.perf_counter() - _began > LIMIT_SECONDS:
                yield row | {"error": f"not begun after {LIMIT_SECONDS:g} s"}
                continue
            rates, used, errors = zip(*beside_each_other(size, count, plan.seconds, "tf32"), strict=True)
            row |= {"steps_per_second": sum(rates), "memory_gib": max(used) / device.GIB}
            if alone:
                row["ratio"] = sum(rates) * alone
            if known is not None:
                row["foretold"] = known(cost) / known(cost, count)
            broke = [error for error in errors if error]
            yield row | ({"error": broke[0]} if broke else {})


def data(plan: Plan) -> Iterator[Row]:
    """Images that the device makes up in a second, and whether a step waits for the device."""
    where = device.pick(spec_of(plan.stacked).resources)
    examples = load(SOURCES["glyphs"], plan.pixels, where)
    places = torch.arange(plan.images, device=where)
    examples.take("train", places)
    device.wait(where)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < plan.seconds:
        examples.take("train", places + done)
        device.wait(where)
        done += plan.images
    yield {"glyphs_per_second": done / (time.perf_counter() - began), "pixels": plan.pixels}
    for members in (1, 4):
        for execution in ("plain", "compiled"):
            yield {"members": members, "execution": execution} | waits(plan, members, execution)


def waits(plan: Plan, members: int, execution: str) -> Row:
    """Whether 70 steps, more than the places that are drawn at once, make the host wait."""
    if not torch.cuda.is_available():
        return {"waits": "not on a GPU"}
    cohort = cohort_of(plan.stacked, members, precision="tf32", execution=execution)
    for _ in range(8):
        cohort.advance()
    device.wait(torch.device("cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(70):
            cohort.advance()
    except RuntimeError as error:
        frames = traceback.extract_tb(error.__traceback__)
        return {"waits": f"{str(error).splitlines()[0]} at {frames[-1].filename}:{frames[-1].lineno}"}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"waits": "never"}


PARTS: Mapping[str, Callable[[Plan], Iterator[Row]]] = {
    "stack": stack,
    "sharing": sharing,
    "share": share,
    "steps": steps,
    "pays": pays,
    "data": data,
}


def shown(row: Row) -> str:
    """A line of the table."""
    values = {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()}
    return "  " + "  ".join(f"{name}={value}" for name, value in values.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="file that a line of JSON is appended to")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that it runs")
    given = parser.parse_args()
    plan = TINY if given.tiny else FULL
    if not (given.tiny or torch.cuda.is_available()):
        print("PyTorch sees no GPU here; --tiny runs on a CPU")
        return
    if given.tiny:
        torch._dynamo.config.disable = True  # compiling alone takes minutes
    ran = provenance.record(0, device.name(), torch.get_num_threads(), 1, {}, False, {})
    print(f"{ran['device']}, torch {ran['torch']}")
    found: dict[str, list[Row]] = {}
    for name in given.only.split(","):
        print(f"{name}: {(PARTS[name].__doc__ or '').strip()}", flush=True)
        found[name] = []
        for row in PARTS[name](plan):
            found[name].append(row)
            print(shown(row), flush=True)
    seconds = time.perf_counter() - _began
    print(f"{seconds:.0f} s in all")
    if given.out is not None:
        with given.out.open("a") as file:
            file.write(
                json.dumps({"ran": ran, "tiny": given.tiny, "seconds": seconds, "parts": found}) + "\n"
            )


if __name__ == "__main__":
    main()
