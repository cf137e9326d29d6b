"""A step as a CUDA graph: hundreds of small operations launched as one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

WARM_STEPS = 3  # libraries make their workspaces in the first ones
Body: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Graph:
    """A body as the device remembers it.

    Whatever it reads and writes beside its arguments must stay where it is in memory.

    Args:
        body: has run before on such arguments. What differs from step to step it reads from tensors.
        inputs, targets: on a GPU; others take their place at each call.
    """

    def __init__(self, body: Body, inputs: Tensor, targets: Tensor) -> None:
        self._inputs, self._targets = inputs.clone(), targets.clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = body(self._inputs, self._targets)

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self._inputs.copy_(inputs)
        self._targets.copy_(targets)
        self._graph.replay()
        first, second = self._outputs
        return first.clone(), second.clone()  # the next step writes over them


def captured(body: Body, inputs: Tensor, targets: Tensor) -> Body:
    """The body as a graph, which has not run yet; as it is where it cannot be one."""
    try:
        return Graph(body, inputs, targets)
    except Exception as error:
        logger.warning("no CUDA graph, steps run as they are: %s", " ".join(str(error).split())[:500])
        return body
