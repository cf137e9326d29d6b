"""How well strategies answer for what they spend, over repeats, and what each needs for one error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sweeps.errors import FitError
from sweeps.hyper import Runs, regret
from sweeps.laws.base import Array
from sweeps.replay import Outcome, Task, replay
from sweeps.samplers import SAMPLERS, require_optuna, tune
from sweeps.strategies import STRATEGIES

ALLOWED = (*STRATEGIES, *SAMPLERS)
LEFT_OUT = 1  # of the seeds of a repeat, the one that draws what is left out
MEASURES = ("error", "regret")  # in which strategies are held against each other at equal answers

Tell = Callable[[str, float, int, int, float], None]


@dataclass(frozen=True)
class Score:
    """One replay against the truth; None where there is none, or where the strategy says nothing of it.

    Args:
        strategy, share, repeat, runs, spent, settings, seconds, laws: as of ``Outcome``.
        refit: too; None where nothing is fitted.
        r2: of the loss over the rows asked about, clipped to [-1, 1].
        error: relative, in the mean.
        width: half of the 90 % interval, relative, in the mean.
        coverage: share of rows that their intervals hold.
        best_held: whether that of the row of the lowest loss does.
        regret: per cent of loss that the settings lose at the largest scale, see ``sweeps.hyper.regret``.
    """

    strategy: str
    share: float
    repeat: int
    runs: int
    spent: float
    r2: float | None
    error: float | None
    width: float | None
    coverage: float | None
    best_held: bool | None
    regret: float | None
    settings: dict[str, float]
    seconds: float
    refit: float | None
    laws: dict[str, float]


@dataclass(frozen=True)
class Unanswered:
    """A replay that came to no answer, and why."""

    strategy: str
    share: float
    repeat: int
    reason: str


@dataclass(frozen=True)
class Spread:
    """A figure over repeats: in the mean and at its worst."""

    mean: float
    worst: float


@dataclass(frozen=True)
class Summary:
    """The replays of one strategy with one budget; None where none of them has the figure.

    Args:
        share: of the cost of all runs that was the budget.
        answered: replays that came to an answer.
        coverage, best_held: shares, in the mean.
        runs, spent, seconds, refit: in the mean.
    """

    strategy: str
    share: float
    answered: int
    r2: Spread | None
    error: Spread | None
    width: Spread | None
    coverage: float | None
    best_held: float | None
    regret: Spread | None
    runs: float | None
    spent: float | None
    seconds: float | None
    refit: float | None


@dataclass(frozen=True)
class Equal:
    """What a strategy needs to answer as well as another does.

    Args:
        measure: ``error`` or ``regret``.
        strategy: that is asked.
        share: budget of the one it is held against.
        value: of the measure that this one has there.
        needed: share of the cost of all runs; None where no budget tried is enough.
        times: ``needed`` over what the other spends; over the largest budget where none is enough.
        bound: ``least`` where more than the largest budget is needed, ``most`` where the smallest is enough.
    """

    measure: str
    strategy: str
    share: float
    value: float
    needed: float | None
    times: float
    bound: str | None


def check(task: Task, strategies: Sequence[str]) -> None:
    """Refuses what cannot be replayed before anything is.

    Raises:
        FitError: a sampler is asked for without Optuna or without hyperparameters.
    """
    if tuners := [name for name in strategies if name in SAMPLERS]:
        require_optuna()
        if not task.problem.frame.surface.axes:
            names = ", ".join(tuners)
            raise FitError(
                f"{names} tune hyperparameters, and no mapped column that varies is one (lr, batch)"
            )


def campaign(
    task: Task,
    strategies: Sequence[str],
    shares: Sequence[float],
    repeats: int,
    seed: int = 0,
    tell: Tell | None = None,
    leave_out: float = 0.0,
) -> Iterator[Score | Unanswered]:
    """Replays every strategy with every budget; all of one repeat before the next.

    Args:
        strategies: of ``ALLOWED``.
        shares: of the cost of all runs.
        tell: told strategy, share, repeat, runs bought and share of the budget spent after each fit.
        leave_out: share of the runs that no strategy can buy, others in every repeat; so that repeats of a
            strategy that draws nothing differ (the delete-d jackknife; Shao and Wu 1989).
    """
    for repeat in range(repeats):
        offer = task.without(leave_out, np.random.default_rng([seed, repeat, LEFT_OUT]))
        for share in shares:
            for name in strategies:

                def progress(
                    runs: int, spent: float, at: tuple[str, float, int] = (name, share, repeat)
                ) -> None:
                    if tell is not None:
                        tell(*at, runs, spent)

                play = tune if name in SAMPLERS else replay
                try:
                    yield score(task, play(offer, name, share, repeat, seed, progress))
                except FitError as error:
                    yield Unanswered(name, share, repeat, str(error))


def score(task: Task, found: Outcome) -> Score:
    """Holds an outcome against the truth."""
    has = bool(np.all(np.isfinite(found.loss)))
    truth = task.truth if has else None
    inside = None if truth is None else (found.low <= truth) & (truth <= found.high)
    return Score(
        strategy=found.strategy,
        share=found.share,
        repeat=found.repeat,
        runs=found.runs,
        spent=found.spent,
        r2=None if truth is None else _r2(truth, found.loss),
        error=None if truth is None else float(np.mean(np.abs(found.loss / truth - 1.0))),
        width=float(np.mean((found.high - found.low) / (2.0 * found.loss))) if has else None,
        coverage=None if inside is None else float(np.mean(inside)),
        best_held=None if inside is None or truth is None else bool(inside[np.argmin(truth)]),
        regret=_regret(task, found.settings),
        settings=found.settings,
        seconds=found.seconds,
        refit=found.refit if np.isfinite(found.refit) else None,
        laws=found.laws,
    )


def _r2(truth: Array, predicted: Array) -> float | None:
    total = float(np.sum((truth - truth.mean()) ** 2))
    return max(-1.0, 1.0 - float(np.sum((truth - predicted) ** 2)) / total) if total > 0.0 else None


def _regret(task: Task, settings: dict[str, float]) -> float | None:
    """Of the settings at the largest scale asked about, where its recorded runs differ in rate and batch."""
    if task.truth is None or not {"lr", "batch"} <= set(task.given) & set(settings):
        return None
    scales = np.stack([task.asked[name] for name in task.problem.scales], axis=1)
    largest = scales[int(np.argmax(task.asked["flops"]))]
    cell = np.flatnonzero(np.all(np.abs(scales - largest) < 1e-9, axis=1))
    lr, batch, loss = task.given["lr"][cell], task.given["batch"][cell], task.truth[cell]
    nothing = np.ones(len(cell))
    found = regret(Runs(nothing, nothing, lr, batch, loss), settings["lr"], settings["batch"])
    return found.interpolated


def summarise(scores: Sequence[Score | Unanswered]) -> list[Summary]:
    """One line for each strategy and budget, strategy by strategy."""
    found = []
    for strategy in dict.fromkeys(one.strategy for one in scores):
        for share in sorted({one.share for one in scores if one.strategy == strategy}):
            some = [
                one
                for one in scores
                if isinstance(one, Score) and (one.strategy, one.share) == (strategy, share)
            ]
            found.append(
                Summary(
                    strategy,
                    share,
                    len(some),
                    r2=_spread([one.r2 for one in some], lowest=True),
                    error=_spread([one.error for one in some]),
                    width=_spread([one.width for one in some]),
                    coverage=_mean([one.coverage for one in some]),
                    best_held=_mean([one.best_held for one in some]),
                    regret=_spread([one.regret for one in some]),
                    runs=_mean([one.runs for one in some]),
                    spent=_mean([one.spent for one in some]),
                    seconds=_mean([one.seconds for one in some]),
                    refit=_mean([one.refit for one in some]),
                )
            )
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _spread(values: Sequence[float | None], lowest: bool = False) -> Spread | None:
    known = [value for value in values if value is not None]
    return Spread(float(np.mean(known)), min(known) if lowest else max(known)) if known else None


def equal(summaries: Sequence[Summary], reference: str) -> list[Equal]:
    """What every other strategy needs to answer as well as the reference does with each of its budgets.

    Between two budgets the logarithm of the measure is taken to be linear in that of the compute spent.
    """
    found = []
    for measure in MEASURES:
        curves: dict[str, list[tuple[float, float]]] = {}
        asked = []
        for one in summaries:
            of = getattr(one, measure)
            if of is None or one.spent is None:
                continue
            curves.setdefault(one.strategy, []).append((one.spent, of.mean))
            if one.strategy == reference:
                asked.append((one.share, one.spent, of.mean))
        for share, spent, value in asked:
            for strategy, curve in curves.items():
                if strategy != reference:
                    needed, bound = _needed(curve, value)
                    times = (curve[-1][0] if needed is None else needed) / spent
                    found.append(Equal(measure, strategy, share, value, needed, times, bound))
    return found


def _needed(curve: Sequence[tuple[float, float]], value: float) -> tuple[float | None, str | None]:
    """The least compute by which a measure has come down to a value, and which bound that is, if one."""
    if curve[0][1] <= value:
        return curve[0][0], "most"
    for (before, high), (after, low) in pairwise(curve):
        if low <= value:
            tiny = np.finfo(float).tiny
            part = np.log(high / max(value, tiny)) / np.log(high / max(low, tiny))
            return float(before * (after / before) ** min(float(part), 1.0)), None
    return None, "least"
