"""A fitted recipe over compute: which configuration each amount is spent on, as columns of its laws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sweeps.answers import view_of, with_best
from sweeps.ensemble import Ensemble
from sweeps.errors import FitError
from sweeps.laws import LAWS
from sweeps.laws.base import Array, own
from sweeps.posterior import Posterior
from sweeps.space import cover
from sweeps.spec import SweepSpec
from sweeps.study import Study

RATIO = "tokens_per_param"
SIZES = np.linspace(-8.0, 8.0, 129)  # ln N around what grows with the root of compute


@dataclass(frozen=True)
class Recipe:
    """What was learned of one way to train.

    Args:
        name: to speak of it.
        posterior: its laws.
        read: a configuration -> its columns, what is left out at its optimum.
        scales: quantities that its laws read.
        factor: FLOPs by parameter and token, or by unit of the only scale.
        seen: FLOPs of its smallest and its largest run.
        constants: quantities that were the same in all its runs.
        lone: the scale that its laws know as ``x``.
    """

    name: str
    posterior: Posterior
    read: Callable[[Mapping[str, float]], dict[str, Array]]
    scales: tuple[str, ...]
    factor: float
    seen: tuple[float, float]
    constants: Mapping[str, float] = field(default_factory=dict)
    lone: str | None = None


def of_study(study: Study, name: str) -> Recipe:
    """A fitted table as a recipe."""
    seen, sources = study.observed.columns, study.posterior.frame.sources
    flops = seen.get(
        "flops", seen[study.scales[0]]
    )  # where a table tells no compute, its scale stands for it
    unit = (
        seen["params"] * seen["tokens"]
        if {"params", "tokens"} <= set(study.scales)
        else seen[study.scales[0]]
    )
    constants = {n: float(seen[n][0]) for n in sources if n in seen and np.ptp(seen[n]) == 0.0}
    return Recipe(
        name,
        study.posterior,
        study.columns,
        study.scales,
        float(np.median(flops / unit)),
        (float(flops.min()), study.ensemble.largest_flops),
        constants,
        study.problem.lone,
    )


def of_sweep(spec: SweepSpec, ensemble: Ensemble, name: str) -> Recipe:
    """The latest fit of a sweep as a recipe; FLOPs by parameter and token are those of its first target."""
    view = view_of(spec, ensemble)
    cost = spec.cost(spec.complete(spec.targets[0].at))
    scales = tuple(dict.fromkeys(column for law in ensemble.laws for column in LAWS[law].columns))
    return Recipe(
        name,
        view,
        lambda at: view.columns(with_best(view, dict(at))),
        scales,
        cost.flops / (getattr(cost, ensemble.count) * cost.tokens_seen) if scales != ("flops",) else 1.0,
        (float(cover(spec)["flops"].min()), ensemble.largest_flops),
    )


def path(recipe: Recipe, flops: Array, along: Mapping[str, float]) -> dict[str, Array]:
    """Columns of what amounts of compute are spent on.

    Args:
        flops: (n,).
        along: quantities and hyperparameters held fixed, or ``tokens_per_param``. Other hyperparameters are
            taken at their predicted optimum, params and tokens at the split that the laws find best.

    Raises:
        FitError: the laws read more than compute and what is fixed can tell, or find no best split.
    """
    frame = recipe.posterior.frame
    known = {*frame.sources, RATIO, *(axis.name for axis in frame.surface.axes)}
    if stray := [name for name in along if name not in known]:
        asked = ", ".join([*recipe.scales, RATIO])
        raise FitError(f"{recipe.name}: nothing reads {', '.join(stray)}; hold fixed some of {asked}")
    fixed = {**recipe.constants, **{name: value for name, value in along.items() if name != RATIO}}
    log_flops = np.log(flops)
    logs = {name: np.full(len(flops), np.log(value)) for name, value in fixed.items()} | {"flops": log_flops}
    open_ = {name for name in recipe.scales if name not in logs}
    product = log_flops - np.log(recipe.factor)
    if open_ == {"params", "tokens"}:
        if RATIO in along:
            logs["params"] = 0.5 * (product - np.log(along[RATIO]))
        else:
            logs["params"] = _best_size(recipe, logs, product)
        logs["tokens"] = product - logs["params"]
    elif len(open_) == 1:
        (name,) = open_
        other = logs.get({"params": "tokens", "tokens": "params"}.get(name, ""), 0.0)
        logs[name] = product - (other if {"params", "tokens"} <= set(recipe.scales) else 0.0)
    elif open_:
        raise FitError(
            f"{recipe.name}: compute alone does not tell {', '.join(recipe.scales)}, which the laws read; "
            "hold all but params and tokens fixed"
        )
    if recipe.lone is not None:
        logs["x"] = logs[recipe.lone]
    return _columns(recipe.posterior, logs)


def _columns(posterior: Posterior, logs: Mapping[str, Array]) -> dict[str, Array]:
    """Columns from ln of quantities (n,); hyperparameters that are not among them at their optimum."""
    frame = posterior.frame
    for name in frame.sources:
        if name not in logs:
            raise FitError(f"{name} is missing; hold it fixed along the path")
    table = {column: np.exp(logs[name]) for name, column in frame.sources.items()}
    for axis in frame.surface.axes:
        given = logs.get(axis.name)
        table[axis.name] = axis.value(np.zeros_like(logs["flops"])) if given is None else np.exp(given)
    x = frame.columns(table)
    for axis in frame.surface.axes:
        if axis.name not in logs:
            x[axis.name] = posterior.best(x, axis.name)
    return x


def _best_size(recipe: Recipe, logs: Mapping[str, Array], product: Array) -> Array:
    """ln N of the lowest loss at ln(N D) (n,): the weighted mean over the modes of the laws, each on a grid
    and then through three points of it."""
    posterior, centre = recipe.posterior, recipe.posterior.frame.centre
    log_n = (centre["params"] + 0.5 * (logs["flops"] - centre["flops"]))[:, None] + SIZES
    grid = {name: np.repeat(value, len(SIZES)) for name, value in logs.items()}
    grid |= {"params": log_n.ravel(), "tokens": (product[:, None] - log_n).ravel()}
    names = [name for name in posterior.frame.sources if name in grid]
    x = {name: grid[name] - centre[name] for name in names} | {own(name): grid[name] for name in names}
    best, lost = np.zeros(len(product)), 0.0
    for model, member in posterior.pairs:
        loss = model.law.log_loss(member.fit.theta[: model.split], x).reshape(log_n.shape)
        at = np.argmin(loss, axis=1)
        lost += member.weight * float(np.mean((at == 0) | (at == len(SIZES) - 1)))
        at = np.clip(at, 1, len(SIZES) - 2)
        left, middle, right = (np.take_along_axis(loss, (at + i)[:, None], 1)[:, 0] for i in (-1, 0, 1))
        bend = np.maximum(left - 2.0 * middle + right, 1e-300)
        step = np.clip(0.5 * (left - right) / bend, -1.0, 1.0) * (SIZES[1] - SIZES[0])
        best += member.weight * (np.take_along_axis(log_n, at[:, None], 1)[:, 0] + step)
    if lost > 0.5:
        raise FitError(
            f"{recipe.name}: the laws find no best split of compute; hold params, tokens or {RATIO} fixed"
        )
    return best
