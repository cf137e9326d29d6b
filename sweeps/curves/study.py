"""Laws fitted to recorded curves, and the schedules that are asked about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.curves.branches import untangle
from sweeps.curves.forecast import Ensemble, fit_ensemble
from sweeps.curves.recorded import Recorded
from sweeps.curves.schedule import Curve, Steps, settled
from sweeps.laws.base import Array
from sweeps.tables import Warning

SLIGHT = 0.005  # weight of a law below which it does not matter
FAR = 5.0  # times the largest S1 that was fitted
HIGHER = 1.5  # times the highest rate that was fitted
FALLEN = 0.98  # of its peak: a rate that has begun to fall


@dataclass(frozen=True)
class Asked:
    """A schedule whose losses are asked for.

    Args:
        kind: ``running`` is continued, ``file`` is held against its losses, ``schedule`` is not trained yet.
        steps, loss: measured and not fitted, (n,).
        start: first step whose loss is asked for.
    """

    name: str
    kind: str
    lr: Array
    steps: Steps
    loss: Array
    ensemble: Ensemble
    start: int


@dataclass(frozen=True)
class Study:
    """Laws fitted to curves, and what is asked of them."""

    curves: list[Curve]
    ensemble: Ensemble
    asked: list[Asked]
    warnings: list[Warning]


def study(recorded: Sequence[Recorded], tests: Sequence[Recorded], schedules: Mapping[str, Array]) -> Study:
    """Fits the recorded runs together; every running one is continued by a fit that weighs laws by it.

    Raises:
        FitError: too few points.
    """
    curves, runs, notes = untangle([one.curve() for one in recorded])
    joint = fit_ensemble(curves)
    none = (np.empty(0, dtype=np.int64), np.empty(0))
    asked = []
    for one in (r for r in recorded if r.running):
        own = fit_ensemble(curves, run=runs[one.name])
        asked.append(Asked(one.name, "running", one.lr, *none, own, int(one.steps[-1])))
    for one in tests:
        asked.append(Asked(one.name, "file", one.lr, one.steps, one.loss, joint, settled(one.lr)))
    for text, lr in schedules.items():
        asked.append(Asked(text, "schedule", lr, *none, joint, settled(lr)))
    every = [*_notes([*recorded, *tests]), *notes, *_warnings(curves, joint, asked)]
    return Study(curves, joint, asked, every)


def longest(curves: Sequence[Curve]) -> float:
    """The largest summed rate at which a loss was measured."""
    return max(float(curve.lr[: curve.steps[-1] + 1].sum()) for curve in curves)


def _notes(recorded: Sequence[Recorded]) -> Iterator[Warning]:
    """What was assumed of tables, each thing once."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in recorded:
        for note in one.notes:
            found.setdefault(note.code, []).append((one.name, note.message))
    for code, ((_, words), *others) in found.items():
        also = f"; the like in {', '.join(name for name, _ in others)}" if others else ""
        yield Warning(code, words + also)


def _warnings(curves: Sequence[Curve], joint: Ensemble, asked: Sequence[Asked]) -> Iterator[Warning]:
    for fit, weight in zip(joint.fits, joint.weights, strict=True):
        if not fit.converged and weight > SLIGHT:
            yield Warning("not_converged", f"the fit of {fit.law.name} has not converged; add points")
    if len(curves) == 1:
        words = "one curve alone tells little about other schedules; the priors of the laws tell the rest"
        yield Warning("one_curve", f"{words}, best beside it: one at a constant rate and one that decays")
    decayed = any(np.min(c.lr[np.argmax(c.lr) : c.steps[-1] + 1]) < FALLEN * c.lr.max() for c in curves)
    if not decayed and any(one.lr[-1] < FALLEN * one.lr.max() for one in asked):
        words = "no measured loss is from after a decay; what a decay gains comes from the priors of the laws"
        yield Warning("no_decay", words)
    total = longest(curves)
    peak = max(float(curve.lr.max()) for curve in curves)
    for one in asked:
        if (times := float(one.lr.sum()) / total) > FAR:
            words = f"{one.name} sums its rate to {times:.3g} times the longest curve's; beyond {FAR:g} times"
            yield Warning("far", f"{words} intervals have not been tested")
        if one.lr.max() > HIGHER * peak:
            words = f"{one.name} peaks at {one.lr.max():g}, above all fitted curves ({peak:g}): the laws know"
            yield Warning("peak_outside", f"{words} no rate that is too high")
