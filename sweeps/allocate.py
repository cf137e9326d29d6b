"""What to train, from a fitted table: for compute or for a loss; what a lower loss is worth. With intervals.

Every draw of every law gives its own answer, and answers are pooled by weight. Draws of laws that missed
larger runs held out are spread about the mode, as in ``predict``. A token served costs a third of one trained
on (2 N of 6 N; Sardana et al. 2023, arXiv 2401.00448).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sweeps.allocation import Spending, Surface, best, compute_multiple, surface
from sweeps.allocation import cheapest as least
from sweeps.ensemble import NEGLIGIBLE, Member
from sweeps.errors import FitError
from sweeps.laws.base import Array
from sweeps.model import Model
from sweeps.posterior import Band, Quantiles, quantiles
from sweeps.study import Study, predict
from sweeps.study_warnings import FAR
from sweeps.tables import Warning

MOST = 0.5  # share of the draws without a best split above which there is no answer


@dataclass(frozen=True)
class Plan:
    """How to spend compute. The medians belong together; more tokens go with fewer parameters.

    Args:
        flops: for training and for use; ``training`` are those for training.
        params, tokens: to train, with 90 % intervals.
        loss: there, the mean over seeds; ``new`` is that of a new run.
        undecided: share of the draws that find no best split and are left out.
        extrapolation: training FLOPs over those of the largest run.
    """

    flops: float
    training: float
    params: Quantiles
    tokens: Quantiles
    loss: Quantiles
    new: Quantiles
    undecided: float
    extrapolation: float
    warnings: tuple[Warning, ...]


@dataclass(frozen=True)
class Reach:
    """The least compute for a mean loss. Quantiles are inf where no compute is enough, of which ``unreached``
    is the probability; the intervals of params and tokens hold the doubt about compute too."""

    loss: float
    flops: Quantiles
    params: Quantiles
    tokens: Quantiles
    unreached: float
    undecided: float
    extrapolation: float
    warnings: tuple[Warning, ...]


@dataclass(frozen=True)
class Worth:
    """The multiple of the compute that lowers the best loss by a gain; ``unreached`` as in ``Reach``."""

    flops: float
    gain: float
    multiple: Quantiles
    unreached: float
    undecided: float


def allocate(study: Study, flops: float, *, served: float = 0.0, unique_tokens: float | None = None) -> Plan:
    """The parameters and tokens of the lowest loss for an amount of compute.

    Args:
        flops: C, in the table's unit.
        served: tokens that the model will process once trained; ``flops`` pay for them too.
        unique_tokens: U, which repeat beyond; for laws that read them. By default tokens never repeat.

    Raises:
        FitError: the laws cannot tell, or a number is out of range.
    """
    case = _case(study, served, unique_tokens, flops=flops)
    cost, total = case.cost, flops / case.unit
    found, _, undecided = case.ask(lambda loss: np.log(best(loss, total, cost).tokens)[:, None])
    tokens = found.map(np.exp).first()
    ends = (tokens.median, tokens.high, tokens.low)
    params = Quantiles(*(total / (cost.per_token * end + cost.overhead) for end in ends))
    at = case.others | {"params": params.median, "tokens": tokens.median}
    if "unique_tokens" in at:
        at["unique_tokens"] = min(at["unique_tokens"], tokens.median)
    (told,) = predict(study, at)
    mean = Quantiles(told.loss, told.mean_low, told.mean_high)
    new = Quantiles(told.loss, told.low, told.high)
    training, reach = case.training(params, tokens), told.extrapolation
    return Plan(flops, training, params, tokens, mean, new, undecided, reach, told.warnings)


def cheapest(study: Study, loss: float, *, served: float = 0.0, unique_tokens: float | None = None) -> Reach:
    """The least compute that reaches a loss, and how it is spent; options as of ``allocate``."""
    case = _case(study, served, unique_tokens, loss=loss)

    def of(surface: Surface) -> Array:
        found = least(surface, loss, case.cost)
        out = np.isinf(found.flops)
        spent = (case.unit * found.flops, *(np.where(out, np.inf, v) for v in (found.params, found.tokens)))
        return np.asarray(np.log(np.stack(spent, axis=1)))

    found, unreached, undecided = case.ask(of)
    rows = np.exp([found.median, found.low, found.high]).T.tolist()
    flops, params, tokens = (Quantiles(*row) for row in rows)
    reach = case.training(params, tokens) / study.ensemble.largest_flops
    far = (Warning("far", f"{reach:.3g} times the compute of the largest run"),)
    told = far if FAR < reach < np.inf else ()
    return Reach(loss, flops, params, tokens, unreached, undecided, reach, told)


def gain_worth(
    study: Study, flops: float, gain: float, *, served: float = 0.0, unique_tokens: float | None = None
) -> Worth:
    """How many times the compute lowers the best loss by a gain; options as of ``allocate``."""
    case = _case(study, served, unique_tokens, flops=flops, gain=gain)
    amount, cost = flops / case.unit, case.cost
    found, *shares = case.ask(lambda loss: compute_multiple(loss, amount, gain, cost)[:, None])
    return Worth(flops, gain, found.map(np.exp).first(), *shares)


@dataclass(frozen=True)
class _Case:
    """A question: a cost with 6 FLOPs a parameter and token, the table's unit in these, other columns."""

    study: Study
    cost: Spending
    unit: float
    others: dict[str, float]

    def training(self, params: Quantiles, tokens: Quantiles) -> float:
        """FLOPs of the medians, in the table's unit."""
        return self.unit * self.cost.per_token * params.median * tokens.median

    def ask(self, answer: Callable[[Surface], Array]) -> tuple[Band, float, float]:
        """Pools answers (b, n) to surfaces of b draws: quantiles, and the shares that are inf and nan."""
        values, weights = [], []
        with np.errstate(all="ignore"):  # a draw may overflow far from the runs
            for model, member in self.study.posterior.pairs:
                if member.weight >= NEGLIGIBLE:
                    values.append(answer(self._surface(model, member)))
                    weights.append(np.full(len(values[-1]), member.weight / len(values[-1])))
        value, weight = np.concatenate(values), np.concatenate(weights)
        told = ~np.isnan(value).any(axis=1)
        undecided = float(weight[~told].sum() / weight.sum())
        if undecided > MOST:
            raise FitError(
                "the laws find no best split of compute; fit more sizes and more tokens per parameter, name "
                "other laws, or ask about other compute or a higher loss"
            )
        value, weight = value[told], weight[told]
        unreached = 1.0 - weight[np.isfinite(value[:, 0])].sum() / weight.sum()
        return quantiles(value, weight), float(unreached), undecided

    def _surface(self, model: Model, member: Member) -> Surface:
        """A member's draws, spread about its mode by its stretch."""
        centre = self.study.ensemble.centre | {"loss": member.fit.loss_centre}
        drawn, mode = (
            surface(model.law, theta[..., : model.split], centre, self.others)
            for theta in (member.fit.draws, member.fit.theta)
        )

        def loss(params: Array, tokens: Array) -> Array:
            middle = mode(params.ravel(), tokens.ravel()).reshape(params.shape)
            return np.asarray(middle * (drawn(params, tokens) / middle) ** member.stretch)

        return loss if member.stretch > 1.0 else drawn


