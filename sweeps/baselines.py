"""Ways to choose runs that others use, for comparison: orders of the candidates and published scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sweeps.choice import Pick, Situation
from sweeps.design import Belief, Prospect, Question, features
from sweeps.laws.base import Array, Columns

COST_EXPONENT = 0.4  # of cost in the published scores
NODES, REACH = 500, 4.0  # of the quadrature over an outcome, and standard deviations that it spans
BLOCK = 256  # candidates whose quadrature is done at once


def random(at: Situation) -> Iterator[Pick]:
    """Affordable candidates in random order."""
    yield from _in_order(at, at.rng.permutation(len(at.prices.flops)))


def grid(at: Situation) -> Iterator[Pick]:
    """Affordable candidates in even strides from a random start; any for those that turn out too dear."""
    open_ = np.flatnonzero(at.prices.affordable(at.budget))
    wanted = min(at.wanted, len(open_))
    strides = (at.rng.uniform() + np.arange(wanted)) * len(open_) / max(wanted, 1)
    even = open_[strides.astype(int)]
    rest = np.setdiff1d(open_, even)
    # In no order, so that fewer than wanted are spread as well.
    yield from _in_order(at, np.concatenate([at.rng.permutation(even), at.rng.permutation(rest)]))


def cheapest(at: Situation) -> Iterator[Pick]:
    """Affordable candidates from the cheapest upwards."""
    yield from _in_order(at, np.lexsort((at.prices.flops, at.prices.share(at.budget))))


def cost_random(at: Situation) -> Iterator[Pick]:
    """Affordable candidates drawn one after the other, each with a probability of 1 / cost."""
    # The least of exponential times is a draw by their rates (Efraimidis and Spirakis 2006).
    times = at.rng.exponential(size=len(at.prices.flops)) * at.prices.share(at.budget)
    yield from _in_order(at, np.argsort(times))


def d_optimal(at: Situation) -> Iterator[Pick]:
    """Runs that tell most about the parameters of the likeliest law, whatever is asked.

    The score is the drop of their entropy, half the rise of ln det of their information, over cost^0.4, as in
    the baseline of Li et al. 2026 (arXiv 2604.22753); the design itself knows no cost.
    """
    best = max(at.family, key=lambda belief: belief.weight)
    nothing = Question(np.zeros((0, len(best.theta) + 1)), np.zeros(0), ())

    def gain(seen: Sequence[Prospect]) -> Array:
        return np.asarray(0.5 * np.log1p(seen[0].own / seen[0].variance))

    yield from _greedy(at, [_prospect(best, at, nothing)], gain)


def two_term(at: Situation) -> Iterator[Pick]:
    """The published score of Li et al. 2026, arXiv 2604.22753, over our laws in place of their basins.

    The score is the expected drop of the targets' variance over cost^0.4. The variance within laws falls by
    sum_k w_k |cov_k|^2 / s_k^2, with cov_k between targets and run, and s_k^2 the variance of its outcome.
    That between laws, sum_k w_k |f_k - mean f|^2, depends on the outcome y: weights become w_k p_k(y) / p(y)
    and predictions f_k + cov_k (y - m_k) / s_k^2; its expectation is an integral over y.
    """
    weights = np.array([belief.weight for belief in at.family])
    predicted = [_values(belief, at.candidates) for belief in at.family]
    answers = [_values(belief, at.targets) for belief in at.family]
    n = len(answers[0])
    seen = []
    for belief in at.family:
        rows, _ = _alone(belief, at, at.targets)
        seen.append(_prospect(belief, at, Question(rows, np.full(n, 1.0 / n), ("loss",) * n)))

    def gain(seen: Sequence[Prospect]) -> Array:
        within = weights @ np.stack([one.gain() for one in seen])
        return np.asarray(within + told_between(weights, np.stack(predicted), np.stack(answers), seen))

    yield from _greedy(at, seen, gain)


def told_between(weights: Array, predicted: Array, answers: Array, seen: Sequence[Prospect]) -> Array:
    """Expected drop of the variance between laws by each candidate, mean over targets, (n,).

    Args:
        weights: (k,) of the laws.
        predicted, answers: ln L of the candidates (k, n) and of the targets (k, t) by each law.
        seen: what each law knows.
    """
    deviation = np.sqrt(np.stack([one.own + one.variance for one in seen]))
    moved = [one.cross.T / (one.own + one.variance) for one in seen]  # (t, n) of an answer by y
    pairs = [(k, l) for k in range(len(weights)) for l in range(k)]
    before, after = 0.0, np.zeros(predicted.shape[1])
    for begin in range(0, predicted.shape[1], BLOCK):
        block = slice(begin, begin + BLOCK)
        middle, sd = predicted[:, block], deviation[:, block]
        low, high = (middle - REACH * sd).min(axis=0), (middle + REACH * sd).max(axis=0)
        y = np.linspace(low, high, NODES)
        density = np.exp(-0.5 * ((y - middle[:, None]) / sd[:, None]) ** 2) / sd[:, None]
        density /= np.sqrt(2.0 * np.pi)
        mixture = np.maximum(np.einsum("k,kyn->yn", weights, density), 1e-300)
        for k, l in pairs:
            slope = moved[k][:, block] - moved[l][:, block]
            apart = (answers[k] - answers[l])[:, None]
            apart = apart - moved[k][:, block] * middle[k] + moved[l][:, block] * middle[l]
            square = (
                np.mean(apart**2, axis=0),
                np.mean(2.0 * apart * slope, axis=0),
                np.mean(slope**2, axis=0),
            )
            height = density[k] * density[l] / mixture * (square[0] + y * (square[1] + y * square[2]))
            after[block] += weights[k] * weights[l] * np.trapezoid(height, y, axis=0)
    for k, l in pairs:
        before += float(weights[k] * weights[l] * np.mean((answers[k] - answers[l]) ** 2))
    return np.maximum(before - after, 0.0)


def _prospect(belief: Belief, at: Situation, asked: Question) -> Prospect:
    """What one law knows, pending runs counting as observed."""
    found = Prospect.of(*_alone(belief, at, at.candidates), asked)
    if at.pending is not None:
        rows, variance = _alone(belief, at, at.pending)
        left = np.ones(len(rows)) if at.left is None else at.left
        for row, noise, part in zip(rows, variance, left, strict=True):
            found = found.observe(row, float(noise / part))
    return found


def _alone(belief: Belief, at: Situation, x: Columns) -> tuple[Array, Array]:
    """Features (n, f) and noise variance (n,) by one law."""
    return features([replace(belief, weight=1.0)], at.frame, x)


def _values(belief: Belief, x: Columns) -> Array:
    """ln L by one law, (n,)."""
    return np.asarray(belief.model.log_loss(belief.theta, x) + belief.loss_centre)


def _greedy(
    at: Situation, seen: Sequence[Prospect], gain: Callable[[Sequence[Prospect]], Array]
) -> Iterator[Pick]:
    """The affordable candidates of the highest gain over cost^0.4, one after the other."""
    free, prices, budget = np.ones(len(at.prices.flops), dtype=bool), at.prices, at.budget
    for _ in range(at.wanted):
        open_ = free & prices.affordable(budget)
        if not open_.any():
            return
        score = np.where(open_, gain(seen) / prices.share(at.budget) ** COST_EXPONENT, -np.inf)
        best = int(np.argmax(score))
        yield Pick(best, float(score[best]))
        seen, free[best], budget = [one.take(best) for one in seen], False, budget - prices.spent(best)
        prices = prices.take(best)


def _in_order(at: Situation, order: NDArray[np.intp]) -> Iterator[Pick]:
    prices, budget, found = at.prices, at.budget, 0
    for index in map(int, order):
        if found == at.wanted or budget.runs < 1:
            return
        used = prices.spent(index)
        if used.flops <= budget.flops and used.device_seconds <= budget.device_seconds:
            prices, budget, found = prices.take(index), budget - used, found + 1
            yield Pick(index, 0.0)
