"""Losses of scaled residuals: Huber's, which the field fits with, and Student's t, which noise has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import gammaln

from sweeps.laws.base import Array


class Robust(Protocol):
    """A loss of residuals in units of their scale, (..., n) each."""

    def cost(self, residual: Array) -> Array:
        """Loss of each residual."""

    def pull(self, residual: Array) -> Array:
        """Its derivative."""

    def trust(self, residual: Array) -> Array:
        """Derivative over residual: the weight in iteratively reweighted least squares."""


@dataclass(frozen=True)
class Huber:
    """Quadratic up to ``delta``, linear beyond (Huber 1964)."""

    delta: float

    def cost(self, residual: Array) -> Array:
        """Loss of each residual."""
        size = np.abs(residual)
        capped = np.minimum(size, self.delta)
        return np.asarray(capped * (size - 0.5 * capped))

    def pull(self, residual: Array) -> Array:
        """Its derivative."""
        return np.clip(residual, -self.delta, self.delta)

    def trust(self, residual: Array) -> Array:
        """Weight in reweighted least squares."""
        return np.minimum(1.0, self.delta / np.maximum(np.abs(residual), 1e-300))

    def moments(self, noise: Student, scale: Array) -> tuple[Array, Array]:
        """Mean of the second derivative and of the squared derivative, in units of the scale.

        Args:
            noise: of the residuals.
            scale: its, in units of ``delta``'s; (b, 1).
        """
        edge = self.delta / scale
        fine = np.arcsinh(edge) * np.linspace(-1.0, 1.0, 129)
        at = np.sinh(fine)
        density = np.exp(noise.normaliser() - noise.cost(at)) * np.cosh(fine)
        step = fine[:, 1:2] - fine[:, :1]
        ends = np.ones(fine.shape[1])
        ends[[0, -1]] = 0.5
        inside, square = (
            np.sum(part * ends, axis=1, keepdims=True) * step for part in (density, density * at**2)
        )
        return inside, square + edge**2 * (1.0 - inside)

    def information(self, noise: Student, scale: Array) -> Array:
        """What a residual tells of its place when this loss is minimised (Huber 1964), (b, 1)."""
        inside, square = self.moments(noise, scale)
        return inside**2 / square


@dataclass(frozen=True)
class Student:
    """Minus the log density of Student's t.

    Args:
        nu: degrees of freedom, (..., 1).
    """

    nu: Array

    def cost(self, residual: Array) -> Array:
        """Loss of each residual, without the normaliser."""
        return np.asarray(0.5 * (self.nu + 1.0) * np.log1p(residual**2 / self.nu))

    def pull(self, residual: Array) -> Array:
        """Its derivative."""
        return self.trust(residual) * residual

    def trust(self, residual: Array) -> Array:
        """Weight in reweighted least squares."""
        return np.asarray((self.nu + 1.0) / (self.nu + residual**2))

    def information(self) -> Array:
        """Fisher's information of a residual's place, (..., 1)."""
        return np.asarray((self.nu + 1.0) / (self.nu + 3.0))

    def normaliser(self) -> Array:
        """ln of the density at 0, (..., 1)."""
        return np.asarray(
            gammaln(0.5 * (self.nu + 1.0)) - gammaln(0.5 * self.nu) - 0.5 * np.log(np.pi * self.nu)
        )
