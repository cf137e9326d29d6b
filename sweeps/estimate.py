"""Fitting one law to finished runs, with everything that makes its answer uncertain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.bootstrap import draw, refit
from sweeps.errors import FitError
from sweeps.laws.base import Array, Columns
from sweeps.model import FEATURES, Model
from sweeps.noise import WEIGHT, Noise, seeds
from sweeps.options import Options, describe, refine, start
from sweeps.robust import Huber, Student
from sweeps.solve import Data, Prior, minimise, objective

SHARE = 0.03  # of the posterior below which an option is left out
KEPT = 4  # options at most
MOVES, MOVE = 24, 0.4  # steps of every draw, and their size
EFFORT = 5e5  # draws times runs up to which draws are moved
SETTLED = 1e-3  # relative drop of the objective in the last round that is negligible
HUBER, FLAT = Huber(1e-3), 1e-12  # the field's loss of ln L; share of the weak prior beside it
OBJECTIVES = {
    "student": "maximum posterior of ln loss; Student's t noise, normal priors on centred coordinates, "
    "a smooth misfit that grows with the distance to the target",
    "huber": f"sum of Huber losses of ln loss, delta {HUBER.delta:g}; no priors, no misfit",
    "squares": "maximum posterior of ln loss; normal noise, normal priors on centred coordinates, no misfit",
}
INTERVALS = {
    "posterior": "posterior draws: normal about the mode, moved by preconditioned Crank-Nicolson steps",
    "bootstrap": "refits to runs drawn with replacement, to prior means drawn from the prior",
}


@dataclass(frozen=True)
class Method:
    """How laws are fitted.

    Args:
        objective: one of ``OBJECTIVES``.
        intervals: one of ``INTERVALS``.
        groups: (n,) labels of runs that a bootstrap draws together.
    """

    objective: str = "student"
    intervals: str = "posterior"
    groups: Array | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("objective", OBJECTIVES), ("intervals", INTERVALS)):
            if getattr(self, name) not in allowed:
                given = f"given the {name} {getattr(self, name)!r}"
                raise FitError(f"{given}; allowed: {', '.join(allowed)}")

    def of(self, rows: NDArray[np.intp]) -> Method:
        """The same for some of the runs."""
        return self if self.groups is None else replace(self, groups=self.groups[rows])

    def said(self, x: Columns, y: Array) -> dict[str, Any]:
        """What a reader must know of it, for a fit to these columns and ln L."""
        told, weight, intervals = seeds(x, y), x.get(WEIGHT), INTERVALS[self.intervals]
        if self.intervals == "bootstrap":
            intervals += "; every row for itself" if self.groups is None else "; rows of a run together"
        elif self.objective == "huber":
            intervals = "draws from the normal distribution that the minimum has with many runs"
        if weight is None:
            weights = "none: runs differ in noise by their hyperparameters alone"
        else:
            part = "weight" if self.objective == "huber" else "1 / sqrt(weight)"
            of = "loss" if self.objective == "huber" else "noise"
            weights = f"as mapped, {weight.min():g} to {weight.max():g}: {part} times the {of} of a run"
        return {
            "objective": OBJECTIVES[self.objective],
            "intervals": intervals,
            "weights": weights,
            "replicates": {
                "runs": told.runs,
                "deviation": told.deviation if told.runs else None,
                "slope": told.slope if told.runs else None,
            },
        }


@dataclass(frozen=True)
class Fit:
    """A law with its parameters, uncertainty and diagnostics on a set of observations.

    Args:
        law: name.
        theta: (p + m,) internal coordinates at the mode, then the misfit's weights.
        covariance: (p + m, p + m), inverse of the information with the prior.
        draws: (b, p + m) posterior sample.
        noise: fitted to the residuals.
        evidence: ln of the data's probability under this law and noise (Laplace's approximation).
        loss_centre: ln of the geometric mean loss, subtracted before fitting.
        n: observations.
        degrees: n less the effective number of parameters.
        objective: at the mode.
        residual: root mean square of ln L residuals.
        condition: of the prior-scaled covariance; large where the data leave directions to the prior.
        converged: whether the last steps were negligible.
        basins: distinct minima that explain the runs about as well.
        constants: natural constants with the 5 % and 95 % quantiles of the draws.
    """

    law: str
    theta: Array
    covariance: Array
    draws: Array
    noise: Noise
    evidence: float
    loss_centre: float
    n: int
    degrees: float
    objective: float
    residual: float
    condition: float
    converged: bool
    basins: int
    constants: dict[str, tuple[float, float, float]]


def fit(
    model: Model, x: Columns, loss: Array, method: Method | None = None, *, like: Sequence[Fit] | None = None
) -> list[Fit]:
    """Fits a law with its bowl and its misfit to observations by maximum posterior, or as a method asks.

    Tails of the noise, walls and the size of the misfit are hyperparameters: each combination of a few
    values is an option of its own, weighed by its evidence.

    Args:
        model: law and surface.
        x: columns, each (n,); the misfit's features (n, m) where there is one.
        loss: (n,), above 0.
        method: by default Student's t.
        like: fits to start from, whose options are kept; None tries all.

    Returns:
        The options that matter, most probable first, without draws.

    Raises:
        FitError: when there are fewer than 3 observations or a loss is not a positive number.
    """
    method = method or Method()
    if len(loss) < 3:
        raise FitError(f"{len(loss)} observations given; a fit takes at least 3")
    if not (np.all(np.isfinite(loss)) and np.all(loss > 0)):
        raise FitError("a loss is not a positive number; laws are fitted to ln L")
    loss_centre = float(np.mean(np.log(loss)))
    y = np.log(loss) - loss_centre
    if like is None:
        begin, basins = start(model, x, y)
        options = Options.every(model, x, y, begin, normal=method.objective == "squares")
    else:
        basins, theta = like[0].basins, np.array([one.theta for one in like])
        features = x[FEATURES].shape[1] if FEATURES in x else 0
        options = Options.like([one.noise for one in like], theta, features, seeds(x, y))
    if method.objective == "huber":
        state = _huber(options, model, x, y, like is None)
    else:
        state = refine(options, model, x, y, chosen=like is not None)
    share = np.exp(state.evidence - state.evidence.max())
    share /= share.sum()
    kept = [i for rank, i in enumerate(np.argsort(-share)[:KEPT]) if rank == 0 or share[i] >= SHARE]
    found = []
    for i in kept:
        covariance = np.asarray(np.linalg.inv(state.information[i]))
        prior_sd = 1.0 / np.sqrt(model.prior(state.features, state.misfit[[i]]).precision[0])
        rest = y - model.log_loss(state.theta[i], x)
        found.append(
            Fit(
                law=model.law.name,
                theta=state.theta[i],
                covariance=covariance,
                draws=state.theta[[i]],
                noise=state.noise(i),
                evidence=float(state.evidence[i]),
                loss_centre=loss_centre,
                n=len(loss),
                degrees=float(state.degrees[i]),
                objective=float(state.objective[i]),
                residual=float(np.sqrt(np.mean(rest**2))),
                condition=float(np.linalg.cond(covariance / np.outer(prior_sd, prior_sd))),
                converged=bool(state.moved[i] < SETTLED),
                basins=basins,
                constants={},
            )
        )
    return found


def _huber(options: Options, model: Model, x: Columns, y: Array, first: bool) -> Options:
    """Every option with the parameters of the least sum of Huber losses."""
    data, prior = _plain(model, x, y)
    begin = [options.theta[0]]
    if first:
        law = model.law.start(x, np.exp(y), data.weight)[0]
        begin.append(np.concatenate([law, prior.mean[model.split :]]))
    tries = [
        minimise(model.evaluate, theta, data, prior, second_order=True, iterations=200, tolerance=1e-10)
        for theta in begin
    ]
    best = min(tries, key=lambda one: one.objective)
    state = describe(replace(options, theta=np.tile(best.theta, (len(options.nu), 1))), model, x, y, HUBER)
    size = np.full(len(options.nu), best.objective)
    return replace(state, objective=size, moved=np.full(len(size), 0.0 if best.converged else np.inf))


def _plain(model: Model, x: Columns, y: Array) -> tuple[Data, Prior]:
    """Observations under Huber's loss, and next to no prior."""
    one, weak = np.ones(len(y)), model.prior(0, np.ones(1))
    return Data(x, y, one, x.get(WEIGHT, one), HUBER), Prior(weak.mean, FLAT * weak.precision[0])


