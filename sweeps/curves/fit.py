"""Joint fit of a law to several loss curves whose points are correlated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.ndimage import median_filter
from scipy.optimize import nnls

from sweeps.curves.law import Centre, CurveLaw
from sweeps.curves.noise import Noise, Where, covariance, estimate, freshness, scatter, shapes, where
from sweeps.curves.schedule import Curve, Steps, Track, refuse, settled, track
from sweeps.laws.base import Array, Columns
from sweeps.robust import Huber
from sweeps.solve import Data, Prior, minimise

OUTLIER, SPIKE_WINDOW = 8.0, 5
ALIKE = 0.02
FRESH_POINTS = 1000
POINTS = 300
LEAST_EACH = 12
LEAST_POINTS = 6
STARTS = 3
TURNS = 3
EARLY_DOUBT = 10.0
LEAST_LOSS = 1e-6
HUBER = Huber(2.5)


@dataclass(frozen=True)
class CurveFit:
    """A law fitted to curves, with what a prediction needs; n averaged points, p parameters.

    Args:
        law, centre, theta: the law, where its coordinates are centred, and the minimum (p,).
        constants: of the law's formula.
        noise: sizes of the deviations.
        scatter: of single points by run, in ln L.
        names: of the runs, by number.
        points: where the averaged points lie.
        residual: ln L measured less the law, (n,).
        gradient: of the law's ln L, (n, p).
        precision: of the deviations, outlying points given less weight, (n, n).
        spread: covariance of theta, (p, p).
        effective: how many independent points would tell the level of the curves as well.
        objective: at the minimum.
        converged: whether it is one.
    """

    law: CurveLaw
    centre: Centre
    theta: Array
    constants: dict[str, float]
    noise: Noise
    scatter: dict[str, float]
    names: tuple[str, ...]
    points: Where
    residual: Array
    gradient: Array
    precision: Array
    spread: Array
    effective: float
    objective: float
    converged: bool


@dataclass(frozen=True)
class _Averaged:
    steps: Steps
    log_loss: Array
    scatter: Array


def average(curve: Curve, most: int) -> _Averaged:
    """Neighbouring points under about one, settled learning rate, averaged to about ``most`` points.

    Points before warm-up is over, or in the first 2 %, are left out, as are spikes: points eight standard
    deviations off the median of five. A group stands at its middle step, corrected for the slope
    between its neighbours. Curves of fewer points stay as they are.
    """
    keep = curve.steps >= settled(curve.lr)
    if keep.sum() < min(LEAST_POINTS, len(keep)):
        keep[:] = True
    log_loss, noise = np.log(curve.loss), scatter(curve)
    keep &= np.abs(log_loss - median_filter(log_loss, SPIKE_WINDOW, mode="nearest")) <= OUTLIER * noise
    steps, log_loss = curve.steps[keep], log_loss[keep]
    if len(steps) <= most:
        return _Averaged(steps, log_loss, np.full(len(steps), noise))
    some = steps[:: 1 + len(steps) // FRESH_POINTS]
    fresh = np.interp(steps, some, freshness(track(curve.lr, some, warm=False)))
    log_total, rate = np.log(np.cumsum(curve.lr)[steps]), curve.lr[steps] / curve.lr.max()
    along = (log_total - log_total[0]) * most / np.ptp(log_total)
    key = np.floor([along, rate / ALIKE, fresh / ALIKE])
    limit = 2 * (1 + len(steps) // most)
    groups = [
        part
        for group in np.split(np.arange(len(steps)), np.flatnonzero(np.any(np.diff(key) != 0, axis=0)) + 1)
        for part in np.array_split(group, -(-len(group) // limit))
    ]
    middle = np.array([group[len(group) // 2] for group in groups])
    mean_step = np.array([steps[group].mean() for group in groups])
    mean = np.array([log_loss[group].mean() for group in groups])
    slope = np.gradient(mean, mean_step) if len(groups) > 1 else np.zeros(1)
    count = np.array([len(group) for group in groups])
    return _Averaged(steps[middle], mean + slope * (steps[middle] - mean_step), noise / np.sqrt(count))


def joint(law: CurveLaw, tracks: Sequence[Track], centre: Centre, theta: Array) -> tuple[Array, Array]:
    """ln L over the centre's loss at all points of all tracks, (n,), and its gradient (n, p)."""
    parts = [law.evaluate(theta, at, centre) for at in tracks]
    value = np.maximum(np.concatenate([part[0] for part in parts]), LEAST_LOSS)
    return np.log(value), np.concatenate([part[1] for part in parts]) / value[:, None]


