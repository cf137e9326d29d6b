"""What a law of a loss curve is, and the two terms that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sweeps.curves.schedule import Track
from sweeps.laws.base import Array, Parameter


@dataclass(frozen=True)
class Centre:
    """Where internal coordinates are centred, so that one weak prior serves every data set.

    Args:
        loss: geometric mean of the losses that are fitted.
        total: geometric mean of their S1.
        steps: geometric mean of their steps.
        peak: highest learning rate.
    """

    loss: float
    total: float
    steps: float
    peak: float


@dataclass(frozen=True)
class CurveLaw:
    """A functional form of the loss by step under a schedule.

    Args:
        name: key in ``LAWS``.
        formula: in natural constants; S1 is the summed learning rate, eta the learning rate, t the step.
        source: paper and equation.
        parameters: internal coordinates; p of them. Those before ``linear`` are ln of the coefficients of
            terms that are linear in them.
        linear: how many of them.
        evaluate: (theta (p,), track of n steps, centre) -> loss over ``centre.loss`` (n,), gradient (n, p).
        grid: candidates of the other parameters, (k, p - linear).
        natural: (theta (p,), centre) -> constants of the formula.
        alone: whether it describes one run under one schedule only, and has no use for other runs.
    """

    name: str
    formula: str
    source: str
    parameters: tuple[Parameter, ...]
    linear: int
    evaluate: Callable[[Array, Track, Centre], tuple[Array, Array]]
    grid: Array
    natural: Callable[[Array, Centre], dict[str, float]]
    alone: bool = False


# Prior means are rounded from fits of all nine public curves of Luo et al. 2025 at 25M, 100M and 400M
# parameters (kappa 0.12, 0.09, 0.08; alpha 0.50, 0.48, 0.46), the widths are more than twice their spread.
FLOOR = Parameter("ln L0", "the loss that training approaches", float(np.log(0.85)), 0.7)
LEVEL = Parameter("ln A", "the level of the loss that training removes", float(np.log(0.15)), 1.0)
EXPONENT = Parameter("ln alpha", "the exponent of the summed learning rate", float(np.log(0.5)), 0.25)
FADING = Parameter("kappa", "how the gain from a decay falls as training goes on", 0.1, 0.05)

Relax = Callable[[Array, Track, float], tuple[Array, Array]]


def with_gain(relax: Relax) -> Callable[[Array, Track, Centre], tuple[Array, Array]]:
    """L = L0 + A s^-alpha - B s^-kappa G with s = S1 / its centre, in units of the centre's loss.

    Args:
        relax: (theta (q,), track, peak) -> G (n,), the falls of the learning rate in units of the peak, each
            by how far it has taken effect; and its gradient (n, q).

    Returns:
        Evaluates theta = (ln L0, ln A, ln B, ln alpha, kappa, those of ``relax``).
    """

    def evaluate(theta: Array, at: Track, centre: Centre) -> tuple[Array, Array]:
        floor, level, gain = np.exp(theta[:3])
        alpha, kappa = np.exp(theta[3]), theta[4]
        log_total = np.log(at.total / centre.total)
        power = level * np.exp(-alpha * log_total)
        share, slope = relax(theta[5:], at, centre.peak)
        factor = gain * np.exp(-kappa * log_total)
        gradient = np.empty((len(power), len(theta)))
        gradient[:, 0], gradient[:, 1], gradient[:, 2] = floor, power, -factor * share
        gradient[:, 3] = -power * alpha * log_total
        gradient[:, 4] = factor * share * log_total
        gradient[:, 5:] = -factor[:, None] * slope
        return floor + power - factor * share, gradient

    return evaluate


def natural_terms(theta: Array, centre: Centre) -> dict[str, float]:
    """L0, A, alpha and kappa in the formula's units, and ``gain``: B per unit of the learning rate."""
    alpha, kappa = float(np.exp(theta[3])), float(theta[4])
    return {
        "L0": float(np.exp(theta[0])) * centre.loss,
        "A": float(np.exp(theta[1])) * centre.loss * centre.total**alpha,
        "alpha": alpha,
        "gain": float(np.exp(theta[2])) * centre.loss * centre.total**kappa / centre.peak,
        "kappa": kappa,
    }
