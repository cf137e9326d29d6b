"""Reasons to trust a fit or a prediction less, each with a stable code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sweeps.laws.base import Array, Columns
from sweeps.model import FEATURES
from sweeps.posterior import Posterior, Quantiles
from sweeps.tables import Warning

FAR = 30.0  # extrapolation in compute beyond which a prediction is flagged
DISAGREE = 0.5  # spread of the laws over the interval's width beyond which they are said to disagree
COLLINEAR = 0.98  # correlation of ln N and ln D
FEW_SCALES = 3  # distinct values of a scale below which its exponent is mostly prior
OUTLYING, SHOWN = 8.0, 5  # scales of the noise beyond which a run is an outlier; rows that are named
SLIGHT = 0.05  # weight of a fit below which its troubles are not worth a warning
AT_BOUND = 2.5  # prior standard deviations from the prior's middle
LOOSE = 0.8  # posterior over prior standard deviation above which the data did not tell
MISFIT_SEEN = 0.002  # relative misfit that is worth a warning


def of_study(
    view: Posterior, table: Mapping[str, Array], x: Columns, scales: Sequence[str], held: bool
) -> Iterator[Warning]:
    """Warnings about a fit.

    Args:
        table: its columns.
        x: as the laws see them.
        scales: quantities the laws read.
        held: whether there were runs enough to hold some out.
    """
    if {"params", "tokens"} <= set(scales):
        apart = float(np.corrcoef(np.log(table["params"]), np.log(table["tokens"]))[0, 1])
        if abs(apart) > COLLINEAR:
            yield Warning(
                "collinear",
                f"params and tokens move together (correlation {apart:.3f}): their exponents cannot be told "
                "apart; add runs at other ratios of tokens to params",
            )
    for name in scales:
        distinct = len(np.unique(np.round(np.log(table[name]), 2)))
        if distinct < FEW_SCALES:
            yield Warning("few_scales", f"{name} takes {distinct} values; its exponent rests on the prior")
    if not held:
        yield Warning("no_holdout", "too few runs to hold any out; the weights of the laws are untested")
    told: set[str] = set()
    for model, member in view.pairs:
        one = member.fit
        if member.weight < SLIGHT or one.law in told:
            continue
        told.add(one.law)
        if not one.converged:
            yield Warning("not_converged", f"the fit of {one.law} did not settle")
        if one.basins > 1:
            yield Warning("several_basins", f"{one.law} explains the runs about as well with other constants")
        for i, parameter in enumerate(model.law.parameters):
            off = (one.theta[i] - parameter.mean) / parameter.sd
            if abs(off) > AT_BOUND:
                side = "above" if off > 0 else "below"
                yield Warning("at_bound", f"{one.law}: {parameter.meaning} lies far {side} what is usual")
            if np.sqrt(one.covariance[i, i]) > LOOSE * parameter.sd:
                yield Warning("unidentified", f"{one.law}: the runs tell little about {parameter.meaning}")
        first = len(model.parameters)
        weights = one.theta[first : first + x[FEATURES].shape[1]]
        missed = float(np.sqrt(np.mean((x[FEATURES] @ weights) ** 2)))
        if missed > max(MISFIT_SEEN, one.noise.sigma):
            yield Warning(
                "misfit",
                f"{one.law} misses the runs by {missed:.1%} in a way that noise does not explain; those far "
                "below the target count less",
            )
    yield from _outliers(view, x, np.log(table["loss"]))
    for axis in view.frame.surface.axes:
        name, values = axis.name, np.unique(table[axis.name])
        if len(values) < FEW_SCALES:
            yield Warning("few_values", f"{name} takes {len(values)} values; its optimum rests on the prior")
        largest = int(np.argmax(x["flops"]))
        best = view.best({key: column[[largest]] for key, column in x.items()}, name)[0]
        if not x[name].min() <= best <= x[name].max():
            end, side = (values[0], "below") if best < x[name].min() else (values[-1], "above")
            yield Warning(
                "edge",
                f"the best {name} for the largest run lies {side} {end:g}, the last value tried; try further",
            )


def _outliers(view: Posterior, x: Columns, log_loss: Array) -> Iterator[Warning]:
    """Runs that no law with weight comes near, law and misfit taken together."""
    far = np.ones(len(log_loss), dtype=bool)
    for model, member in view.pairs:
        if member.weight >= SLIGHT:
            rest = log_loss - member.fit.loss_centre - model.log_loss(member.fit.theta, x)
            far &= np.abs(rest) > OUTLYING * model.scale(member.fit.noise, member.fit.theta, x)
    rows = np.flatnonzero(far)
    if len(rows):
        shown = ", ".join(str(row + 1) for row in rows[:SHOWN]) + (", ..." if len(rows) > SHOWN else "")
        yield Warning(
            "outliers",
            f"{len(rows)} runs lie far from every law (rows {shown}): look at them; what they are may lie "
            "outside what the laws describe",
        )


def of_prediction(
    view: Posterior, reach: float, interval: Quantiles, by_law: Mapping[str, float]
) -> Iterator[Warning]:
    """Warnings about a prediction.

    Args:
        reach: compute there over that of the largest run.
        interval: for a new run.
        by_law: median of each law.
    """
    if reach > FAR:
        yield Warning("far", f"{reach:.0f} times the compute of the largest run")
    weighty = {law: by_law[law] for law, weight in view.ensemble.laws.items() if weight > SLIGHT}
    spread = max(weighty.values()) - min(weighty.values())
    if spread > DISAGREE * (interval.high - interval.low):
        laws = ", ".join(f"{name} {value:.4g}" for name, value in weighty.items())
        yield Warning("laws_disagree", f"the laws differ: {laws}")