def _starts(law: CurveLaw, tracks: Sequence[Track], centre: Centre, y: Array, weight: Array) -> Array:
    """Variable projection (Golub and Pereyra 1973): for each cell of the law's grid the coefficients of its
    linear terms by non-negative least squares; the best ``STARTS``, (k, p)."""
    loss, prior = np.exp(y), np.exp([p.mean for p in law.parameters[: law.linear]])
    found = []
    for cell in law.grid:
        theta = np.concatenate([np.zeros(law.linear), cell])
        basis = np.concatenate([law.evaluate(theta, at, centre)[1][:, : law.linear] for at in tracks])
        relative = np.sqrt(weight) / loss
        coefficients, error = nnls(basis * relative[:, None], np.sqrt(weight))
        theta[: law.linear] = np.log(np.maximum(coefficients, 0.03 * prior))
        found.append((float(error), theta))
    found.sort(key=lambda pair: pair[0])
    return np.array([theta for _, theta in found[:STARTS]])


def _centre(curves: Sequence[Curve], averaged: Sequence[_Averaged], tracks: Sequence[Track]) -> Centre:
    return Centre(
        loss=float(np.exp(np.mean([one.log_loss.mean() for one in averaged]))),
        total=float(np.exp(np.mean([np.log(at.total).mean() for at in tracks]))),
        steps=float(np.exp(np.mean([np.log(at.steps + 1.0).mean() for at in tracks]))),
        peak=max(float(curve.lr.max()) for curve in curves),
    )


def _check(curves: Sequence[Curve]) -> None:
    if not curves or len({curve.name for curve in curves}) < len(curves):
        raise refuse("curves", [curve.name for curve in curves], "at least one, each with a name of its own")
    points = sum(len(curve.loss) for curve in curves)
    if points < LEAST_POINTS:
        raise refuse("curves", f"{points} points in all", f"at least {LEAST_POINTS}")


