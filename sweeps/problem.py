"""What a table of runs gives to be fitted: laws, their columns, and the frame these are read in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sweeps.errors import FitError
from sweeps.laws.base import Array, Columns, Law
from sweeps.laws.quantities import OF_ROWS
from sweeps.misfit import misfit
from sweeps.model import Frame, Model
from sweeps.noise import WEIGHT
from sweeps.posterior import Posterior
from sweeps.selection import (
    DERIVED,
    centre_of,
    compute,
    family,
    is_axis,
    lone_scale,
    rows_of,
    target_flops,
    tokens,
)
from sweeps.surface import surface_over
from sweeps.tables import Observed


@dataclass(frozen=True)
class Problem:
    """A table of runs as laws see it. Nothing here depends on a loss.

    Args:
        observed: the table.
        models: laws with their bowl, to be fitted.
        frame: of the columns.
        x: the runs' columns, (n,) each.
        scales: quantities the laws read and that vary.
        lone: the quantity that laws of one variable read as ``x``, if they do.
        table: the runs' quantities, those that were derived included.
        target: FLOPs from which a misfit is counted.
    """

    observed: Observed
    models: tuple[Model, ...]
    frame: Frame
    x: Columns
    scales: tuple[str, ...]
    lone: str | None
    table: Mapping[str, Array]
    target: float

    def columns(self, at: Mapping[str, ArrayLike], posterior: Posterior | None = None) -> dict[str, Array]:
        """Columns of configurations as the laws read them; what is left out is derived.

        Args:
            at: quantities, each (n,) or a number.
            posterior: sets the hyperparameters that are left out to their optimum; without it they are in
                the middle of what was tried.

        Raises:
            FitError: a quantity that the laws read is missing or not a positive number, or lengths differ.
        """
        given = {name: np.atleast_1d(np.asarray(value, dtype=float)) for name, value in at.items()}
        read = {*self.frame.sources, WEIGHT, "params", "tokens", "flops", self.lone}
        for name in (name for name in given if name in read):
            wrong = given[name][~(np.isfinite(given[name]) & (given[name] > 0.0))]
            if len(wrong):
                raise FitError(f"{name} is {wrong[0]:g}; a positive number is needed")
        table, rows = rows_of(given)
        like = {name: column for name, column in self.observed.columns.items() if name not in OF_ROWS}
        table |= compute(table, like)
        table |= tokens(table, like)
        frame, best = self.frame, []
        if self.lone is not None and self.lone in table:
            table["x"] = table[self.lone]
        for name in (*self.scales, *frame.sources.values()):
            if name not in table:
                asked = ", ".join(self.scales)
                raise FitError(f"{name} is missing; the laws of this table read {asked}")
        for axis in frame.surface.axes:
            if axis.name not in table:
                best.append(axis)
                table[axis.name] = axis.value(np.zeros(rows))
        x = frame.columns(table)
        if WEIGHT in table:
            x[WEIGHT] = table[WEIGHT]
        if posterior is not None:
            for axis in best:
                x[axis.name] = posterior.best(x, axis.name)
        return x


def pose(
    observed: Observed,
    laws: str | Sequence[str | Law],
    target: Mapping[str, ArrayLike] | None,
    *,
    exact: bool = False,
    transfer: str = "none",
) -> Problem:
    """The problem of a table.

    Args:
        laws: names in ``LAWS`` or laws; ``auto`` takes every law of just the scales that vary.
        target: what will be asked about: runs far below it count less. By default the largest run.
        exact: takes the laws to have no misfit.
        transfer: rule of ``sweeps.transfer.RULES``.

    Raises:
        FitError: no law can be fitted to these columns.
    """
    table = {name: column for name, column in observed.columns.items() if name not in ("loss", *OF_ROWS)}
    table |= compute(table, table)
    varied = tuple(name for name, column in table.items() if np.ptp(column) > 1e-9 * np.abs(column).max())
    lone = lone_scale(varied)
    if lone is not None:
        table["x"] = table[lone]
    chosen, scales = family(laws, table, varied)
    lone = lone if "x" in scales else None
    scales = tuple(lone if name == "x" and lone else name for name in scales)
    axes = [name for name in varied if name not in (*scales, *DERIVED) and is_axis(name, chosen)]
    tried = {name: np.unique(table[name]).tolist() for name in axes}
    one_depth = "depth" in table and "depth" not in varied
    laws_read = {column for one in chosen for column in one.columns}
    surface = surface_over(tried, transfer, one_depth=one_depth, read=laws_read)
    read = dict.fromkeys(["flops", *scales, *(name for one in chosen for name in one.columns)])
    centre = {name: centre_of(name, table) for name in read}
    bare = Frame({name: name for name in read}, centre, surface)
    x = bare.columns(table)
    there = target_flops(target, table)
    far = None if exact else misfit(x, scales, float(np.log(there)) - centre["flops"])
    frame = Frame(bare.sources, centre, surface, far)
    x = frame.columns(table)
    if WEIGHT in observed.columns:
        x[WEIGHT] = observed.columns[WEIGHT]
    models = tuple(Model(one, surface) for one in chosen)
    return Problem(observed, models, frame, x, scales, lone, table, there)
