"""How far the best learning rate moves with the width, standard and under maximal update.

    python benchmarks/mup.py [--kind mlp] [--dataset glyphs] [--widths 32,64,128,256,512] [--seeds 4]

Adam without weight decay, all rates and seeds of a width as one stacked cohort; both parametrisations are one
at the smallest width. The best rate is the lowest point of a parabola in ln rate through the median over
seeds of the final held-out loss at the best rate of the grid and its two neighbours on each side.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sweeps.coordinates import PARAMETRISATIONS
from sweeps.data import SOURCES
from sweeps.runs import Point
from sweeps.spec import Config, SweepSpec, parse
from workers.job import Job, Outcome, Provenance, Verdict
from workers.train import train

BESIDE = 2  # points of the grid on each side of the best that the parabola goes through
ASKED = 1.5, 3.0  # under mup at most, under standard at least
MORE = 4  # times the seeds of the widest model, at most, that narrower ones get: they differ more by seed
SHAPES = {
    "mlp": {"depth": 3, "resolution": 8},
    "convnet": {"depth": 1},
    "vit": {"depth": 2},
    "gpt": {"depth": 2, "resolution": 32},
}


class Ends:
    """Keeps final losses by run."""

    def __init__(self) -> None:
        self.loss: dict[int, float] = {}

    def began(self, run_id: int, provenance: Provenance) -> None:
        """Is not asked about."""

    def points(self, run_id: int, points: list[Point]) -> Verdict:  # noqa: ARG002
        return Verdict.CONTINUE

    def ended(self, run_id: int, outcome: Outcome) -> None:
        self.loss[run_id] = math.inf if outcome.loss is None else outcome.loss


def trained(spec: SweepSpec, configs: Sequence[Config]) -> list[float]:
    """Final held-out loss of each, those of equal shape as one stack; inf of those that diverged."""
    ends = Ends()
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            Job(i, 1, spec, spec.source, spec.complete(at), str(Path(folder) / f"{i}.pt"), 1e9, None)
            for i, at in enumerate(configs)
        ]
        train(jobs, ends)
    return [ends.loss[run] for run in range(len(jobs))]


def losses(spec: SweepSpec, at: Config, rates: np.ndarray, seeds: int) -> np.ndarray:
    """Final held-out loss of every rate and seed, (rates, seeds); inf of those that diverged."""
    configs = [at | {"lr": float(rate), "seed": float(seed)} for rate in rates for seed in range(seeds)]
    return np.array(trained(spec, configs)).reshape(len(rates), seeds)


def best_rate(rates: np.ndarray, loss: np.ndarray) -> float:
    """Lowest point of a parabola in ln rate around the best rate of the grid.

    Args:
        loss: of each rate, (rates).

    Returns:
        It; the best rate itself where that is an end of the grid.
    """
    best = int(np.argmin(loss))
    near = slice(max(0, best - BESIDE), best + BESIDE + 1)
    x, y = np.log(rates[near]), loss[near]
    kept = np.isfinite(y)
    bend, slope, _ = np.polyfit(x[kept] - x.mean(), y[kept], 2)
    if best in (0, len(rates) - 1) or bend <= 0:
        return float(rates[best])
    return float(np.exp(np.clip(x.mean() - slope / (2 * bend), x[0], x[-1])))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", default="mlp", choices=[*SHAPES])
    parser.add_argument("--dataset", default="glyphs", choices=[*SOURCES])
    parser.add_argument("--widths", default="32,64,128,256,512")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lowest", type=float, default=2.0**-10)
    parser.add_argument("--highest", type=float, default=2.0**-5.5)
    parser.add_argument("--depth", type=int)
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--parametrisations", default="standard,mup", help="one of them, or both")
    parser.add_argument("--show", action="store_true", help="print the whole grid")
    asked = parser.parse_args()
    widths = [int(width) for width in asked.widths.split(",")]
    own = {name: getattr(asked, name) for name in ("depth", "resolution")}
    shape = SHAPES[asked.kind] | {name: value for name, value in own.items() if value}
    tokens = asked.steps * asked.batch * (shape["resolution"] if asked.kind == "gpt" else 1)
    spec = parse(
        {
            "name": "best rate by width",
            "proxy": {
                "kind": asked.kind,
                "dataset": asked.dataset,
                "base_width": widths[0],
                "base_depth": shape["depth"],
            },
            "space": shape
            | {"width": widths, "batch": asked.batch, "tokens": tokens, "weight_decay": 0.0, "mup": [0, 1]},
            "targets": [{"at": shape | {"width": widths[-1], "tokens": tokens}}],
            "trainer": {"evaluations": 1, "eval_tokens": 16384},
        }
    )
    rates = np.exp2(np.arange(math.log2(asked.lowest), math.log2(asked.highest) + 0.25, 0.5))
    print(f"{asked.kind} on {asked.dataset}, {asked.steps} steps of {asked.batch}", end="")
    print(f", {asked.seeds} seeds of the widest", end="")
    print(f", {len(rates)} rates from {rates[0]:.2g} to {rates[-1]:.2g}\n")
    print("| parametrisation | width | best rate | by seed | loss there | s |\n|---|---|---|---|---|---|")
    factors = []
    names = asked.parametrisations.split(",")
    for name in names:
        mup = PARAMETRISATIONS.index(name)
        found = []
        for width in widths:
            begun = time.monotonic()
            seeds = asked.seeds * min(MORE, widths[-1] // width)
            table = losses(spec, {"width": float(width), "mup": float(mup)}, rates, seeds)
            middle = np.median(table, axis=1)
            found.append(best_rate(rates, middle))
            if found[-1] in (rates[0], rates[-1]):
                raise SystemExit(f"the best rate at width {width} is at an end of the grid: widen it")
            alone = [best_rate(rates, one) for one in table.T]
            spread = f"{min(alone):.5f} to {max(alone):.5f}"
            took = time.monotonic() - begun
            row = f"| {name} | {width} | {found[-1]:.5f} | {spread} | {middle.min():.4f} | {took:.0f} |"
            print(row, flush=True)
            if asked.show:
                print("    ", " ".join(f"{loss:.4f}" for loss in middle))
        factors.append(max(found) / min(found))
    asking = {"standard": f"above {ASKED[1]:g}", "mup": f"below {ASKED[0]:g}"}
    for name, factor in zip(names, factors, strict=True):
        print(f"\nThe best rate moves by a factor {factor:.2f} under {name} (asked: {asking[name]}).")


if __name__ == "__main__":
    main()
