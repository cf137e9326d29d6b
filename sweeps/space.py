"""The set of configurations the axes span, as columns, with the cost of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import qmc

from sweeps.bounds import ENUMERATED, SAMPLED, configurations
from sweeps.checks import least_steps
from sweeps.cost import Cost
from sweeps.scaling import SIZE
from sweeps.spec import OWN_OF_MEMBERS, Config, SweepSpec

Array = NDArray[np.float64]
Places: TypeAlias = NDArray[np.intp]

COVER = 1 << 14  # that stand for all where an even cover is enough
BLOCK = 1 << 13  # rows that are tabulated at once


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
    filled: Mapping[str, ArrayLike] = {**spec.complete({}), **given}
    filled = {**filled, **spec.derive(filled)}
    table = {name: np.broadcast_to(np.asarray(filled[name], dtype=float), (rows,)) for name in sorted(filled)}
    cost = spec.costs(table)
    return Table(
        tuple(table), table | {name: np.broadcast_to(value, (rows,)) for name, value in cost.items()}
    )


def tabulate_configs(spec: SweepSpec, configs: Sequence[Config]) -> Table:
    """A list of configurations as a table; it may be empty."""
    complete = [spec.complete(config) for config in configs]
    names = sorted({*spec.axes, *spec.derived})
    return tabulate(spec, {name: np.array([config[name] for config in complete]) for name in names})


def candidates(spec: SweepSpec) -> Table:
    """Every configuration that may be chosen.

    Left out are those with too few optimiser steps (``sweeps.checks.least_steps``) and those above
    ``budget.flops_per_run``. Of a space of more than ``ENUMERATED`` points these are a sample, see
    ``blocks``.
    """
    return join([table for _, table in blocks(spec)])


def cover(spec: SweepSpec) -> Table:
    """The candidates, or of many about ``COVER`` that lie evenly over the space, its corners among them."""
    if configurations(spec.space) <= COVER:
        return candidates(spec)
    return _trainable(spec, _sample(spec, COVER))[1]


def blocks(spec: SweepSpec) -> Iterator[tuple[Places, Table]]:
    """The candidates in the order of the grid, some thousand at a time, with their places in it.

    Of a space of more than ``ENUMERATED`` points, ``SAMPLED`` are candidates: a low-discrepancy sample that
    depends on the axes and the sweep's seed alone, its corners, and every number of tokens (or size, where
    that sets the tokens) with the rest at its lowest.
    """
    total = configurations(spec.space)
    places = _sample(spec, SAMPLED) if total > ENUMERATED else None
    for first in range(0, total if places is None else len(places), BLOCK):
        last = first + BLOCK
        yield _trainable(spec, np.arange(first, min(last, total)) if places is None else places[first:last])


def places_of(spec: SweepSpec, table: Table) -> Places:
    """Where rows lie in the grid, -1 for those beside it, as imported and refined runs may; (n,)."""
    place, beside = np.zeros(len(table), dtype=np.intp), np.zeros(len(table), dtype=bool)
    for name in sorted(spec.space):
        values = np.array(spec.space[name].values)
        at = np.minimum(np.searchsorted(values, table[name]), len(values) - 1)
        beside |= values[at] != table[name]
        place = place * len(values) + at
    return np.where(beside, -1, place)


def at_places(spec: SweepSpec, places: Places) -> Table:
    """The configurations at places of the grid; the last axis by name runs fastest."""
    names = sorted(spec.space)
    indices = np.unravel_index(places, _shape(spec))
    columns = {name: np.array(spec.space[name].values)[at] for name, at in zip(names, indices, strict=True)}
    return tabulate(spec, columns)


def _shape(spec: SweepSpec) -> tuple[int, ...]:
    return tuple(len(spec.space[name].values) for name in sorted(spec.space))


def shapes(table: Table) -> Places:
    """A number for the shape of each row, from 0; rows of one shape may train together; (n,)."""
    found = np.zeros(len(table), dtype=np.intp)
    for name in sorted(set(table.axes) - OWN_OF_MEMBERS):
        values, of = np.unique(table[name], return_inverse=True)
        found = np.unique(found * len(values) + of, return_inverse=True)[1]
    return found


def specimens(spec: SweepSpec, count: int) -> list[Config]:
    """One optimiser step of candidates that differ in shape, evenly over these by FLOPs, ascending.

    Args:
        spec: of a kind whose tokens are examples.
        count: at most so many.
    """
    table = cover(spec)
    first = np.unique(shapes(table), return_index=True)[1]
    ascending = first[np.argsort((table["flops"] / table["steps"])[first], kind="stable")]
    places = np.unique(np.rint(np.linspace(0, len(first) - 1, min(count, len(first)))).astype(int))
    configs = [table.config(index) for index in ascending[places]]
    return [config | {"tokens": config["batch"]} for config in configs]


def trainable(spec: SweepSpec, table: Table) -> NDArray[np.bool_]:
    """Which rows have enough steps and may be paid for, (n,)."""
    limits = (spec.budget.flops_per_run, spec.budget.flops, np.inf)
    limit = min(value for value in limits if value is not None)
    return np.asarray((table["steps"] >= least_steps(spec.trainer)) & (table["flops"] <= limit))


def _trainable(spec: SweepSpec, places: Places) -> tuple[Places, Table]:
    table = at_places(spec, places)
    kept = trainable(spec, table)
    return places[kept], table.take(kept)


def _sample(spec: SweepSpec, count: int) -> Places:
    whole = SIZE if "tokens" in spec.derived else "tokens"
    return _drawn(_shape(spec), sorted(spec.space).index(whole), count, spec.seed)


@lru_cache(maxsize=8)
def _drawn(shape: tuple[int, ...], whole: int, count: int, seed: int) -> Places:
    """Places of about ``count`` points of a grid, ascending (Sobol 1967, scrambled as Owen 1998 does).

    Args:
        whole: position of the axis that is taken whole where the others are at their lowest.
        count: a power of two.
    """
    varied = [axis for axis, length in enumerate(shape) if length > 1]
    lengths = np.array(shape)[varied]
    drawn = qmc.Sobol(len(varied), rng=seed).random(count)
    corners = np.indices((2,) * len(varied)).reshape(len(varied), -1).T * (lengths - 1)
    points = np.zeros((count + len(corners) + shape[whole], len(shape)), dtype=np.intp)
    points[:count, varied] = np.minimum(drawn * lengths, lengths - 1)
    points[count : count + len(corners), varied] = corners
    points[count + len(corners) :, whole] = np.arange(shape[whole])
    places = np.unique(np.ravel_multi_index(tuple(points.T), shape))
    places.flags.writeable = False
    return places


def join(tables: Sequence[Table]) -> Table:
    """All rows of tables of the same columns; at least one table."""
    if len(tables) == 1:
        return tables[0]
    names = tables[0].columns
    return Table(tables[0].axes, {name: np.concatenate([table[name] for table in tables]) for name in names})
