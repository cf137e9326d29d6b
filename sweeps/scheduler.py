"""One look at a sweep: refit, decide which runs come next, say whether to stop. Nothing is stored here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.answers import Prediction, predict, settings
from sweeps.cost import SecondsModel
from sweeps.design import Knowledge, beliefs, features, question
from sweeps.ensemble import Ensemble, fit_ensemble
from sweeps.laws.base import Array
from sweeps.model import Frame, frame
from sweeps.reasons import HALF_WIDTH, Insight, explain
from sweeps.runs import Decision, Observation, Spent
from sweeps.space import Table, candidates, tabulate_configs
from sweeps.spec import Config, SweepSpec

MIN_FIT = 6  # observations below which no law is fitted


@dataclass(frozen=True)
class Look:
    """What the scheduler may look at.

    Args:
        observations: finished proxies.
        diverged: configurations that diverged; they bound the learning rate.
        barred: that failed or were cancelled, not to be chosen again.
        pending: queued or running.
        remaining: budget less what is spent and reserved; infinite where there is no limit.
        slots: runs that may be queued or running at once.
        seconds: predicts device seconds, None before anything was timed.
    """

    spec: SweepSpec
    observations: Sequence[Observation]
    diverged: Sequence[Config]
    barred: Sequence[Config]
    pending: Sequence[Config]
    remaining: Spent
    slots: int
    seconds: SecondsModel | None


@dataclass(frozen=True)
class Step:
    """What one look leads to.

    Args:
        ensemble: the fit, None while there are too few observations.
        predictions: by target name, empty without a fit.
        decisions: runs to start now.
        stop: why nothing further will be started, None to go on.
    """

    ensemble: Ensemble | None
    predictions: dict[str, Prediction]
    decisions: list[Decision]
    stop: str | None


@dataclass(frozen=True)
class Pool:
    """Candidates that may still be chosen.

    Args:
        table: n candidates.
        seconds: (n,) predicted device seconds, 0 where unknown.
    """

    table: Table
    seconds: Array

    def share(self, remaining: Spent) -> Array:
        """Share of what remains of the budget that each takes, summed over the limits, (n,)."""
        runs = 1.0 / max(remaining.runs, 1)
        return np.asarray(
            runs + self.table["flops"] / remaining.flops + self.seconds / remaining.device_seconds
        )

    def affordable(self, remaining: Spent) -> Array:
        """Whether each fits into what remains, (n,)."""
        fits = (self.table["flops"] <= remaining.flops) & (self.seconds <= remaining.device_seconds)
        return np.asarray(fits & (remaining.runs >= 1))

    def spent(self, index: int) -> Spent:
        """What one candidate takes."""
        return Spent(1, float(self.table["flops"][index]), float(self.seconds[index]))


def step(look: Look, rng: np.random.Generator) -> Step:
    """Refits and decides.

    The first batch is chosen by the laws' priors; no fit is made before it is in (or a slot would stay
    empty). Pending runs count as observed wherever only the place of a run matters, not its outcome.
    """
    spec = look.spec
    done = len(look.observations) + len(look.diverged) + len(look.barred)
    first = done < spec.strategy.first_batch
    wanted = max(0, look.slots - len(look.pending))
    if len(look.observations) < MIN_FIT or (first and wanted == 0):
        return _before_fit(look, spec.strategy.first_batch - done - len(look.pending), rng)
    frame_ = frame(spec)
    ensemble = fit_ensemble(spec, look.observations, rng, frame_)
    predictions = {target.name: predict(spec, ensemble, target.at) for target in spec.targets}
    tolerance = spec.stop.tolerance
    if tolerance is not None and all(p.relative <= tolerance for p in predictions.values()):
        widest = max(p.relative for p in predictions.values())
        return Step(
            ensemble,
            predictions,
            [],
            f"the interval is within the tolerance: {widest:.2%} <= {tolerance:.2%}",
        )
    decisions, stop = decide(look, ensemble, frame_, wanted, rng)
    return Step(ensemble, predictions, decisions, stop)


def _before_fit(look: Look, missing: int, rng: np.random.Generator) -> Step:
    """Fills the first batch; later ones replace runs that failed in it."""
    if missing <= 0 and not look.pending:
        missing = MIN_FIT - len(look.observations)
    decisions, stop = decide(look, None, frame(look.spec), max(0, missing), rng, _first_part(look.spec))
    return Step(None, {}, decisions, stop)


def rehearse(spec: SweepSpec, seconds: SecondsModel | None) -> list[Decision]:
    """The runs a sweep would choose if nothing were learned on the way: what it costs, before it starts."""
    budget = spec.budget
    limits = (budget.flops, budget.device_seconds)
    remaining = Spent(budget.runs, *(np.inf if limit is None else limit for limit in limits))
    frame_, rng = frame(spec), np.random.default_rng(spec.seed)
    decisions: list[Decision] = []
    for wanted, part in ((spec.strategy.first_batch, _first_part(spec)), (budget.runs, 1.0)):
        look = Look(spec, [], [], [], [d.config for d in decisions], remaining, wanted, seconds)
        chosen, _ = decide(look, None, frame_, int(min(wanted, remaining.runs)), rng, part)
        for decision in chosen:
            remaining -= Spent(1, decision.cost.flops, seconds(decision.cost) if seconds else 0.0)
        decisions += chosen
    return decisions


def _first_part(spec: SweepSpec) -> float:
    """The first batch gets no more of the budget than its share of the runs."""
    return min(1.0, spec.strategy.first_batch / spec.budget.runs)


def decide(
    look: Look,
    ensemble: Ensemble | None,
    frame_: Frame,
    wanted: int,
    rng: np.random.Generator,
    part: float = 1.0,
) -> tuple[list[Decision], str | None]:
    """Chooses the next runs by the sweep's strategy, within what remains of the budget.

    Args:
        ensemble: None decides by the laws' priors.
        wanted: how many; fewer are chosen when the budget or the candidates run out.
        part: of the remaining FLOPs and device seconds that these runs may take.

    Returns:
        The decisions and, when none can be made at all, why.
    """
    pool = _pool(look)
    if not pool.affordable(look.remaining).any():
        return [], _exhausted(look)
    if look.spec.strategy.name == "informative":
        return _informative(look, ensemble, frame_, pool, wanted, part)
    return _baseline(look, pool, wanted, rng), None


def _pool(look: Look) -> Pool:
    """Candidates not tried yet and not known to diverge."""
    spec, table = look.spec, candidates(look.spec)
    tried = [o.config for o in look.observations] + [*look.diverged, *look.barred, *look.pending]
    allowed = ~np.isin(_keys(spec, table), _keys(spec, tabulate_configs(spec, tried)))
    for config in look.diverged:  # at least as large, as fast and as noisy a run would diverge too
        allowed &= ~(
            (table["lr"] >= config["lr"])
            & (table["batch"] <= config["batch"])
            & (table["params_total"] >= spec.cost(config).params_total)
        )
    table = table.take(allowed)
    seconds = look.seconds.of(table.columns) if look.seconds else np.zeros(len(table))
    return Pool(table, seconds)


def _keys(spec: SweepSpec, table: Table) -> Array:
    """One number per configuration of the space: its place in the grid of all axes, (n,).

    What lies beside the grid, as imported runs may, has a place that no candidate has.
    """
    place = np.zeros(len(table))
    for name, axis in spec.space.items():
        beside = ~np.isin(table[name], axis.values)
        at = np.where(beside, len(axis.values), np.searchsorted(axis.values, table[name]))
        place = place * (len(axis.values) + 1) + at
    return place


def _exhausted(look: Look) -> str:
    """Names the limit that no candidate fits any more."""
    remaining, budget = look.remaining, look.spec.budget
    if remaining.runs < 1:
        return f"the budget of {budget.runs} runs is spent"
    if budget.flops is not None and remaining.flops < 0.05 * budget.flops:
        return f"the budget of {budget.flops:.3g} FLOPs is spent"
    if budget.device_seconds is not None and remaining.device_seconds < 0.05 * budget.device_seconds:
        return f"the budget of {budget.device_seconds:g} device seconds is spent"
    return "no untried configuration fits what remains of the budget"


def _informative(
    look: Look, ensemble: Ensemble | None, frame_: Frame, pool: Pool, wanted: int, part: float
) -> tuple[list[Decision], str | None]:
    """Greedy target-variance design: each pick drops the question's variance most per share of the budget."""
    spec = look.spec
    family = beliefs(spec, frame_, ensemble)
    asked = question(spec, family, frame_, _targets(spec, ensemble))
    rows, variance = features(family, frame_, pool.table)
    knowledge = Knowledge(rows.shape[1])
    pending = tabulate_configs(spec, look.pending)
    for row, noise in zip(*features(family, frame_, pending), strict=True):
        knowledge.observe(row, float(noise))
    remaining = look.remaining
    allowance = Spent(remaining.runs, remaining.flops * part, remaining.device_seconds * part)
    decisions: list[Decision] = []
    free = np.ones(len(pool.table), dtype=bool)
    while len(decisions) < wanted:
        open_ = free & pool.affordable(allowance)
        if not open_.any():
            break
        gain = knowledge.gain(rows, variance, asked)
        score = np.where(open_, gain / pool.share(allowance), -np.inf)
        best = int(np.argmax(score))
        before = knowledge.variances(asked.rows)
        worth = 1.0 - np.sqrt(max(0.0, 1.0 - gain[best] / float(before @ asked.price)))
        if ensemble is not None and worth < spec.stop.patience:
            message = (
                f"no affordable run narrows the answer by {spec.stop.patience:.2%}; the best by {worth:.2%}"
            )
            return decisions, None if decisions or look.pending else message
        used = pool.spent(best)
        seen = Insight(knowledge.covariance, rows[best], asked, family, len(spec.targets))
        knowledge.observe(rows[best], float(variance[best]))
        after = knowledge.variances(asked.rows)
        share = float(pool.share(look.remaining)[best])
        decisions.append(
            Decision(
                config=pool.table.config(best),
                cost=pool.table.cost(best),
                score=float(score[best]),
                reason=explain(seen, pool.table, best, before[0], after[0], spec.budget),
                strategy="informative",
                expected={
                    "half_width_before": float(HALF_WIDTH * np.sqrt(before[0])),
                    "half_width_after": float(HALF_WIDTH * np.sqrt(after[0])),
                    "budget_share": share,
                },
            )
        )
        free[best] = False
        allowance = allowance - used
    return decisions, None


