"""The options of one fit side by side: each a description of the noise, with the parameters it leads to.

Tails of the noise, walls around the optimum and the size of the misfit are hyperparameters. All
combinations of a few values are refined at once, and those that explain the runs far worse are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from sweeps.laws.base import Array, Columns
from sweeps.model import FEATURES, Model
from sweeps.noise import MISFIT, MISFITS, NORMAL, NUS, SIGMA, WALL, WALLS, WEIGHT, Noise, Seeds, seeds
from sweeps.noise import scale as noise_scale
from sweeps.robust import Huber, Student
from sweeps.solve import Data, Prior, minimise_many, objective, scaled

LR_STARTS = (0.0, -1.0, 1.0)
ROUNDS, STEPS = 16, 4  # of refining sigma, and of the parameters in each
PRUNED = 3  # rounds after which options far from the best are dropped
NATS = 10.0  # of evidence below the best that is far
STILL = 1e-4  # relative change of objective and sigma in a round after which no further one is needed
NEAR_STILL = 1e-3  # the same for options that are chosen already and start near their modes
ROWS = 256  # runs that a start is looked for among


@dataclass(frozen=True)
class Options:
    """Options side by side, b of them, and what was found for each.

    Args:
        sigma, nu, wall, misfit: of the noise, (b,).
        theta: (b, p + m).
        objective, degrees, evidence: (b,).
        moved: (b,), drop of the objective in the last round.
        information: (b, p + m, p + m), prior included.
        features: m, of the misfit.
        seeds: what replicates say of sigma.
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
    seeds: Seeds

    @classmethod
    def every(cls, model: Model, x: Columns, y: Array, start: Array, *, normal: bool = False) -> Options:
        """All combinations, before the first round; ``normal`` noise alone if asked."""
        features = x[FEATURES].shape[1] if FEATURES in x else 0
        walls = WALLS if model.surface.axes else (WALL,)
        grid = product((NORMAL,) if normal else NUS, walls, MISFITS if features else (MISFIT,))
        known = [Noise(2.0 * SIGMA, *combination) for combination in grid]
        theta = np.zeros((len(known), len(model.parameters) + model.weights(features)))
        theta[:, : len(model.parameters)] = start
        return cls.like(known, theta, features, seeds(x, y))

    @classmethod
    def like(cls, known: Sequence[Noise], theta: Array, features: int, told: Seeds) -> Options:
        """Given ones, (b,), with parameters (b, p + m), before the first round."""
        sigma, nu, wall, misfit = np.array([(n.sigma, n.nu, n.wall, n.misfit) for n in known]).T
        none, p = np.zeros(len(known)), theta.shape[1]
        empty = np.zeros((len(known), p, p))
        return cls(sigma, nu, wall, misfit, theta, none, none, none, none, empty, features, told)

    def data(self, model: Model, x: Columns, y: Array, rows: Sequence[int] | slice = slice(None)) -> Data:
        """The observations as options see them with the bowl of their theta."""
        height = model.height(self.theta[rows], x)
        scale = noise_scale(height, x, self.sigma[rows, None], self.wall[rows, None], self.seeds.slope)
        return Data(x, y, scale, np.ones_like(scale), Student(self.nu[rows, None]))

    def noise(self, i: int) -> Noise:
        """Of one option."""
        sigma, nu, wall, misfit = (float(v[i]) for v in (self.sigma, self.nu, self.wall, self.misfit))
        return Noise(sigma, nu, wall, misfit, self.seeds.slope)

    def best(self) -> Options:
        """Without the options that are far from the best."""
        keep = np.flatnonzero(self.evidence > self.evidence.max() - NATS)
        rest = ("features", "seeds")
        arrays: dict[str, Any] = {name: v[keep] for name, v in vars(self).items() if name not in rest}
        return replace(self, **arrays)


