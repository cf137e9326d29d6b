"""Losses at steps that were not trained: of a running run, under another schedule, at another length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtr, ndtri

from sweeps.curves import LAWS
from sweeps.curves.fit import LEAST_POINTS, CurveFit, Normal, Target, fit_curves, predict
from sweeps.curves.schedule import Curve, Steps, refuse
from sweeps.laws.base import Array

LEVEL = 0.9
HELD_OUT = 0.3
LEAST_WEIGHT = 1e-3
SCORED = 12
FLAT = 0.01
BISECTIONS = 60
AT_ONCE = 500
MOST_LOG = 700.0


@dataclass(frozen=True)
class Forecast:
    """Loss at n steps.

    Args:
        steps: (n,).
        loss: expected, (n,).
        low, high: between them lies the curve that scatter is about, with the level's probability, (n,).
        point_low, point_high: between them lies a measured point, (n,).
        weights: of the laws, by name.
        law: that has the largest weight.
        constants: of its formula.
    """

    steps: Steps
    loss: Array
    low: Array
    high: Array
    point_low: Array
    point_high: Array
    weights: dict[str, float]
    law: str
    constants: dict[str, float]


def mixture_quantile(q: float, mean: Array, sd: Array, weight: Array) -> Array:
    """Quantiles of mixtures of k normals by bisection.

    Args:
        q: 0 to 1.
        mean, sd: (k, n).
        weight: (k,), sum 1.

    Returns:
        (n,).
    """
    each = mean + ndtri(q) * sd
    low, high = each.min(axis=0), each.max(axis=0)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        under = weight @ ndtr((middle - mean) / np.maximum(sd, 1e-300)) < q
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return np.asarray(0.5 * (low + high))


def score(normal: Normal, log_loss: Array) -> float:
    """Log density of measured points under a prediction, all points together."""
    rest = log_loss - normal.mean
    factor = cho_factor(normal.covariance + np.diag(normal.scatter**2), lower=True)
    half = float(np.log(np.diag(factor[0])).sum())
    return -0.5 * float(rest @ cho_solve(factor, rest)) - half - 0.5 * len(rest) * float(np.log(2 * np.pi))


def _some(curve: Curve) -> tuple[Steps, Array]:
    """At most 12 of a curve's points, evenly spread: steps and ln L."""
    at = np.unique(np.linspace(0, len(curve.steps) - 1, SCORED).round().astype(int))
    return curve.steps[at], np.log(curve.loss[at])


def _own(curves: Sequence[Curve], run: str) -> Curve | None:
    """The longest curve of a run, if it was recorded at all."""
    own = [curve for curve in curves if run and run in (curve.name, curve.run)]
    return max(own, key=lambda curve: int(curve.steps[-1]), default=None)


def _flat(lr: Array, until: int) -> bool:
    """Whether the learning rate stays at its peak after warm-up."""
    return bool(np.all(lr[int(np.argmax(lr)) : until + 1] >= (1.0 - FLAT) * lr.max()))


@dataclass(frozen=True)
class Ensemble:
    """Fits of several laws, weighted by what each predicts of held-out points.

    Args:
        fits: one a law.
        weights: of the laws, sum 1.
        run: recorded run that is continued; empty for none.
    """

    fits: tuple[CurveFit, ...]
    weights: Array
    run: str


def _predictive(fit: CurveFit, kept: Sequence[Curve], held: Curve) -> float:
    """Score on the points of ``held`` of the law fitted to ``kept``, its noise as where it saw them."""
    again = fit_curves(kept, fit.law, noise=fit.noise, start=fit.theta)
    steps, log_loss = _some(held)
    return score(predict(again, [Target(held.lr, steps, held.run or held.name)]), log_loss)


def _share(scores: Array) -> Array:
    weight = np.exp(scores - scores.max())
    return np.asarray(weight / weight.sum())


def _weights(curves: Sequence[Curve], fits: Sequence[CurveFit], own: Curve | None) -> Array:
    """Weight of each law, (k,), sum 1: among laws of the schedule by the other curves, each left out in turn;
    then all by the later 30 % of the run's own points."""
    weight = np.ones(len(fits))
    joint = [i for i, fit in enumerate(fits) if not fit.law.alone]
    others = [curve for curve in curves if own is None or curve.name != own.name]
    if len(joint) > 1 and len(curves) > 1:
        scores = np.zeros(len(joint))
        for out in others:
            kept = [curve for curve in curves if curve is not out]
            if sum(len(curve.loss) for curve in kept) >= LEAST_POINTS:
                scores += [_predictive(fits[i], kept, out) for i in joint]
        weight[joint] = len(joint) * _share(scores)
    if own is not None and len(fits) > 1:
        cut = int(own.steps[0] + (1.0 - HELD_OUT) * (own.steps[-1] - own.steps[0]))
        early, late = own.steps <= cut, own.steps > cut
        if early.sum() >= LEAST_POINTS and late.sum() >= LEAST_POINTS:
            kept = [own.until(cut), *others]
            of_run = [
                _predictive(fit, kept[:1] if fit.law.alone else kept, own.since(cut + 1)) for fit in fits
            ]
            weight = weight * _share(np.array(of_run))
    weight[weight < LEAST_WEIGHT * weight.sum()] = 0.0
    return np.asarray(weight / weight.sum())


