"""A vision transformer, built from its shape."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sweeps.data import Source
from sweeps.kinds.transformer import heads
from sweeps.proxy import Proxy
from workers.proxies.model import Model, Readout, multiples, parametrise
from workers.proxies.transformer import Block, logit_scale, normalise, start

PERIODS = 10_000.0


class ViT(Model):
    """Pre-norm transformer over patches without biases; the mean over patches is read out.

    Args:
        side: patches along a side.
        patch: pixels along the side of one.
    """

    embedding: nn.Linear
    positions: Tensor

    def __init__(
        self,
        channels: int,
        side: int,
        patch: int,
        width: int,
        depth: int,
        head_count: int,
        outputs: int,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.side, self.patch = side, patch
        self.embedding = nn.Linear(channels * patch**2, width, bias=False)
        self.blocks = nn.ModuleList(Block(width, head_count, False, scale) for _ in range(depth))
        self.head = Readout(width, outputs, bias=False)
        self.register_buffer("positions", _positions(side, width), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of classes, or values.

        Args:
            images: (batch, channels, resolution, resolution).

        Returns:
            (batch, outputs).
        """
        batch, channels = images.shape[:2]
        cut = images.reshape(batch, channels, self.side, self.patch, self.side, self.patch)
        patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, self.side**2, -1)
        stream = self.embedding(patches) + self.positions
        for block in self.blocks:
            stream = block(stream)
        read: Tensor = self.head(normalise(stream).mean(1))
        return read


def build(config: Mapping[str, float], proxy: Proxy, source: Source, generator: torch.Generator) -> ViT:
    """The model of one configuration, on the CPU.

    The patch embedding starts at a standard deviation of 1 / sqrt(inputs) and blocks as ``transformer.start``
    says; the readout starts at zero.

    Args:
        config: width, depth, resolution, patch , init_scale and mup are read.
        proxy: says how many heads, and the base width and depth.
        source: says what goes in and comes out.
        generator: of the initial weights.
    """
    width, depth, resolution, patch = (
        int(config[name]) for name in ("width", "depth", "resolution", "patch")
    )
    head_count, scale = heads(width, proxy.heads), logit_scale(config, proxy)
    side, times = resolution // patch, multiples(config, proxy)
    model = ViT(source.channels, side, patch, width, depth, head_count, source.outputs, scale)
    with torch.no_grad():
        inputs = model.embedding.in_features
        model.embedding.weight.normal_(std=1 / math.sqrt(inputs), generator=generator)
        start(model.blocks, float(config["init_scale"]), times, generator)
        model.head.weight.zero_()
    parametrise(model, times)
    return model


def _positions(side: int, width: int) -> Tensor:
    """Sines and cosines of each patch's column and row, (side^2, width) (Beyer et al. 2022,
    arXiv 2205.01580)."""
    quarter = -(-width // 4)
    angle = torch.arange(side)[:, None] * PERIODS ** (-torch.arange(quarter) / quarter)
    waves = torch.cat([angle.sin(), angle.cos()], 1)
    rows, columns = waves[:, None].expand(side, side, -1), waves[None].expand(side, side, -1)
    return torch.cat([columns, rows], 2).reshape(side**2, -1)[:, :width].contiguous()
