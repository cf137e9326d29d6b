"""How many runs are to train together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from sweeps.spec import Config, SweepSpec

Stacking: TypeAlias = Callable[[SweepSpec, Config], int]  # most runs of such a shape in one cohort


def alone(spec: SweepSpec, config: Config) -> int:  # noqa: ARG001
    """Nothing is known of the device: every run trains alone."""
    return 1
