"""How much each candidate run would tell about the targets.

All laws are linearised at their modes and joined into one Gaussian over features: for law m with
weight w, covariance S = K K' and gradient g, a configuration has the features sqrt(w) K'g, and one
more per law, sqrt(w) (f - mean f), for the disagreement between laws. The covariance of ln L at two
configurations is then the product of their features, and observing one is a rank-one update (the
target-variance or V-optimal design; Fedorov 1972, and arXiv 2604.22753 for scaling laws).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.ensemble import Ensemble
from sweeps.laws.base import Array
from sweeps.model import Frame, Model, models
from sweeps.noise import MISFIT, NUS, SIGMA, WALL, Noise
from sweeps.space import Table, tabulate_configs
from sweeps.spec import Config, SweepSpec


@dataclass(frozen=True)
class Belief:
    """One law in a design.

    Args:
        model: law and surface.
        weight: of the law.
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
        rows: (r, f): ln L at each target, then the optimum of each hyperparameter there.
        price: (r,): weight of each row's variance in the total, in squared relative loss.
    """

    rows: Array
    price: Array


class Knowledge:
    """The Gaussian over features; ``observe`` is the only change."""

    def __init__(self, features: int) -> None:
        self.covariance = np.eye(features)

    def gain(self, rows: Array, variance: Array, question: Question) -> Array:
        """Drop of the question's total variance by each candidate.

        Args:
            rows: (n, f) features.
            variance: (n,) of the observation's noise.

        Returns:
            (n,).
        """
        spread = rows @ self.covariance
        own = np.einsum("nf,nf->n", spread, rows)
        cross = spread @ question.rows.T
        return np.asarray((cross**2 @ question.price) / (variance + own))

    def observe(self, row: Array, variance: float) -> None:
        """Takes in one run of these features (f,), whatever its outcome."""
        spread = self.covariance @ row
        self.covariance = self.covariance - np.outer(spread, spread) / (variance + row @ spread)

    def variances(self, rows: Array) -> Array:
        """Variance of each row, (n,)."""
        return np.asarray(np.einsum("nf,fg,ng->n", rows, self.covariance, rows))


def beliefs(spec: SweepSpec, frame: Frame, ensemble: Ensemble | None) -> list[Belief]:
    """The laws as a design sees them: fitted, or by their priors alone before there is a fit."""
    if ensemble is None:
        family = models(spec.laws.names, frame.surface)
        return [_unseen(model, frame, 1.0 / len(family)) for model in family]
    return [
        Belief(
            model,
            member.weight,
            member.fit.theta,
            member.fit.covariance,
            member.fit.noise,
            member.fit.loss_centre,
        )
        for model, member in ensemble.pairs(frame.surface)
    ]


def _unseen(model: Model, frame: Frame, weight: float) -> Belief:
    features = 0 if frame.misfit is None else len(frame.misfit.points)
    prior = model.prior(features, np.array([MISFIT]))
    covariance = np.diag(1.0 / prior.precision[0])
    return Belief(model, weight, prior.mean, covariance, Noise(SIGMA, NUS[-1], WALL, MISFIT), 0.0)


def features(family: list[Belief], frame: Frame, table: Table) -> tuple[Array, Array]:
    """Features (n, f) and noise variance (n,) of the rows of a table."""
    x = frame.columns(table)
    blocks, values, variances = [], [], []
    for belief in family:
        value, gradient = belief.model.evaluate(belief.theta, x)
        root = _root(belief.covariance)
        blocks.append(np.sqrt(belief.weight) * (gradient @ root))
        values.append(value + belief.loss_centre)
        height = belief.model.height(belief.theta, x)
        variances.append(belief.weight * belief.noise.variance(height))
    weights = np.array([belief.weight for belief in family])
    stacked = np.stack(values, axis=1)
    between = (stacked - stacked @ weights[:, None]) * np.sqrt(weights)
    return np.concatenate([*blocks, between], axis=1), np.sum(variances, axis=0)


def question(spec: SweepSpec, family: list[Belief], frame: Frame, targets: Sequence[Config]) -> Question:
    """The targets' ln L and their optimal hyperparameters, priced by the regret they cause.

    A hyperparameter off by z costs k z^2, so its variance V costs the expected regret k V. Regret
    enters the total squared, as the loss does; its slope in V is 2 k^2 V.

    Args:
        targets: configurations asked about, with the settings expected to be best.
    """
    table = tabulate_configs(spec, targets)
    rows, price = [features(family, frame, table)[0]], [np.ones(len(targets))]
    x = frame.columns(table)
    width = rows[0].shape[1]
    for axis in frame.surface.axes:
        block, curvature, at = np.zeros((len(targets), width)), 0.0, 0
        for belief in family:
            p = len(belief.theta)
            slope = np.zeros((len(targets), p))
            offset = belief.model.split + _offset(belief, axis.name)
            slope[:, offset] = 1.0
            for i, (column, _, _) in enumerate(axis.slopes, start=1):
                slope[:, offset + i] = x[column]
            block[:, at : at + p] = np.sqrt(belief.weight) * (slope @ _root(belief.covariance))
            at += p
            bowl = belief.theta[belief.model.split : len(belief.model.parameters)]
            curvature += belief.weight * float(belief.model.surface.curvature(bowl)[axis.name])
        rows.append(block)
        price.append(2.0 * curvature**2 * np.einsum("rf,rf->r", block, block))
    return Question(np.concatenate(rows), np.concatenate(price))


def _root(covariance: Array) -> Array:
    """K with K K' = S, also where rounding has left S barely indefinite."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _offset(belief: Belief, name: str) -> int:
    """Where the parameters of a surface's axis begin."""
    offset = 0
    for axis in belief.model.surface.axes:
        if axis.name == name:
            return offset
        offset += len(axis.parameters)
    raise KeyError(name)
