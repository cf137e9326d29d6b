"""What planned runs are expected to tell about the loss at a sweep's targets, by the laws' priors alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sweeps.choice import Situation, informative
from sweeps.design import Prospect, beliefs
from sweeps.model import frame, models
from sweeps.prices import Prices
from sweeps.reasons import HALF_WIDTH
from sweeps.runs import Spent
from sweeps.space import Table, cover, tabulate_configs
from sweeps.spec import SweepSpec

CANDIDATES = 4096  # that a plan is chosen among, evenly
MOST_RUNS = 256  # of a plan
MOST_COMPUTE = 4.0  # times the compute to compare with that a plan may take
TRIALS = 6  # budgets between which the least is sought


@dataclass(frozen=True)
class Outlook:
    """The 90 % intervals at the targets that runs are expected to lead to.

    Args:
        half_widths: relative, by the target's name.
    """

    half_widths: dict[str, float]

    def reached(self, by: Outlook) -> bool:
        """Whether another outlook is at least as narrow everywhere."""
        return all(by.half_widths[name] <= width for name, width in self.half_widths.items())


def outlook(spec: SweepSpec, runs: Table | None) -> Outlook:
    """What is expected once these runs are in; None for none."""
    at = _situation(spec, None, runs, 0.0)
    return _outlook(spec, at, at.prospect)


def cheapest_plan(spec: SweepSpec, wanted: Outlook, flops: float) -> Table | None:
    """The runs that ``informative`` chooses for such intervals, at about the least compute that leads there.

    Each budget has its own best runs, so that several are tried.

    Args:
        flops: about how much it may be; None is returned where ``MOST_COMPUTE`` times as much does not do.
    """
    table = cover(spec)
    table = table.take(np.unique(np.linspace(0, len(table) - 1, min(CANDIDATES, len(table))).astype(np.intp)))
    best, enough, too_little = None, MOST_COMPUTE * flops, float(table["flops"].min())
    for budget in (flops, enough):
        best = _plan(spec, table, wanted, budget)
        if best is not None:
            break
        too_little = budget
    if best is None:
        return None
    for _ in range(TRIALS):
        enough = float(best["flops"].sum())
        budget = float(np.sqrt(too_little * enough))
        found = _plan(spec, table, wanted, budget)
        if found is None:
            too_little = budget
        else:
            best = found
    return best


def _plan(spec: SweepSpec, table: Table, wanted: Outlook, flops: float) -> Table | None:
    """The runs that lead there within a budget; None where it does not do."""
    at = _situation(spec, table, None, flops)
    rows = []
    for pick in informative(at):
        rows.append(pick.index)
        assert pick.after is not None
        if wanted.reached(_outlook(spec, at, pick.after)):
            return table.take(np.array(rows))
    return None


def _situation(spec: SweepSpec, candidates: Table | None, runs: Table | None, flops: float) -> Situation:
    """What a strategy sees before there is a fit: hyperparameters of targets in the middle of their axes."""
    frame_, none = frame(spec), tabulate_configs(spec, [])
    table = none if candidates is None else candidates
    middle = {name: axis.values[len(axis.values) // 2] for name, axis in spec.space.items()}
    targets = tabulate_configs(spec, [middle | target.at for target in spec.targets])
    return Situation(
        family=beliefs(models(spec.laws.names, frame_.surface), frame_, None),
        frame=frame_,
        candidates=frame_.columns(table),
        prices=Prices(table["flops"], np.zeros(len(table))),
        targets=frame_.columns(targets),
        pending=None if runs is None else frame_.columns(runs),
        left=None,
        budget=Spent(np.inf, flops, np.inf),
        wanted=MOST_RUNS,
        rng=np.random.default_rng(spec.seed),
        weights=dict.fromkeys((*(axis.name for axis in frame_.surface.axes), "split"), 0.0),
    )


def _outlook(spec: SweepSpec, at: Situation, known: Prospect) -> Outlook:
    # A question has its targets in the order of their compute.
    order = np.argsort(at.targets["flops"], kind="stable")
    widths = HALF_WIDTH * np.sqrt(np.maximum(known.left[: len(order)], 0.0))
    return Outlook({spec.targets[i].name: float(w) for i, w in zip(order, widths, strict=True)})
