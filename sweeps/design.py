"""How much each candidate run would tell about the targets.

All laws are linearised at their modes and joined into one Gaussian over features: for law m with
weight w, covariance S = K K' and gradient g, a configuration has the features sqrt(w) K'g, and one
more per law, sqrt(w) (f - mean f), for the disagreement between laws. The covariance of ln L at two
configurations is then the product of their features, and observing one is a rank-one update (the
target-variance or V-optimal design; Fedorov 1972, and arXiv 2604.22753 for scaling laws).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from sweeps.ensemble import Ensemble
from sweeps.laws.base import Array, Columns
from sweeps.model import FEATURES, Frame, Model
from sweeps.noise import MISFIT, NUS, SIGMA, WALL, Noise

SLIGHT = 0.02  # weight of a fit below which a design leaves it out
STEP = 0.2  # e-folds of parameters over which the curvature along equal compute is taken
NUDGE = 1e-4  # of a parameter, for the gradient of the optimal split
ROWS = 32  # targets at most that a question keeps apart
FARTHEST = 0.25  # variance of a setting up to which the loss around it is a parabola


@dataclass(frozen=True)
class Belief:
    """One law in a design.

    Args:
        model: law and surface.
        weight: share; those of all beliefs sum to 1.
        theta, covariance: (p,), (p, p).
        noise: of a run.
        loss_centre: added to ln L.
    """

    model: Model
    weight: float
    theta: Array
    covariance: Array
    noise: Noise
    loss_centre: float


@dataclass(frozen=True)
class Question:
    """What is to become certain, as features.

    Args:
        rows: (r, f): ln L at each target, then the optimum of each hyperparameter there, then the split.
        price: (r,): weight of each row's variance in the total, in squared relative loss.
        subjects: (r,) names of what each row is: ``loss``, a hyperparameter, or ``split``.
    """

    rows: Array
    price: Array
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class Prospect:
    """What candidates would tell, given those taken so far: the Gaussian seen from them and the question.

    Args:
        rows, variance: features (n, f) of the candidates and noise of an observation there (n,).
        asked: the question.
        taken: (f, t): what each run taken has told, so that the covariance is 1 - taken taken'.
        own, cross: variance of ln L at each candidate (n,) and its covariance with the question (n, r).
        left: variance of the question's rows, (r,).
    """

    rows: Array
    variance: Array
    asked: Question
    taken: Array
    own: Array
    cross: Array
    left: Array

    @classmethod
    def of(cls, rows: Array, variance: Array, asked: Question) -> Prospect:
        """Before anything is taken."""
        none = np.zeros((rows.shape[1], 0))
        own, left = (np.einsum("nf,nf->n", some, some) for some in (rows, asked.rows))
        return cls(rows, variance, asked, none, own, rows @ asked.rows.T, left)

    @property
    def total(self) -> float:
        """Variance of the whole question."""
        return float(self.left @ self.asked.price)

    def gain(self) -> Array:
        """Drop of the question's total variance by each candidate, (n,)."""
        return np.asarray((self.cross**2 @ self.asked.price) / (self.variance + self.own))

    def covary(self, row: Array) -> Array:
        """Covariance of every feature with a configuration of features (f,), (f,)."""
        return np.asarray(row - self.taken @ (self.taken.T @ row))

    def observe(self, row: Array, variance: float) -> Prospect:
        """After a run of these features (f,), whatever its outcome."""
        spread = self.covary(row)
        spread = spread / np.sqrt(variance + row @ spread)
        told, answer = self.rows @ spread, self.asked.rows @ spread
        return replace(
            self,
            taken=np.column_stack([self.taken, spread]),
            own=self.own - told**2,
            cross=self.cross - np.outer(told, answer),
            left=self.left - answer**2,
        )

    def take(self, index: int) -> Prospect:
        """After a run of one of the candidates."""
        return self.observe(self.rows[index], float(self.variance[index]))

    def among(self, chosen: NDArray[np.intp]) -> Prospect:
        """With some of the candidates."""
        own, cross = self.own[chosen], self.cross[chosen]
        return replace(self, rows=self.rows[chosen], variance=self.variance[chosen], own=own, cross=cross)


def beliefs(family: Sequence[Model], frame: Frame, ensemble: Ensemble | None) -> list[Belief]:
    """The laws as a design sees them: fitted, or by their priors alone before there is a fit."""
    if ensemble is None:
        return [_unseen(model, frame, 1.0 / len(family)) for model in family]
    weighty = [pair for pair in ensemble.pairs(frame.surface) if pair[1].weight >= SLIGHT]
    total = sum(member.weight for _, member in weighty)
    return [
        Belief(
            model,
            member.weight / total,
            member.fit.theta,
            member.fit.covariance * member.stretch**2,
            member.fit.noise,
            member.fit.loss_centre,
        )
        for model, member in weighty
    ]


def _unseen(model: Model, frame: Frame, weight: float) -> Belief:
    features = 0 if frame.misfit is None else len(frame.misfit.points)
    prior = model.prior(features, np.array([MISFIT]))
    covariance = np.diag(1.0 / prior.precision[0])
    return Belief(model, weight, prior.mean, covariance, Noise(SIGMA, NUS[-1], WALL, MISFIT), 0.0)


