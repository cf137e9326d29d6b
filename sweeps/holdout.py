"""How well a law that was fitted to small runs foretells larger ones.

Noise has tails here as it has in a fit: a run that lies far from every law counts as one such run, and
neither picks the law nor widens every interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from sweeps.estimate import Fit, Method, fit
from sweeps.laws.base import Array, Columns
from sweeps.model import FEATURES, Frame, Model
from sweeps.robust import Student

CUTS = (0.5, 0.6, 0.7, 0.8, 0.9)  # shares of the runs, by compute, that a hold-out fit sees
MIN_HELD, MIN_SEEN = 2, 8
WINDOWS, PER_PARAMETER = (0.5, 0.25), 8  # tried besides all runs, with so many runs for each parameter
UNTESTED, TRUST = 1.5, 4.0  # stretch before any run was held out, worth so many held-out runs
GROSS = 8.0  # deviations beyond which a run is an outlier; of the heaviest tails one run in 250
NORMAL_MEDIAN = 0.6745  # of the size of normal noise, in standard deviations
ROUNDS = 24  # of reweighting at most, each of which lowers what is minimised


@dataclass(frozen=True)
class HoldOut:
    """How a law predicts larger runs from smaller ones.

    Args:
        density: log predictive density of each cut, joint over its held-out runs, since they share the law's
            error. Runs at one scale share it wholly and count together as one.
        error: root mean square of their ln L errors.
        stretch: of the standard deviation that would have covered them.
    """

    density: tuple[float, ...] = ()
    error: float | None = None
    stretch: float = UNTESTED


def hold_out(
    model: Model,
    full: Sequence[Fit],
    frame_: Frame,
    x: Columns,
    loss: Array,
    method: Method,
    window: float = 1.0,
) -> HoldOut:
    """Refits on the runs below each cut in compute and scores the rest, those held out being the target.

    Args:
        full: fits to the runs of the window, whose options of the noise are kept.
        window: share of the runs below a cut that is fitted, the costliest.
    """
    order = np.argsort(x["flops"], kind="stable")
    cuts = sorted({int(share * len(loss)) for share in CUTS})
    cuts = [cut for cut in cuts if cut >= MIN_SEEN and len(loss) - cut >= MIN_HELD]
    if not cuts:
        return HoldOut()
    squares: list[float] = []
    density: list[float] = []
    missed, held_scales = 0.0, 0
    for cut in cuts:
        part = order[:cut][costliest(x["flops"][order[:cut]], window)]
        seen, held = rows_of(x, part), rows_of(x, order[cut:])
        if frame_.misfit is not None:
            there = replace(frame_.misfit, target=float(np.median(held["flops"])))
            seen, held = ({**part, FEATURES: there.features(part)} for part in (seen, held))
        found = fit(model, seen, loss[part], method.of(part), like=full)
        evidence = np.array([one.evidence for one in found])
        share = np.exp(evidence - logsumexp(evidence))
        of = _scales(frame_, held)
        scales = int(of.max()) + 1
        densities, rest = [], np.log(loss[order[cut:]])
        for i, one in enumerate(found):
            value, gradient = model.evaluate(one.theta, held)
            error, height = rest - one.loss_centre - value, model.height(one.theta, held)
            scale = one.noise.scale(height, held)
            log_density, own = predictive(error, gradient, scale, one.noise.nu, one.covariance)
            densities.append(log_density * scales / len(rest))
            usual = error - own + _capped(own, scale)
            means = _means(of, usual, gradient, one.noise.variance(height, held))
            missed += float(share[i]) * _squared(*means, one.covariance) / len(cuts)
            squares.append(float(share[i] * np.mean(error**2)))
        density.append(float(logsumexp(densities, b=share)))
        held_scales += scales
    stretch = np.sqrt((TRUST * UNTESTED**2 + missed) / (TRUST + held_scales / len(cuts)))
    return HoldOut(tuple(density), float(np.sqrt(np.sum(squares) / len(cuts))), max(1.0, float(stretch)))


def votes(density: Array) -> Array:
    """Weights of tries, (t,), which sum to 1: each cut has one vote, which it shares as its density says.

    Which law holds beyond the runs that it saw changes from cut to cut. The sum of log densities would be
    certain of the one that is best on the whole; the cuts' mean is as certain as they agree.

    Args:
        density: log predictive density of every try at every cut, (t, c).
    """
    return np.asarray(np.mean(np.exp(density - logsumexp(density, axis=0)), axis=1))


def predictive(
    error: Array, gradient: Array, scale: Array, nu: float, covariance: Array
) -> tuple[float, Array]:
    """ln of the joint density of held-out runs, and what of their errors is their own.

    An error is what the law's parameters share plus Student's t of a run's own: e = G d + s t, with d normal.
    The parameters' part is integrated out by Laplace's approximation about its mode, which iteratively
    reweighted least squares finds; with normal noise that is exact.

    Args:
        error: of ln L, (n,).
        gradient: G, (n, p).
        scale: s, (n,).
        nu: degrees of freedom of t.
        covariance: of d, (p, p).

    Returns:
        The density, and e - G d at the mode, (n,).
    """
    noise = Student(np.array([nu]))
    spread = gradient @ np.linalg.cholesky(covariance) / scale[:, None]
    residual, one = error / scale, np.eye(spread.shape[1])
    shared: Array = np.zeros(len(one))
    before = np.inf
    for _ in range(ROUNDS):
        trust = noise.trust(residual - spread @ shared)
        weighted = spread * trust[:, None]
        shared = np.asarray(np.linalg.solve(one + weighted.T @ spread, weighted.T @ residual))
        cost = float(0.5 * shared @ shared + np.sum(noise.cost(residual - spread @ shared)))
        if before - cost < 1e-6 * abs(cost):
            break
        before = cost
    volume = np.linalg.slogdet(one + noise.information()[0] * spread.T @ spread)[1]
    normaliser = len(error) * noise.normaliser()[0] - np.sum(np.log(scale))
    return float(normaliser - cost - 0.5 * volume), scale * (residual - spread @ shared)


def _capped(own: Array, scale: Array) -> Array:
    """What is a run's own, outliers moved in to where they begin.

    Where a law misses most runs by more than noise, deviations are counted in those of most runs: what all
    share in is the law's and no outlier's.
    """
    size = own / scale
    far = GROSS * max(1.0, float(np.median(np.abs(size))) / NORMAL_MEDIAN)
    return np.asarray(scale * np.clip(size, -far, far))


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


def _squared(error: Array, gradient: Array, noise: Array, covariance: Array) -> float:
    """Squared length of errors (n,) under the covariance G S G' + diag(noise).

    By Woodbury's identity, so that nothing is n by n.

    Args:
        gradient: G, (n, p).
        noise: (n,).
        covariance: S, (p, p).
    """
    spread = gradient @ np.linalg.cholesky(covariance) / np.sqrt(noise)[:, None]
    scaled = error / np.sqrt(noise)
    inner = np.eye(spread.shape[1]) + spread.T @ spread
    across = spread.T @ scaled
    return float(scaled @ scaled - across @ np.linalg.solve(inner, across))


def windows(model: Model, runs: int, method: Method) -> tuple[float, ...]:
    """Shares of the runs, the costliest, that a law with a bowl is fitted to apart.

    Many settings of a few small models make the bowl of small models certain, which a law then carries to
    large ones. A share is tried where it leaves enough runs for the parameters.
    """
    if not model.surface.axes or method.objective != "student":
        return (1.0,)
    least = PER_PARAMETER * len(model.parameters)
    return (1.0, *(share for share in WINDOWS if share * min(CUTS) * runs >= least))


def costliest(flops: Array, window: float) -> NDArray[np.intp]:
    """Rows of the share of the runs with the most compute, in their order; all of them for 1."""
    if window == 1.0:
        return np.arange(len(flops))
    order = np.argsort(flops, kind="stable")
    return np.sort(order[len(flops) - round(window * len(flops)) :])


def rows_of(x: Columns, rows: NDArray[np.intp]) -> dict[str, Array]:
    """Some rows of all columns."""
    return {name: column[rows] for name, column in x.items()}
