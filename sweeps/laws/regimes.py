"""What a fitted exponent says about the bottleneck it was measured in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SOURCE = "Bahri et al. 2021, arXiv 2102.06701, section 2"
NEAR_ONE = 0.15  # how far from 1 an exponent of the variance-limited regime may lie


class Regime(StrEnum):
    VARIANCE = "variance-limited"
    RESOLUTION = "resolution-limited"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Label:
    """A regime with what follows from it, in words."""

    regime: Regime
    text: str


def label(exponent: float, low: float, high: float, of: str = "tokens") -> Label:
    """The regime of the exponent of a term x^-alpha of the loss.

    Where x is plentiful the loss nears its limit as 1/x, whatever the task (variance-limited); where x is
    the bottleneck the exponent lies between 0 and 1 and depends on the data (resolution-limited).

    Args:
        exponent: fitted.
        low, high: its interval.
        of: the quantity, in words.

    Raises:
        ValueError: the interval does not hold the exponent.
    """
    if not low <= exponent <= high:
        raise ValueError(f"the interval {low:g} to {high:g} does not hold the exponent {exponent:g}")
    found = f"the exponent of {of} is {exponent:.2f} ({low:.2f} to {high:.2f})"
    if low > 0.0 and high < 1.0 - NEAR_ONE:
        return Label(
            Regime.RESOLUTION,
            f"{found}, below 1: {of} are the bottleneck, and the exponent belongs to this data and task.",
        )
    if low >= 1.0 - NEAR_ONE and high <= 1.0 + NEAR_ONE:
        return Label(
            Regime.VARIANCE,
            f"{found}, near 1: {of} are plentiful and something else is the bottleneck. Do not extrapolate "
            f"to where {of} are scarce, where the exponent is smaller.",
        )
    if low > 1.0 + NEAR_ONE:
        return Label(
            Regime.UNDECIDED,
            f"{found}, above 1, which no regime explains: look for runs that were not trained alike.",
        )
    return Label(
        Regime.UNDECIDED,
        f"{found}: the interval does not tell a bottleneck (below 1) from plenty (near 1). Add runs with "
        f"more and with fewer {of}.",
    )


def pooling_warning(labels: dict[str, Label]) -> str | None:
    """A warning where exponents of different regimes would be pooled; None where they agree."""
    regimes = {one.regime for one in labels.values() if one.regime is not Regime.UNDECIDED}
    if len(regimes) < 2:
        return None
    parts = ", ".join(f"{name} {one.regime}" for name, one in sorted(labels.items()))
    return f"The exponents are of different regimes ({parts}); do not pool them or share one between terms."
