"""One look at a sweep: refit, decide which runs come next, say whether to stop. Nothing is stored here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from sweeps.answers import Prediction, predict, settings
from sweeps.bounds import configurations
from sweeps.choice import Pick, Situation, worth
from sweeps.curves.schedule import Steps
from sweeps.design import beliefs
from sweeps.ensemble import Ensemble, fit_ensemble, precisions
from sweeps.halting import Halt, halts
from sweeps.model import Frame, frame, models
from sweeps.posterior import Posterior
from sweeps.prices import Prices, Sharing
from sweeps.reasons import HALF_WIDTH, explain
from sweeps.refine import refined
from sweeps.ruled_out import RuledOut
from sweeps.runs import Branch, Decision, Observation, Spent, rest
from sweeps.screen import screen
from sweeps.space import Places, Table, at_places, blocks, cover, join, shapes, tabulate_configs
from sweeps.spec import Config, SweepSpec
from sweeps.stacks import Durations
from sweeps.strategies import STRATEGIES
from sweeps.trunks import Trunk, branches, joints

MIN_FIT = 6  # observations below which no law is fitted
EXACT = 1 << 14  # points of a space up to which every candidate is compared
GROWTH = 0.25  # of the runs that have ended, at most that many are chosen without hearing of each other


@dataclass(frozen=True)
class Look:
    """What the scheduler may look at.

    Args:
        observations: finished proxies, and running or stopped ones whose final loss is forecast.
        diverged: configurations that diverged; they bound the learning rate.
        barred: that failed or were cancelled with nothing to show for it, not to be chosen again.
        out_of_memory: of these, the ones that needed more memory than there was; they bound the shape.
        ahead: of each observed run that still trains, by its id: the share of its FLOPs still to be spent.
        pending: queued or running, without those that are forecast.
        remaining: budget less what is spent and reserved; infinite where there is no limit.
        slots: runs that may be queued or running at once, less those that are forecast.
        durations: predicts device seconds, None before anything was timed.
        work: device seconds of runs that should be queued or running, so that nothing is idle until the next
            look. It, and runs that train together, may take more runs than ``slots``; those that are chosen
            at once are then ``GROWTH`` of those that have ended at most.
        trunks: runs with checkpoints that candidates may begin from.
    """

    spec: SweepSpec
    observations: Sequence[Observation]
    diverged: Sequence[Config]
    barred: Sequence[Config]
    pending: Sequence[Config]
    remaining: Spent
    slots: int
    durations: Durations | None
    out_of_memory: Sequence[Config] = ()
    ahead: Mapping[int, float] = field(default_factory=dict)
    work: float = 0.0
    trunks: Sequence[Trunk] = ()

    @property
    def ended(self) -> int:
        """Runs that have ended, and imported ones."""
        return len(self.observations) - len(self.ahead) + len(self.diverged) + len(self.barred)

    @property
    def coming(self) -> list[Observation]:
        """Observed runs that still train."""
        return [one for one in self.observations if one.run_id in self.ahead]


@dataclass(frozen=True)
class Step:
    """What one look leads to.

    Args:
        ensemble: the fit, None while there are too few observations.
        predictions: by target name, empty without a fit.
        decisions: runs to start now.
        stop: why nothing further will be started, None to go on.
        halts: running runs to stop now.
    """

    ensemble: Ensemble | None
    predictions: dict[str, Prediction]
    decisions: list[Decision]
    stop: str | None
    halts: list[Halt] = field(default_factory=list)


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
    predictions = {target.name: predict(spec, ensemble, target.at, look.diverged) for target in spec.targets}
    tolerance = spec.stop.tolerance
    if tolerance is not None and all(p.relative <= tolerance for p in predictions.values()):
        widest = max(p.relative for p in predictions.values())
        return Step(
            ensemble,
            predictions,
            [],
            f"the interval is within the tolerance: {widest:.2%} <= {tolerance:.2%}",
        )
    at, table = _situation(look, ensemble, frame_, max(wanted, _most(look)), rng)
    decisions, stop = _choose(look, at, table, wanted)
    return Step(ensemble, predictions, decisions, stop, _halts(look, at))


def _before_fit(look: Look, missing: int, rng: np.random.Generator) -> Step:
    """Fills the first batch; later ones replace runs that failed in it."""
    if missing <= 0 and not look.pending:
        missing = MIN_FIT - len(look.observations)
    if missing <= 0:
        return Step(None, {}, [], None)
    decisions, stop = decide(look, None, frame(look.spec), missing, rng, _first_part(look.spec))
    return Step(None, {}, decisions, stop)


def _most(look: Look) -> int:
    """Runs that may be chosen at most, where slots have room for more runs than one."""
    if look.durations is None:
        return 0
    return int(GROWTH * look.ended) - len(look.pending) - len(look.ahead)


def rehearse(spec: SweepSpec, durations: Durations | None) -> list[Decision]:
    """The runs a sweep would choose if nothing were learned on the way: what it costs, before it starts.

    Where runs may begin at checkpoints of others, they are chosen in parts, each as large as all before it:
    those of one part do not wait for each other, and begin from those of the parts before. A run's number is
    its place among the decisions, from 1.
    """
    budget, first = spec.budget, spec.strategy.first_batch
    limits = (budget.flops, budget.device_seconds)
    remaining = Spent(budget.runs, *(np.inf if limit is None else limit for limit in limits))
    frame_, rng = frame(spec), np.random.default_rng(spec.seed)
    decisions: list[Decision] = []
    trunks: list[Trunk] = []
    wanted, part = first, _first_part(spec)
    while True:
        pending = [decision.config for decision in decisions]
        look = Look(spec, [], [], [], pending, remaining, wanted, durations, trunks=trunks)
        chosen, _ = decide(look, None, frame_, int(min(wanted, remaining.runs)), rng, part)
        for run_id, one in enumerate(chosen, len(decisions) + 1):
            flops = one.cost.flops * rest(one.branch, one.cost)
            remaining -= Spent(1, flops, one.expected.get("seconds", 0.0))
            if steps := joints(spec, one.config):
                trunks.append(Trunk(run_id, one.config, steps))
        decisions += chosen
        if part == 1.0 and not (chosen and trunks):
            return decisions
        wanted, part = max(first, len(decisions)) if trunks else budget.runs, 1.0


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
    at, table = _situation(look, ensemble, frame_, wanted, rng, part)
    return _choose(look, at, table, wanted)


def _situation(
    look: Look,
    ensemble: Ensemble | None,
    frame_: Frame,
    wanted: int,
    rng: np.random.Generator,
    part: float = 1.0,
) -> tuple[Situation, Table]:
    """What there is to choose from, and the table of the candidates."""
    spec, remaining, none = look.spec, look.remaining, tabulate_configs(look.spec, [])
    # A run that entered the fit as a forecast counts as pending for the rest of what it will tell.
    coming = look.coming
    pending = tabulate_configs(spec, [*look.pending, *(one.config for one in coming)])
    at = Situation(
        family=beliefs(models(spec.laws.names, frame_.surface), frame_, ensemble),
        frame=frame_,
        candidates=frame_.columns(none),
        prices=_prices(look, none),
        targets=frame_.columns(tabulate_configs(spec, _targets(spec, ensemble))),
        pending=frame_.columns(pending),
        left=np.append(np.ones(len(look.pending)), 1.0 - precisions(coming)),
        budget=Spent(remaining.runs, remaining.flops * part, remaining.device_seconds * part),
        wanted=wanted,
        rng=rng,
        weights=spec.strategy.weights,
        patience=0.0 if ensemble is None else spec.stop.patience,
    )
    table = _offer(look, at, ensemble)
    prices = _together(look, table, _prices(look, table), branches(spec, look.trunks, table).step)
    return replace(at, candidates=frame_.columns(table), prices=prices), table


def _choose(look: Look, at: Situation, table: Table, wanted: int) -> tuple[list[Decision], str | None]:
    """As ``decide``, from a situation that may allow for more than are wanted: as many as are enough work,
    and those that train with others of the same choice, which need no slot of their own."""
    spec, remaining, prices = look.spec, look.remaining, at.prices
    if not prices.affordable(remaining).any():
        return [], _exhausted(look)
    picks: list[Pick] = []
    slots, lacking = wanted, look.work - _in_hand(look) if at.wanted > wanted else 0.0
    for pick in STRATEGIES[spec.strategy.name](at):
        apart = not prices.joins(pick.index)
        if apart and slots <= 0 and lacking <= 0.0:
            break
        picks.append(pick)
        slots -= apart
        lacking -= prices.spent(pick.index).device_seconds
        prices = prices.take(pick.index)
    seconds, begin = at.prices.spread([pick.index for pick in picks]), branches(spec, look.trunks, table)
    decisions = [
        _decision(look, at, table, pick, took, begin.of(pick.index))
        for pick, took in zip(picks, seconds, strict=True)
    ]
    if decisions or look.pending or look.coming or at.wanted < 1 or at.patience == 0.0:
        return decisions, None
    return [], f"no affordable run narrows the answer by {at.patience:.2%}; the best by {worth(at):.2%}"


def _in_hand(look: Look) -> float:
    """Device seconds of the runs that are queued or running."""
    table = tabulate_configs(look.spec, [*look.pending, *(one.config for one in look.coming)])
    prices, total = _together(look, table, _whole_prices(look, table), np.zeros(len(table), np.int64)), 0.0
    for row in range(len(table)):
        total += prices.spent(row).device_seconds
        prices = prices.take(row)
    return total


def _halts(look: Look, at: Situation) -> list[Halt]:
    """Runs that ``informative`` would not go on with; baselines let every run end."""
    coming = look.coming
    if look.spec.strategy.name != "informative" or not coming:
        return []
    table = tabulate_configs(look.spec, [one.config for one in coming])
    whole = _whole_prices(look, table)
    ahead = np.array([look.ahead[one.run_id] for one in coming if one.run_id is not None])
    return halts(at, coming, Prices(whole.flops * ahead, whole.seconds * ahead), look.spec)


def _decision(
    look: Look, at: Situation, table: Table, pick: Pick, seconds: float, branch: Branch | None
) -> Decision:
    """A pick as it is stored: with its reason, what it is expected to do and to take, where it begins."""
    expected = {}
    if pick.before is not None and pick.after is not None:
        before, after = (HALF_WIDTH * float(np.sqrt(max(0.0, k.left[0]))) for k in (pick.before, pick.after))
        cost = Prices(at.prices.flops[pick.index], np.asarray(seconds))
        share = float(cost.share(look.remaining))
        expected = {"half_width_before": before, "half_width_after": after, "budget_share": share}
    if look.durations is not None:
        expected["seconds"] = seconds
    return Decision(
        config=table.config(pick.index),
        cost=table.cost(pick.index),
        score=pick.score,
        reason=explain(pick, at, table, look.spec, branch),
        strategy=look.spec.strategy.name,
        expected=expected,
        branch=branch,
    )


def _offer(look: Look, at: Situation, ensemble: Ensemble | None) -> Table:
    """Candidates that may be chosen; of a large space those worth a closer look, and after a fit also values
    between those of the grid. Baselines keep to the grid, of a large space to an even cover of it."""
    spec, adaptive = look.spec, look.spec.strategy.name == "informative"
    tried = [o.config for o in look.observations] + [*look.diverged, *look.barred, *look.pending]
    ruled_out = RuledOut.of(spec, tried, look.diverged, look.out_of_memory)

    def open_() -> Iterator[tuple[Places, Table]]:
        for places, table in blocks(spec):
            free = ruled_out.open(table, places)
            yield places[free], table.take(free)

    if configurations(spec.space) <= EXACT:
        table = join([table for _, table in open_()])
    else:
        evenly = cover(spec) if adaptive else None
        table = at_places(spec, screen(open_(), at, partial(_prices, look), evenly))
    if ensemble is None or not adaptive:
        return table
    between = refined(spec, Posterior(ensemble, at.frame), table)
    return join([table, between.take(ruled_out.open(between))]) if len(between) else table


def _prices(look: Look, table: Table) -> Prices:
    """Of candidates, each as if it trained alone: a branch pays for the steps that it trains itself."""
    whole, rest = _whole_prices(look, table), branches(look.spec, look.trunks, table).rest
    return Prices(whole.flops * rest, whole.seconds * rest)


def _whole_prices(look: Look, table: Table) -> Prices:
    """Each as if it trained alone, from its first step."""
    known = look.durations
    seconds = np.zeros(len(table)) if known is None else known.alone.of(table.columns)
    return Prices(table["flops"], seconds)


def _together(look: Look, table: Table, alone: Prices, begin: Steps) -> Prices:
    """As runs of one shape that are chosen together will train, if they begin at one step."""
    stacks = None if look.durations is None else look.durations.stacks
    if stacks is None or len(table) == 0:
        return alone
    shape, most = shapes(table), stacks.most(table.columns)
    of = np.unique(shape + (shape.max() + 1) * begin, return_inverse=True)[1]
    joining = alone.seconds * stacks.joining(table.columns)
    return replace(alone, sharing=Sharing(of, most, alone.seconds, joining, np.zeros(of.max() + 1, np.intp)))


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


def _targets(spec: SweepSpec, ensemble: Ensemble | None) -> list[Config]:
    """The targets with their predicted settings, or the middle of what is tried before there is a fit."""
    if ensemble is not None:
        return [settings(spec, ensemble, target) for target in spec.targets]
    middle = {name: axis.values[len(axis.values) // 2] for name, axis in spec.space.items()}
    return [middle | target.at for target in spec.targets]
