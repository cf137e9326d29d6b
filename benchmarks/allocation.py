"""Is the shape that a sweep predicts as good as EfficientNet's rule? Real training on ``glyphs``.

    python benchmarks/allocation.py --kind convnet [--seeds 6] [--processes 2] [--runs FILE]

Every shape of a grid of widths, depths and resolutions that costs at most C is trained with several seeds of
its own, since these differ by more than shapes do, and with a rate that maximal update carries from shape to
shape. The laws of the catalogue that read width and depth are fitted, with a best resolution that moves with
both. The base is the shape of the lowest mean loss at a small compute, an eighth to a quarter of C. From it
the largest compute of the sweep is doubled, with images and batch as they are: by EfficientNet's rule (Tan
and Le 2019), by other rules, and by the sweep's answer for the best of all shapes. Each is trained with
several seeds.
Printed: predicted and measured loss, and the difference to EfficientNet's with its standard error.

``--runs`` keeps each run in a file and takes from there what was trained before.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts.trained import trained

from sweeps.ensemble import fit_ensemble
from sweeps.runs import Observation
from sweeps.shape_choice import FREE, choose_in_sweep
from sweeps.spec import Config, SweepSpec, parse

SHAPE = ("width", "depth", "resolution")
GRIDS: dict[str, dict[str, Any]] = {
    "convnet": {
        "width": [4, 6, 8, 12, 16],
        "widths": range(4, 25),  # that can be trained
        "depth": [1, 2, 3],
        "resolution": [8, 12, 16, 20],
        "tokens": 32_000,
        "most": 1.2e11,
        "lr": 0.006,
        "doubled": [12, 1, 12],  # a shape of about 2 C
        "base": {"base_width": 8, "base_depth": 1},
    },
    "vit": {
        "width": [16, 24, 32, 48],
        "widths": range(16, 97, 4),
        "depth": [1, 2, 4],
        "resolution": [8, 12, 16, 20],
        "tokens": 64_000,
        "most": 1.0e11,
        "lr": 0.004,
        "doubled": [48, 2, 12],
        "base": {"base_width": 16, "base_depth": 2},
    },
}
SMALL = 8.0, 4.0  # parts of C between which the base is chosen
REPEATS, APART = 4, 100  # runs of a shape of the sweep, and the distance of their seeds
BESIDE = ("dWr", "dwr")
DOUBLED = 2.0


def question(kind: str) -> SweepSpec:
    """The sweep."""
    grid = GRIDS[kind]
    return parse(
        {
            "name": "the best shape",
            "proxy": {"kind": kind, "dataset": "glyphs"} | grid["base"],
            "space": {name: grid[name] for name in ("depth", "resolution", "tokens", "lr")}
            | {"width": [*grid["widths"]], "batch": 16, "weight_decay": 0.0, "mup": 1},
            "targets": [{"at": dict(zip(SHAPE, grid["doubled"], strict=True)) | {"tokens": grid["tokens"]}}],
            "budget": {"flops_per_run": grid["most"]},
            "laws": {"names": ["gemstones", "width_depth"]},
            "trainer": {"evaluations": 1, "eval_tokens": 8192},
        }
    )


def losses_of(kind: str, configs: list[Config]) -> list[float]:
    """Of runs of one shape, in a process of their own."""
    torch.set_num_threads(1)
    return trained(question(kind), configs)


@dataclass
class Runs:
    """Losses by configuration, kept in a file where there is one.

    Args:
        processes: that train, a shape and a thread each.
    """

    kind: str
    processes: Executor
    file: Path | None
    known: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.file is not None and self.file.exists():
            self.known = dict(json.loads(line) for line in self.file.read_text().splitlines())

    def losses(self, configs: list[Config]) -> list[float]:
        """Of each, trained where it was not, seeds of a shape together."""
        missing: dict[str, dict[str, Config]] = {}
        keys = [json.dumps(one, sort_keys=True) for one in configs]
        for key, one in zip(keys, configs, strict=True):
            if key not in self.known:
                missing.setdefault(named(one), {})[key] = one
        training = {
            self.processes.submit(losses_of, self.kind, [*group.values()]): [*group]
            for group in missing.values()
        }
        for ended in as_completed(training):
            found = dict(zip(training[ended], ended.result(), strict=True))
            self.known |= found
            for key, loss in found.items():
                print(f"{named(json.loads(key)):>12}{loss:>9.4f}", flush=True)
            if self.file is not None:
                with self.file.open("a") as kept:
                    kept.writelines(f"{json.dumps(pair)}\n" for pair in found.items())
        return [self.known[key] for key in keys]


def named(at: Config) -> str:
    """A shape in short."""
    return " x ".join(f"{at[name]:g}" for name in SHAPE)


def sweep(spec: SweepSpec, runs: Runs) -> list[Observation]:
    """Every shape that may be paid for, with seeds of its own."""
    grid = GRIDS[runs.kind]
    shapes = [dict(zip(SHAPE, map(float, one), strict=True)) for one in product(*(grid[n] for n in SHAPE))]
    configs = [
        spec.complete(shape | {"seed": float(i + APART * again)})
        for i, shape in enumerate(shapes)
        for again in range(REPEATS)
    ]
    costs = [spec.cost(one) for one in configs]
    paid = [(one, cost) for one, cost in zip(configs, costs, strict=True) if cost.flops <= grid["most"]]
    paid.sort(key=lambda pair: pair[1].flops)
    losses = runs.losses([one for one, _ in paid])
    return [Observation(one, cost, loss) for (one, cost), loss in zip(paid, losses, strict=True)]


def base_of(seen: list[Observation], most: float) -> Config:
    """The shape of the lowest mean loss at a small compute."""
    small: dict[str, list[Observation]] = {}
    for one in seen:
        if most / SMALL[0] <= one.cost.flops <= most / SMALL[1]:
            small.setdefault(named(one.config), []).append(one)
    means = {shape: float(np.mean([one.loss for one in runs])) for shape, runs in small.items()}
    best = min(means, key=lambda shape: means[shape])
    print(f"base: {best}, {means[best]:.4f}, the best of {len(means)} shapes at a small compute")
    return small[best][0].config


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", default="convnet", choices=[*GRIDS])
    parser.add_argument("--seeds", type=int, default=6, help="of each shape that is compared")
    parser.add_argument("--runs", type=Path, help="file of runs that were trained before")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    with ProcessPoolExecutor(asked.processes, multiprocessing.get_context("spawn")) as processes:
        compared(Runs(asked.kind, processes, asked.runs), asked.seeds)


def compared(runs: Runs, seeds: int) -> None:
    """Trains all of it and prints what came out."""
    spec = question(runs.kind)
    seen = sweep(spec, runs)
    most = max(one.cost.flops for one in seen)
    base = base_of(seen, most)
    found = fit_ensemble(spec, seen, np.random.default_rng(0))
    for one in found.members:
        print(f"{one.fit.law}, weight {one.weight:.2f}, residual {one.fit.residual:.3f}")
    at = {name: base[name] for name in (*SHAPE, "tokens")}
    choices = choose_in_sweep(spec, found, at, DOUBLED * most / spec.cost(base).flops)
    by = {one.strategy: one for one in choices}
    print(f"\n{runs.kind}: {len(seen)} runs of up to {most:.3g} FLOPs; base {named(base)}\n")
    rules = ("efficientnet", FREE, *(name for name in BESIDE if name in by))
    finals = [by[rule].at | {"seed": 2000.0 + i} for rule in rules for i in range(seeds)]
    losses = dict(zip(rules, np.reshape(runs.losses(finals), (len(rules), seeds)), strict=True))
    theirs = losses["efficientnet"]
    print(
        "| rule | width x depth x resolution | FLOPs over C | predicted (90 % of a mean) | measured | more |"
    )
    print("|---|---|---|---|---|---|")
    for rule, loss in losses.items():
        one, error = by[rule], np.sqrt((loss.var(ddof=1) + theirs.var(ddof=1)) / seeds)
        alike = "" if rule == "efficientnet" else "the same shape"
        apart = f"{loss.mean() - theirs.mean():+.4f} +- {error:.4f}"
        more = alike if one.at == by["efficientnet"].at else apart
        predicted = f"{one.loss:.4f} ({one.mean_low:.4f} to {one.mean_high:.4f})"
        measured = f"{loss.mean():.4f} +- {loss.std(ddof=1) / np.sqrt(seeds):.4f}"
        share = spec.cost(one.at).flops / most
        print(f"| {rule} | {named(one.at)} | {share:.3f} | {predicted} | {measured} | {more} |")


if __name__ == "__main__":
    main()
