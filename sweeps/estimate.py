"""Fitting one law to finished runs, with everything that makes its answer uncertain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from sweeps.errors import FitError
from sweeps.laws.base import Array, Columns
from sweeps.model import MISFIT, Model
from sweeps.robust import Student
from sweeps.solve import Data, Prior, minimise_many, objective, scaled

SIGMA, SIGMA_WEIGHT = 0.008, 3.0  # relative noise before any is seen, worth that many runs
NUS = (3.0, 30.0)  # tails of the noise that are tried: heavy, and next to normal
WALLS, WALL = (0.05, 0.15), 0.1
MISFITS, MISFIT_MIDDLE = (0.0003, 0.001, 0.003, 0.01), 0.002  # by e-fold of compute below the target
LR_STARTS = (0.0, -1.0, 1.0)
ROUNDS, STEPS = 10, 4  # of refining sigma, and of the parameters in each
PRUNED = 3  # rounds after which options far from the best are dropped
NATS = 10.0  # of evidence below the best that is far
SHARE = 0.03  # of the posterior below which an option is left out
KEPT = 4  # options at most
MOVES, MOVE = 24, 0.4  # steps of every draw, and their size
EFFORT = 5e5  # draws times runs up to which draws are moved
SETTLED = 1e-3  # relative drop of the objective in the last round that is negligible
ROWS = 256  # runs that a start is looked for among


@dataclass(frozen=True)
class Noise:
    """How far runs lie from the law, relative.

    Independent noise is Student's t of the scale sqrt(sigma^2 + (wall h)^2), with h the height of the bowl
    at the run: a law is only asked to hold near the optimal hyperparameters. The law's own misfit comes on
    top of it (see ``sweeps.misfit``).

    Args:
        sigma: of a run with the optimal hyperparameters.
        nu: degrees of freedom.
        wall: by height of the bowl.
        misfit: standard deviation by e-fold of compute below the target.
    """

    sigma: float
    nu: float
    wall: float
    misfit: float

    def scale(self, height: Array) -> Array:
        """Scale of ln L for runs at a height of the bowl, (n,)."""
        return np.hypot(self.sigma, self.wall * height)

    def variance(self, height: Array) -> Array:
        """Variance of ln L as its middle 90 % suggest, (n,)."""
        return np.asarray(self.scale(height) ** 2 * (1.0 + 3.0 / self.nu))


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
    start, basins = _start(model, x, y) if like is None else (like[0].theta, like[0].basins)
    state = _refine(_State.of(model, x, start, like), model, x, y)
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


@dataclass(frozen=True)
class _State:
    """Options side by side, b of them, and what was found for each.

    Args:
        sigma, nu, wall, misfit: of the noise, (b,).
        theta: (b, p + m).
        objective, degrees, evidence: (b,).
        moved: (b,), drop of the objective in the last round.
        information: (b, p + m, p + m), prior included.
    """

    sigma: Array
    nu: Array
    wall: Array
    misfit: Array
    theta: Array
    objective: Array
    degrees: Array
    evidence: Array
    moved: Array
    information: Array
    features: int

    @classmethod
    def of(cls, model: Model, x: Columns, start: Array, like: Sequence[Fit] | None) -> _State:
        """All combinations, or those of given fits, before the first round."""
        features = x[MISFIT].shape[1] if MISFIT in x else 0
        if like is None:
            walls = WALLS if model.surface.axes else (WALL,)
            grid = np.array(list(product(NUS, walls, MISFITS if features else (1.0,))))
            nu, wall, misfit = grid.T
            sigma = np.full(len(grid), 2.0 * SIGMA)
            named = len(model.parameters)
            theta = np.zeros((len(grid), named + features))
            theta[:, :named] = start
        else:
            sigma, nu, wall, misfit = np.array(
                [(one.noise.sigma, one.noise.nu, one.noise.wall, one.noise.misfit) for one in like]
            ).T
            theta = np.array([one.theta for one in like])
        none = np.zeros(len(sigma))
        p = theta.shape[1]
        return cls(
            sigma, nu, wall, misfit, theta, none, none, none, none, np.zeros((len(sigma), p, p)), features
        )

    def data(self, model: Model, x: Columns, y: Array, rows: Sequence[int] | slice = slice(None)) -> Data:
        """The observations as options see them with the bowl of their theta."""
        height = model.height(self.theta[rows], x)
        scale = np.hypot(self.sigma[rows, None], self.wall[rows, None] * height)
        return Data(x, y, scale, np.ones_like(scale), Student(self.nu[rows, None]))

    def noise(self, i: int) -> Noise:
        """Of one option."""
        return Noise(*(float(v[i]) for v in (self.sigma, self.nu, self.wall, self.misfit)))

    def best(self) -> _State:
        """Without the options that are far from the best."""
        keep = np.flatnonzero(self.evidence > self.evidence.max() - NATS)
        arrays = {name: value[keep] for name, value in vars(self).items() if name != "features"}
        return replace(self, **arrays)


def _refine(state: _State, model: Model, x: Columns, y: Array) -> _State:
    """Steps of the parameters and of sigma in turn; sigma is the fixed point of its posterior mode.

    A part of the runs is enough to tell which options are worth all of them.
    """
    part, part_y = _thinned(model, x, y, 2 * ROWS)
    for done in range(ROUNDS):
        prior = model.prior(state.features, state.misfit)
        data = state.data(model, part, part_y) if done < PRUNED else state.data(model, x, y)
        theta, objective = minimise_many(model.evaluate, state.theta, data, prior, iterations=STEPS)
        state = _weigh(replace(state, theta=theta), model, data, prior, objective)
        if done + 1 == PRUNED:
            state = state.best()
    return state


def _weigh(state: _State, model: Model, data: Data, prior: Prior, objective: Array) -> _State:
    """New sigma, information, degrees of freedom and evidence of every option."""
    loss = data.loss
    assert isinstance(loss, Student)
    residual, slope = scaled(data, *model.evaluate(state.theta, data.x))
    pull = loss.pull(residual)
    # Fisher's information of one residual, as seen: E[psi^2] = E[psi'].
    gram = np.swapaxes(slope, 1, 2) @ slope * np.mean(pull**2, axis=1)[:, None, None]
    information = gram.copy()
    at = np.arange(gram.shape[1])
    information[:, at, at] += prior.precision
    used = np.trace(np.linalg.solve(information, gram), axis1=1, axis2=2)
    degrees = np.maximum(residual.shape[1] - used, 0.0)
    seen = np.sum(pull * residual, axis=1) + SIGMA_WEIGHT * (SIGMA / state.sigma) ** 2
    root = np.sqrt(prior.precision)
    volume = np.linalg.slogdet(information / root[:, :, None] / root[:, None, :])[1]
    spread = np.sum(np.log(data.scale), axis=1) - residual.shape[1] * loss.normaliser()[:, 0]
    known = SIGMA_WEIGHT * (np.log(state.sigma) + 0.5 * (SIGMA / state.sigma) ** 2)
    walls = 0.5 * np.log(state.wall / WALL) ** 2
    misfits = 0.5 * np.log(state.misfit / MISFIT_MIDDLE) ** 2 if state.features else 0.0
    moved = np.abs(objective - state.objective) / np.maximum(np.abs(objective), 1.0)
    return replace(
        state,
        sigma=state.sigma * np.sqrt(seen / (SIGMA_WEIGHT + degrees)),
        objective=objective,
        degrees=degrees,
        evidence=-objective - spread - 0.5 * volume - known - walls - misfits,
        moved=moved,
        information=information,
    )


def _thinned(model: Model, x: Columns, y: Array, most: int) -> tuple[Columns, Array]:
    """At most so many of the runs, evenly over the law's first column."""
    if len(y) <= most:
        return x, y
    order = np.argsort(x[model.law.columns[0]], kind="stable")
    rows = order[np.linspace(0, len(y) - 1, most).astype(int)]
    return {name: column[rows] for name, column in x.items()}, y[rows]


