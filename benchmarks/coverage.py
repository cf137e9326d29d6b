"""Do the intervals hold? Sweeps of synthetic worlds whose law is known, informative beside random choice.

    python benchmarks/coverage.py [--worlds 12] [--runs 30] [--redraws 6]

Each world is L = (E + (A N^-a + B D^-b)^k) exp(bowl + noise) with constants drawn at random; a sweep
spends its budget through the very scheduler of the service, three runs to a look. Printed: how often
the 90 % interval held a new run at the target (19 times the FLOPs one run may cost), its half-width, the
error and the FLOPs spent. One outcome a world says little of a strategy: most of an error is the seeds'. The
runs that were chosen are therefore made again with other seeds, and the same is printed of these; their error
is that of the mean over seeds, with its standard error over worlds.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from synthetic import World, random_world, spec

from sweeps.answers import Prediction, predict
from sweeps.ensemble import fit_ensemble
from sweeps.runs import Observation, Spent
from sweeps.scheduler import Look, step
from sweeps.spec import SweepSpec

SLOTS = 3
AGAIN = 77  # among the seeds of a world, that of runs made again


def sweep(asked: SweepSpec, real: World, seed: int) -> tuple[Prediction, list[Observation]]:
    """One sweep: the last prediction at the target and the runs it rests on."""
    rng, budget = np.random.default_rng(seed), asked.budget
    remaining = Spent(budget.runs, budget.flops or math.inf, math.inf)
    done: list[Observation] = []
    while True:
        look = Look(asked, done, [], [], [], remaining, SLOTS, None)
        now = step(look, np.random.default_rng([seed, len(done)]))
        if not now.decisions:
            return now.predictions["big"], done
        for one in now.decisions:
            loss = real.loss(asked, one.config, rng)
            done.append(Observation(one.config, one.cost, loss, len(done)))
            remaining = remaining - Spent(1, one.cost.flops, 0.0)


def again(
    asked: SweepSpec, real: World, done: Sequence[Observation], seed: int, redraws: int
) -> Iterator[tuple[Prediction, bool]]:
    """Predictions from the same runs with other seeds, and whether each interval holds a new run."""
    for k in range(redraws):
        rng = np.random.default_rng([seed, AGAIN, k])
        made = [replace(one, loss=real.loss(asked, one.config, rng)) for one in done]
        found = predict(asked, fit_ensemble(asked, made, rng), asked.targets[0].at)
        yield found, found.low <= real.loss(asked, found.at, rng) <= found.high


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=12)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--redraws", type=int, default=6)
    parser.add_argument("--strategy", default="informative,random", help="names with commas")
    given = parser.parse_args()
    heads = (
        "held",
        "half-width",
        "|error|",
        "worst",
        "FLOPs",
        "again:",
        "held",
        "half-width",
        "|error|",
        "+-",
    )
    print(f"{'strategy':12}" + "".join(f"{head:>11}" for head in heads))
    for name in given.strategy.split(","):
        # What is drawn blindly needs no fit before the end.
        first = given.runs if name == "random" else 8
        budget = {"runs": given.runs, "flops": 3e12, "flops_per_run": 2e11}
        asked = spec(strategy={"name": name, "first_batch": first}, budget=budget)
        once, more = [], []
        for seed in range(given.worlds):
            drawn = np.random.default_rng(seed)
            real = random_world(drawn, noise=drawn.uniform(0.002, 0.012))
            found, done = sweep(asked, real, seed)
            measured = real.loss(asked, found.at, np.random.default_rng([seed, 1]))
            held = found.low <= measured <= found.high
            flops = sum(one.cost.flops for one in done)
            once.append((held, found.relative, abs(found.loss / measured - 1), flops))
            redrawn = [
                (inside, one.relative, abs(one.loss / real.loss(asked, one.at) - 1))
                for one, inside in again(asked, real, done, seed, given.redraws)
            ]
            more.append(np.mean(redrawn, axis=0))
        held, width, error, flops = np.mean(once, axis=0)
        worst = max(one[2] for one in once)
        cells = [f"{held:.0%}", f"{width:.2%}", f"{error:.2%}", f"{worst:.2%}", f"{flops:.3g}", ""]
        if given.redraws:
            held, width, error = np.mean(more, axis=0)
            apart = np.std([one[2] for one in more], ddof=1) / math.sqrt(len(more))
            cells += [f"{held:.0%}", f"{width:.2%}", f"{error:.2%}", f"{apart:.2%}"]
        print(f"{name:12}" + "".join(f"{cell:>11}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
