"""Values between those of the grid, around the best that a fit predicts."""

from __future__ import annotations

import numpy as np

from sweeps.axis import Axis
from sweeps.laws.base import Array
from sweeps.posterior import Posterior
from sweeps.space import Table, places_of, tabulate, tabulate_configs, trainable
from sweeps.spec import SweepSpec

PARTS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # of the grid's step, from the predicted best
SCALES = 512  # at most that are refined, evenly among all


def refined(spec: SweepSpec, posterior: Posterior, table: Table) -> Table:
    """Configurations beside the grid: at each scale, a few values of every continuous hyperparameter.

    They lie around its predicted best, the other hyperparameters being at the grid's values next to theirs,
    and stay between the axis's ends.

    Args:
        table: candidates, whose scales are refined.
    """
    axes = {axis.name: axis for axis in posterior.frame.surface.axes}
    free = [name for name in axes if spec.space[name].kind == "continuous"]
    if not free or not len(table):
        return tabulate_configs(spec, [])
    scale = [name for name in table.axes if name not in axes]
    rows = np.unique(np.stack([table[name] for name in scale], axis=1), axis=0)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(SCALES, len(rows))).astype(int))]
    at = dict(zip(scale, rows.T, strict=True))
    at |= {name: np.full(len(rows), np.median(spec.space[name].values)) for name in axes}
    best = {}
    for name, axis in axes.items():  # the rate comes last, since its best depends on the batch
        coordinate = np.broadcast_to(
            posterior.best(posterior.frame.columns(tabulate(spec, at)), name), (len(rows),)
        )
        best[name] = axis.value(coordinate)
        values = np.array(spec.space[name].values)
        apart = np.abs(axis.coordinate(values) - coordinate[:, None])
        at[name] = values[np.argmin(apart, axis=1)]
    moved = [
        at | {name: _tidy(_shift(best[name], part, spec.space[name]), spec.space[name])}
        for name in free
        for part in PARTS
    ]
    columns = np.stack([np.concatenate([one[name] for one in moved]) for name in at], axis=1)
    found = tabulate(spec, dict(zip(at, np.unique(columns, axis=0).T, strict=True)))
    return found.take(trainable(spec, found) & (places_of(spec, found) < 0))


def _shift(value: Array, part: float, axis: Axis) -> Array:
    """Values a part of the grid's mean step further."""
    first, last, steps = axis.values[0], axis.values[-1], len(axis.values) - 1
    if axis.scale == "log":
        return np.asarray(value * (last / first) ** (part / steps))
    return np.asarray(value + part * (last - first) / steps)


def _tidy(values: Array, axis: Axis) -> Array:
    """Three digits, between the ends of the axis."""
    return np.clip([float(f"{value:.3g}") for value in values], axis.values[0], axis.values[-1])
