"""Laws of one run under its own schedule: a power of the step, and one that bends once."""

from __future__ import annotations

import itertools

import numpy as np

from sweeps.curves.law import FLOOR, LEVEL, Centre, CurveLaw
from sweeps.curves.schedule import Track
from sweeps.laws.base import Array, Parameter

POWER_EXPONENT = Parameter("ln alpha", "the exponent of the step", float(np.log(0.5)), 0.4)


def _power(theta: Array, at: Track, centre: Centre) -> tuple[Array, Array]:
    floor, level, alpha = np.exp(theta)
    log_step = np.log((at.steps + 1.0) / centre.steps)
    power = level * np.exp(-alpha * log_step)
    gradient = np.stack([np.full_like(power, floor), power, -power * alpha * log_step], axis=-1)
    return floor + power, gradient


def _natural_power(theta: Array, centre: Centre) -> dict[str, float]:
    floor, level, alpha = (float(v) for v in np.exp(theta[:3]))
    return {"L0": floor * centre.loss, "A": level * centre.loss * centre.steps**alpha, "alpha": alpha}


def _bent(theta: Array, at: Track, centre: Centre) -> tuple[Array, Array]:
    """theta = (ln L0, ln A, ln alpha, change of the exponent, ln of the break over the centre's steps,
    ln of its sharpness)."""
    floor, level, alpha, change, where, width = theta
    log_step = np.log((at.steps + 1.0) / centre.steps)
    sharp = np.exp(width)
    z = sharp * (log_step - where)
    soft, slope = np.logaddexp(0.0, z), 0.5 * (1.0 + np.tanh(0.5 * z))
    power = np.exp(level - np.exp(alpha) * log_step - change * soft / sharp)
    parts = [
        np.full_like(power, np.exp(floor)),
        power,
        -power * np.exp(alpha) * log_step,
        -power * soft / sharp,
        power * change * slope,
        power * change * (soft - z * slope) / sharp,
    ]
    return np.exp(floor) + power, np.stack(parts, axis=-1)


def _natural_bent(theta: Array, centre: Centre) -> dict[str, float]:
    return _natural_power(theta, centre) | {
        "change": float(theta[3]),
        "break": float(np.exp(theta[4])) * centre.steps,
        "sharpness": float(np.exp(theta[5])),
    }


POWER = CurveLaw(
    name="power",
    formula="L = L0 + A t^-alpha",
    source="Hestness et al. 2017, arXiv 1712.00409, by step instead of data",
    parameters=(FLOOR, LEVEL, POWER_EXPONENT),
    linear=2,
    evaluate=_power,
    grid=np.log([[0.1], [0.2], [0.35], [0.5], [0.7], [1.0]]),
    natural=_natural_power,
    alone=True,
)

BENT = CurveLaw(
    name="bent",
    formula="L = L0 + A t^-alpha (1 + (t / break)^sharpness)^(-change / sharpness)",
    source="Caballero et al. 2023, arXiv 2210.14891, equation 1 with one break",
    parameters=(
        FLOOR,
        LEVEL,
        POWER_EXPONENT,
        Parameter("change", "how much steeper the curve is after its break", 0.0, 0.3),
        Parameter("ln break", "where the curve bends", 0.0, 1.0),
        Parameter("ln sharpness", "how sharply it bends", float(np.log(3.0)), 0.7),
    ),
    linear=2,
    evaluate=_bent,
    grid=np.array(
        [
            (np.log(alpha), change, where, np.log(3.0))
            for alpha, change, where in itertools.product((0.2, 0.4, 0.7), (-0.2, 0.3), (-1.0, 0.0, 1.0))
        ]
    ),
    natural=_natural_bent,
    alone=True,
)