def _start(model: Model, x: Columns, y: Array) -> tuple[Array, int]:
    """The best of many starts after some steps each: those of the law, crossed with learning rates below
    and above the middle; and how many different minima are about as good."""
    x, y = _thinned(model, x, y, ROWS)
    law = model.law.start(x, np.exp(y), np.ones(len(y)))
    prior = model.prior(0, np.ones(1))
    bowl = np.tile(prior.mean[model.split :], (len(LR_STARTS), 1))
    names = [parameter.name for parameter in model.surface.parameters]
    if "lr*" in names:
        bowl[:, names.index("lr*")] = LR_STARTS
    else:
        bowl = bowl[:1]
    starts = np.hstack([np.repeat(law, len(bowl), axis=0), np.tile(bowl, (len(law), 1))])
    plain = {name: column for name, column in x.items() if name != MISFIT}
    scale = np.hypot(3.0 * SIGMA, WALL * model.height(starts, plain))
    data = Data(plain, y, scale, np.ones_like(scale), Student(np.array([[NUS[0]]])))
    theta, objective = minimise_many(model.evaluate, starts, data, prior, iterations=12)
    best = int(np.argmin(objective))
    near = objective < objective[best] + 1.0
    apart = np.linalg.norm((theta[near] - theta[best]) * np.sqrt(prior.precision[0]), axis=1) > 0.5
    return theta[best], 1 + int(apart.any())


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
