"""Do intervals of a new run hold where the noise between seeds changes with scale?

    python benchmarks/seed_noise.py [--worlds 40]

Twelve configurations over four decades of compute, four seeds each, of the additive law with 0.4 % noise in
the middle that changes as a power of compute. Asked are the smallest configuration and one of a hundred
times the largest compute, of each of which 50 new runs are drawn. Printed: the slope that was learned, with
its standard deviation over worlds; at each end the share of new runs in the 90 % interval and its
half-width, beside that of the noise alone.
"""

from __future__ import annotations

import argparse

import numpy as np
from chinchilla_fit import PUBLISHED

from sweeps import fit, predict
from sweeps.laws import LAWS

SLOPES, NOISE, SEEDS, NEW, RATIOS = (-0.2, 0.0, 0.2), 0.004, 4, 50, (8.0, 20.0, 50.0)
REACH = 1.645  # of normal noise


def world(slope: float, seed: int) -> tuple[float, list[tuple[float, float, float]]]:
    """The learned slope; coverage, half-width and true half-width of the noise, below and at the target."""
    rng, law = np.random.default_rng(seed), LAWS["chinchilla"]
    n, ratio = (v.ravel() for v in np.meshgrid(np.geomspace(3e7, 3e9, 4), RATIOS))
    table = {"params": np.repeat(n, SEEDS), "tokens": np.repeat(n * ratio, SEEDS)}
    middle = np.log(n * n * ratio).mean()

    def sigma(c: np.ndarray) -> np.ndarray:
        return NOISE * np.exp(slope * (np.log(c) - middle))

    own = sigma(table["params"] * table["tokens"])
    table["loss"] = law.at(PUBLISHED, table) * np.exp(own * rng.standard_normal(len(own)))
    at = {"params": np.array([3e7, 3e10]), "tokens": np.array([2.4e8, 1.5e12])}
    study = fit(table, laws="chinchilla", target={name: column[1:] for name, column in at.items()})
    true, width = law.at(PUBLISHED, at), sigma(at["params"] * at["tokens"])
    told = []
    for one, loss, scale in zip(predict(study, at), true, width, strict=True):
        new = loss * np.exp(scale * rng.standard_normal(NEW))
        told.append(
            (
                float(np.mean((one.low <= new) & (new <= one.high))),
                0.5 * (one.high - one.low) / one.loss,
                REACH * scale,
            )
        )
    return study.members[0].fit.noise.slope, told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=40)
    given = parser.parse_args()
    names = f"{'held':>8} {'width':>7} {'noise':>7}"
    print(f"{'slope':>6} {'learned':>8} {'sd':>6}   smallest: {names}   target: {names}")
    for slope in SLOPES:
        found = [world(slope, seed) for seed in range(given.worlds)]
        learned = np.array([one for one, _ in found])
        below, there = (np.array([told[i] for _, told in found]).mean(axis=0) for i in (0, 1))
        ends = [f"{held:>8.1%} {width:>7.2%} {noise:>7.2%}" for held, width, noise in (below, there)]
        print(
            f"{slope:>6.2f} {learned.mean():>8.3f} {learned.std():>6.3f}   {'':9} "
            f"{ends[0]}   {'':7} {ends[1]}"
        )


if __name__ == "__main__":
    main()