def features(family: Sequence[Belief], frame: Frame, x: Columns) -> tuple[Array, Array]:
    """Features (n, f) and noise variance (n,) of rows.

    What a law gets wrong below the target is smooth in a fit. A design does not count on that: it takes as
    much again to differ from run to run, so that many cheap runs do not stand for one near the target.
    """
    far = 0.0 if frame.misfit is None else frame.misfit.distance(x)
    blocks, values, variances = [], [], []
    for belief in family:
        value, gradient, height = belief.model.survey(belief.theta, x)
        blocks.append(np.sqrt(belief.weight) * (gradient @ _root(belief.covariance)))
        values.append(value + belief.loss_centre)
        apart = belief.noise.variance(height, x) + (belief.noise.misfit * far) ** 2
        variances.append(belief.weight * apart)
    weights = np.array([belief.weight for belief in family])
    stacked = np.stack(values, axis=1)
    between = (stacked - stacked @ weights[:, None]) * np.sqrt(weights)
    return np.concatenate([*blocks, between], axis=1), np.sum(variances, axis=0)


def question(
    family: Sequence[Belief], frame: Frame, x: Columns, weights: Mapping[str, float] = MappingProxyType({})
) -> Question:
    """The targets' ln L, their optimal hyperparameters and split, priced by the regret they cause.

    What is set off by z costs k z^2, so its variance V costs the expected regret k V. Regret enters the
    total squared, as the loss does; its slope in V is 2 k^2 V.

    Args:
        weights: of ``loss``, of each hyperparameter and of ``split``, beside that price; 1 where not given.
        x: columns of the targets with the settings expected to be best; of more than ``ROWS``, some,
            evenly over compute.
    """
    order = np.argsort(x["flops"], kind="stable")
    kept = order[np.unique(np.linspace(0, len(order) - 1, min(ROWS, len(order))).astype(int))]
    x = {name: column[kept] for name, column in x.items()}
    losses, _ = features(family, frame, x)
    n, width = losses.shape
    rows, price, subjects = [losses], [np.full(n, 1.0 / n)], ["loss"] * n
    last = {name: column[-1:] for name, column in x.items()}
    for axis in frame.surface.axes:
        block, curvature = np.zeros((1, width)), 0.0
        for belief, at in _blocks(family):
            slope = np.zeros((1, len(belief.theta)))
            offset = belief.model.split + belief.model.surface.offsets[axis.name]
            slope[:, offset] = 1.0
            for i, (column, _, _) in enumerate(axis.slopes, start=1):
                slope[:, offset + i] = last.get(column, 0.0)
            block[:, at] = np.sqrt(belief.weight) * (slope @ _root(belief.covariance))
            bowl = belief.theta[belief.model.split : len(belief.model.parameters)]
            curvature += belief.weight * float(belief.model.surface.curvature(bowl)[axis.name])
        rows.append(block)
        price.append(_regret(curvature, block))
        subjects.append(axis.name)
    if {"params", "tokens"} <= set(frame.sources):
        block, curvature = _split(family, frame, last, width)
        rows.append(block)
        price.append(_regret(curvature, block))
        subjects.append("split")
    asked = np.array([weights.get(subject, 1.0) for subject in subjects])
    return Question(np.concatenate(rows), asked * np.concatenate(price), tuple(subjects))


def _regret(curvature: float, block: Array) -> Array:
    """Price of the variance of a setting with features (1, f)."""
    return np.asarray(2.0 * curvature**2 * np.minimum(np.sum(block**2, axis=1), FARTHEST))


def _split(family: Sequence[Belief], frame: Frame, x: Columns, width: int) -> tuple[Array, float]:
    """Features (1, f) of ln N* at the compute of one row, and half the second derivative of ln L along
    equal compute there."""
    block, curvature = np.zeros((1, width)), 0.0
    product = x["params"] + x["tokens"] + frame.centre["params"] + frame.centre["tokens"]
    for belief, at in _blocks(family):
        law, p = belief.model.law, belief.model.split
        if law.split is None:
            continue
        centre = dict(frame.centre) | {"loss": belief.loss_centre}
        nudged = belief.theta[:p] + np.concatenate([NUDGE * np.eye(p), -NUDGE * np.eye(p), np.zeros((1, p))])
        best = law.split(nudged, centre, np.broadcast_to(product, len(nudged)))
        if not np.all(np.isfinite(best)):
            continue
        slope = np.zeros(len(belief.theta))
        slope[:p] = (best[:p] - best[p:-1]) / (2.0 * NUDGE)
        block[0, at] = np.sqrt(belief.weight) * (slope @ _root(belief.covariance))
        n = best[-1] - frame.centre["params"] + np.array([-STEP, 0.0, STEP])
        along = {name: np.repeat(column, 3, axis=0) for name, column in x.items() if name != FEATURES}
        along |= {"params": n, "tokens": x["params"] + x["tokens"] - n}
        left, middle, right = law.log_loss(belief.theta[:p], along)
        curvature += belief.weight * max(0.0, float(left - 2.0 * middle + right)) / (2.0 * STEP**2)
    return block, curvature


def _blocks(family: Sequence[Belief]) -> list[tuple[Belief, slice]]:
    """Each law with its place among the features."""
    ends = np.cumsum([0, *(len(belief.theta) for belief in family)])
    return [(belief, slice(ends[i], ends[i + 1])) for i, belief in enumerate(family)]


def _root(covariance: Array) -> Array:
    """K with K K' = S, also where rounding has left S barely indefinite."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
