"""What is fitted to a sweep: a law, the bowl around the optimal hyperparameters and the law's misfit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sweeps import columns
from sweeps.errors import FitError
from sweeps.laws import LAWS
from sweeps.laws.base import Array, Columns, Law, Parameter, own
from sweeps.laws.quantities import quantity
from sweeps.misfit import Misfit, misfit
from sweeps.noise import Noise
from sweeps.solve import Prior
from sweeps.space import Table, cover
from sweeps.spec import SweepSpec
from sweeps.surface import Surface, coordinates, surface

FEATURES = "misfit"  # key of the features among the columns
BOWL_FEATURES = 8  # of these, the broadest, by which the depth of the bowl may differ
BOWL_MISFIT = 0.1  # standard deviation of the depth's logarithm by e-fold of compute below the target


@dataclass(frozen=True)
class Frame:
    """How rows of a table become centred columns.

    Args:
        sources: column of the table that each quantity of the laws is read from.
        centre: of each quantity's logarithm; ``loss`` is added by a fit.
        surface: axes with an optimum.
        misfit: features of what the laws get wrong; None when the laws are taken to be exact.
    """

    sources: Mapping[str, str]
    centre: Mapping[str, float]
    surface: Surface
    misfit: Misfit | None = None

    def columns(self, table: Mapping[str, Array] | Table) -> dict[str, Array]:
        """Columns of the rows of a table: centred, in their own units, coordinates, features."""
        logs = {name: np.log(table[source]) for name, source in self.sources.items()}
        x = {name: log - self.centre[name] for name, log in logs.items()}
        x |= {own(name): log for name, log in logs.items()}
        x |= coordinates(self.surface, table)
        return x if self.misfit is None else x | {FEATURES: self.misfit.features(x)}


@dataclass(frozen=True)
class Model:
    """ln L = law + bowl * exp(misfit of the bowl) + misfit.

    Parameters are the law's, then the bowl's, then the weights of the misfit's features, then those of the
    bowl's misfit.
    """

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

    def weights(self, features: int) -> int:
        """How many weights a misfit of so many features has, those of the bowl's included."""
        return features + (min(features, BOWL_FEATURES) if self.surface.axes else 0)

    def prior(self, features: int, spread: Array) -> Prior:
        """The weak prior of every parameter and of the misfit's weights.

        Args:
            features: m, of the misfit.
            spread: (b,) standard deviations of their weights.

        Returns:
            mean (p + w,) and precision (b, p + w), with w weights.
        """
        weights, b = self.weights(features), len(spread)
        mean = np.array([*(parameter.mean for parameter in self.parameters), *(0.0,) * weights])
        sd = np.array([parameter.sd for parameter in self.parameters])
        rows = np.broadcast_to(1.0 / sd**2, (b, len(sd)))
        of_loss = np.broadcast_to(1.0 / spread[:, None] ** 2, (b, features))
        of_bowl = np.full((b, weights - features), BOWL_MISFIT**-2)
        return Prior(mean, np.concatenate([rows, of_loss, of_bowl], axis=1))

    def evaluate(self, theta: Array, x: Columns) -> tuple[Array, Array]:
        """ln L (..., n) and its gradient (..., n, p + w) at theta (..., p + w)."""
        return self.survey(theta, x)[:2]

    def survey(self, theta: Array, x: Columns) -> tuple[Array, Array, Array]:
        """As ``evaluate``, and the height of the bowl (..., n)."""
        value, gradient = self.law.evaluate(theta[..., : self.split], x)
        features, first = x.get(FEATURES), len(self.parameters)
        parts = [gradient]
        if features is not None:
            last = first + features.shape[1]
            value = value + theta[..., first:last] @ features.T
        height = np.zeros(value.shape)
        if self.surface.axes:
            height, slope = self.surface.evaluate(theta[..., self.split : first], x)
            deeper = self._deeper(theta, x)
            height = height * deeper
            value = value + height
            parts.append(slope * deeper[..., None])
        if features is not None:
            parts.append(np.broadcast_to(features, (*gradient.shape[:-1], features.shape[1])))
            if self.surface.axes:
                parts.append(height[..., None] * features[:, :BOWL_FEATURES])
        return value, np.concatenate(parts, axis=-1) if len(parts) > 1 else gradient, height

    def log_loss(self, theta: Array, x: Columns) -> Array:
        """ln L (..., n) alone."""
        value = self.law.log_loss(theta[..., : self.split], x)
        if self.surface.axes:
            value = value + self.height(theta, x)
        if FEATURES not in x:
            return value
        first = len(self.parameters)
        return value + theta[..., first : first + x[FEATURES].shape[1]] @ x[FEATURES].T

    def height(self, theta: Array, x: Columns) -> Array:
        """Height of the bowl alone, (..., n)."""
        if not self.surface.axes:
            return np.zeros((*theta.shape[:-1], len(x[self.law.columns[0]])))
        bowl = self.surface.evaluate(theta[..., self.split : len(self.parameters)], x)[0]
        return np.asarray(bowl * self._deeper(theta, x))

    def _deeper(self, theta: Array, x: Columns) -> Array:
        """How much deeper than its law says the bowl is at rows, (..., n) or (1,)."""
        if FEATURES not in x:
            return np.ones(1)
        features = x[FEATURES]
        first = len(self.parameters) + features.shape[1]
        return np.exp(theta[..., first:] @ features[:, :BOWL_FEATURES].T)

    def scale(self, noise: Noise, theta: Array, x: Columns) -> Array:
        """Scale of the noise at rows, (..., n)."""
        return noise.scale(self.height(theta, x), x)

    def optimum(self, theta: Array, x: Columns) -> dict[str, Array]:
        """Centred coordinate of every axis's optimum, each (..., n)."""
        return self.surface.optimum(theta[..., self.split : len(self.parameters)], x)


def frame(spec: SweepSpec) -> Frame:
    """The frame of a sweep, centred on its space, so that it stays as runs arrive."""
    _known(spec.laws.names)
    rows, sources = cover(spec), columns.sources(spec.laws.names, spec.laws.count)
    centre = {}
    for name in sources:
        like, centred = quantity(name).like, quantity(name).centred
        source = sources[like if like in sources else name]
        centre[name] = float(np.mean(np.log(rows[source]))) if centred else 0.0
    bare = Frame(sources, centre, surface(spec))
    target = max(spec.cost(spec.complete(target.at)).flops for target in spec.targets)
    there = float(np.log(target)) - centre["flops"]
    return Frame(sources, centre, bare.surface, misfit(bare.columns(rows), ("params", "tokens"), there))


def models(names: Sequence[str], surface: Surface) -> list[Model]:
    """One model for each law.

    Raises:
        FitError: a law is not known here.
    """
    _known(names)
    return [Model(LAWS[name], surface) for name in names]


def _known(names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in LAWS]:
        raise FitError(
            f"no law {', '.join(missing)} is registered; name it in the setting laws (docs/laws.md)"
        )
