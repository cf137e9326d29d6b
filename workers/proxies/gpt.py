"""A decoder-only transformer over tokens, built from its shape."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sweeps.data import Source
from sweeps.kinds.transformer import heads
from sweeps.proxy import Proxy
from workers.proxies.model import Model, Readout, multiples, parametrise
from workers.proxies.transformer import Block, logit_scale, normalise, start

ROTARY_BASE = 10_000.0


class GPT(Model):
    """Pre-norm transformer without biases; embedding and head are not tied."""

    embedding: nn.Embedding
    rotation: Tensor

    def __init__(
        self,
        width: int,
        depth: int,
        resolution: int,
        head_count: int,
        vocabulary: int,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, head_count, True, scale) for _ in range(depth))
        self.head = Readout(width, vocabulary, bias=False)
        pairs = width // head_count // 2
        speed = ROTARY_BASE ** (-torch.arange(pairs) / pairs)
        angle = torch.arange(resolution)[:, None] * speed
        turn = torch.polar(torch.ones_like(angle), angle)[:, None, None, :]
        self.register_buffer("rotation", turn, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predicts each next token.

        Args:
            tokens: as integers, (batch, s) with s at most the resolution.

        Returns:
            Logits, (batch, s, vocabulary).
        """
        stream = self.embedding(tokens)
        rotation = self.rotation[: tokens.shape[1]]
        for block in self.blocks:
            stream = block(stream, rotation)
        logits: Tensor = self.head(normalise(stream))
        return logits


def build(config: Mapping[str, float], proxy: Proxy, source: Source, generator: torch.Generator) -> GPT:
    """The model of one configuration, on the CPU.

    Embeddings start at a standard deviation of 1 and blocks as ``transformer.start`` says; the head starts at
    zero, so that the first loss is that of guessing for every shape.

    Args:
        config: width, depth, resolution , init_scale and mup are read.
        proxy: says how many heads, and the base width and depth.
        source: says how many tokens there are.
        generator: of the initial weights.
    """
    width, depth, resolution = (int(config[name]) for name in ("width", "depth", "resolution"))
    times, scale = multiples(config, proxy), logit_scale(config, proxy)
    model = GPT(width, depth, resolution, heads(width, proxy.heads), source.outputs, scale)
    with torch.no_grad():
        model.embedding.weight.normal_(generator=generator)
        start(model.blocks, float(config["init_scale"]), times, generator)
        model.head.weight.zero_()
    parametrise(model, times)
    return model
