"""Several laws fitted to the same runs, weighted by how well each predicts the larger from the smaller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from sweeps.errors import FitError
from sweeps.estimate import Fit, Method, fit, sample
from sweeps.laws.base import Array, Columns
from sweeps.misfit import Misfit
from sweeps.model import FEATURES, Frame, Model, frame, models
from sweeps.noise import SIGMA, WEIGHT, Noise
from sweeps.runs import Observation
from sweeps.space import tabulate_configs
from sweeps.spec import SweepSpec
from sweeps.surface import Surface, surface

CUTS = (0.6, 0.8)  # shares of the runs, by compute, that a hold-out fit sees
MIN_HELD, MIN_SEEN = 2, 8
DRAWS, FEW = 240, 16  # posterior draws over all fits, and of a fit that weighs little
UNTESTED, TRUST = 1.5, 4.0  # stretch before any run was held out, worth so many held-out runs
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

    A law's weight is the density it gives to larger runs that were held out; with too few runs for that,
    its evidence.

    Args:
        family: models, one for each law.
        x: columns of the frame, (n,) each.
        loss: (n,).
        runs: their ids.
        method: of every fit; by default Student's t with posterior draws.

    Raises:
        FitError: when no law can be fitted.
    """
    fits = [fit(model, x, loss, method) for model in family]
    trials = [
        _hold_out(model, found, frame_, x, loss, method) for model, found in zip(family, fits, strict=True)
    ]
    # What a law says in-sample weighs options of its noise; laws are weighed by what they foretell.
    tried = any(trial.error is not None for trial in trials)
    scores = []
    for found, trial in zip(fits, trials, strict=True):
        evidence = np.array([one.evidence for one in found])
        scores.append(evidence - logsumexp(evidence) + trial.density if tried else evidence)
    total = logsumexp(np.concatenate(scores))
    members = []
    for model, found, trial, score in zip(family, fits, trials, scores, strict=True):
        for rank, (one, share) in enumerate(zip(found, np.exp(score - total), strict=True)):
            # A law's first fit stays, however little it weighs: what it says is shown beside the others.
            if rank == 0 or share >= NEGLIGIBLE:
                draws = max(FEW, round(DRAWS * share))
                drawn = sample(model, one, x, loss, frame_.centre, rng, draws, method)
                members.append(Member(drawn, float(share), trial.error, trial.stretch))
    rest = sum(member.weight for member in members)
    return Ensemble(
        members=tuple(replace(member, weight=member.weight / rest) for member in members),
        sources=dict(frame_.sources),
        centre=dict(frame_.centre),
        misfit=frame_.misfit,
        runs=runs,
        n=len(loss),
        largest_flops=float(np.exp(x["flops"].max() + frame_.centre["flops"])),
    )


@dataclass(frozen=True)
class HoldOut:
    """How a law predicts larger runs from smaller ones.

    Args:
        density: mean log predictive density, joint over the held-out runs, since they share the law's error.
            Runs at one scale share it wholly and count together as one.
        error: root mean square of their ln L errors.
        stretch: of the standard deviation that would have covered them.
    """

    density: float = 0.0
    error: float | None = None
    stretch: float = UNTESTED


def _hold_out(
    model: Model, full: Sequence[Fit], frame_: Frame, x: Columns, loss: Array, method: Method | None
) -> HoldOut:
    """Refits on the runs below each cut in compute and scores the rest, those held out being the target."""
    order = np.argsort(x["flops"], kind="stable")
    cuts = sorted({int(share * len(loss)) for share in CUTS})
    cuts = [cut for cut in cuts if cut >= MIN_SEEN and len(loss) - cut >= MIN_HELD]
    if not cuts:
        return HoldOut()
    squares: list[float] = []
    density, missed, held_scales = 0.0, 0.0, 0
    for cut in cuts:
        seen, held = _rows(x, order[:cut]), _rows(x, order[cut:])
        if frame_.misfit is not None:
            there = replace(frame_.misfit, target=float(np.median(held["flops"])))
            seen, held = ({**part, FEATURES: there.features(part)} for part in (seen, held))
        found = fit(model, seen, loss[order[:cut]], method, like=full)
        evidence = np.array([one.evidence for one in found])
        share = np.exp(evidence - logsumexp(evidence))
        of = _scales(frame_, held)
        scales = int(of.max()) + 1
        densities, rest = [], np.log(loss[order[cut:]])
        for i, one in enumerate(found):
            value, gradient = model.evaluate(one.theta, held)
            error = rest - one.loss_centre - value
            noise = one.noise.variance(model.height(one.theta, held), held.get(WEIGHT, 1.0))
            square, volume = _normal(error, gradient, noise, one.covariance)
            densities.append(-0.5 * (square + volume) * scales / len(rest))
            square, _ = _normal(*_means(of, error, gradient, noise), one.covariance)
            missed += float(share[i]) * square / len(cuts)
            squares.append(float(share[i] * np.mean(error**2)))
        density += float(logsumexp(densities, b=share)) / len(cuts)
        held_scales += scales
    stretch = np.sqrt((TRUST * UNTESTED**2 + missed) / (TRUST + held_scales / len(cuts)))
    return HoldOut(density, float(np.sqrt(np.sum(squares) / len(cuts))), max(1.0, float(stretch)))


def _scales(frame_: Frame, x: Columns) -> NDArray[np.intp]:
    """Which rows differ in hyperparameters alone: the number of each one's scale, (n,)."""
    names = [name for name in frame_.sources if name not in {axis.name for axis in frame_.surface.axes}]
    rows = np.round(np.stack([x[name] for name in names], axis=-1), 6)
    return np.asarray(np.unique(rows, axis=0, return_inverse=True)[1].ravel())


def _means(of: NDArray[np.intp], error: Array, gradient: Array, noise: Array) -> tuple[Array, Array, Array]:
    """Errors, gradients and noise of scales: means of their runs by precision.

    Runs at one scale share the law's error there; however many they are, they are one test of it.
    """
    precision = 1.0 / noise
    total = np.bincount(of, precision)
    mean = np.zeros((len(total), gradient.shape[1]))
    np.add.at(mean, of, gradient * precision[:, None])
    return np.bincount(of, error * precision) / total, mean / total[:, None], 1.0 / total


def _normal(error: Array, gradient: Array, noise: Array, covariance: Array) -> tuple[float, float]:
    """Squared length of errors (n,) under the covariance G S G' + diag(noise), and ln of its determinant.

    By Woodbury's identity and Sylvester's, so that nothing is n by n.

    Args:
        gradient: G, (n, p).
        noise: (n,).
        covariance: S, (p, p).
    """
    spread = gradient @ np.linalg.cholesky(covariance) / np.sqrt(noise)[:, None]
    scaled = error / np.sqrt(noise)
    inner = np.eye(spread.shape[1]) + spread.T @ spread
    across = spread.T @ scaled
    square = float(scaled @ scaled - across @ np.linalg.solve(inner, across))
    return square, float(np.sum(np.log(noise)) + np.linalg.slogdet(inner)[1])


def _rows(x: Columns, rows: NDArray[np.intp]) -> dict[str, Array]:
    return {name: column[rows] for name, column in x.items()}


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
