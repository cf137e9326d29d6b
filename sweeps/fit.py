"""Fitting one law to finished runs, with everything that makes its answer uncertain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sweeps.errors import FitError
from sweeps.laws.base import Array, Columns
from sweeps.model import Model
from sweeps.solve import Data, Prior, Solution, minimise, minimise_many, whitened

DELTA = 2.0  # Huber's bend in standard deviations
CLIPPED = 0.9205  # variance of a standard normal clipped there
SIGMA, SIGMA_WEIGHT = 0.008, 3.0  # relative noise before any is seen, worth that many runs
GROWTHS, GROWTH = (0.03, 0.1, 0.3, 0.8), 0.1  # tried, and the middle of their prior
WALLS, WALL = (0.05, 0.25), 0.1
MISFITS, MISFIT = (0.1, 0.3, 0.7), 0.3
REACH = 1.5  # e-folds of N and of D over which a law's misfit stays alike
LR_STARTS = (0.0, -1.0, 1.0)
ROUNDS = 5  # of refining sigma


@dataclass(frozen=True)
class Noise:
    """How far runs lie from the law, relative.

    A law is only asked to hold near the target and near the optimum: independent noise has the standard
    deviation sqrt(sigma^2 (1 + (growth d)^2) + (wall h)^2), with d = ln(C_target / C) and h the height of
    the bowl at the run. The law's own misfit is a smooth function of ln N and ln D on top of it, a Gaussian
    process of standard deviation misfit sigma (Kennedy and O'Hagan 2001), so that many runs at one place
    do not make the law certain elsewhere.

    Args:
        sigma: of a run at the target's scale.
        growth: by e-fold of compute.
        wall: by height of the bowl.
        misfit: in units of sigma.
    """

    sigma: float
    growth: float
    wall: float
    misfit: float

    def scale(self, distance: Array, height: Array) -> Array:
        """Standard deviation of ln L without the smooth misfit, (n,)."""
        return _scale(self.sigma, self.growth, self.wall, distance, height)


def _scale(
    sigma: float | Array, growth: float | Array, wall: float | Array, distance: Array, height: Array
) -> Array:
    return np.asarray(np.sqrt(sigma**2 * (1.0 + (growth * distance) ** 2) + (wall * height) ** 2))


@dataclass(frozen=True)
class Fit:
    """A law with its parameters, uncertainty and diagnostics on a set of observations.

    Args:
        law: name.
        theta: (p,) internal coordinates at the mode.
        covariance: (p, p), inverse of the Gauss-Newton information with the prior.
        draws: (b, p) posterior sample: one half refits perturbed data and priors, the other resampled
            runs, so that the wider of both rules the tails.
        noise: fitted to the residuals.
        loss_centre: ln of the geometric mean loss, subtracted before fitting.
        n: observations.
        degrees: n less the effective number of parameters.
        objective: at the mode.
        residual: root mean square of ln L residuals.
        condition: of the prior-scaled covariance; large where the data leave directions to the prior.
        converged: whether the polish ended by itself.
        constants: natural constants with the 5 % and 95 % quantiles of the draws.
    """

    law: str
    theta: Array
    covariance: Array
    draws: Array
    noise: Noise
    loss_centre: float
    n: int
    degrees: float
    objective: float
    residual: float
    condition: float
    converged: bool
    constants: dict[str, tuple[float, float, float]]


def fit(
    model: Model,
    x: Columns,
    loss: Array,
    distance: Array,
    centre: Mapping[str, float],
    rng: np.random.Generator,
    *,
    draws: int = 200,
    like: Fit | None = None,
) -> Fit:
    """Fits a law with its bowl to observations by maximum posterior.

    Args:
        model: law and surface, p parameters.
        x: centred columns, each (n,).
        loss: (n,), above 0.
        distance: (n,), ln(C_target / C), at least 0.
        centre: of the columns, for the natural constants.
        draws: posterior sample size, 0 for none.
        like: a fit to start from, whose growth, wall and misfit are kept; None starts afresh.

    Raises:
        FitError: when there are fewer than 3 observations or a loss is not a positive number.
    """
    if len(loss) < 3:
        raise FitError(f"{len(loss)} observations given; a fit takes at least 3")
    if not (np.all(np.isfinite(loss)) and np.all(loss > 0)):
        raise FitError("a loss is not a positive number; laws are fitted to ln L")
    loss_centre = float(np.mean(np.log(loss)))
    y = np.log(loss) - loss_centre
    found = _mode(model, x, y, distance, like)
    solution, noise = found.solution, found.noise
    covariance = np.asarray(np.linalg.inv(solution.information))
    sample = _sample(model, found.data, solution.theta, rng, draws) if draws else solution.theta[None]
    residual = y - model.evaluate(solution.theta, x)[0]
    prior_sd = np.sqrt(1.0 / model.prior.precision)
    return Fit(
        law=model.law.name,
        theta=solution.theta,
        covariance=covariance,
        draws=sample,
        noise=noise,
        loss_centre=loss_centre,
        n=len(loss),
        degrees=found.degrees,
        objective=solution.objective,
        residual=float(np.sqrt(np.mean(residual**2))),
        condition=float(np.linalg.cond(covariance / np.outer(prior_sd, prior_sd))),
        converged=solution.converged,
        constants=_constants(model, solution.theta, sample, dict(centre) | {"loss": loss_centre}),
    )


@dataclass(frozen=True)
class _Mode:
    """A posterior mode and the data as its noise sees them."""

    solution: Solution
    noise: Noise
    degrees: float
    data: Data
    evidence: float


@dataclass(frozen=True)
class _Options:
    """Noise parameters that are refined side by side, each (b,)."""

    sigma: Array
    growth: Array
    wall: Array
    misfit: Array

    def data(self, model: Model, x: Columns, y: Array, theta: Array, distance: Array) -> Data:
        """The observations as each option sees them with the bowl of its theta (b, p)."""
        sigma, growth, wall = (v[:, None] for v in (self.sigma, self.growth, self.wall))
        scale = _scale(sigma, growth, wall, distance, model.height(theta, x))
        return Data(x, y, scale, np.ones_like(scale), DELTA, _mixing(x, scale, self.misfit * self.sigma))

    def noise(self, i: int) -> Noise:
        """One option."""
        return Noise(*(float(v[i]) for v in (self.sigma, self.growth, self.wall, self.misfit)))


def _mixing(x: Columns, scale: Array, misfit: Array) -> Array:
    """Whitens residuals in units of their scale (b, n) that share a smooth misfit (b,); (b, n, n)."""
    apart = sum((x[name][:, None] - x[name]) ** 2 for name in ("params", "tokens"))
    alike = np.exp(-0.5 * np.asarray(apart) / REACH**2)
    share = misfit[:, None] / scale
    covariance = np.eye(scale.shape[1]) + share[:, :, None] * share[:, None, :] * alike
    return np.asarray(np.linalg.inv(np.linalg.cholesky(covariance)))


def _mode(model: Model, x: Columns, y: Array, distance: Array, like: Fit | None) -> _Mode:
    """The posterior mode over parameters and noise.

    Sigma is the fixed point of its posterior mean given the residuals; growth, wall and misfit are the
    ones of a few with the highest Laplace evidence. All of them are refined side by side.
    """
    if like is None:
        grid = np.meshgrid(GROWTHS, WALLS, MISFITS, indexing="ij")
        growth, wall, misfit = (values.ravel() for values in grid)
        sigma = np.full(len(growth), 2.0 * SIGMA)
        theta = np.tile(_start(model, x, y, distance), (len(growth), 1))
    else:
        known = like.noise
        sigma, growth, wall, misfit = (
            np.array([v]) for v in (known.sigma, known.growth, known.wall, known.misfit)
        )
        theta = like.theta[None]
    options = _Options(sigma, growth, wall, misfit)
    for _ in range(ROUNDS):
        data = options.data(model, x, y, theta, distance)
        theta, objective = minimise_many(model.evaluate, theta, data, model.prior, iterations=3)
        information, sigma, degrees = _sigma(model, data, theta, options.sigma)
        options = replace(options, sigma=sigma)
    evidence = _evidence(data, options, objective, information)
    best = int(np.argmax(evidence))
    one = options.data(model, x, y, theta, distance)
    assert one.mixing is not None
    chosen = Data(x, y, one.scale[best], one.weight[best], DELTA, one.mixing[best])
    solution = minimise(model.evaluate, theta[best], chosen, model.prior, iterations=30, tolerance=1e-7)
    return _Mode(solution, options.noise(best), float(degrees[best]), chosen, float(evidence[best]))


def _start(model: Model, x: Columns, y: Array, distance: Array) -> Array:
    """The best of a few starts after some steps each: variable projections of the law, crossed with
    learning rates below and above the middle; (p,)."""
    law = model.law.start(x, np.exp(y), np.ones(len(y)))[:3]
    bowl = np.tile(model.prior.mean[model.split :], (len(LR_STARTS), 1))
    names = [parameter.name for parameter in model.surface.parameters]
    if "lr*" in names:
        bowl[:, names.index("lr*")] = LR_STARTS
    else:
        bowl = bowl[:1]
    starts = np.hstack([np.repeat(law, len(bowl), axis=0), np.tile(bowl, (len(law), 1))])
    scale = _scale(3.0 * SIGMA, GROWTH, WALL, distance, model.height(starts, x))
    data = Data(x, y, scale, np.ones_like(scale), DELTA)
    theta, objective = minimise_many(model.evaluate, starts, data, model.prior, iterations=12)
    return np.asarray(theta[np.argmin(objective)])


def _sigma(model: Model, data: Data, theta: Array, sigma: Array) -> tuple[Array, Array, Array]:
    """Information (b, p, p), posterior mean of sigma and residual degrees of freedom, (b,) each."""
    residual, slope = whitened(data, *model.evaluate(theta, data.x))
    residual = np.clip(residual, -DELTA, DELTA)
    gram = np.swapaxes(slope, 1, 2) @ slope
    information = gram + np.diag(model.prior.precision)
    used = np.trace(np.linalg.solve(information, gram), axis1=1, axis2=2)
    degrees = np.maximum(residual.shape[1] - used, 0.0)
    seen = SIGMA_WEIGHT * (SIGMA / sigma) ** 2 + np.sum(residual**2, axis=1) / CLIPPED
    return information, sigma * np.sqrt(seen / (SIGMA_WEIGHT + degrees)), degrees


def _evidence(data: Data, options: _Options, objective: Array, information: Array) -> Array:
    """Laplace approximation of ln p(y | noise) with weak log-normal priors, up to a constant; (b,)."""
    assert data.mixing is not None
    spread = np.sum(np.log(data.scale), axis=1) - np.linalg.slogdet(data.mixing)[1]
    curvature = 0.5 * np.linalg.slogdet(information)[1]
    prior = SIGMA_WEIGHT * (np.log(options.sigma) + 0.5 * (SIGMA / options.sigma) ** 2)
    tried = ((options.growth, GROWTH), (options.wall, WALL), (options.misfit, MISFIT))
    for value, middle in tried:
        prior = prior + 0.5 * np.log(value / middle) ** 2
    return np.asarray(-objective - spread - curvature - prior)


def _sample(model: Model, data: Data, theta: Array, rng: np.random.Generator, draws: int) -> Array:
    """Posterior draws by refitting, all at once.

    One half adds noise to observations and priors (randomised maximum likelihood, exact for linear
    laws); the other weighs runs by standard exponentials (the Bayesian bootstrap, Rubin 1981).
    """
    half, n, prior = draws // 2, len(data.y), model.prior
    assert data.mixing is not None
    mean = prior.mean + rng.standard_normal((draws, len(theta))) / np.sqrt(prior.precision)
    noise = np.linalg.solve(data.mixing, rng.standard_normal((n, draws))).T * data.scale
    perturbed = (np.arange(draws) < half)[:, None]
    weight = np.where(perturbed, 1.0, rng.standard_exponential((draws, n)))
    many = replace(data, y=np.where(perturbed, data.y + noise, data.y), weight=weight, delta=2 * DELTA)
    start = np.tile(theta, (draws, 1))
    return minimise_many(model.evaluate, start, many, Prior(mean, prior.precision), iterations=6)[0]


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