def refine(state: Options, model: Model, x: Columns, y: Array, *, chosen: bool = False) -> Options:
    """Steps of the parameters and of sigma in turn; sigma is the fixed point of its posterior mode.

    A part of the runs is enough to tell which options are worth all of them.

    Args:
        chosen: whether they are known to be, and start near their modes.
    """
    part, part_y = _thinned(model, x, y, 2 * ROWS)
    pruned, still = (0, NEAR_STILL) if chosen else (PRUNED, STILL)
    for done in range(ROUNDS):
        prior = model.prior(state.features, state.misfit)
        data = state.data(model, part, part_y) if done < pruned else state.data(model, x, y)
        theta, objective = minimise_many(model.evaluate, state.theta, data, prior, iterations=STEPS)
        sigma = state.sigma
        state = _weigh(replace(state, theta=theta), model, data, prior, objective)
        if done + 1 == pruned:
            state = state.best()
        elif done > pruned and np.all((state.moved < still) & (np.abs(state.sigma / sigma - 1.0) < still)):
            break
    return state


def describe(state: Options, model: Model, x: Columns, y: Array, huber: Huber) -> Options:
    """The noise around parameters that Huber's loss has chosen, and how well it can tell them."""
    for _ in range(ROUNDS):
        prior, data, sigma = model.prior(state.features, state.misfit), state.data(model, x, y), state.sigma
        size = objective(model.log_loss(state.theta, x), state.theta, data, prior)
        state = _weigh(state, model, data, prior, size, huber)
        if np.all(np.abs(state.sigma / sigma - 1.0) < STILL):
            break
    return state


def _weigh(
    state: Options, model: Model, data: Data, prior: Prior, objective: Array, huber: Huber | None = None
) -> Options:
    """New sigma, information, degrees of freedom and evidence of every option."""
    loss = data.loss
    assert isinstance(loss, Student)
    residual, slope = scaled(data, *model.evaluate(state.theta, data.x))
    pull = loss.pull(residual)
    told = loss.information() if huber is None else huber.information(loss, state.sigma[:, None])
    gram = np.swapaxes(slope, 1, 2) @ slope * told[:, :, None]
    information = gram.copy()
    at = np.arange(gram.shape[1])
    information[:, at, at] += prior.precision
    used = np.trace(np.linalg.solve(information, gram), axis1=1, axis2=2)
    degrees = np.maximum(residual.shape[1] - used, 0.0)
    before, worth = state.seeds.scale(state.nu), state.seeds.worth
    seen = np.sum(pull * residual, axis=1) + worth * (before / state.sigma) ** 2
    root = np.sqrt(prior.precision)
    volume = np.linalg.slogdet(information / root[:, :, None] / root[:, None, :])[1]
    spread = np.sum(np.log(data.scale), axis=1) - residual.shape[1] * loss.normaliser()[:, 0]
    known = worth * (np.log(state.sigma / before) + 0.5 * (before / state.sigma) ** 2)
    walls = 0.5 * np.log(state.wall / WALL) ** 2
    misfits = 0.5 * np.log(state.misfit / MISFIT) ** 2 if state.features else 0.0
    moved = np.abs(objective - state.objective) / np.maximum(np.abs(objective), 1.0)
    return replace(
        state,
        sigma=state.sigma * np.sqrt(seen / (worth + degrees)),
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


def start(model: Model, x: Columns, y: Array) -> tuple[Array, int]:
    """The best of many starts after some steps each: those of the law, crossed with learning rates below
    and above the middle; and how many different minima are about as good."""
    x, y = _thinned(model, x, y, ROWS)
    law = model.law.start(x, np.exp(y), x.get(WEIGHT, np.ones(len(y))))
    prior = model.prior(0, np.ones(1))
    bowl = np.tile(prior.mean[model.split :], (len(LR_STARTS), 1))
    names = [parameter.name for parameter in model.surface.parameters]
    if "lr*" in names:
        bowl[:, names.index("lr*")] = LR_STARTS
    else:
        bowl = bowl[:1]
    starts = np.hstack([np.repeat(law, len(bowl), axis=0), np.tile(bowl, (len(law), 1))])
    plain = {name: column for name, column in x.items() if name != FEATURES}
    scale = model.scale(Noise(3.0 * SIGMA, NUS[0], WALL, MISFIT), starts, plain)
    data = Data(plain, y, scale, np.ones_like(scale), Student(np.array([[NUS[0]]])))
    theta, objective = minimise_many(model.evaluate, starts, data, prior, iterations=12)
    best = int(np.argmin(objective))
    near = objective < objective[best] + 1.0
    apart = np.linalg.norm((theta[near] - theta[best]) * np.sqrt(prior.precision[0]), axis=1) > 0.5
    return theta[best], 1 + int(apart.any())