def sample(
    model: Model,
    one: Fit,
    x: Columns,
    loss: Array,
    centre: Mapping[str, float],
    rng: np.random.Generator,
    draws: int,
    method: Method | None = None,
) -> Fit:
    """A fit with posterior draws and the intervals of its constants.

    Draws are normal about the mode at first. Each is then a Markov chain of preconditioned Crank-Nicolson
    steps (Cotter et al. 2013, arXiv 1202.0709), which leave the normal approximation as it is where that
    is exact and move it to the posterior where it is poor. With very many runs the steps are left out, and
    for Huber's loss, which is no posterior: its covariance is that of the minimum.

    By bootstrap, draws are refits to runs drawn with replacement under the noise that was found; the prior's
    mean is drawn from the prior for each, since what the runs do not tell would not spread otherwise.

    Args:
        one: of the model to these observations.
        centre: of the columns.
        draws: how many.
        method: as the fit's.
    """
    method = method or Method()
    y = np.log(loss) - one.loss_centre
    noise, features = one.noise, x[FEATURES].shape[1] if FEATURES in x else 0
    scale = model.scale(noise, one.theta, x)
    data = Data(x, y, scale, np.ones(len(y)), Student(np.array([noise.nu])))
    prior = model.prior(features, np.array([noise.misfit]))
    if method.intervals == "bootstrap":
        weight = draw(len(y), rng, draws, method.groups)
        precision = prior.precision[0]
        mean = prior.mean + rng.standard_normal((draws, len(one.theta))) / np.sqrt(precision)
        if method.objective == "huber":
            data = _plain(model, x, y)[0]
            inside, square = HUBER.moments(Student(np.array([[noise.nu]])), np.array([[noise.sigma]]))
            # Beside a loss that is no density the prior weighs as much as the minimum's covariance asks.
            precision = precision * float(noise.sigma**2 * square[0, 0] / inside[0, 0])
        found = refit(model.evaluate, one.theta, data, Prior(mean, precision), weight)
        return _drawn(model, one, found, centre)
    root = np.linalg.cholesky(one.covariance)

    def excess(place: Array) -> Array:
        """Minus ln of the posterior over its normal approximation."""
        theta = one.theta + place @ root.T
        with np.errstate(all="ignore"):
            exact = objective(model.log_loss(theta, x), theta, data, prior)
        return np.asarray(np.where(np.isfinite(exact), exact, np.inf) - 0.5 * np.sum(place**2, axis=1))

    place = rng.standard_normal((draws, len(one.theta)))
    if draws * len(y) <= EFFORT and method.objective != "huber":
        known = excess(place)
        for _ in range(MOVES):
            moved = np.sqrt(1.0 - MOVE**2) * place + MOVE * rng.standard_normal(place.shape)
            offered = excess(moved)
            taken = np.log(rng.random(draws)) < known - offered
            place, known = np.where(taken[:, None], moved, place), np.where(taken, offered, known)
    return _drawn(model, one, np.asarray(one.theta + place @ root.T), centre)


def _drawn(model: Model, one: Fit, draws: Array, centre: Mapping[str, float]) -> Fit:
    constants = _constants(model, one.theta, draws, dict(centre) | {"loss": one.loss_centre})
    return replace(one, draws=draws, constants=constants)


def _constants(
    model: Model, theta: Array, sample: Array, centre: Mapping[str, float]
) -> dict[str, tuple[float, float, float]]:
    """Natural constants of the law and the bowl's coordinates: value, 5 % and 95 % quantile."""
    at, over = (model.law.natural(t[..., : model.split], centre) for t in (theta, sample))
    found = {}
    for name, value in at.items():
        low, high = np.quantile(over[name], (0.05, 0.95))
        found[name] = (float(value), float(low), float(high))
    for i, parameter in enumerate(model.surface.parameters, start=model.split):
        low, high = np.quantile(sample[:, i], (0.05, 0.95))
        found[parameter.name] = (float(theta[i]), float(low), float(high))
    return found
