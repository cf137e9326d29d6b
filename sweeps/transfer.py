"""Rules that carry hyperparameters from one scale to another, and the priors they make.

A rule says how ln of an optimal setting moves with ln of another quantity. A fit takes one rule by name; its
slopes then stand in for the weak priors of ``sweeps.surface``, about half as wide. The rate follows the batch
by the walls of the surface under every rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from sweeps.errors import FitError
from sweeps.wording import choices


@dataclass(frozen=True)
class Slope:
    """How ln of an optimal setting moves with ln of another quantity.

    Args:
        column: the other quantity.
        mean, sd: of the normal prior.
        source: that it rests on.
    """

    column: str
    mean: float
    sd: float
    source: str


Rule = Mapping[str, tuple[Slope, ...]]  # by axis
Moves: TypeAlias = tuple[tuple[str, float, float], ...]  # column, prior mean and sd of a slope

_BERGSMA = "Bergsma et al. 2025, arXiv 2505.13738"
_STEP_LAW = "Step Law: Li et al. 2025, arXiv 2503.04715, equation 1"
_DEEPSEEK = "DeepSeek LLM 2024, arXiv 2401.02954, equation 1, of compute"

# Exact under the source's conditions, which runs at hand may not meet.
MUP: Rule = MappingProxyType(
    {
        "lr": (
            Slope(
                "width", -1.0, 0.4, "muP, Adam, hidden matrices: Yang et al. 2022, arXiv 2203.03466, table 8"
            ),
            Slope("batch", 0.5, 0.2, "Adam, square root: Granziol et al. 2020, arXiv 2006.09092"),
        ),
        "weight_decay": (
            Slope("width", 0.5, 0.3, "AdamW, matrices, with lr as 1 / width: arXiv 2510.15262"),
            Slope("batch", 1.0, 0.3, f"at fixed lr: {_BERGSMA}"),
            Slope("tokens", -1.0, 0.3, f"at fixed lr: {_BERGSMA}"),
        ),
        "batch": (Slope("tokens", 0.4, 0.2, _BERGSMA),),
    }
)
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "none": MappingProxyType({}),
        "mup": MUP,
        "step_law": MappingProxyType(
            {
                "lr": (Slope("params", -0.713, 0.15, _STEP_LAW), Slope("tokens", 0.307, 0.15, _STEP_LAW)),
                "batch": (Slope("params", 0.0, 0.1, _STEP_LAW), Slope("tokens", 0.571, 0.15, _STEP_LAW)),
            }
        ),
        "deepseek": MappingProxyType(
            {
                "lr": (Slope("params", -0.125, 0.15, _DEEPSEEK), Slope("tokens", -0.125, 0.15, _DEEPSEEK)),
                "batch": (Slope("params", 0.327, 0.15, _DEEPSEEK), Slope("tokens", 0.327, 0.15, _DEEPSEEK)),
            }
        ),
    }
)


def slopes(
    rule: str, axis: str, weak: tuple[tuple[str, float, float], ...] = (), *, one_depth: bool = False
) -> tuple[tuple[str, float, float], ...]:
    """Priors of an axis under a rule as ``HyperAxis.slopes``: (column, mean, sd).

    Laws read parameters and not widths. Outside of embeddings N ~ depth width^2 (Kaplan et al. 2020, arXiv
    2001.08361, equation 2.1): width ~ N^(1/2) among models of one depth, and N^(1/3) where depth grows in
    proportion to width. A slope in width is a half or a third of it in N.

    Args:
        rule: of ``RULES``.
        weak: priors of what the rule is silent about.
        one_depth: whether all models have the same depth.

    Raises:
        FitError: there is no such rule.
    """
    found = {column: (mean, sd) for column, mean, sd in weak}
    for one in _rule(rule).get(axis, ()):
        if one.column == "width":
            share = 1 / 2 if one_depth else 1 / 3
            found["params"] = (share * one.mean, share * one.sd)
        elif (axis, one.column) != ("lr", "batch"):
            found[one.column] = (one.mean, one.sd)
    return tuple((column, *prior) for column, prior in found.items())


def told(rule: str) -> str:
    """A rule with its sources, for a fit's checklist.

    Raises:
        FitError: there is no such rule.
    """
    sources = dict.fromkeys(one.source for slopes in _rule(rule).values() for one in slopes)
    return f"{rule}: " + ("; ".join(sources) or "weak priors")


def transfer(axis: str, value: float, ratios: Mapping[str, float], rule: str = "mup") -> float:
    """A setting carried over to where quantities are so many times as large."""
    known = {one.column: one.mean for one in _rule(rule).get(axis, ())}
    return float(value * np.prod([ratio ** known[column] for column, ratio in ratios.items()]))


def _rule(name: str) -> Rule:
    if name not in RULES:
        raise FitError(f"given transfer {name!r}; allowed: {choices(name, [*RULES])}")
    return RULES[name]


def less(moves: Moves, others: Moves, power: float) -> Moves:
    """Slopes of ln h less so many times those of another axis."""
    found = {column: (mean, sd) for column, mean, sd in moves}
    for column, mean, sd in others:
        own_mean, own_sd = found.get(column, (0.0, 0.0))
        found[column] = own_mean - power * mean, math.hypot(own_sd, power * sd)
    return tuple((column, *prior) for column, prior in found.items())