def fit_curves(
    curves: Sequence[Curve], law: CurveLaw, *, noise: Noise | None = None, start: Array | None = None
) -> CurveFit:
    """Fit one law to all curves together.

    Args:
        curves: of one model and data under several schedules; one is enough where priors may say the rest.
        law: of ``LAWS``.
        noise: sizes of the deviations; estimated where not given.
        start: theta of a similar fit (p,); searched for where not given.

    Raises:
        FitError: fewer than six points, or two curves of one name.
    """
    _check(curves)
    averaged = [average(curve, max(LEAST_EACH, POINTS // len(curves))) for curve in curves]
    tracks = [track(c.lr, one.steps, warm=False) for c, one in zip(curves, averaged, strict=True)]
    centre = _centre(curves, averaged, tracks)
    names = tuple(dict.fromkeys(curve.run or curve.name for curve in curves))
    points = where(tracks, [names.index(curve.run or curve.name) for curve in curves])
    y = np.concatenate([one.log_loss for one in averaged]) - np.log(centre.loss)
    alone = np.concatenate([one.scatter for one in averaged])
    shape = shapes(points, points)
    mean = np.array([p.mean for p in law.parameters])
    sd = np.array([p.sd for p in law.parameters])
    prior, ones = Prior(mean, sd**-2.0), np.ones(len(y))
    whitened = Data({}, 0.0 * ones, ones, ones, HUBER)  # the law's residuals come whitened
    sizes = noise or Noise()
    if start is not None:
        starts = start[None]
    else:
        starts = _starts(law, tracks, centre, y, 1.0 / (1.0 + (EARLY_DOUBT * points.early) ** 2))
    turns = 1 if noise else TURNS
    for turn in range(turns):
        total = covariance(sizes, shape) + np.diag((sizes.scatter * alone) ** 2)
        mixing = solve_triangular(cholesky(total, lower=True), np.eye(len(y)), lower=True)

        def residuals(theta: Array, x: Columns, mixing: Array = mixing) -> tuple[Array, Array]:
            if theta.ndim > 1:
                values, gradients = zip(*(residuals(each, x, mixing) for each in theta), strict=True)
                return np.array(values), np.array(gradients)
            value, gradient = joint(law, tracks, centre, theta)
            return mixing @ (value - y), mixing @ gradient

        tries = [minimise(residuals, start, whitened, prior) for start in starts]
        found = min(tries, key=lambda found: found.objective)
        value, gradient = joint(law, tracks, centre, found.theta)
        starts = found.theta[None]
        if turn < turns - 1:
            linear = y - value + gradient @ (found.theta - mean)
            sizes = estimate(linear, gradient, sd, shape, alone)
    found = minimise(
        residuals, found.theta, whitened, prior, second_order=True, iterations=20, tolerance=1e-13
    )
    value, gradient = joint(law, tracks, centre, found.theta)
    trust = HUBER.trust(mixing @ (value - y))
    unit = total / np.sqrt(np.outer(np.diag(total), np.diag(total)))
    return CurveFit(
        law=law,
        centre=centre,
        theta=found.theta,
        constants=law.natural(found.theta, centre),
        noise=sizes,
        scatter={c.run or c.name: max(1.0, sizes.scatter) * scatter(c) for c in curves},
        names=names,
        points=points,
        residual=y - value,
        gradient=gradient,
        precision=mixing.T @ (trust[:, None] * mixing),
        spread=np.asarray(np.linalg.inv(found.information)),
        effective=float(np.linalg.solve(unit, np.ones(len(y))).sum()),
        objective=found.objective,
        converged=found.converged,
    )


@dataclass(frozen=True)
class Target:
    """Steps to predict.

    Args:
        lr: schedule by step from 0, (t,).
        steps: (n,), rising.
        run: name of a fitted run whose continuation it is; another run where empty.
    """

    lr: Array
    steps: Steps
    run: str = ""


@dataclass(frozen=True)
class Normal:
    """ln L at n steps, jointly normal.

    Args:
        mean: (n,).
        covariance: of the mean over points' scatter, (n, n).
        scatter: standard deviation of a measured point about it, (n,).
    """

    mean: Array
    covariance: Array
    scatter: Array


def predict(fit: CurveFit, targets: Sequence[Target], *, misfit: bool = True) -> Normal:
    """ln L at the steps of all targets, one after the other: the law, plus the deviations that the fitted
    points suggest (Gaussian-process regression), the law's parameters linearised.

    Args:
        misfit: without, the law alone.
    """
    tracks = [track(target.lr, target.steps, warm=False) for target in targets]
    known = {name: number for number, name in enumerate(fit.names)}
    numbers = [known.get(target.run, -1 - i) for i, target in enumerate(targets)]
    new = where(tracks, numbers)
    value, gradient = joint(fit.law, tracks, fit.centre, fit.theta)
    cross = covariance(fit.noise, shapes(new, fit.points))
    own = covariance(fit.noise, shapes(new, new))
    gain = cross @ fit.precision if misfit else np.zeros_like(cross)
    loose = gradient - gain @ fit.gradient
    usual = float(np.median(list(fit.scatter.values())))
    spread = [np.full(len(t.steps), fit.scatter.get(t.run, usual)) for t in targets]
    return Normal(
        value + np.log(fit.centre.loss) + gain @ fit.residual,
        own - gain @ cross.T + loose @ fit.spread @ loose.T,
        np.concatenate(spread),
    )
