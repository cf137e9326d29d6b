"""A law with the bowl around the optimal hyperparameters: what is fitted to a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sweeps.laws import LAWS
from sweeps.laws.base import Array, Columns, Law, Parameter
from sweeps.solve import Prior
from sweeps.space import Table, candidates
from sweeps.spec import SweepSpec
from sweeps.surface import Surface, coordinates, surface

LAW_COLUMNS = {"tokens": "tokens_seen", "flops": "flops"}


@dataclass(frozen=True)
class Frame:
    """How rows of a sweep become centred columns.

    Args:
        count: field of ``Cost`` that laws read as N.
        centre: ln of the geometric mean of params, tokens and flops; ``loss`` is added by a fit.
        surface: axes with an optimum.
    """

    count: str
    centre: Mapping[str, float]
    surface: Surface

    def columns(self, table: Table) -> dict[str, Array]:
        """Centred columns of the rows of a table, each (n,)."""
        sources = LAW_COLUMNS | {"params": self.count}
        laws = {name: np.log(table[source]) - self.centre[name] for name, source in sources.items()}
        return laws | coordinates(self.surface, table)


def frame(spec: SweepSpec, table: Table | None = None) -> Frame:
    """The frame of a sweep, centred on its space (or on a given table), so that it stays as runs arrive."""
    count = f"params_{spec.laws.count}"
    rows = candidates(spec) if table is None else table
    sources = LAW_COLUMNS | {"params": count}
    centre = {name: float(np.mean(np.log(rows[source]))) for name, source in sources.items()}
    return Frame(count, centre, surface(spec))


@dataclass(frozen=True)
class Model:
    """ln L = law + bowl; its parameters are the law's, then the bowl's."""

    law: Law
    surface: Surface

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Of the law, then of the surface."""
        return (*self.law.parameters, *self.surface.parameters)

    @property
    def split(self) -> int:
        """How many parameters are the law's."""
        return len(self.law.parameters)

    @cached_property
    def prior(self) -> Prior:
        """The weak prior of every parameter."""
        mean = np.array([parameter.mean for parameter in self.parameters])
        sd = np.array([parameter.sd for parameter in self.parameters])
        return Prior(mean, 1.0 / sd**2)

    def evaluate(self, theta: Array, x: Columns) -> tuple[Array, Array]:
        """ln L (..., n) and its gradient (..., n, p) at theta (..., p)."""
        value, gradient = self.law.evaluate(theta[..., : self.split], x)
        if not self.surface.axes:
            return value, gradient
        height, slope = self.surface.evaluate(theta[..., self.split :], x)
        return value + height, np.concatenate([gradient, slope], axis=-1)

    def height(self, theta: Array, x: Columns) -> Array:
        """Height of the bowl alone, (..., n)."""
        if not self.surface.axes:
            return np.zeros((*theta.shape[:-1], len(x["flops"])))
        return self.surface.evaluate(theta[..., self.split :], x)[0]


def models(spec: SweepSpec, surface: Surface) -> list[Model]:
    """One model for each law of a sweep."""
    return [Model(LAWS[name], surface) for name in spec.laws.names]
