"""A stacked step as straight-line code.

``vmap`` and autograd decide anew at every step what every operation of every layer becomes; for small models
that takes most of the time. A trace decides once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from workers.engines.tidy import tidy

logger = logging.getLogger(__name__)

Weights: TypeAlias = dict[str, Tensor]
Gradients: TypeAlias = Callable[[Weights, Tensor, Tensor], tuple[Weights, Tensor]]


def traced(function: Gradients, weights: Weights, inputs: Tensor, targets: Tensor) -> Gradients:
    """The same function as straight-line code, or as it is where it cannot be traced."""
    try:
        graph: Gradients = tidy(make_fx(functionalize(function))(weights, inputs, targets))
    except Exception as error:
        logger.warning("not traced, stacks as it is: %s", " ".join(str(error).split())[:500])
        return function
    return graph
