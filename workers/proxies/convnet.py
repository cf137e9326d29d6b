"""A residual convolutional network, built from its shape."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sweeps.data import Source
from sweeps.kinds.convnet import STAGES
from sweeps.proxy import Proxy
from workers.proxies.model import Branch, Model, Readout, multiples, parametrise


class Residual(Branch):
    """Two 3 x 3 convolutions, each after a norm and a rectifier, added to the stream (He et al. 2016,
    arXiv 1603.05027).

    The norm is over all channels and places of an image, without gains: it knows no other image.

    Args:
        group_width: channels of a group of the convolutions; 0 is ungrouped.
    """

    def __init__(self, width: int, group_width: int) -> None:
        super().__init__()
        groups = width // (group_width or width)
        self.grows = group_width == 0
        self.first = nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        """One block, (batch, width, r, r) to the same."""
        between = self.first(_activate(stream))
        update: Tensor = self.second(_activate(between))
        return torch.add(stream, update, alpha=self.multiplier)


class ConvNet(Model):
    """A stem, stages of blocks that halve the resolution and double the width, and a readout of the mean."""

    embedding: nn.Conv2d

    def __init__(self, channels: int, width: int, depth: int, group_width: int, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        body: list[nn.Module] = []
        for stage in range(STAGES):
            own = width << stage
            if stage:
                body.append(nn.Conv2d(own // 2, own, 2, stride=2, bias=False))
            body += [Residual(own, group_width) for _ in range(depth)]
        self.blocks = nn.ModuleList(body)
        self.head = Readout(width << (STAGES - 1), outputs, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of classes, or values.

        Args:
            images: (batch, channels, resolution, resolution).

        Returns:
            (batch, outputs).
        """
        stream = self.embedding(images)
        for block in self.blocks:
            stream = block(stream)
        read: Tensor = self.head(_activate(stream).mean((2, 3)))
        return read


def build(config: Mapping[str, float], proxy: Proxy, source: Source, generator: torch.Generator) -> ConvNet:
    """The model of one configuration, on the CPU.

    The stem starts at a standard deviation of 1 / sqrt(inputs), convolutions of blocks at ``init_scale``
    sqrt(2 / inputs) (He et al. 2015, arXiv 1502.01852), the second of each block at that over sqrt(blocks)
    (of the base depth under ``mup``, where a multiplier of the branch does the rest), those between stages at
    ``init_scale`` / sqrt(inputs); the readout starts at zero.

    Args:
        config: width, depth, group_width, init_scale and mup are read.
        proxy: says the base width and depth.
        source: says what goes in and comes out.
        generator: of the initial weights.
    """
    width, depth, group_width = (int(config[name]) for name in ("width", "depth", "group_width"))
    times = multiples(config, proxy)
    model = ConvNet(source.channels, width, depth, group_width, source.outputs)
    with torch.no_grad():
        model.embedding.weight.normal_(std=_spread(model.embedding.weight), generator=generator)
        for name, weight in model.blocks.named_parameters():
            deviation = float(config["init_scale"]) * _spread(weight)
            if name.endswith("first.weight"):
                deviation *= math.sqrt(2)
            elif name.endswith("second.weight"):
                deviation *= math.sqrt(2 * times.depth / (STAGES * depth))
            weight.normal_(std=deviation, generator=generator)
        model.head.weight.zero_()
    parametrise(model, times)
    return model


def _activate(stream: Tensor) -> Tensor:
    return F.relu(F.group_norm(stream, 1))


def _spread(weight: Tensor) -> float:
    return 1 / math.sqrt(math.prod(weight.shape[1:]))