def _case(study: Study, served: float, unique: float | None, **asked: float) -> _Case:
    for name, value in (*asked.items(), ("unique_tokens", 1.0 if unique is None else unique)):
        if not 0.0 < value < np.inf:
            raise FitError(f"given {name} {value:g}; allowed: a number above 0")
    if not 0.0 <= served < np.inf:
        raise FitError(f"given {served:g} tokens served; allowed: 0 or more")
    seen, others = study.observed.columns, {"unique_tokens": np.inf if unique is None else unique}
    laws = {model.law.name: model.law.columns for model, _ in study.posterior.pairs}
    plain = "name laws of both such as chinchilla and coupled"
    for law, read in laws.items():
        if not {"params", "tokens"} <= set(read):
            raise FitError(f"{law} does not read both params and tokens; map these two, and {plain}")
        if unique is not None and "unique_tokens" not in read:
            raise FitError(
                f"{law} does not know that tokens repeat; for unique_tokens map a column to it, with runs of "
                "several epochs, and name laws such as repetition and repetition_overfit"
            )
        for name in sorted(set(read) - {"params", "tokens", *others}):
            if np.ptp(seen.get(name, np.arange(2.0))) > 0.0:
                raise FitError(f"{law} also reads {name}, which varies; fit runs of one value, or {plain}")
            others[name] = float(seen[name][0])
    if not any("unique_tokens" in read for read in laws.values()):
        del others["unique_tokens"]
    factor = float(np.median(seen["flops"] / (seen["params"] * seen["tokens"])))
    return _Case(study, Spending(served=served), factor / 6.0, others)