def _targets(spec: SweepSpec, ensemble: Ensemble | None) -> list[Config]:
    """The targets with their predicted settings, or the middle of what is tried before there is a fit."""
    if ensemble is not None:
        return [settings(spec, ensemble, target) for target in spec.targets]
    middle = {name: axis.values[len(axis.values) // 2] for name, axis in spec.space.items()}
    return [middle | target.at for target in spec.targets]


def _baseline(look: Look, pool: Pool, wanted: int, rng: np.random.Generator) -> list[Decision]:
    """Random picks, or a walk over the grid in even strides, among affordable candidates."""
    spec, remaining = look.spec, look.remaining
    n = len(pool.table)
    if spec.strategy.name == "random":
        order = rng.permutation(n)
    else:
        left = max(1, int(min(remaining.runs, n)))
        strided = np.linspace(0, n - 1, left).round().astype(int)
        order = np.concatenate([strided, np.setdiff1d(np.arange(n), strided)])
    decisions: list[Decision] = []
    for index in map(int, order):
        if len(decisions) == wanted:
            break
        if not pool.affordable(remaining)[index]:
            continue
        reason = {
            "random": f"drawn at random among {n} candidates",
            "grid": f"next of an even walk over {n} candidates",
        }[spec.strategy.name]
        decisions.append(
            Decision(pool.table.config(index), pool.table.cost(index), 0.0, reason, spec.strategy.name)
        )
        remaining = remaining - pool.spent(index)
    return decisions