def fit_ensemble(
    curves: Sequence[Curve], *, run: str = "", laws: Sequence[str] = ("multipower", "annealing")
) -> Ensemble:
    """Fit laws to curves and weigh them.

    Laws of one run alone (``power``, ``bent``) join in where the run's learning rate stays at its peak, or
    where there is no other curve and the rate has begun to fall.

    Args:
        curves: of one model and data; among them what is recorded of the run itself, if it runs.
        run: name of the recorded run that is to be continued; empty for none.
        laws: names in ``LAWS``.

    Raises:
        FitError: too few points, an unknown run or law.
    """
    own = _own(curves, run)
    for field, given, fits, allowed in (
        ("run", run, not run or own is not None, f"one of {[c.name for c in curves]}, or empty"),
        ("laws", list(laws), laws and all(law in LAWS for law in laws), f"some of {list(LAWS)}"),
    ):
        if not fits:
            raise refuse(field, given, allowed)
    names = list(laws)
    if own is not None:
        fallen = not _flat(own.lr, int(own.steps[-1]))
        if _flat(own.lr, len(own.lr) - 1) or (len(curves) == 1 and fallen):
            names += [name for name in ("power", "bent") if name not in names]
    found = []
    for name in names:
        seen = [own] if LAWS[name].alone and own is not None else list(curves)
        found.append(fit_curves(seen, LAWS[name]))
    known = (own.run or own.name) if own is not None else ""
    return Ensemble(tuple(found), _weights(curves, found, own), known)


def _loss(log_loss: Array) -> Array:
    """A finite number, however little is known."""
    return np.asarray(np.exp(np.minimum(log_loss, MOST_LOG)))


def forecast(ensemble: Ensemble, lr: Array, steps: Steps, *, level: float = LEVEL) -> Forecast:
    """Predict losses under a schedule: the run's own, another, a longer one.

    Args:
        lr: schedule by step from 0, (t,); up to where the run was recorded, the run's.
        steps: to predict at, (n,), rising.
        level: probability of the intervals.

    Raises:
        FitError: steps beyond the schedule, a level that is none.
    """
    if not 0 < level < 1:
        raise refuse("level", level, "between 0 and 1")
    parts = np.array_split(steps, -(-len(steps) // AT_ONCE)) if len(steps) else [steps]
    found = [[predict(fit, [Target(lr, part, ensemble.run)]) for part in parts] for fit in ensemble.fits]
    weight = ensemble.weights
    mean = np.array([np.concatenate([part.mean for part in row]) for row in found])
    variance = np.array([np.concatenate([np.diag(part.covariance) for part in row]) for row in found])
    sd = np.sqrt(np.maximum(variance, 0.0))
    point = np.hypot(sd, np.array([np.concatenate([part.scatter for part in row]) for row in found]))
    tail = 0.5 * (1.0 - level)
    best = ensemble.fits[int(np.argmax(weight))]
    return Forecast(
        steps=steps,
        loss=_loss(weight @ mean),
        low=_loss(mixture_quantile(tail, mean, sd, weight)),
        high=_loss(mixture_quantile(1 - tail, mean, sd, weight)),
        point_low=_loss(mixture_quantile(tail, mean, point, weight)),
        point_high=_loss(mixture_quantile(1 - tail, mean, point, weight)),
        weights={fit.law.name: float(w) for fit, w in zip(ensemble.fits, weight, strict=True)},
        law=best.law.name,
        constants=best.constants,
    )


@dataclass(frozen=True)
class Horizons:
    """What decayed runs of several lengths would end at, all from one trunk.

    Args:
        steps: length of each, (h,).
        tokens: trained by then, (h,).
        loss: (h,).
        covariance: of ln loss, (h, h); the trunk's deviations make neighbours err together.
    """

    steps: Steps
    tokens: Array
    loss: Array
    covariance: Array


def horizons(
    fit: CurveFit,
    trunk: Curve,
    steps: Steps,
    tokens_per_step: float,
    *,
    decay: float = 0.2,
    end: float = 0.0,
) -> Horizons:
    """One trunk at a constant rate read as many runs, each decayed linearly over its last part.

    Haegele et al. 2024, arXiv 2405.18392: a constant rate with a 20 % cooldown does as well as a cosine.

    Args:
        fit: of a law with a schedule, to the trunk and at least one decayed curve.
        trunk: among the fitted curves.
        steps: lengths, (h,), rising, none longer than the trunk's schedule.
        tokens_per_step: batch in tokens.
        decay: share of a run over which its learning rate falls, 0 to 1.
        end: learning rate at its end, as a share of the peak.
    """
    for field, given, fits, allowed in (
        ("fit", fit.law.name, not fit.law.alone, "a fit of multipower or annealing"),
        ("trunk", trunk.name, (trunk.run or trunk.name) in fit.names, f"one of {list(fit.names)}"),
        ("decay", decay, 0 <= decay <= 1, "0 to 1"),
        ("end", end, 0 <= end <= 1, "0 to 1"),
        (
            "steps",
            steps,
            len(steps) and steps[0] >= 2 and steps[-1] <= len(trunk.lr),
            f"2 to {len(trunk.lr)}",
        ),
    ):
        if not fits:
            raise refuse(field, given, allowed)
    targets = []
    for length in steps:
        share = np.clip(
            1.0 - (np.arange(length) + 1 - (1 - decay) * length) / max(decay * length, 1.0), 0.0, 1.0
        )
        lr = trunk.lr[:length] * (end + (1.0 - end) * share)
        targets.append(Target(lr, np.array([length - 1], dtype=np.int64), trunk.run or trunk.name))
    normal = predict(fit, targets)
    tokens = tokens_per_step * np.asarray(steps, dtype=np.float64)
    return Horizons(np.asarray(steps), tokens, np.exp(normal.mean), normal.covariance)
