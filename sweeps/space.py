"""The set of configurations the axes span, as columns, with the cost of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeps.cost import COSTS, Cost
from sweeps.spec import MIN_STEPS, Config, SweepSpec

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Configurations as named columns.

    Args:
        axes: names of the axes, in the order of the specification.
        columns: each axis and each field of ``Cost`` (as ``params_total``, ``flops``): (n,).
    """

    axes: tuple[str, ...]
    columns: dict[str, Array]

    def __len__(self) -> int:
        return len(self.columns["flops"])

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def config(self, index: int) -> Config:
        """The configuration in one row."""
        return {name: float(self.columns[name][index]) for name in self.axes}

    def cost(self, index: int) -> Cost:
        """The cost of one row."""
        return Cost(**{f.name: float(self.columns[f.name][index]) for f in fields(Cost)})

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Table:
        """Some of the rows."""
        return Table(self.axes, {name: column[rows] for name, column in self.columns.items()})


def tabulate(spec: SweepSpec, columns: Mapping[str, ArrayLike]) -> Table:
    """Configurations with their costs; axes that are left out are filled in as the specification says.

    Args:
        columns: values of the axes, each (n,) or a number.
    """
    given = {name: np.atleast_1d(np.asarray(column, dtype=float)) for name, column in columns.items()}
    rows = max((len(column) for column in given.values()), default=1)
    filled = spec.complete(dict.fromkeys(given, 0.0)) | given
    table = {name: np.broadcast_to(np.asarray(filled[name], dtype=float), (rows,)) for name in sorted(filled)}
    cost = COSTS[spec.proxy.kind](table, spec.proxy.heads)
    return Table(
        tuple(table), table | {name: np.broadcast_to(value, (rows,)) for name, value in cost.items()}
    )


def tabulate_configs(spec: SweepSpec, configs: Sequence[Config]) -> Table:
    """A list of configurations as a table; it may be empty."""
    complete = [spec.complete(config) for config in configs]
    names = sorted(spec.complete(dict.fromkeys(spec.space, 0.0)))
    return tabulate(spec, {name: np.array([config[name] for config in complete]) for name in names})


def candidates(spec: SweepSpec) -> Table:
    """Every configuration of the space that can be trained within the budget for one run.

    Left out are those with fewer than ten optimiser steps and those above ``budget.flops_per_run``.
    """
    names = sorted(spec.space)
    grids = np.meshgrid(*(np.array(spec.space[name].values) for name in names), indexing="ij")
    table = tabulate(spec, {name: grid.ravel() for name, grid in zip(names, grids, strict=True)})
    limit = min(
        value for value in (spec.budget.flops_per_run, spec.budget.flops, np.inf) if value is not None
    )
    return table.take((table["steps"] >= MIN_STEPS) & (table["flops"] <= limit))
