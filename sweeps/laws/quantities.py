"""The quantities laws read, with their units and valid ranges.

A quantity that is not listed may still be a column of a law: it is taken as a positive number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

INFINITY = float("inf")


@dataclass(frozen=True)
class Quantity:
    """A named number of a run.

    Args:
        name: in mappings, laws and answers.
        unit: in words.
        low, high: valid range, inclusive; 0 as ``low`` means above 0.
        centred: whether laws see it relative to its geometric mean. Those whose unit is part of a law's
            meaning (bits, streams, experts) are seen as they are.
        like: another quantity whose centre it shares, since laws take their ratio.
    """

    name: str
    unit: str
    low: float = 0.0
    high: float = INFINITY
    centred: bool = True
    like: str | None = None


_ALL = (
    Quantity("params", "parameters, by the count the table uses"),
    Quantity("tokens", "training tokens (or samples) seen, repeats counted"),
    Quantity("flops", "training FLOPs"),
    Quantity("loss", "the table's loss, such as nats per token"),
    Quantity("steps", "optimiser steps"),
    Quantity("batch", "tokens (or samples) a step"),
    Quantity("lr", "peak learning rate"),
    Quantity("width", "model width"),
    Quantity("depth", "layers"),
    Quantity("unique_tokens", "tokens before any is repeated", like="tokens"),
    Quantity("vocab", "entries of the vocabulary"),
    Quantity("vocab_params", "parameters of embedding and head", like="params"),
    Quantity("granularity", "experts a dense layer is split into"),
    Quantity("loss_in", "the loss a downstream law reads"),
    Quantity("experts", "experts a layer", low=1.0, centred=False),
    Quantity("active_params", "parameters a token passes through", like="params"),
    Quantity("streams", "parallel streams", low=1.0, centred=False),
    Quantity("exponent_bits", "exponent bits of a number", low=1.0, high=11.0, centred=False),
    Quantity("mantissa_bits", "mantissa bits of a number", low=0.5, high=52.0, centred=False),
    Quantity("block", "numbers that share a scaling factor", low=1.0, centred=False),
    Quantity("bits", "bits of a weight in training", low=1.0, high=64.0, centred=False),
    Quantity("kept", "share of the data kept", low=1e-6, high=1.0, centred=False),
    Quantity("members", "models in an ensemble", low=1.0, centred=False),
    Quantity("encoder_params", "parameters of the first module"),
    Quantity("decoder_params", "parameters of the second module"),
    Quantity("compute", "compute in any unit, such as GPU hours"),
    Quantity("x", "the scale of a law in one variable"),
    Quantity("weight", "precision of a run's loss, 1 being usual: 1 / sqrt(weight) times the noise"),
    Quantity("run", "label of the run a row belongs to"),
)
OF_ROWS = ("weight", "run")  # said of rows of a table; no law reads them
QUANTITIES: Mapping[str, Quantity] = MappingProxyType({one.name: one for one in _ALL})


def quantity(name: str) -> Quantity:
    """A listed quantity, or a positive one of that name."""
    return QUANTITIES.get(name, Quantity(name, name))
