"""What is left when parameters and ensemble members are without limit, and what tokens are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sweeps.laws.base import Array, Columns
from sweeps.laws.formula import Constant, Kind, floor, law, power, term

Number = float | Array


def _loss(p: Mapping[str, Any], x: Columns) -> Any:
    gain = p["B"] * x["params"] ** -p["b"] * x["members"] ** -p["kappa"]
    return p["E"] + p["A"] * x["params"] ** -p["alpha"] + gain


MEMBERS = law(
    "members",
    "L = E + A N^-alpha + B N^-b K^-kappa",
    "Kim et al. 2025, arXiv 2509.14786: one model's law and the ensembles' law, joined",
    ("params", "members"),
    (
        floor(),
        term("A", "params", "alpha", "the size of the term of parameters"),
        power("alpha", "parameters"),
        Constant(
            "B",
            "what an ensemble without limit gains over one model",
            -2.5,
            1.2,
            unit=lambda p, centre: centre["loss"] + p["b"] * centre["params"],
            linear=True,
        ),
        Constant("b", "how the gain of ensembling changes with size", 0.0, 0.2, Kind.REAL),
        # The variance of a mean of K models is that of one over K.
        Constant("kappa", "the exponent of members", 0.0, 0.5),
    ),
    _loss,
)


def without_limit(
    constants: Mapping[str, Number], *, params: Number = np.inf, members: Number = np.inf
) -> Array:
    """The loss of ``MEMBERS`` with parameters, members or both without limit: an asymptote of asymptotes.

    Args:
        constants: of ``MEMBERS``, each a number or (b,) draws.
        params, members: where they stay; without limit when left out.

    Returns:
        The loss, infinite where ensembling gains ever more with size (``b`` below 0) and members stay.
    """
    c = {name: np.asarray(value, dtype=float) for name, value in constants.items()}
    size, count = np.asarray(params, dtype=float), np.asarray(members, dtype=float)
    own = c["A"] * size ** -c["alpha"]
    several = count ** -c["kappa"]
    with np.errstate(invalid="ignore"):  # an infinite size to a power times no members' share at all
        gain = np.where(several == 0, 0.0, c["B"] * size ** -c["b"] * several)
    return np.asarray(c["E"] + own + gain)


def tokens_for(loss: Number, constants: Mapping[str, Number]) -> Array:
    """D of L = E + B D^-beta for a loss; infinite at or below E.

    Args:
        loss: any shape.
        constants: ``E``, ``B`` and ``beta``, which broadcast against it.
    """
    reducible = np.asarray(loss, dtype=float) - constants["E"]
    with np.errstate(invalid="ignore", divide="ignore"):
        needed = (constants["B"] / reducible) ** (1.0 / np.asarray(constants["beta"], dtype=float))
    return np.asarray(np.where(reducible > 0, needed, np.inf))


def data_efficiency(tokens: Number, recipe: Mapping[str, Number], reference: Mapping[str, Number]) -> Array:
    """How many times the tokens the reference recipe needs for what a recipe reaches with ``tokens``.

    Kim et al. 2025 (arXiv 2509.14786): the ratio of tokens on two laws L = E + B D^-beta.

    Args:
        tokens: of the recipe, any shape.
        recipe, reference: ``E``, ``B`` and ``beta`` of each.

    Returns:
        The ratio; infinite where the reference never gets there.
    """
    used = np.asarray(tokens, dtype=float)
    reached = recipe["E"] + recipe["B"] * used ** -np.asarray(recipe["beta"], dtype=float)
    return np.asarray(tokens_for(reached, reference) / used)
