"""Loss curves under schedules that were not fitted: ours beside the published laws, in one process.

    python benchmarks/curves.py [PATH] [--partial]

PATH holds a folder for each model size (``25``, ``100``, ``400``), each with nine curves of Luo et al. 2025
(arXiv 2503.12811, github.com/thu-yao-01-luo/MultiPowerLaw) as ``step,lr,loss``. Their protocol: fit
cosine_24000, constant_24000 and wsdcon_9; predict the other six; MAE, RMSE, mean and worst relative error of
each curve, averaged over the six. The multi-power law is evaluated with its published constants; the
annealing law of Tissue et al. (arXiv 2408.11029) is fitted by its authors' objective (sum of Huber losses,
delta 1e-3, on ln L) for both of their lambda. ``--partial`` also continues each test run from 40, 60 and
80 % of it, given the three fitted curves.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import huber

from sweeps.curves import LAWS, annealing, multipower
from sweeps.curves.fit import Target, fit_curves, predict
from sweeps.curves.forecast import fit_ensemble, forecast
from sweeps.curves.schedule import Curve, constant, cosine, track, two_stage, wsd

TRAIN = ("cosine_24000", "constant_24000", "wsdcon_9")
TEST = ("constant_72000", "cosine_72000", "wsd_20000_24000", "wsdld_20000_24000", "wsdcon_3", "wsdcon_18")
WARMUP, PEAK, END, DELTA = 2160, 3e-4, 3e-5, 1e-3
CONSTANTS = {
    "25": (3.04045406, 0.52468604, 0.50786857, 363.78751622, 2.06560812, 0.58279013, 0.64142257),
    "100": (2.6514477, 0.60115152, 0.45295811, 437.9464276, 2.13245612, 0.59785199, 0.65523644),
    "400": (2.37474466, 0.65421216, 0.42878731, 523.42464371, 2.02462735, 0.59350493, 0.63472457),
}
FIGURES = {
    "25": (0.00376, 0.00465, 0.00110, 0.00409),
    "100": (0.00435, 0.00592, 0.00142, 0.00583),
    "400": (0.00484, 0.00730, 0.00168, 0.00995),
}
Array = NDArray[np.float64]


def schedule(name: str) -> Array:
    """Learning rate by step from 0, as the public runs had it."""
    kind, *rest = name.split("_")
    if kind == "cosine":
        return cosine(int(rest[0]), PEAK, END, WARMUP)
    if kind == "constant":
        return constant(int(rest[0]), PEAK, WARMUP)
    if kind == "wsdcon":
        return two_stage(16_000, 8000, PEAK, int(rest[0]) * 1e-5, WARMUP)
    return wsd(24_000, 20_000, PEAK, END, WARMUP, exponential=kind == "wsd")


def load(path: Path) -> Curve:
    """A curve; its schedule is checked against the recorded rates."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    steps = np.array([int(float(row["step"])) for row in rows])
    lr, rate, loss = schedule(path.stem), *(np.array([float(row[k]) for row in rows]) for k in ("lr", "loss"))
    keep = steps < len(lr)
    np.testing.assert_allclose(lr[steps[keep]], rate[keep], rtol=1e-9)
    return Curve(path.stem, steps[keep], loss[keep], lr)


def errors(predicted: Array, curve: Curve) -> Array:
    """MAE, RMSE, mean and worst relative error."""
    off = np.abs(predicted - curve.loss)
    return np.array(
        [off.mean(), np.sqrt(np.mean(off**2)), np.mean(off / curve.loss), np.max(off / curve.loss)]
    )


