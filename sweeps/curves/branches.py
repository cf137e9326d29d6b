"""Curves that were branched off another: what they share is counted once, and they are told to be one run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sweeps.curves.schedule import Curve
from sweeps.tables import Warning

LEAST_SHARED = 5


def shared(curve: Curve, trunk: Curve) -> int:
    """How many points from the first on are the same in both."""
    rows = min(len(curve.steps), len(trunk.steps))
    same = (curve.steps[:rows] == trunk.steps[:rows]) & (curve.loss[:rows] == trunk.loss[:rows])
    return rows if same.all() else int(np.argmin(same))


def untangle(curves: Sequence[Curve]) -> tuple[list[Curve], dict[str, str], list[Warning]]:
    """Takes the points that a curve shares with a longer one out of it, and names both as one run.

    Args:
        curves: at least 5 equal points from their start on make one a branch of another.

    Returns:
        The curves in their order, without those that nothing is left of; the run of each curve by its name;
        and what was done.
    """
    found: list[Curve] = []
    runs: dict[str, str] = {}
    notes = []
    longest_first = sorted(curves, key=lambda one: -len(one.steps))
    for place, curve in enumerate(longest_first):
        trunk = max(longest_first[:place], key=lambda one: shared(curve, one), default=None)
        common = 0 if trunk is None else shared(curve, trunk)
        if trunk is None or common < LEAST_SHARED:
            found.append(curve)
            runs[curve.name] = curve.run or curve.name
            continue
        runs[curve.name] = runs[trunk.name]
        words = f"{curve.name} has its first {common} points from {trunk.name}; they count once"
        notes.append(Warning("branch", words))
        if common < len(curve.steps):
            rest = slice(common, None)
            found.append(Curve(curve.name, curve.steps[rest], curve.loss[rest], curve.lr, runs[trunk.name]))
    order = [curve.name for curve in curves]
    return sorted(found, key=lambda one: order.index(one.name)), runs, notes
