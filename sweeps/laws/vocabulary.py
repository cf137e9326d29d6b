"""The law of the vocabulary's size: its parameters count apart from the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sweeps.laws.base import Array, Columns
from sweeps.laws.formula import floor, law, power, term

Number = float | Array


def _loss(p: Mapping[str, Any], x: Columns) -> Any:
    rest, vocabulary = x["params"] ** -p["a_1"], x["vocab_params"] ** -p["a_2"]
    return p["E"] + p["A_1"] * rest + p["A_2"] * vocabulary + p["B"] * x["tokens"] ** -p["beta"]


# Losses of different vocabularies compare by character or byte, not by token. The paper's unigram-normalised
# loss has a floor below 0; it fits this law once a constant has been added that makes it positive.
VOCABULARY = law(
    "vocabulary",
    "L = E + A_1 N_nv^-a_1 + A_2 N_v^-a_2 + B D^-beta",
    "Tao et al. 2024, arXiv 2407.13623, the law of vocabulary parameters; N_nv is the column params",
    ("params", "vocab_params", "tokens"),
    (
        floor(),
        term("A_1", "params", "a_1", "the size of the term of the other parameters"),
        power("a_1", "the other parameters"),
        term("A_2", "vocab_params", "a_2", "the size of the term of the vocabulary"),
        power("a_2", "the vocabulary's parameters"),
        term("B", "tokens", "beta", "the size of the data term"),
        power("beta", "tokens"),
    ),
    _loss,
)


def best_vocab_params(constants: Mapping[str, Number], params: Number) -> Array:
    """Vocabulary parameters that go with a number of others at the lowest loss of all splits of their sum.

    Where a parameter is worth the same in both: a_1 A_1 N_nv^-(a_1 + 1) = a_2 A_2 N_v^-(a_2 + 1), a power law
    N_v ~ N_nv^((a_1 + 1) / (a_2 + 1)). The characters a token holds are taken as fixed.

    Args:
        constants: of ``VOCABULARY``, each a number or (b,) draws.
        params: the others, N_nv.
    """
    c = {name: np.asarray(value, dtype=float) for name, value in constants.items()}
    balance = np.log(c["a_2"] * c["A_2"]) - np.log(c["a_1"] * c["A_1"])
    log_size = np.log(np.asarray(params, dtype=float))
    return np.asarray(np.exp((balance + (c["a_1"] + 1.0) * log_size) / (c["a_2"] + 1.0)))
