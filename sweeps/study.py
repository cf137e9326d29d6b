"""Laws fitted to any table of runs, and answers from them: ``fit`` and ``predict`` without a service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sweeps.allocation import Spending, best_of_law
from sweeps.ensemble import Ensemble, Member, learn
from sweeps.errors import FitError
from sweeps.estimate import Method
from sweeps.holdout import CUTS
from sweeps.laws import LAWS
from sweeps.laws.base import Array, Law
from sweeps.model import FEATURES
from sweeps.posterior import Band, Posterior
from sweeps.problem import Problem, pose
from sweeps.study_warnings import of_prediction, of_study
from sweeps.tables import Observed, Warning, observe
from sweeps.transfer import told

PLATEAUS = (0.001, 0.0025)  # relative loss above the best


@dataclass(frozen=True)
class Study:
    """What a table of runs taught.

    Args:
        problem: the table and what was fitted to it.
        posterior: laws with weights, in the frame they were fitted in.
        checklist: what a reader must know to judge the fit, as (Mis)Fitting asks for (Li et al. 2025,
            arXiv 2502.18969).
        warnings: reasons to trust it less.
    """

    problem: Problem
    posterior: Posterior
    checklist: dict[str, Any]
    warnings: tuple[Warning, ...]

    @property
    def observed(self) -> Observed:
        """The table."""
        return self.problem.observed

    @property
    def scales(self) -> tuple[str, ...]:
        """Quantities the laws read and that vary."""
        return self.problem.scales

    @property
    def ensemble(self) -> Ensemble:
        """The laws with their weights."""
        return self.posterior.ensemble

    @property
    def members(self) -> tuple[Member, ...]:
        """Every fit with its weight."""
        return self.ensemble.members

    def columns(self, at: Mapping[str, ArrayLike]) -> dict[str, Array]:
        """Columns of configurations as the laws read them, what is left out derived or at its optimum.

        Raises:
            FitError: a quantity that the laws read is missing or not a positive number, or lengths differ.
        """
        return self.problem.columns(at, self.posterior)

    def settings(self, at: Mapping[str, float]) -> dict[str, Setting]:
        """The best value of every hyperparameter at a configuration, those given being kept."""
        x, found = self.columns(at), {}
        for axis in self.posterior.frame.surface.axes:
            band = self.posterior.best_interval(x, axis.name).first()
            ends = [self.posterior.plateau(x, axis.name, height) for height in PLATEAUS]
            best = float(self.posterior.best(x, axis.name)[0])
            flat = [best, band.low, band.high, *(end for pair in ends for end in pair)]
            value, low, high, *plateaus = (float(v) for v in axis.value(np.array(flat)))
            found[axis.name] = Setting(
                value, low, high, (plateaus[0], plateaus[1]), (plateaus[2], plateaus[3])
            )
        return found

    def frontier(self, flops: Sequence[float]) -> list[FrontierPoint]:
        """Parameters and tokens that reach the lowest loss for amounts of compute, by the laws alone.

        Raises:
            FitError: the laws do not read parameters and tokens, or read more than these.
        """
        seen = self.observed.columns
        if set(self.scales) != {"params", "tokens"}:
            raise FitError("a frontier needs laws of params and tokens; map both, and nothing else of scale")
        cost = Spending(float(np.median(seen["flops"] / (seen["params"] * seen["tokens"]))))
        return [self._best(amount, cost) for amount in flops]

    def _best(self, flops: float, cost: Spending) -> FrontierPoint:
        sizes_of: dict[int, Array] = {}
        losses_of: dict[int, Array] = {}
        for model, member in self.posterior.pairs:
            centre = self.ensemble.centre | {"loss": member.fit.loss_centre}
            theta = member.fit.draws[:, : model.split]
            found = best_of_law(model.law, theta, centre, flops, cost=cost)
            has = np.isfinite(found.params)  # a draw may have no optimum within reach
            if has.any():
                sizes_of[id(member)] = np.log(found.params[has])[:, None]
                losses_of[id(member)] = np.log(found.loss[has])[:, None]
        sizes = self.posterior.pool(lambda _, member: sizes_of.get(id(member)))
        losses = self.posterior.pool(lambda _, member: losses_of.get(id(member)))
        if sizes is None or losses is None:
            raise FitError(f"no law has an optimum at {flops:.3g} FLOPs")
        n, loss = sizes.map(np.exp).first(), losses.map(np.exp).first()
        product = flops / cost.per_token
        return FrontierPoint(
            flops, n.median, n.low, n.high, product / n.median, product / n.high, product / n.low,
            loss.median, loss.low, loss.high,
        )  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """The best value of a hyperparameter.

    Args:
        value: predicted.
        low, high: 90 % interval.
        plateau: values between which the loss stays within 0.1 % of the best.
        wide_plateau: within 0.25 %.
    """

    value: float
    low: float
    high: float
    plateau: tuple[float, float]
    wide_plateau: tuple[float, float]


@dataclass(frozen=True)
class FrontierPoint:
    """How to spend compute: parameters and tokens with 90 % intervals, and the mean loss they reach."""

    flops: float
    params: float
    params_low: float
    params_high: float
    tokens: float
    tokens_low: float
    tokens_high: float
    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """The loss expected at a configuration.

    Args:
        at: as asked.
        loss: median.
        low, high: 90 % interval for a new run.
        mean_low, mean_high: 90 % interval for the mean over seeds.
        extrapolation: compute there over that of the largest run.
        by_law: median of each law alone.
    """

    at: dict[str, float]
    loss: float
    low: float
    high: float
    mean_low: float
    mean_high: float
    extrapolation: float
    by_law: dict[str, float]
    warnings: tuple[Warning, ...]


def fit(
    observed: Observed | Mapping[str, ArrayLike],
    *,
    laws: str | Sequence[str | Law] = "auto",
    target: Mapping[str, ArrayLike] | None = None,
    seed: int = 0,
    objective: str = "student",
    intervals: str = "posterior",
    transfer: str = "none",
) -> Study:
    """Fits the laws of the field to a table of runs and weighs them by how well they extrapolate.

    Args:
        observed: a table, or its columns by quantity (see ``sweeps.laws.quantities``); ``loss`` and at
            least one scale, such as ``params`` and ``tokens``. Further columns that vary are taken for
            hyperparameters with an optimum. ``weight`` is the known precision of a run's loss (1 is neutral),
            ``run`` tells which rows a bootstrap draws together.
        laws: names in ``LAWS`` or laws; ``auto`` takes every law of just the scales that vary.
        target: what will be asked about: runs far below it count less. By default the largest run.
        seed: of the draws.
        objective: ``student`` learns the tails of the noise and the laws' misfit; ``huber`` is the field's
            sum of Huber losses, as published fits are made; ``squares`` takes normal noise and no misfit.
        intervals: by ``posterior`` draws or by ``bootstrap`` over runs.
        transfer: rule of ``sweeps.transfer.RULES`` for how the optimum of hyperparameters moves with scale.

    Raises:
        FitError: no law can be fitted to these columns.
        TableError: a column cannot be used.
    """
    if not isinstance(observed, Observed):
        observed = observe({name: np.asarray(value) for name, value in observed.items()})
    method, rule = Method(objective, intervals, observed.columns.get("run")), told(transfer)
    problem = pose(observed, laws, target, exact=objective != "student", transfer=transfer)
    loss, rng = observed.columns["loss"], np.random.default_rng(seed)
    posterior = Posterior(
        learn(problem.models, problem.frame, problem.x, loss, rng, method=method), problem.frame
    )
    checklist = _checklist(problem, posterior.ensemble, seed)
    checklist |= method.said(problem.x, np.log(loss)) | {"transfer": rule}
    x = {FEATURES: np.empty((len(observed), 0))} | dict(problem.x)
    held = any(member.holdout is not None for member in posterior.ensemble.members)
    seen = observed.columns | dict(problem.table)
    warnings = (*observed.notes, *of_study(posterior, seen, x, problem.scales, held))
    return Study(problem, posterior, checklist, warnings)


def predict(study: Study, at: Mapping[str, ArrayLike]) -> list[Forecast]:
    """The loss at configurations.

    Args:
        at: the scales the laws read, each (n,) or a number; hyperparameters left out are taken at their
            predicted optimum.

    Raises:
        FitError: a quantity that the laws read is missing.
    """
    x = study.columns(at)
    view = study.posterior
    mean, new, by_law = view.mean_loss(x), view.new_loss(x), view.by_law(x)
    flops = np.exp(x["flops"] + study.ensemble.centre["flops"])
    told = {name: np.asarray(value, dtype=float) for name, value in at.items() if name != "run"}
    given = {name: np.broadcast_to(value, flops.shape) for name, value in told.items()}
    found = []
    for i, amount in enumerate(flops):
        one = {law: float(value[i]) for law, value in by_law.items()}
        band = Band(new.median[[i]], new.low[[i]], new.high[[i]]).first()
        reach = float(amount) / study.ensemble.largest_flops
        found.append(
            Forecast(
                {name: float(value[i]) for name, value in given.items()},
                band.median,
                band.low,
                band.high,
                float(mean.low[i]),
                float(mean.high[i]),
                reach,
                one,
                tuple(of_prediction(view, reach, band, one)),
            )
        )
    return found


def _filters(found: Ensemble) -> str:
    """Which rows are used, with the weight of the fits to some of them."""
    some: dict[int, float] = {}
    for member in found.members:
        if member.fit.n < found.n:
            some[member.fit.n] = some.get(member.fit.n, 0.0) + member.weight
    told = (f"{weight:.0%} by the costliest {runs} alone" for runs, weight in sorted(some.items()))
    return "none: every row is used" + "".join(f"; {words}" for words in told)


def _checklist(problem: Problem, found: Ensemble, seed: int) -> dict[str, Any]:
    observed = problem.observed
    table = observed.columns
    held = {m.fit.law: m.holdout for m in found.members}
    return {
        "runs": len(observed),
        "mapping": observed.mapping,
        "derived": dict(observed.derived),
        "count": "params as mapped" if "params" in table else "none",
        "ranges": {name: [float(column.min()), float(column.max())] for name, column in table.items()},
        "scales": list(problem.scales),
        "hyperparameters": [axis.name for axis in problem.frame.surface.axes],
        "filters": _filters(found),
        "target_flops": problem.target,
        "optimiser": "variable projection or a low-discrepancy sample of the prior for starts, then "
        "Levenberg-Marquardt with analytic or automatic gradients",
        "starts": "the best of the prior sample of each law, the best minimum kept",
        "formulas": {law: LAWS[law].formula for law in found.laws if law in LAWS},
        "sources": {law: LAWS[law].source for law in found.laws if law in LAWS},
        "holdout": {"cuts": list(CUTS), "relative_error": held},
        "seed": seed,
    }
