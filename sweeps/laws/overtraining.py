"""Training past the optimal ratio of tokens to parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sweeps.laws.base import Array, Centre, Columns
from sweeps.laws.formula import Constant, floor, law

LN6 = float(np.log(6.0))


def _loss(p: Mapping[str, Any], x: Columns) -> Any:
    power = 2.0 * p["eta"]
    return p["E"] + p["a"] * x["params"] ** -power + p["b"] * x["tokens"] ** -power


def _term(name: str, column: str, meaning: str) -> Constant:
    """a of a (6 x^2)^-eta, which is what a term of M^eta C^-eta comes to."""
    return Constant(
        name,
        meaning,
        -1.5,
        1.2,
        unit=lambda p, centre: centre["loss"] + p["eta"] * (LN6 + 2.0 * centre[column]),
        linear=True,
    )


def _split(theta: Array, centre: Centre, log_product: Array) -> Array:
    """a N^-2eta = b D^-2eta: the best ratio D/N is the same at every compute."""
    c = OVERTRAINING.natural(theta, centre)
    return np.asarray(0.5 * (log_product + (np.log(c["a"]) - np.log(c["b"])) / (2.0 * c["eta"])))


OVERTRAINING = law(
    "overtraining",
    "L = E + (a M^eta + b M^-eta) C^-eta with C = 6 N D and M = D/N",
    "Gadre et al. 2024, arXiv 2403.08540, the law L(C, M)",
    ("params", "tokens"),
    (
        floor(),
        _term("a", "params", "the size of the parameter term"),
        _term("b", "tokens", "the size of the data term"),
        Constant("eta", "the exponent of compute at a fixed ratio", float(np.log(0.17)), 0.6),
    ),
    _loss,
    split=_split,
)


def from_code(p0: float, p1: float, p2: float, floor_: float) -> dict[str, float]:
    """Constants from the form in which the authors' code fits them.

    L = p0 N^p2 + p1 6^(p2/2) (M N)^p2 + E (repository mlfoundations/scaling), with p2 = -2 eta.
    """
    eta = -0.5 * p2
    return {"E": floor_, "a": p0 * 6.0**eta, "b": p1, "eta": eta}


def best_ratio(constants: Mapping[str, float]) -> float:
    """Tokens per parameter of the lowest loss at any compute: M* = (b/a)^(1 / (2 eta)).

    The derivative of a M^eta + b M^-eta is 0 there.
    """
    return float((constants["b"] / constants["a"]) ** (0.5 / constants["eta"]))


def cheapest(constants: Mapping[str, float], loss: float, ratio: float | None = None) -> float:
    """FLOPs that reach a loss at a ratio of tokens to parameters, at the best one by default.

    C = ((a M^eta + b M^-eta) / (L - E))^(1/eta): L(C, M) of arXiv 2403.08540 solved for C.

    Raises:
        ValueError: the loss is not above the irreducible one.
    """
    if loss <= constants["E"]:
        raise ValueError(f"a loss of {loss:g} is never reached; give one above the floor {constants['E']:g}")
    m, eta = best_ratio(constants) if ratio is None else ratio, constants["eta"]
    height = constants["a"] * m**eta + constants["b"] * m**-eta
    return float((height / (loss - constants["E"])) ** (1.0 / eta))
