"""Optuna's samplers on recorded runs, for the question of the best hyperparameters.

They tune as one does without laws: at one scale, the costliest of which the budget buys 20 runs (or that of
which it buys most), and the best run's setting is taken over to the target as it is. Axes are floats between
the values recorded there, logarithmic where they can be. A suggestion becomes the nearest recorded run that
is not bought yet and can be paid for; the sampler is told that run's setting and loss. No loss is predicted.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sweeps.errors import FitError
from sweeps.replay import LEAST, Outcome, Task

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

ENOUGH = 20  # runs of a scale that tuning at it should be able to buy


def _tpe(seed: int) -> BaseSampler:
    """Tree-structured Parzen estimators as Optuna sets them."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


def _gp(seed: int) -> BaseSampler:
    """A Gaussian process as Optuna sets it."""
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed)


SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = MappingProxyType({"tpe": _tpe, "gp": _gp})


def require_optuna() -> None:
    """Says what to install where Optuna is missing.

    Raises:
        FitError: it is.
    """
    if importlib.util.find_spec("optuna") is None:
        names = " and ".join(SAMPLERS)
        raise FitError(f"{names} need Optuna, which is not installed: pip install 'scalewise[replay]'")


def tune(
    task: Task,
    sampler: str,
    share: float,
    repeat: int = 0,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Outcome:
    """Lets a sampler spend a budget on recorded runs of one scale.

    Args:
        sampler: name in ``SAMPLERS``.
        share, repeat, seed, progress: as of ``sweeps.replay.replay``.

    Raises:
        FitError: Optuna is missing, no hyperparameter varies, or the budget buys fewer than 3 runs.
    """
    require_optuna()
    import optuna
    from optuna.distributions import BaseDistribution, FloatDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    axes = task.problem.frame.surface.axes
    if not axes:
        raise FitError(f"{sampler} tunes hyperparameters, and none of them varies in this table")
    budget = share * float(task.flops.sum())
    rows = _scale(task, budget)
    places = np.stack([task.problem.x[axis.name][rows] for axis in axes], axis=1)
    ends = zip(places.min(axis=0), places.max(axis=0), strict=True)
    space: dict[str, BaseDistribution] = {
        axis.name: FloatDistribution(float(low), float(high))
        for axis, (low, high) in zip(axes, ends, strict=True)
    }
    wide = np.maximum(np.ptp(places, axis=0), 1e-12)
    state = int(np.random.default_rng([seed, repeat]).integers(1 << 31))
    study = optuna.create_study(sampler=SAMPLERS[sampler](state))
    free, left, seconds = np.ones(len(rows), dtype=bool), budget, []
    while (open_ := free & (task.flops[rows] <= left)).any():
        begun = time.perf_counter()
        trial = study.ask(space)
        seconds.append(time.perf_counter() - begun)
        study.tell(trial, state=TrialState.FAIL)  # what counts is the recorded run beside it
        asked = np.array([trial.params[axis.name] for axis in axes])
        off = np.where(open_, np.sum(((places - asked) / wide) ** 2, axis=1), np.inf)
        best = int(np.argmin(off))
        at = {axis.name: float(value) for axis, value in zip(axes, places[best], strict=True)}
        study.add_trial(create_trial(params=at, distributions=space, value=float(task.loss[rows[best]])))
        free[best], left = False, left - float(task.flops[rows[best]])
        if progress is not None:
            progress(len(seconds), 1.0 - left / budget)
    if len(seconds) < LEAST:
        raise FitError(f"{share:.2%} of the cost buys {len(seconds)} runs; tuning takes at least {LEAST}")
    told = study.best_trial.params
    unknown = np.full(len(task.asked["flops"]), np.nan)
    return Outcome(
        sampler, share, repeat, len(seconds), float((budget - left) / task.flops.sum()),
        unknown, unknown, unknown,
        {axis.name: float(axis.value(np.array(told[axis.name]))) for axis in axes},
        float(np.mean(seconds)), np.nan, {},
    )  # fmt: skip


def _scale(task: Task, budget: float) -> NDArray[np.intp]:
    """Rows of the scale to tune at."""
    frame = task.problem.frame
    names = [name for name in frame.sources if name not in {axis.name for axis in frame.surface.axes}]
    places = np.round(np.stack([task.problem.x[name][task.offered] for name in names], axis=1), 6)
    of = np.unique(places, axis=0, return_inverse=True)[1].ravel()
    runs = np.bincount(of)
    price = np.bincount(of, task.flops[task.offered]) / runs
    bought = np.minimum(runs, budget / price)
    enough = np.flatnonzero(bought >= ENOUGH)
    chosen = int(enough[np.argmax(price[enough])]) if len(enough) else int(np.argmax(bought))
    return np.asarray(task.offered[of == chosen])
