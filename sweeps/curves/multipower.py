"""The multi-power law of a loss curve: a power of the summed rate less a power for every fall of the rate."""

from __future__ import annotations

import itertools

import numpy as np

from sweeps.curves.law import EXPONENT, FADING, FLOOR, LEVEL, Centre, CurveLaw, natural_terms, with_gain
from sweeps.curves.schedule import Track
from sweeps.laws.base import Array, Parameter

CHUNK = 400_000
LEAST_RATE = 1e-4
SPEED_STEPS = 1000


def drop_term(theta: Array, at: Track) -> tuple[Array, Array]:
    """Sum over the falls d of the rate of d (1 - (1 + C eta^-gamma S)^-beta), S the rate summed since.

    Luo et al. 2025, arXiv 2503.12811, equation 3, without its factor B. Rises count negative; a rate
    below 1e-4 of the highest counts as that.

    Args:
        theta: (3,) ln C, ln beta, ln gamma.
        at: n steps, m changes of the rate.

    Returns:
        (n,), in units of the learning rate, and its gradient (n, 3).
    """
    c, beta, gamma = np.exp(theta)
    value, gradient = np.zeros(len(at.total)), np.zeros((len(at.total), 3))
    rate = np.maximum(at.after, LEAST_RATE * at.peak)
    log_rate = np.log(rate)
    scale = c * rate**-gamma
    height = max(1, CHUNK // max(len(at.drop), 1))
    for low in range(0, len(at.total), height):
        rows = slice(low, low + height)
        most = int(at.count[rows].max(initial=0))
        inside = np.arange(most) < at.count[rows, None]
        x = scale[:most] * np.maximum(at.total[rows, None] - at.before[:most], 0.0)
        drop = np.where(inside, at.drop[:most], 0.0)
        log_base = np.log1p(x)
        left = drop * np.exp(-beta * log_base)
        slope = left * (beta * x / (1.0 + x))
        value[rows] = drop.sum(axis=1) - left.sum(axis=1)
        gradient[rows, 0] = slope.sum(axis=1)
        gradient[rows, 1] = beta * (left * log_base).sum(axis=1)
        gradient[rows, 2] = -gamma * slope @ log_rate[:most]
    return value, gradient


def _relax(theta: Array, at: Track, peak: float) -> tuple[Array, Array]:
    """``drop_term`` in units of the peak; theta[0] is ln of C eta^-gamma S after 1000 steps at the peak."""
    gamma = np.exp(theta[2])
    log_c = theta[0] - np.log(SPEED_STEPS * peak) + gamma * np.log(peak)
    value, gradient = drop_term(np.array([log_c, theta[1], theta[2]]), at)
    gradient[:, 2] += gradient[:, 0] * gamma * np.log(peak)
    return value / peak, gradient / peak


def _natural(theta: Array, centre: Centre) -> dict[str, float]:
    beta, gamma = (float(v) for v in np.exp(theta[6:8]))
    found = natural_terms(theta, centre)
    c = float(np.exp(theta[5])) / (SPEED_STEPS * centre.peak) * centre.peak**gamma
    return {"L0": found["L0"], "A": found["A"], "alpha": found["alpha"], "B": found["gain"]} | {
        "C": c,
        "beta": beta,
        "gamma": gamma,
        "kappa": found["kappa"],
    }


def published_loss(constants: tuple[float, ...], at: Track) -> Array:
    """The law as published, whose warm-up counts as a rise of the rate.

    Args:
        constants: (L0, A, alpha, B, C, beta, gamma).
        at: ``track(..., warm=True)`` of n steps.

    Returns:
        Loss (n,).
    """
    floor, level, alpha, gain, *rest = constants
    return np.asarray(floor + level * at.total**-alpha - gain * drop_term(np.log(rest), at)[0])


GRID = [
    (np.log(alpha), 0.1, np.log(speed), np.log(beta), np.log(0.42))
    for alpha, speed, beta in itertools.product((0.2, 0.35, 0.5, 0.7), (20.0, 200.0), (0.15, 0.4))
]

MULTIPOWER = CurveLaw(
    name="multipower",
    formula="L = L0 + A S1^-alpha - B S1^-kappa sum_k (eta_k-1 - eta_k) (1 - (1 + C eta_k^-gamma S_k)^-beta)",
    source="Luo et al. 2025, arXiv 2503.12811, equation 3, which has kappa = 0",
    parameters=(
        FLOOR,
        LEVEL,
        Parameter("ln B", "the gain from a decay that has taken full effect", float(np.log(0.06)), 0.7),
        EXPONENT,
        FADING,
        Parameter("ln C", "how soon a decay takes effect", float(np.log(100.0)), 1.0),
        Parameter("ln beta", "how slowly the last of a decay's gain comes", float(np.log(0.25)), 0.5),
        Parameter("ln gamma", "how much sooner a decay to a low rate takes effect", float(np.log(0.42)), 0.3),
    ),
    linear=3,
    evaluate=with_gain(_relax),
    grid=np.array(GRID),
    natural=_natural,
)
