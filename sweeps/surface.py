"""The loss around the optimal hyperparameters: a bowl added to ln L.

For an axis h with optimum ln h* = c + a ln N + b ln D (the form of Step Law, Li et al. 2025,
arXiv 2503.04715, equation 1) let z = ln h - ln h*, bent to z exp(s tanh z), since a rate that is too
high costs more than one that is too low. The bowl is the sum of k z^2 over the axes. The optimal rate
follows the batch as well (for Adam about its square root, Granziol et al. 2020, arXiv 2006.09092), which
tilts the bowl.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sweeps.laws.base import Array, Columns, Parameter
from sweeps.space import Table
from sweeps.spec import SweepSpec

SCALE_AXES = frozenset({"width", "depth", "tokens", "seed"})

# Slopes of the optimum: centre and width of what the field has published (Step Law: lr N^-.71 D^.31,
# batch D^.57; DeepSeek: lr C^-.125; Porian et al.: lr N^-.33), weak enough for any of them.
SLOPES: Mapping[str, tuple[tuple[str, float, float], ...]] = {
    "lr": (("params", -0.4, 0.3), ("tokens", 0.1, 0.3), ("batch", 0.4, 0.3)),
    "batch": (("tokens", 0.4, 0.3),),
}
CURVATURE = {"lr": 0.02, "batch": 0.01}
OTHER_CURVATURE = 0.005


@dataclass(frozen=True)
class HyperAxis:
    """A numeric axis with an optimum.

    Args:
        name: of the axis.
        log: whether its coordinate is ln h, else h / spread.
        centre, spread: of the coordinate over the space.
        slopes: (column, prior mean, prior sd) of every column its optimum follows.
        bent: whether the bowl is asymmetric.
    """

    name: str
    log: bool
    centre: float
    spread: float
    slopes: tuple[tuple[str, float, float], ...]
    bent: bool

    def coordinate(self, value: Array) -> Array:
        """The centred coordinate of values of the axis."""
        raw = np.log(value) if self.log else np.asarray(value) / self.spread
        return np.asarray(raw - self.centre)

    def value(self, coordinate: Array) -> Array:
        """Values of the axis at centred coordinates."""
        raw = np.asarray(coordinate) + self.centre
        return np.exp(raw) if self.log else raw * self.spread

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Optimum, its slopes, ln curvature and, when bent, the asymmetry."""
        curvature = float(np.log(CURVATURE.get(self.name, OTHER_CURVATURE)))
        return (
            Parameter(f"{self.name}*", f"the optimal {self.name}", 0.0, 1.5),
            *(
                Parameter(
                    f"{self.name}* by {column}", f"how the optimal {self.name} moves with {column}", m, sd
                )
                for column, m, sd in self.slopes
            ),
            Parameter(f"ln k {self.name}", f"how sharply the loss depends on {self.name}", curvature, 1.0),
            *(
                (Parameter(f"bend {self.name}", f"the asymmetry in {self.name}", 0.1, 0.2),)
                if self.bent
                else ()
            ),
        )


@dataclass(frozen=True)
class Surface:
    """The bowl over all axes with an optimum; without axes it is flat.

    An axis comes after those that its optimum follows.
    """

    axes: tuple[HyperAxis, ...]

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters, axis by axis."""
        return tuple(parameter for axis in self.axes for parameter in axis.parameters)

    def optimum(self, theta: Array, x: Columns) -> dict[str, Array]:
        """Centred coordinate of every axis's optimum.

        Args:
            theta: (..., q).
            x: centred columns, (n,).

        Returns:
            name -> (..., n).
        """
        found, offset = {}, 0
        for axis in self.axes:
            best = theta[..., offset, None]
            for i, (column, _, _) in enumerate(axis.slopes, start=1):
                best = best + theta[..., offset + i, None] * x[column]
            found[axis.name] = best
            offset += len(axis.parameters)
        return found

    def curvature(self, theta: Array) -> dict[str, Array]:
        """Half the second derivative of ln L at the optimum by axis, each (...)."""
        found, offset = {}, 0
        for axis in self.axes:
            found[axis.name] = np.exp(theta[..., offset + 1 + len(axis.slopes)])
            offset += len(axis.parameters)
        return found

    def evaluate(self, theta: Array, x: Columns) -> tuple[Array, Array]:
        """Height of the bowl and its gradient.

        Args:
            theta: (..., q).
            x: centred columns and coordinates, (n,).

        Returns:
            (..., n) and (..., n, q).
        """
        first = next(iter(x.values()))
        shape = (*theta.shape[:-1], len(first))
        height = np.zeros(shape)
        gradient = np.zeros((*shape, theta.shape[-1]))
        optimum = self.optimum(theta, x)
        offset = 0
        for axis in self.axes:
            slots = len(axis.slopes)
            k_at, bend_at = offset + 1 + slots, offset + 2 + slots
            k = np.exp(theta[..., k_at, None])
            z = x[axis.name] - optimum[axis.name]
            bend = theta[..., bend_at, None] if axis.bent else np.zeros_like(k)
            tanh = np.tanh(z)
            stretch = np.exp(bend * tanh)
            bent = z * stretch
            slope = stretch * (1.0 + z * bend * (1.0 - tanh**2))
            lift = np.sqrt(k) * bent  # the bowl is the sum of squared lifts
            parts = [(offset, -np.sqrt(k) * slope), (k_at, 0.5 * lift)]
            parts += [
                (offset + i, -np.sqrt(k) * slope * x[column])
                for i, (column, _, _) in enumerate(axis.slopes, start=1)
            ]
            if axis.bent:
                parts.append((bend_at, lift * tanh))
            height += lift**2
            for at, derivative in parts:
                gradient[..., at] += 2.0 * lift * derivative
            offset += len(axis.parameters)
        return height, gradient


def surface(spec: SweepSpec) -> Surface:
    """The axes of a sweep whose optimum is to be found: all that vary but scale and seed."""
    varied = [
        name for name, axis in sorted(spec.space.items()) if name not in SCALE_AXES and len(axis.values) > 1
    ]
    known = {"params", "tokens", *varied}
    axes = []
    for name in sorted(varied, key=lambda name: name == "lr"):  # the rate follows the batch
        values = spec.space[name].values
        log = values[0] > 0
        spread = 1.0 if log else max(abs(values[0]), abs(values[-1]), values[-1] - values[0])
        ends = np.log(values) if log else np.array(values) / spread
        slopes = tuple(slope for slope in SLOPES.get(name, ()) if slope[0] in known)
        axes.append(HyperAxis(name, log, float(ends[0] + ends[-1]) / 2, spread, slopes, name == "lr"))
    return Surface(tuple(axes))


def coordinates(surface: Surface, table: Table) -> dict[str, Array]:
    """Centred coordinate of every axis of the surface for the rows of a table, each (n,)."""
    return {axis.name: axis.coordinate(table[axis.name]) for axis in surface.axes}
