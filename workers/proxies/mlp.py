"""A multilayer perceptron over rows of numbers or flattened images, built from its shape."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sweeps.data import Source
from sweeps.proxy import Proxy
from workers.proxies.model import Model, Readout, multiples, parametrise


class MLP(Model):
    """Hidden layers of one width with rectifiers and a readout, all with biases."""

    embedding: nn.Linear

    def __init__(self, inputs: int, width: int, depth: int, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.head = Readout(width, outputs)

    def forward(self, rows: Tensor) -> Tensor:
        """Scores of classes, or values.

        Args:
            rows: (batch, inputs), or images (batch, channels, resolution, resolution).

        Returns:
            (batch, outputs).
        """
        hidden = F.relu(self.embedding(rows.flatten(1)))
        for layer in self.blocks:
            hidden = F.relu(layer(hidden))
        read: Tensor = self.head(hidden)
        return read


def build(config: Mapping[str, float], proxy: Proxy, source: Source, generator: torch.Generator) -> MLP:
    """The model of one configuration, on the CPU.

    The input layer starts at a standard deviation of 1 / sqrt(inputs), hidden matrices at ``init_scale``
    sqrt(2 / inputs) (He et al. 2015, arXiv 1502.01852); biases and the readout start at zero.

    Args:
        config: width, depth, resolution, init_scale and mup are read; depth has no branches to rescale.
        proxy: says the base width.
        source: says what goes in and comes out.
        generator: of the initial weights.
    """
    width, depth = int(config["width"]), int(config["depth"])
    model = MLP(int(source.inputs(config["resolution"])), width, depth, source.outputs)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.embedding.weight.normal_(std=1 / math.sqrt(model.embedding.in_features), generator=generator)
        for weight in model.blocks.parameters():
            if weight.ndim > 1:
                weight.normal_(std=float(config["init_scale"]) * math.sqrt(2 / width), generator=generator)
    parametrise(model, multiples(config, proxy))
    return model
