"""Links from the loss to a downstream error or score, which compose with predictions of the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import autograd.numpy as anp
import numpy as np

from sweeps.laws.base import Array, Centre, Columns, Law
from sweeps.laws.formula import Constant, Kind, law, scale

LEAST = 1e-6  # of an error, relative to the one of an untrained model: the formula passes below 0
Natural = Mapping[str, Any]


@dataclass(frozen=True)
class Downstream:
    """A link: a law with one column, ``loss_in``.

    Args:
        law: what is fitted to pairs of a loss and an error or score.
        value: (natural constants, loss) -> error or score; they broadcast.
        loss: the inverse in the loss; nan where no loss gives the value.
    """

    law: Law
    value: Callable[[Natural, Array], Array]
    loss: Callable[[Natural, Array], Array]

    def after(self, theta: Array, centre: Centre, loss: Array) -> Array:
        """Errors or scores of predicted losses, with the uncertainty of both.

        Args:
            theta: (b, p) draws of the link, or (p,).
            centre: of the data that it was fitted to.
            loss: (b, ...) draws of predictions, each with its own draw of the link.

        Returns:
            Of the shape of ``loss``.
        """
        apart = (..., *(None,) * (loss.ndim - 1)) if theta.ndim > 1 else ...
        constants = {name: value[apart] for name, value in self.law.natural(theta, centre).items()}
        return self.value(constants, loss)


def _error(c: Natural, loss: Array) -> Array:
    return np.asarray(np.maximum(c["eps"] - c["k"] * np.exp(-c["gamma"] * loss), LEAST * c["eps"]))


def _loss_of_error(c: Natural, error: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(-np.log((c["eps"] - error) / c["k"]) / c["gamma"])


def _score(c: Natural, loss: Array) -> Array:
    return np.asarray(c["a"] * np.exp(-np.logaddexp(0.0, -c["k"] * (loss - c["L_0"]))) + c["b"])


def _loss_of_score(c: Natural, score: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(c["L_0"] - np.log(c["a"] / (score - c["b"]) - 1.0) / c["k"])


def _fitted_error(p: Mapping[str, Any], x: Columns) -> Any:
    share = p["share"] * anp.exp(-p["gamma"] * (x["loss_in"] - 1.0))
    return p["eps"] * anp.maximum(1.0 - share, LEAST)


def _fitted_score(p: Mapping[str, Any], x: Columns) -> Any:
    bend = p["k"] * (x["loss_in"] - p["L_0"])
    return p["b"] * (1.0 - p["drop"] * anp.exp(-anp.logaddexp(0.0, -bend)))


def _per_loss(name: str, meaning: str, mean: float, sd: float) -> Constant:
    return Constant(name, meaning, mean, sd, unit=lambda _, centre: -centre["loss_in"])


def _size(name: str, meaning: str, mean: float, sd: float) -> Constant:
    return Constant(name, meaning, mean, sd, unit=lambda _, centre: centre["loss"], linear=True)


_ERROR = law(
    "downstream_error",
    "Err = eps - k exp(-gamma L)",
    "Gadre et al. 2024, arXiv 2403.08540, the law of the average top-1 error",
    ("loss_in",),
    (
        _size("eps", "the error without training", 0.3, 0.4),
        Constant("share", "the share of it that the central loss takes off", float(np.log(0.35)), 0.5),
        _per_loss("gamma", "how fast the error follows the loss", float(np.log(1.8)), 0.6),
    ),
    _fitted_error,
    measures="error",
)
_SCORE = law(
    "downstream_score",
    "Acc = a / (1 + exp(-k (L - L_0))) + b, a below 0",
    "OLMo ladder, arXiv 2412.04403, step 2",
    ("loss_in",),
    (
        _size("b", "the best score", 0.4, 0.4),
        Constant("drop", "the share of it that is lost without training", 0.5, 1.0, Kind.SHARE),
        _per_loss("k", "how sharply the score follows the loss", float(np.log(6.0)), 0.7),
        scale("L_0", "loss_in", "the loss half way", 0.0, 0.3),
    ),
    _fitted_score,
    measures="score",
)


def _error_natural(theta: Array, centre: Centre) -> dict[str, Array]:
    c = _ERROR.natural(theta, centre)
    k = c["eps"] * c["share"] * np.exp(c["gamma"] * np.exp(centre["loss_in"]))
    return {"eps": c["eps"], "k": k, "gamma": c["gamma"]}


def _error_internal(constants: Mapping[str, float], centre: Centre) -> Array:
    taken = constants["k"] * np.exp(-constants["gamma"] * np.exp(centre["loss_in"]))
    return _ERROR.internal({**constants, "share": taken / constants["eps"]}, centre)


def _score_natural(theta: Array, centre: Centre) -> dict[str, Array]:
    c = _SCORE.natural(theta, centre)
    return {"a": -c["b"] * c["drop"], "b": c["b"], "k": c["k"], "L_0": c["L_0"]}


def _score_internal(constants: Mapping[str, float], centre: Centre) -> Array:
    return _SCORE.internal({**constants, "drop": -constants["a"] / constants["b"]}, centre)


ERROR = Downstream(replace(_ERROR, natural=_error_natural, internal=_error_internal), _error, _loss_of_error)
SCORE = Downstream(replace(_SCORE, natural=_score_natural, internal=_score_internal), _score, _loss_of_score)
DOWNSTREAM = (ERROR.law, SCORE.law)
