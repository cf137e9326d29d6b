"""Models of two modules, such as an encoder and a decoder, which multiply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeps.laws.base import Columns
from sweeps.laws.formula import Constant, floor, law, power


def _loss(p: Mapping[str, Any], x: Columns) -> Any:
    return p["E"] + p["A"] * x["encoder_params"] ** -p["p_e"] * x["decoder_params"] ** -p["p_d"]


MODULES = law(
    "modules",
    "L = E + A N_e^-p_e N_d^-p_d",
    "Ghorbani et al. 2021, arXiv 2109.07740, the bivariate law; A holds its reference sizes",
    ("encoder_params", "decoder_params"),
    (
        floor(),
        Constant(
            "A",
            "the size of the reducible loss",
            -0.9,
            1.0,
            unit=lambda p, centre: (
                centre["loss"] + p["p_e"] * centre["encoder_params"] + p["p_d"] * centre["decoder_params"]
            ),
            linear=True,
        ),
        power("p_e", "the first module"),
        power("p_d", "the second module"),
    ),
    _loss,
)


def best_modules(constants: Mapping[str, float], params: float) -> tuple[float, float]:
    """Sizes of the two modules with the lowest loss at a sum: N_e / N_d = p_e / p_d.

    The derivative of p_e ln N_e + p_d ln N_d under N_e + N_d = N is 0 there (arXiv 2109.07740).
    """
    first = constants["p_e"] / (constants["p_e"] + constants["p_d"])
    return params * first, params * (1.0 - first)


def least_params(constants: Mapping[str, float], loss: float) -> float:
    """The smallest sum of both modules that reaches a loss.

    Raises:
        ValueError: the loss is not above the irreducible one.
    """
    if loss <= constants["E"]:
        raise ValueError(f"a loss of {loss:g} is never reached; give one above the floor {constants['E']:g}")
    total = constants["p_e"] + constants["p_d"]
    first, second = best_modules(constants, 1.0)
    height = constants["A"] * first ** -constants["p_e"] * second ** -constants["p_d"]
    return float((height / (loss - constants["E"])) ** (1.0 / total))
