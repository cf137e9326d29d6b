"""Fitting one law to finished runs, with everything that makes its answer uncertain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweeps.errors import FitError
from sweeps.laws.base import Array, Columns
from sweeps.model import Model
from sweeps.noise import Noise
from sweeps.options import Options, refine, start
from sweeps.robust import Student
from sweeps.solve import Data, objective

SHARE = 0.03  # of the posterior below which an option is left out
KEPT = 4  # options at most
MOVES, MOVE = 24, 0.4  # steps of every draw, and their size
EFFORT = 5e5  # draws times runs up to which draws are moved
SETTLED = 1e-3  # relative drop of the objective in the last round that is negligible


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


def fit(model: Model, x: Columns, loss: Array, *, like: Sequence[Fit] | None = None) -> list[Fit]:
    """Fits a law with its bowl and its misfit to observations by maximum posterior.

    Tails of the noise, walls and the size of the misfit are hyperparameters: each combination of a few
    values is an option of its own, weighed by its evidence.

    Args:
        model: law and surface.
        x: columns, each (n,); the misfit's features (n, m) where there is one.
        loss: (n,), above 0.
        like: fits to start from, whose options are kept; None tries all.

    Returns:
        The options that matter, most probable first, without draws.

    Raises:
        FitError: when there are fewer than 3 observations or a loss is not a positive number.
    """
    if len(loss) < 3:
        raise FitError(f"{len(loss)} observations given; a fit takes at least 3")
    if not (np.all(np.isfinite(loss)) and np.all(loss > 0)):
        raise FitError("a loss is not a positive number; laws are fitted to ln L")
    loss_centre = float(np.mean(np.log(loss)))
    y = np.log(loss) - loss_centre
    if like is None:
        begin, basins = start(model, x, y)
        options = Options.every(model, x, begin)
    else:
        basins, theta = like[0].basins, np.array([one.theta for one in like])
        options = Options.like([one.noise for one in like], theta, theta.shape[1] - len(model.parameters))
    state = refine(options, model, x, y)
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


def sample(
    model: Model,
    one: Fit,
    x: Columns,
    loss: Array,
    centre: Mapping[str, float],
    rng: np.random.Generator,
    draws: int,
) -> Fit:
    """A fit with posterior draws and the intervals of its constants.

    Draws are normal about the mode at first. Each is then a Markov chain of preconditioned Crank-Nicolson
    steps (Cotter et al. 2013, arXiv 1202.0709), which leave the normal approximation as it is where that
    is exact and move it to the posterior where it is poor. With very many runs the steps are left out.

    Args:
        one: of the model to these observations.
        centre: of the columns.
        draws: how many.
    """
    y = np.log(loss) - one.loss_centre
    noise, features = one.noise, len(one.theta) - len(model.parameters)
    scale = noise.scale(model.height(one.theta, x))
    data = Data(x, y, scale, np.ones(len(y)), Student(np.array([noise.nu])))
    prior = model.prior(features, np.array([noise.misfit]))
    root = np.linalg.cholesky(one.covariance)

    def excess(place: Array) -> Array:
        """Minus ln of the posterior over its normal approximation."""
        theta = one.theta + place @ root.T
        with np.errstate(all="ignore"):
            exact = objective(model.log_loss(theta, x), theta, data, prior)
        return np.asarray(np.where(np.isfinite(exact), exact, np.inf) - 0.5 * np.sum(place**2, axis=1))

    place = rng.standard_normal((draws, len(one.theta)))
    if draws * len(y) <= EFFORT:
        known = excess(place)
        for _ in range(MOVES):
            moved = np.sqrt(1.0 - MOVE**2) * place + MOVE * rng.standard_normal(place.shape)
            offered = excess(moved)
            taken = np.log(rng.random(draws)) < known - offered
            place, known = np.where(taken[:, None], moved, place), np.where(taken, offered, known)
    found = np.asarray(one.theta + place @ root.T)
    constants = _constants(model, one.theta, found, dict(centre) | {"loss": one.loss_centre})
    return replace(one, draws=found, constants=constants)


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
