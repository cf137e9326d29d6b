"""A numeric axis of a sweep with an optimum that moves with scale."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sweeps.laws.base import Array, Parameter

# Half the best resolution loses details, and costs some 5 % of the loss.
CURVATURE, OTHER_CURVATURE = {"lr": 0.01, "batch": 0.01, "resolution": 0.1}, 0.005


@dataclass(frozen=True)
class HyperAxis:
    """A numeric axis with an optimum.

    Args:
        name: of the axis.
        log: whether its coordinate is ln h, else h / spread.
        centre, spread: of the coordinate over the space.
        reach: of the values that are tried, on either side of the centre.
        slopes: (column, prior mean, prior sd) of every column its optimum follows.
        bend: prior mean and sd of the asymmetry s; None for a symmetric wall.
        lean: (axis, prior mean, prior sd) of the other axis in the wall, if any.
        far: curvature, bend and lean of the second wall, if any.
    """

    name: str
    log: bool
    centre: float
    spread: float
    reach: float
    slopes: tuple[tuple[str, float, float], ...]
    bend: tuple[float, float] | None = None
    lean: tuple[str, float, float] | None = None
    far: tuple[float, float, float] | None = None

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
        """Optimum, its slopes, ln curvature, then those it has of bend, lean and second wall."""
        name = self.name
        found = [Parameter(f"{name}*", f"the optimal {name}", 0.0, 1.5)]
        for column, *prior in self.slopes:
            found.append(
                Parameter(f"{name}* by {column}", f"how the optimal {name} moves with {column}", *prior)
            )
        curvature = float(np.log(CURVATURE.get(name, OTHER_CURVATURE)))
        found.append(Parameter(f"ln k {name}", f"how sharply the loss depends on {name}", curvature, 1.0))
        if self.bend:
            found.append(Parameter(f"bend {name}", f"the asymmetry in {name}", *self.bend))
        if self.lean:
            other, *prior = self.lean
            found.append(Parameter(f"lean {name}", f"how {other} moves the wall of {name}", *prior))
        if self.far:
            meaning = f"how sharply the loss rises on the far side of {name}"
            found.append(Parameter(f"ln k far {name}", meaning, float(np.log(self.far[0])), 0.7))
        return tuple(found)
