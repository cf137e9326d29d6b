"""The scheduler on runs that have been made already: what each strategy would have known, for what cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sweeps.choice import Situation
from sweeps.design import beliefs
from sweeps.ensemble import Ensemble, learn
from sweeps.errors import FitError
from sweeps.laws.base import Array, Columns
from sweeps.posterior import Posterior
from sweeps.prices import Prices
from sweeps.problem import Problem
from sweeps.runs import Spent
from sweeps.spec import Stop
from sweeps.strategies import BLIND, STRATEGIES

FIRST, FIRST_SHARE = 8, 0.25  # runs before the first fit, and of the budget they may take
LEAST_BATCH, BATCH_SHARE = 4, 0.125  # runs between two fits: at least so many, or so much of those known
LEAST = 3  # runs that a fit takes
PATIENCE = Stop().patience  # as sweeps have it


@dataclass(frozen=True)
class Task:
    """Recorded runs to choose from, and what is asked about.

    Args:
        problem: of the runs.
        flops: what each of them cost, (n,), in any unit.
        asked: columns of the configurations asked about, (t,); where hyperparameters are not given, in the
            middle of what was tried.
        truth: their loss, (t,); None where it is not known.
        given: quantities of these configurations as they were asked.
        rows: of the runs that may be bought, ascending; all where None.
    """

    problem: Problem
    flops: Array
    asked: Columns
    truth: Array | None
    given: Mapping[str, Array]
    rows: NDArray[np.intp] | None = None

    @property
    def loss(self) -> Array:
        """Of the recorded runs, (n,)."""
        return self.problem.observed.columns["loss"]

    @property
    def offered(self) -> NDArray[np.intp]:
        """Rows of the runs that may be bought."""
        return np.arange(len(self.flops)) if self.rows is None else self.rows

    def without(self, share: float, rng: np.random.Generator) -> Task:
        """Without a random share of the runs to buy; budgets stay shares of the cost of all."""
        hidden = rng.permutation(self.offered)[: round(share * len(self.offered))]
        return replace(self, rows=np.setdiff1d(self.offered, hidden))


@dataclass(frozen=True)
class Outcome:
    """What a strategy knows when its budget is spent.

    Args:
        strategy: name.
        share: of the summed cost of all runs that was the budget.
        repeat: number.
        runs: that were bought.
        spent: share of the summed cost.
        loss, low, high: predicted for the configurations asked about, with the 90 % interval, (t,).
        settings: predicted best hyperparameters at the largest of them.
        seconds: per decision, the refit not counted.
        refit: seconds of a refit, in the mean.
        laws: weight of each.
    """

    strategy: str
    share: float
    repeat: int
    runs: int
    spent: float
    loss: Array
    low: Array
    high: Array
    settings: dict[str, float]
    seconds: float
    refit: float
    laws: dict[str, float]


def replay(
    task: Task,
    strategy: str,
    share: float,
    repeat: int = 0,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Outcome:
    """Lets a strategy spend a budget on recorded runs; a loss is seen once its run has been bought.

    Args:
        strategy: name in ``STRATEGIES``.
        share: of the summed cost of all runs, above 0 and at most 1.
        repeat, seed: of the draws.
        progress: told the runs bought and the share of the budget spent after each fit.

    Raises:
        FitError: the budget buys fewer than 3 runs.
    """
    rng = np.random.default_rng([seed, repeat])
    budget = share * float(task.flops.sum())
    bought: list[int] = []
    left, spending, fitting = budget, [], []
    ensemble: Ensemble | None = None
    while True:
        begun = time.perf_counter()
        picks = _picks(task, strategy, ensemble, bought, left, rng)
        spending.append(time.perf_counter() - begun)
        if not picks:
            break
        bought += picks
        left = budget - float(task.flops[bought].sum())
        if len(bought) < LEAST:
            continue
        begun = time.perf_counter()
        ensemble = _fit(task, np.array(bought), rng)
        fitting.append(time.perf_counter() - begun)
        if progress is not None:
            progress(len(bought), 1.0 - left / budget)
    if ensemble is None:
        raise FitError(f"{share:.2%} of the cost buys {len(bought)} runs; a fit takes at least {LEAST}")
    posterior = Posterior(ensemble, task.problem.frame)
    band = posterior.new_loss(task.problem.columns(task.given, posterior))
    return Outcome(
        strategy,
        share,
        repeat,
        len(bought),
        float(task.flops[bought].sum() / task.flops.sum()),
        band.median,
        band.low,
        band.high,
        _settings(task, posterior),
        float(np.mean(spending)),
        float(np.mean(fitting)),
        {law: weight for law, weight in ensemble.laws.items() if weight > 0.005},
    )


def _picks(
    task: Task,
    strategy: str,
    ensemble: Ensemble | None,
    bought: list[int],
    left: float,
    rng: np.random.Generator,
) -> list[int]:
    """The next runs, as rows of the table."""
    problem, first = task.problem, ensemble is None
    open_ = np.setdiff1d(task.offered, bought)
    open_ = open_[task.flops[open_] <= left]
    wanted = FIRST if first else max(LEAST_BATCH, int(BATCH_SHARE * len(bought)))
    if strategy in BLIND:
        wanted, first = len(open_), False
    family = beliefs(problem.models, problem.frame, ensemble)
    at = Situation(
        family=family,
        frame=problem.frame,
        candidates=_rows(problem.x, open_),
        prices=Prices(task.flops[open_], np.zeros(len(open_))),
        targets=task.asked,
        pending=None,
        left=None,
        budget=Spent(np.inf, left * FIRST_SHARE if first and not bought else left, np.inf),
        wanted=wanted,
        rng=rng,
        weights={"split": 0.0},
        patience=0.0 if first else PATIENCE,
    )
    return [int(open_[pick.index]) for pick in STRATEGIES[strategy](at)]


def _fit(task: Task, bought: NDArray[np.intp], rng: np.random.Generator) -> Ensemble:
    problem = task.problem
    return learn(problem.models, problem.frame, _rows(problem.x, bought), task.loss[bought], rng)


def _settings(task: Task, posterior: Posterior) -> dict[str, float]:
    at = _rows(task.asked, np.array([int(np.argmax(task.asked["flops"]))]))
    found = {}
    for axis in task.problem.frame.surface.axes:  # the rate comes last: it follows the best batch
        at[axis.name] = posterior.best(at, axis.name)
        found[axis.name] = float(axis.value(at[axis.name])[0])
    return found


def _rows(x: Columns, rows: NDArray[np.intp]) -> dict[str, Array]:
    return {name: column[rows] for name, column in x.items()}
