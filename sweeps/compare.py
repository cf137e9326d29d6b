"""Two recipes compared: which reaches the lower loss, where their curves cross, what one is worth in compute.

Rankings at a small scale flip (arXiv 2409.15156), so none is told without the probability that the curves
cross. Recipes are taken to be independent: every number is one over all pairs of their posterior draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from sweeps.errors import FitError
from sweeps.paths import Recipe, of_study, path
from sweeps.race import Pair, Race, Versus, even, race, versus
from sweeps.study import Study
from sweeps.study_warnings import FAR
from sweeps.tables import Warning

Unit: TypeAlias = Literal["flops", "tokens"]

BEYOND = 30.0  # of the largest run, where the range of amounts ends


@dataclass(frozen=True)
class Comparison:
    """Two recipes.

    Args:
        recipes: their names.
        at: the configuration asked about; None for compute along the path.
        flops: training FLOPs there, of the first.
        along: what is held fixed along the path; nothing where compute is split in the best way.
        mean: of the losses over seeds.
        new: of one new run each.
        compute: at equal FLOPs along the path.
        hours: at equal accelerator-hours; None without throughputs.
    """

    recipes: tuple[str, str]
    at: dict[str, float] | None
    flops: float
    along: dict[str, float]
    mean: Versus
    new: Versus
    compute: Race
    hours: Race | None
    warnings: tuple[Warning, ...]


def compare(
    one: Study | Recipe,
    two: Study | Recipe,
    at: Mapping[str, float] | None = None,
    flops: float | None = None,
    *,
    along: Mapping[str, float] | None = None,
    span: tuple[float, float] | None = None,
    hours: tuple[float, float] | None = None,
    per_hour: Unit = "flops",
    names: tuple[str, str] = ("A", "B"),
    seed: int = 0,
) -> Comparison:
    """Compares two recipes at a target and over compute.

    Args:
        one, two: fitted tables; fits of sweeps as ``sweeps.paths.of_sweep`` gives them.
        at: the target, what it leaves open being predicted.
        flops: the target as compute along the path; without either the largest run of both.
        along: quantities held fixed while compute grows, such as ``params``, or ``tokens_per_param``; without
            any of these the compute-optimal split.
        span: FLOPs between which a crossing is looked for; by default from the smallest run of both to 30
            times the largest.
        hours: throughput of each recipe, by accelerator-hour.
        per_hour: what it counts; tokens need ``params`` to be held fixed.
        names: of fitted tables.
        seed: of the noise of new runs.

    Raises:
        FitError: the laws cannot tell, or a quantity is missing.
    """
    pair = (_recipe(one, names[0]), _recipe(two, names[1]))
    if pair[0].name == pair[1].name:
        raise FitError(f"both recipes are called {pair[0].name}; give each a name of its own")
    fixed = {name: float(value) for name, value in (along or {}).items()}
    for what, amount in [*fixed.items(), *(("flops", f) for f in (flops, *(span or ()), *(hours or ())))]:
        if amount is not None and not 0.0 < amount < np.inf:
            raise FitError(f"given {what} {amount:g}; allowed: a number above 0")
    largest = max(recipe.seen[1] for recipe in pair)
    if at is not None:
        places = [recipe.read(at) for recipe in pair]
        amount = float(np.exp(places[0]["flops"][0] + pair[0].posterior.frame.centre["flops"]))
    else:
        amount = largest if flops is None else float(flops)
        places = [path(recipe, np.array([amount]), fixed) for recipe in pair]
    low, high = span or (max(r.seen[0] for r in pair), max(BEYOND * largest, amount))
    if not low < high:
        raise FitError(f"given the range {low:g} to {high:g} FLOPs; allowed: one that ends above its start")
    rng = np.random.default_rng(seed)
    mean, new = (
        [even(*r.posterior.draws(x, noise))[:, 0] for r, x in zip(pair, places, strict=True)]
        for noise in (None, rng)
    )

    def over(unit: str, rates: tuple[float, float]) -> Race:
        ends = max(low / rate for rate in rates), max(high / rate for rate in rates)
        return race(pair, unit, rates, ends, amount / rates[0], fixed)

    return Comparison(
        recipes=(pair[0].name, pair[1].name),
        at=None if at is None else {name: float(value) for name, value in at.items()},
        flops=amount,
        along=fixed,
        mean=versus(pair, *mean),
        new=versus(pair, *new),
        compute=over("FLOPs", (1.0, 1.0)),
        hours=over("accelerator-hours", _rates(pair, hours, per_hour, fixed)) if hours else None,
        warnings=tuple(_warnings(pair, amount)),
    )


def _recipe(given: Study | Recipe, name: str) -> Recipe:
    return given if isinstance(given, Recipe) else of_study(given, name)


def _rates(
    pair: Pair, hours: tuple[float, float], unit: Unit, along: Mapping[str, float]
) -> tuple[float, float]:
    """FLOPs an accelerator-hour of both."""
    if unit == "flops":
        return hours
    if "params" not in along:
        raise FitError("tokens an hour hold for one size of model; hold params fixed, or give FLOPs an hour")
    first, second = (rate * r.factor * along["params"] for rate, r in zip(hours, pair, strict=True))
    return first, second


def _warnings(pair: Pair, flops: float) -> Iterator[Warning]:
    for recipe in pair:
        reach = flops / recipe.seen[1]
        if reach > FAR:
            yield Warning("far", f"{recipe.name}: {reach:.0f} times the compute of the largest run")
