"""Several laws fitted to the same runs, weighted by how well each predicts the larger from the smaller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from sweeps.errors import FitError
from sweeps.fit import Fit, Noise, fit
from sweeps.laws.base import Array
from sweeps.model import Frame, Model, frame, models
from sweeps.runs import Observation
from sweeps.space import Table, tabulate_configs
from sweeps.spec import SweepSpec
from sweeps.surface import surface

CUTS = (0.7, 0.85)  # shares of the runs, by compute, that a hold-out fit sees
MIN_HELD, MIN_SEEN = 2, 10
DRAWS = 200
TRUST = 4.0  # held-out runs that the intervals are trusted as much as
DRIFT, DRIFT_WEIGHT = 0.1, 0.5  # error of a law not yet seen to extrapolate, worth so many held-out runs
FLOOR = 0.02  # no law is ruled out for good


@dataclass(frozen=True)
class Member:
    """One law of an ensemble.

    Args:
        fit: to all observations.
        weight: share in every answer.
        holdout: root mean square relative error on larger runs held out; None with too few runs.
        stretch: of the interval, so that it would have held those runs; at least 1.
        drift: what that error was beyond the noise of single runs; no answer is more certain than this.
    """

    fit: Fit
    weight: float
    holdout: float | None
    stretch: float
    drift: float


@dataclass(frozen=True)
class Ensemble:
    """The state of knowledge after a set of runs.

    Args:
        members: laws with weights that sum to 1.
        count: field of ``Cost`` read as N.
        centre: of the columns.
        runs: ids of the runs it rests on.
        n: observations.
        largest_flops: of any observed run.
    """

    members: tuple[Member, ...]
    count: str
    centre: dict[str, float]
    runs: tuple[int, ...]
    n: int
    largest_flops: float

    def frame(self, spec: SweepSpec) -> Frame:
        """The frame the laws were fitted in."""
        return Frame(self.count, self.centre, surface(spec))

    def pairs(self, spec: SweepSpec) -> Iterator[tuple[Model, Member]]:
        """Every member with its model."""
        by_law = {model.law.name: model for model in models(spec, surface(spec))}
        for member in self.members:
            yield by_law[member.fit.law], member


def fit_ensemble(
    spec: SweepSpec,
    observations: Sequence[Observation],
    rng: np.random.Generator,
    frame_: Frame | None = None,
) -> Ensemble:
    """Fits every law of a sweep and weighs them.

    Args:
        observations: finished proxies.
        frame_: of the columns; by default centred on the space.

    Raises:
        FitError: when there are fewer than 3 observations.
    """
    if len(observations) < 3:
        raise FitError(f"{len(observations)} observations given; a fit takes at least 3")
    table = tabulate_configs(spec, [observation.config for observation in observations])
    loss = np.array([observation.loss for observation in observations])
    frame_ = frame_ or frame(spec)
    target = max(spec.cost(spec.complete(target.at)).flops for target in spec.targets)
    family = models(spec, frame_.surface)
    fits = [_fit(model, frame_, table, loss, target, rng, None) for model in family]
    trials = [
        _hold_out(model, one, frame_, table, loss, rng) for model, one in zip(family, fits, strict=True)
    ]
    scores = np.array([trial.density for trial in trials])
    weights = np.exp(scores - scores.max())
    weights = np.maximum(weights / weights.sum(), FLOOR)
    weights /= weights.sum()
    members = tuple(
        Member(one, float(weight), trial.error, trial.stretch, trial.drift)
        for one, weight, trial in zip(fits, weights, trials, strict=True)
    )
    return Ensemble(
        members=members,
        count=frame_.count,
        centre=dict(frame_.centre),
        runs=tuple(o.run_id for o in observations if o.run_id is not None),
        n=len(observations),
        largest_flops=float(table["flops"].max()),
    )


def distance(flops: Array, target: float) -> Array:
    """ln(C_target / C), at least 0; (n,)."""
    return np.maximum(np.log(target / flops), 0.0)


def _fit(
    model: Model,
    frame_: Frame,
    table: Table,
    loss: Array,
    target: float,
    rng: np.random.Generator,
    like: Fit | None,
) -> Fit:
    x, far = frame_.columns(table), distance(table["flops"], target)
    return fit(model, x, loss, far, frame_.centre, rng, draws=0 if like else DRAWS, like=like)


@dataclass(frozen=True)
class HoldOut:
    """How a law predicts larger runs from smaller ones.

    Args:
        density: mean log predictive density, joint over the held-out runs, since they share the law's error.
        error: root mean square of their ln L errors.
        stretch: of the standard deviation that would have covered them.
        drift: root mean square of the errors less the noise of single runs, shrunk to a cautious prior.
    """

    density: float = 0.0
    error: float | None = None
    stretch: float = 1.0
    drift: float = DRIFT


def _hold_out(
    model: Model, full: Fit, frame_: Frame, table: Table, loss: Array, rng: np.random.Generator
) -> HoldOut:
    """Refits on the runs below each cut in compute and scores the rest."""
    order = np.argsort(table["flops"], kind="stable")
    cuts = sorted({int(share * len(loss)) for share in CUTS})
    cuts = [cut for cut in cuts if cut >= MIN_SEEN and len(loss) - cut >= MIN_HELD]
    if not cuts:
        return HoldOut()
    squares: list[float] = []
    density, missed, held_runs, noise = 0.0, 0.0, 0, 0.0
    for cut in cuts:
        held, rest = table.take(order[cut:]), loss[order[cut:]]
        target = float(np.median(held["flops"]))
        one = _fit(model, frame_, table.take(order[:cut]), loss[order[:cut]], target, rng, full)
        x = frame_.columns(held)
        value, gradient = model.evaluate(one.theta, x)
        error = np.log(rest) - one.loss_centre - value
        scale = one.noise.scale(distance(held["flops"], target), model.height(one.theta, x))
        covariance = gradient @ one.covariance @ gradient.T + np.diag(scale**2)
        missed_here = float(error @ np.linalg.solve(covariance, error))
        density -= 0.5 * (missed_here + float(np.linalg.slogdet(covariance)[1])) / len(cuts)
        missed += missed_here / len(cuts)
        held_runs += len(error)
        squares.extend(error**2)
        noise += float(np.sum(scale**2))
    stretch = np.sqrt((TRUST + missed) / (TRUST + held_runs / len(cuts)))
    excess = max(0.0, float(np.sum(squares)) - noise) / len(cuts)
    drift = np.sqrt((DRIFT_WEIGHT * DRIFT**2 + excess) / (DRIFT_WEIGHT + held_runs / len(cuts)))
    return HoldOut(density, float(np.sqrt(np.mean(squares))), max(1.0, float(stretch)), float(drift))


def to_dict(ensemble: Ensemble) -> dict[str, Any]:
    """As JSON has it; ``from_dict`` gives it back (numbers to 9 digits)."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return [plain(row) for row in value] if value.ndim > 1 else [float(f"{v:.9g}") for v in value]
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        return value

    members = [
        {
            "fit": {f.name: getattr(member.fit, f.name) for f in fields(Fit)}
            | {"noise": asdict(member.fit.noise)},
            "weight": member.weight,
            "holdout": member.holdout,
            "stretch": member.stretch,
            "drift": member.drift,
        }
        for member in ensemble.members
    ]
    rest = {f.name: getattr(ensemble, f.name) for f in fields(Ensemble) if f.name != "members"}
    result: dict[str, Any] = plain(rest | {"members": members})
    return result


def from_dict(given: Mapping[str, Any]) -> Ensemble:
    """The ensemble ``to_dict`` wrote down."""
    members = []
    for item in given["members"]:
        one = dict(item["fit"])
        for name in ("theta", "covariance", "draws"):
            one[name] = np.array(one[name])
        one["noise"] = Noise(**one["noise"])
        one["constants"] = {name: tuple(value) for name, value in one["constants"].items()}
        members.append(Member(Fit(**one), item["weight"], item["holdout"], item["stretch"], item["drift"]))
    rest = {name: value for name, value in given.items() if name != "members"}
    return Ensemble(members=tuple(members), **(rest | {"runs": tuple(rest["runs"])}))
