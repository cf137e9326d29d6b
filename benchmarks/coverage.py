"""Do the intervals hold? Sweeps of synthetic worlds whose law is known, informative beside random choice.

    python benchmarks/coverage.py [--worlds 12] [--runs 30]

Each world is L = (E + (A N^-a + B D^-b)^k) exp(bowl + noise) with constants drawn at random; a sweep
spends its budget through the very scheduler of the service. Printed: how often the 90 % interval held a
new run at the target (19 times the FLOPs one run may cost), its half-width, the error and
the FLOPs spent.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from synthetic import World, random_world, spec

from sweeps.answers import Prediction
from sweeps.runs import Observation, Spent
from sweeps.scheduler import Look, step
from sweeps.spec import SweepSpec

SLOTS = 3


def sweep(asked: SweepSpec, real: World, seed: int) -> tuple[Prediction, float]:
    """One sweep: the last prediction at the target and the FLOPs it took."""
    rng, budget = np.random.default_rng(seed), asked.budget
    remaining = Spent(budget.runs, budget.flops or math.inf, math.inf)
    look = Look(asked, [], [], [], [], remaining, SLOTS, None)
    done: list[Observation] = []
    pending: list[dict[str, float]] = []
    while True:
        known = replace(look, observations=tuple(done), pending=tuple(pending))
        now = step(known, np.random.default_rng([seed, len(done)]))
        for decision in now.decisions:
            look = replace(look, remaining=look.remaining - Spent(1, decision.cost.flops, 0.0))
            pending.append(decision.config)
        if not pending:
            return now.predictions["big"], sum(one.cost.flops for one in done)
        config = pending.pop(0)
        done.append(Observation(config, asked.cost(config), real.loss(asked, config, rng), len(done)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=12)
    parser.add_argument("--runs", type=int, default=30)
    given = parser.parse_args()
    print(f"{'strategy':12} {'held':>9} {'half-width':>11} {'|error|':>9} {'worst':>8} {'FLOPs':>10}")
    for name in ("informative", "random"):
        budget = {"runs": given.runs, "flops": 3e12, "flops_per_run": 2e11}
        asked = spec(strategy={"name": name, "first_batch": 8}, budget=budget)
        held, widths, errors, flops = 0, [], [], []
        for seed in range(given.worlds):
            drawn = np.random.default_rng(seed)
            real = random_world(drawn, noise=drawn.uniform(0.002, 0.012))
            found, used = sweep(asked, real, seed)
            measured = real.loss(asked, found.at, np.random.default_rng([seed, 1]))
            held += found.low <= measured <= found.high
            widths.append(found.relative)
            errors.append(abs(found.loss / measured - 1))
            flops.append(used)
        share = f"{held}/{given.worlds}"
        figures = (np.mean(widths), np.mean(errors), np.max(errors))
        print(f"{name:12} {share:>9}" + "".join(f"{v:>10.2%}" for v in figures) + f"{np.mean(flops):>12.3g}")


if __name__ == "__main__":
    main()
