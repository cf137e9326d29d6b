"""Several laws fitted to the same runs, weighted by how well each predicts the larger from the smaller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.special import logsumexp

from sweeps.errors import FitError
from sweeps.estimate import Fit, Method, fit, sample
from sweeps.holdout import costliest, hold_out, rows_of, votes, windows
from sweeps.laws.base import Array, Columns
from sweeps.misfit import Misfit
from sweeps.model import Frame, Model, frame, models
from sweeps.noise import SIGMA, WEIGHT, Noise
from sweeps.runs import Observation
from sweeps.space import tabulate_configs
from sweeps.spec import SweepSpec
from sweeps.surface import Surface, surface

DRAWS, FEW = 240, 16  # posterior draws over all fits, and of a fit that weighs little
NEGLIGIBLE = 1e-3  # weight below which a fit is left out of the answers


@dataclass(frozen=True)
class Member:
    """One fit of an ensemble: a law with one description of its noise.

    Args:
        fit: to all observations.
        weight: share in every answer.
        holdout: root mean square relative error of its law on larger runs held out; None with too few runs.
        stretch: of the interval, so that it would have held those runs; at least 1.
    """

    fit: Fit
    weight: float
    holdout: float | None
    stretch: float


@dataclass(frozen=True)
class Ensemble:
    """The state of knowledge after a set of runs.

    Args:
        members: fits with weights that sum to 1, law by law.
        sources: column of the table that each quantity was read from.
        centre: of the columns.
        misfit: features of what the laws get wrong.
        runs: ids of the runs it rests on.
        n: observations.
        largest_flops: of any observed run.
        forecasts: ids of those among ``runs`` that had not finished, see ``sweeps.curves.running``.
    """

    members: tuple[Member, ...]
    sources: dict[str, str]
    centre: dict[str, float]
    misfit: Misfit | None
    runs: tuple[int, ...]
    n: int
    largest_flops: float
    forecasts: tuple[int, ...] = ()

    @property
    def count(self) -> str:
        """Column that laws read as N."""
        return self.sources["params"]

    @property
    def laws(self) -> dict[str, float]:
        """Weight of each law."""
        found: dict[str, float] = {}
        for member in self.members:
            found[member.fit.law] = found.get(member.fit.law, 0.0) + member.weight
        return found

    def frame(self, surface: Surface) -> Frame:
        """The frame the laws were fitted in."""
        return Frame(self.sources, self.centre, surface, self.misfit)

    def pairs(self, surface: Surface) -> Iterator[tuple[Model, Member]]:
        """Every member with its model."""
        for member in self.members:
            yield models([member.fit.law], surface)[0], member


def precisions(observations: Sequence[Observation]) -> Array:
    """Precision of each observation over that of a finished run, (n,).

    The noise of a finished run is not known before the fit; it is taken to be the prior's.
    """
    deviation = np.array([one.deviation for one in observations])
    return np.asarray(SIGMA**2 / (SIGMA**2 + deviation**2))


def fit_ensemble(
    spec: SweepSpec,
    observations: Sequence[Observation],
    rng: np.random.Generator,
    frame_: Frame | None = None,
) -> Ensemble:
    """Fits every law of a sweep and weighs them.

    Args:
        observations: finished proxies; forecasts of others count by their precision.
        frame_: of the columns; by default centred on the space.

    Raises:
        FitError: when there are fewer than 3 observations.
    """
    if len(observations) < 3:
        raise FitError(f"{len(observations)} observations given; a fit takes at least 3")
    table = tabulate_configs(spec, [observation.config for observation in observations])
    loss = np.array([observation.loss for observation in observations])
    frame_ = frame_ or frame(spec)
    runs = tuple(o.run_id for o in observations if o.run_id is not None)
    forecasts = tuple(o.run_id for o in observations if o.run_id is not None and o.deviation > 0)
    family, x = models(spec.laws.names, surface(spec)), frame_.columns(table)
    weights = precisions(observations)
    if np.any(weights < 1.0):
        x[WEIGHT] = weights
    return replace(learn(family, frame_, x, loss, rng, runs), forecasts=forecasts)


def learn(
    family: Sequence[Model],
    frame_: Frame,
    x: Columns,
    loss: Array,
    rng: np.random.Generator,
    runs: tuple[int, ...] = (),
    method: Method | None = None,
) -> Ensemble:
    """Fits every model and weighs its law.

    A law's weight is its share of the hold-outs' votes, which go by the density it gives to the larger runs;
    with too few runs for that, its evidence. Where there are very many runs it is fitted to the costlier ones
    alone as well, and the same votes say how far down it holds.

    Args:
        family: models, one for each law.
        x: columns of the frame, (n,) each.
        loss: (n,).
        runs: their ids.
        method: of every fit; by default Student's t with posterior draws.

    Raises:
        FitError: when no law can be fitted.
    """
    method = method or Method()
    tries = [(model, window) for model in family for window in windows(model, len(loss), method)]
    parts = [costliest(x["flops"], window) for _, window in tries]
    methods = [method.of(rows) for rows in parts]
    fits = [
        fit(model, rows_of(x, rows), loss[rows], how)
        for (model, _), rows, how in zip(tries, parts, methods, strict=True)
    ]
    trials = [
        hold_out(model, found, frame_, x, loss, method, window)
        for (model, window), found in zip(tries, fits, strict=True)
    ]
    # What a law says in-sample weighs options of its noise; laws are weighed by what they foretell.
    evidence = [np.array([one.evidence for one in found]) for found in fits]
    tested = np.array([trial.density for trial in trials])
    if tested.size:
        pairs = zip(votes(tested), evidence, strict=True)
        shares = [vote * np.exp(one - logsumexp(one)) for vote, one in pairs]
    else:
        total = logsumexp(np.concatenate(evidence))
        shares = [np.exp(one - total) for one in evidence]
    members = []
    for (model, window), rows, how, found, trial, weights in zip(
        tries, parts, methods, fits, trials, shares, strict=True
    ):
        for rank, (one, share) in enumerate(zip(found, weights, strict=True)):
            # A law's first fit stays, however little it weighs: what it says is shown beside the others.
            if (rank == 0 and window == 1.0) or share >= NEGLIGIBLE:
                draws = max(FEW, round(DRAWS * share))
                part = rows_of(x, rows)
                drawn = sample(model, one, part, loss[rows], frame_.centre, rng, draws, how)
                members.append(Member(drawn, float(share), trial.error, trial.stretch))
    rest = sum(member.weight for member in members)
    place = {model.law.name: i for i, model in enumerate(family)}
    members.sort(key=lambda member: (place[member.fit.law], -member.weight))
    return Ensemble(
        members=tuple(replace(member, weight=member.weight / rest) for member in members),
        sources=dict(frame_.sources),
        centre=dict(frame_.centre),
        misfit=frame_.misfit,
        runs=runs,
        n=len(loss),
        largest_flops=float(np.exp(x["flops"].max() + frame_.centre["flops"])),
    )


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
        }
        for member in ensemble.members
    ]
    rest = {
        f.name: getattr(ensemble, f.name) for f in fields(Ensemble) if f.name not in ("members", "misfit")
    }
    shape = (
        None
        if ensemble.misfit is None
        else {f.name: getattr(ensemble.misfit, f.name) for f in fields(Misfit)}
    )
    result: dict[str, Any] = plain(rest | {"members": members, "misfit": shape})
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
        members.append(Member(Fit(**one), item["weight"], item["holdout"], item["stretch"]))
    shape = given["misfit"]
    if shape is not None:
        shape = Misfit(tuple(shape["columns"]), np.array(shape["points"]), shape["target"])
    rest = {name: value for name, value in given.items() if name not in ("members", "misfit")}
    ids = {name: tuple(rest.get(name, ())) for name in ("runs", "forecasts")}  # old fits know no forecasts
    return Ensemble(members=tuple(members), misfit=shape, **(rest | ids))
