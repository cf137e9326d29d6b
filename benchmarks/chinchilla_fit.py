"""The additive law on Chinchilla's runs: our solver beside the published multistart, in one process.

    python benchmarks/chinchilla_fit.py [chinchilla.csv] [--starts 450]

Without a file the runs are drawn from the published constants with 0.6 % noise. A file has the columns
``Model Size``, ``Training FLOP`` and ``loss`` (runs read off figure 4 of Hoffmann et al. 2022 by Besiroglu
et al. 2024, arXiv 2404.10102); the runs with the five highest losses are left out, as there. Objective:
sum of Huber losses (delta 1e-3) on ln L. The baseline minimises it with scipy's L-BFGS-B from the grid
of starts of Hoffmann et al. (appendix D.2).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from sweeps.laws import LAWS
from sweeps.robust import Huber
from sweeps.solve import Data, Prior, minimise

DELTA = 1e-3
PUBLISHED = {"E": 1.8172, "A": 477.84, "B": 2143.9, "alpha": 0.34731, "beta": 0.36718}
OBJECTIVE = 0.0010182740
Array = NDArray[np.float64]


def load(path: Path) -> tuple[Array, Array, Array]:
    """N, D = C / (6 N) and loss of the 240 runs."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    n, c, loss = (np.array([float(row[k]) for row in rows]) for k in ("Model Size", "Training FLOP", "loss"))
    keep = loss < np.sort(loss)[-5]
    return n[keep], (c / (6 * n))[keep], loss[keep]


def twin() -> tuple[Array, Array, Array]:
    """240 runs on nine compute budgets, drawn from the published constants."""
    rng = np.random.default_rng(0)
    c = np.repeat(np.geomspace(6e18, 3e21, 9), 27)[:240]
    n = 10 ** rng.uniform(-0.8, 0.8, 240) * 2.8e9 * np.sqrt(c / 1e21)
    d, p = c / (6 * n), PUBLISHED
    loss = p["E"] + p["A"] * n ** -p["alpha"] + p["B"] * d ** -p["beta"]
    return n, d, loss * np.exp(0.006 * rng.standard_normal(240))


def ours(n: Array, d: Array, loss: Array) -> tuple[float, dict[str, float]]:
    """Variable projection, then the second-order polish; flat prior."""
    law, one = LAWS["chinchilla"], np.ones(len(loss))
    centre = {"params": float(np.log(n).mean()), "tokens": float(np.log(d).mean()), "loss": 0.0}
    x = {"params": np.log(n) - centre["params"], "tokens": np.log(d) - centre["tokens"]}
    start = law.start(x, loss, one)[0]
    flat = Prior(np.zeros(len(start)), np.zeros(len(start)))
    data = Data(x, np.log(loss), one, one, Huber(DELTA))
    found = minimise(law.evaluate, start, data, flat, second_order=True, iterations=100)
    constants = {name: float(value) for name, value in law.natural(found.theta, centre).items()}
    return found.objective, constants


def multistart(n: Array, d: Array, loss: Array, starts: int) -> tuple[float, dict[str, float]]:
    """L-BFGS-B with analytic gradient from evenly taken points of the published grid."""
    log_n, log_d, y = np.log(n), np.log(d), np.log(loss)

    def objective(theta: Array) -> tuple[float, Array]:
        a, b, e, alpha, beta = theta
        terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(y, e)])
        value = logsumexp(terms, axis=0)
        share = np.exp(terms - value)
        rest = value - y
        size = np.abs(rest)
        capped = np.minimum(size, DELTA)
        psi = np.clip(rest, -DELTA, DELTA)
        parts = [share[0], share[1], share[2], -share[0] * log_n, -share[1] * log_d]
        return float(np.sum(capped * (size - 0.5 * capped))), np.array([psi @ part for part in parts])

    grid = list(
        itertools.product(
            np.arange(0, 26, 5.0), np.arange(0, 26, 5.0), np.arange(-1, 1.1, 0.5),
            np.arange(0, 2.1, 0.5), np.arange(0, 2.1, 0.5),
        )
    )  # fmt: skip
    chosen = [grid[i] for i in np.linspace(0, len(grid) - 1, min(starts, len(grid))).astype(int)]
    options = {"ftol": 1e-12, "gtol": 1e-10, "maxiter": 2000}
    found = [
        minimize(objective, np.array(start), jac=True, method="L-BFGS-B", options=options) for start in chosen
    ]
    best = min(found, key=lambda one: float(one.fun))
    a, b, e, alpha, beta = (float(v) for v in best.x)
    constants = {"E": np.exp(e), "A": np.exp(a), "B": np.exp(b), "alpha": alpha, "beta": beta}
    return float(best.fun), {name: float(value) for name, value in constants.items()}


def timed(
    call: Callable[[], tuple[float, dict[str, float]]], repeats: int
) -> tuple[float, float, dict[str, float]]:
    """Median seconds, objective and constants."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        objective, constants = call()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds)), objective, constants


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument(
        "--starts", type=int, default=450, help="of the multistart; the published grid has 4500"
    )
    given = parser.parse_args()
    runs = load(given.data) if given.data else twin()
    fast = timed(lambda: ours(*runs), 51)
    slow = timed(lambda: multistart(*runs, given.starts), 1)
    print(
        f"{len(runs[0])} runs"
        + (f"; published objective {OBJECTIVE:.10f}, {PUBLISHED}" if given.data else "")
    )
    for name, (seconds, objective, constants) in (("scalewise", fast), (f"L-BFGS-B x{given.starts}", slow)):
        shown = "  ".join(f"{key} {value:.5g}" for key, value in constants.items())
        print(f"{name:>16}: {1e3 * seconds:10.2f} ms  objective {objective:.10f}  {shown}")
    worst = max(abs(fast[2][name] / value - 1) for name, value in PUBLISHED.items())
    print(
        f"ratio of times {slow[0] / fast[0]:.0f}; largest deviation from the published constants {worst:.2%}"
    )


if __name__ == "__main__":
    main()