def tissue(curves: dict[str, Curve], decay: float) -> list[Array]:
    """Predictions of the six test curves by the annealing law, fitted from a grid of starts."""
    tracks = {name: track(curve.lr, curve.steps, warm=False) for name, curve in curves.items()}
    total = {name: at.total for name, at in tracks.items()}
    areas = {name: annealing.area(-1.0 / np.log(decay), at)[0] / (1.0 - decay) for name, at in tracks.items()}

    def loss(theta: Array, name: str) -> Array:
        floor, level, alpha, gain = np.exp(theta)
        return np.asarray(np.maximum(floor + level * total[name] ** -alpha - gain * areas[name], 1e-3))

    def objective(theta: Array) -> float:
        rest = [np.log(curves[name].loss) - np.log(loss(theta, name)) for name in TRAIN]
        return float(1e6 * huber(DELTA, np.concatenate(rest)).sum())

    grid = itertools.product((1.0, 2.0, 4.0), (0.5, 1.0), (0.2, 0.5, 1.0), (0.5, 5.0))
    tries = [
        minimize(objective, np.log(start), method="L-BFGS-B", bounds=[(-4.0, 4.0)] * 4) for start in grid
    ]
    best = minimize(objective, min(tries, key=lambda found: float(found.fun)).x, method="Nelder-Mead")
    return [loss(best.x, name) for name in TEST]


def partial(curves: dict[str, Curve]) -> None:
    """Continue each test run from a part of it."""
    print("  continued from | mean error of the end | worst | inside 90 %")
    for share in (0.4, 0.6, 0.8):
        off, inside = [], []
        for name in TEST:
            whole = curves[name]
            part = whole.until(int(share * len(whole.lr)))
            found = forecast(
                fit_ensemble([curves[n] for n in TRAIN] + [part], run=name), whole.lr, whole.steps[-1:]
            )
            off.append(abs(found.loss[0] / whole.loss[-1] - 1))
            inside.append(found.point_low[0] <= whole.loss[-1] <= found.point_high[0])
        print(f"  {share:.0%} | {np.mean(off):.3%} | {np.max(off):.3%} | {sum(inside)} of {len(inside)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--partial", action="store_true")
    args = parser.parse_args()
    if args.path is None:
        print("no recorded curves given, nothing to measure; see --help")
        return
    for size in (size for size in CONSTANTS if (args.path / size).is_dir()):
        curves = {name: load(args.path / size / f"{name}.csv") for name in TRAIN + TEST}
        train = [curves[name] for name in TRAIN]
        started = time.perf_counter()
        ensemble = fit_ensemble(train)
        took = time.perf_counter() - started
        found = [forecast(ensemble, curves[name].lr, curves[name].steps) for name in TEST]
        single = {law: fit_curves(train, LAWS[law]) for law in ("multipower", "annealing")}
        rows = {"ours": [f.loss for f in found]}
        for law, fit in single.items():
            targets = [Target(curves[name].lr, curves[name].steps) for name in TEST]
            rows[f"ours, {law} alone"] = [np.exp(predict(fit, [target]).mean) for target in targets]
            rows[f"ours, {law}, no misfit"] = [
                np.exp(predict(fit, [target], misfit=False).mean) for target in targets
            ]
        rows["multi-power law"] = [
            multipower.published_loss(CONSTANTS[size], track(curves[name].lr, curves[name].steps))
            for name in TEST
        ]
        rows |= {f"annealing law, lambda {decay}": tissue(curves, decay) for decay in (0.999, 0.99)}
        table = {
            label: np.mean([errors(p, curves[name]) for p, name in zip(predicted, TEST, strict=True)], axis=0)
            for label, predicted in rows.items()
        }
        inside = [
            np.mean((curves[name].loss >= f.point_low) & (curves[name].loss <= f.point_high))
            for f, name in zip(found, TEST, strict=True)
        ]
        weights = ", ".join(f"{law} {weight:.3f}" for law, weight in found[0].weights.items())
        print(f"{size}M: fit {took:.1f} s; {weights}; points inside 90 %: {np.mean(inside):.2f}")
        print("  | MAE | RMSE | PredE | WorstE | ours / it: MAE | WorstE")
        for label, row in [*table.items(), ("multi-power law, as published", np.array(FIGURES[size]))]:
            ratio = table["ours"] / row
            figures = " | ".join(f"{value:.5f}" for value in row)
            print(f"  {label} | {figures} | {ratio[0]:.2f} | {ratio[3]:.2f}")
        if args.partial:
            partial(curves)


if __name__ == "__main__":
    main()
