"""How far runs lie from a law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sweeps.laws.base import Array

SIGMA, SIGMA_WEIGHT = 0.008, 3.0  # relative noise before any is seen, worth that many runs
NUS = (3.0, 30.0)  # tails of the noise that are tried: heavy, and next to normal
WALLS, WALL = (0.05, 0.15), 0.1  # tried, and the middle of their prior
MISFITS, MISFIT = (0.0003, 0.001, 0.003, 0.01), 0.002  # by e-fold of compute below the target


@dataclass(frozen=True)
class Noise:
    """How far runs lie from the law, relative.

    Independent noise is Student's t of the scale sqrt(sigma^2 + (wall h)^2), with h the height of the bowl
    at the run: a law is only asked to hold near the optimal hyperparameters. The law's own misfit comes on
    top of it (see ``sweeps.misfit``).

    Args:
        sigma: of a run with the optimal hyperparameters.
        nu: degrees of freedom.
        wall: by height of the bowl.
        misfit: standard deviation by e-fold of compute below the target.
    """

    sigma: float
    nu: float
    wall: float
    misfit: float

    def scale(self, height: Array) -> Array:
        """Scale of ln L for runs at a height of the bowl, (n,)."""
        return np.hypot(self.sigma, self.wall * height)

    def variance(self, height: Array) -> Array:
        """Variance of ln L as its middle 90 % suggest, (n,)."""
        return np.asarray(self.scale(height) ** 2 * (1.0 + 3.0 / self.nu))
