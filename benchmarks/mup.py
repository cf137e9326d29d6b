"""How far the best learning rate moves with the width, standard and under maximal update.

    python benchmarks/mup.py [--kind mlp] [--dataset digits] [--widths 32,64,128,256,512] [--seeds 8]

Adam without weight decay, all rates and seeds of a width as one stacked cohort; both parametrisations are one
at the smallest width. The loss is that of training, the mean over the last fifth of the steps, as in Yang et
al. 2022 (arXiv 2203.03466, figure 1): the few hundred held-out digits tell how sure a network is of some ten
of them, hardly how fast it learns (``--metric val_loss`` has it). The best rate is the lowest point of a
parabola in ln rate through the mean over seeds of ln loss, which leaves out what a seed adds at all rates.
Intervals are of 90 %, from seeds drawn again; of a factor, which lies between the widths furthest apart,
noise alone moves them up.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
from parts.trained import trained

from sweeps.coordinates import PARAMETRISATIONS
from sweeps.data import SOURCES
from sweeps.spec import Config, SweepSpec, parse

BESIDE = 3  # points of the grid on each side of the best that the parabola goes through
ASKED = 1.5, 3.0  # under mup at most, under standard at least
DRAWN = 1000  # times that seeds are drawn again
MEASURED = {  # evaluations are log-spaced: of 16 a fifth of the steps lies behind the last but one
    "train_loss": {"evaluations": 16, "eval_tokens": 64},
    "val_loss": {"evaluations": 1, "eval_tokens": 16384},
}
SHAPES = {
    "mlp": {"depth": 3, "resolution": 8},
    "convnet": {"depth": 1, "resolution": 8},
    "vit": {"depth": 2, "resolution": 8},
    "gpt": {"depth": 2, "resolution": 32},
}


def losses(spec: SweepSpec, at: Config, rates: np.ndarray, seeds: int) -> np.ndarray:
    """Final loss of every rate and seed, (rates, seeds); inf of those that diverged."""
    configs = [at | {"lr": float(rate), "seed": float(seed)} for rate in rates for seed in range(seeds)]
    return np.array(trained(spec, configs)).reshape(len(rates), seeds)


def best_rate(rates: np.ndarray, loss: np.ndarray) -> float:
    """Lowest point of a parabola in ln rate around the best rate of the grid.

    Args:
        rates: (rates).
        loss: of each rate and seed, (rates, seeds).

    Returns:
        It; the best rate itself where that is an end of the grid.
    """
    mean = np.log(loss).mean(axis=1)
    best = int(np.argmin(mean))
    near = slice(max(0, best - BESIDE), best + BESIDE + 1)
    x, y = np.log(rates[near]), mean[near]
    kept = np.isfinite(y)
    bend, slope, _ = np.polyfit(x[kept] - x.mean(), y[kept], 2)
    if best in (0, len(rates) - 1) or bend <= 0:
        return float(rates[best])
    return float(np.exp(np.clip(x.mean() - slope / (2 * bend), x[0], x[-1])))


def interval(drawn: np.ndarray) -> str:
    """The middle 90 % in words."""
    low, high = np.quantile(drawn, (0.05, 0.95))
    return f"{low:.3g} to {high:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", default="mlp", choices=[*SHAPES])
    parser.add_argument("--dataset", default="digits", choices=[*SOURCES])
    parser.add_argument("--metric", default="train_loss", choices=[*MEASURED])
    parser.add_argument("--widths", default="32,64,128,256,512")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lowest", type=float, default=2.0**-9.5)
    parser.add_argument("--highest", type=float, default=2.0**-3.5)
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
            "metric": {"name": asked.metric},
            "space": shape
            | {"width": widths, "batch": asked.batch, "tokens": tokens, "weight_decay": 0.0, "mup": [0, 1]},
            "targets": [{"at": shape | {"width": widths[-1], "tokens": tokens}}],
            "trainer": MEASURED[asked.metric],
        }
    )
    rates = np.exp2(np.arange(math.log2(asked.lowest), math.log2(asked.highest) + 0.25, 0.5))
    print(f"{asked.metric} of {asked.kind} on {asked.dataset}, {asked.steps} steps of {asked.batch}", end="")
    print(f", {asked.seeds} seeds, {len(rates)} rates from {rates[0]:.2g} to {rates[-1]:.2g}\n")
    print("| parametrisation | width | best rate | 90 % | loss there | s |\n|---|---|---|---|---|---|")
    random = np.random.default_rng(0)
    told = []
    for name in asked.parametrisations.split(","):
        found, drawn = [], []
        for width in widths:
            begun = time.monotonic()
            at = {"width": float(width), "mup": float(PARAMETRISATIONS.index(name))}
            table = losses(spec, at, rates, asked.seeds)
            found.append(best_rate(rates, table))
            again = random.integers(0, asked.seeds, (DRAWN, asked.seeds))
            drawn.append([best_rate(rates, table[:, seeds]) for seeds in again])
            middle = np.median(table, axis=1)
            took = time.monotonic() - begun
            row = f"| {name} | {width} | {found[-1]:.5f} | {interval(np.array(drawn[-1]))} "
            print(f"{row}| {middle.min():.4f} | {took:.0f} |", flush=True)
            if asked.show:
                print("    ", " ".join(f"{loss:.4f}" for loss in middle))
            if found[-1] in (rates[0], rates[-1]):
                raise SystemExit(f"the best rate at width {width} is at an end of the grid: widen it")
        factor = max(found) / min(found)
        spread = interval(np.max(drawn, axis=0) / np.min(drawn, axis=0))
        asking = {"standard": f"above {ASKED[1]:g}", "mup": f"below {ASKED[0]:g}"}[name]
        told.append(
            f"The best rate moves by a factor {factor:.2f} ({spread}) under {name} (asked: {asking})."
        )
    print("", *told, sep="\n")


if __name__ == "__main__":
    main()
