"""The coordinate check: whether activations move by as much at every width.

Yang et al. 2022, arXiv 2203.03466, appendix D.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.errors import FitError
from sweeps.plot_panels import Line, Panel

PARAMETRISATIONS = ("standard", "mup")  # by the value of the axis ``mup``
THRESHOLD = 0.25  # of the slope of ln change by ln width; what a rule leaves out shows as 1/2 or 1


@dataclass(frozen=True)
class Coordinate:
    """How large the outputs of a layer are, as means over examples, outputs and seeds.

    Args:
        mup: value of the axis.
        width: of the model.
        step: made so far.
        layer: by name.
        size: mean absolute output.
        change: mean absolute difference from before the first step.
    """

    mup: int
    width: int
    step: int
    layer: str
    size: float
    change: float


@dataclass(frozen=True)
class Slopes:
    """How the outputs of layers move with the width under one parametrisation.

    Args:
        parametrisation: of ``PARAMETRISATIONS``.
        change: slope of ln change after the last step by ln width, by layer; inf where a layer does not move
            or overflows.
        size: the same of ln size.
        steepest: layer whose change has the steepest slope.
        passes: no slope of a change is steeper than ``THRESHOLD``.
    """

    parametrisation: str
    change: dict[str, float]
    size: dict[str, float]
    steepest: str
    passes: bool


def judge(rows: Sequence[Coordinate], mup: int) -> Slopes:
    """The slopes of one parametrisation.

    Raises:
        FitError: it was measured at fewer than two widths.
    """
    last = max(row.step for row in rows)
    mine = [row for row in rows if row.mup == mup and row.step == last]
    if len({row.width for row in mine}) < 2:
        raise FitError("the coordinate check needs two widths at least")
    by_layer = {layer: [row for row in mine if row.layer == layer] for layer in {r.layer: 0 for r in mine}}
    change = {layer: _slope(seen, "change") for layer, seen in by_layer.items()}
    size = {layer: _slope(seen, "size") for layer, seen in by_layer.items()}
    steepest = max(change, key=lambda layer: abs(change[layer]))
    passes = abs(change[steepest]) <= THRESHOLD
    return Slopes(PARAMETRISATIONS[mup], change, size, steepest, passes)


def _slope(rows: Sequence[Coordinate], what: str) -> float:
    values = np.array([getattr(row, what) for row in rows])
    if not np.all(np.isfinite(values) & (values > 0.0)):
        return float("inf")
    return float(np.polyfit(np.log([row.width for row in rows]), np.log(values), 1)[0])


def panels(rows: Sequence[Coordinate]) -> list[Panel]:
    """The change of every layer after the last step over the width, a panel for each parametrisation."""
    last = max(row.step for row in rows)
    found = []
    for mup in sorted({row.mup for row in rows}):
        mine = [row for row in rows if row.mup == mup and row.step == last]
        lines = []
        for layer in dict.fromkeys(row.layer for row in mine):
            seen = [row for row in mine if row.layer == layer]
            x, y = (np.array([float(getattr(row, name)) for row in seen]) for name in ("width", "change"))
            lines.append(Line(layer, x, y))
        found.append(Panel(f"mean |change of output|, {PARAMETRISATIONS[mup]}", True, tuple(lines)))
    return found
