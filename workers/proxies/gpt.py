"""A decoder-only transformer over bytes, built from its shape."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sweeps.cost import VOCABULARY
from sweeps.recipe import heads
from sweeps.spec import Proxy

ROTARY_BASE = 10_000.0


class Block(nn.Module):
    """Causal attention, then a feed-forward part, each on a normalised copy of the stream and added to it.

    Queries and keys are normalised too: runs near the highest stable rate then depend less on their seed
    (Wortsman et al. 2023, arXiv 2309.14322, section 3.1).
    """

    def __init__(self, width: int, head_count: int) -> None:
        super().__init__()
        self.head_count = head_count
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.attended = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, stream: Tensor, rotation: Tensor) -> Tensor:
        """One layer.

        Args:
            stream: (batch, resolution, width).
            rotation: unit complex numbers by position, (resolution, 1, 1, head width / 2).

        Returns:
            (batch, resolution, width).
        """
        batch, resolution, width = stream.shape
        shape = (batch, resolution, 3, self.head_count, width // self.head_count)
        mixed = self.queries_keys_values(_normalise(stream)).view(shape)
        turning, values = mixed.split((2, 1), dim=2)
        queries, keys = _rotate(_normalise(turning), rotation).permute(2, 0, 3, 1, 4)
        values = values.squeeze(2).transpose(1, 2)
        attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        stream = stream + self.attended(attended.transpose(1, 2).reshape(batch, resolution, width))
        update: Tensor = self.down(F.gelu(self.up(_normalise(stream)), approximate="tanh"))
        return stream + update


class GPT(nn.Module):
    """Pre-norm transformer without biases; embedding and head are not tied."""

    rotation: Tensor

    def __init__(self, width: int, depth: int, resolution: int, head_count: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width, head_count) for _ in range(depth))
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        pairs = width // head_count // 2
        speed = ROTARY_BASE ** (-torch.arange(pairs) / pairs)
        angle = torch.arange(resolution)[:, None] * speed
        turn = torch.polar(torch.ones_like(angle), angle)[:, None, None, :]
        self.register_buffer("rotation", turn, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predicts each next byte.

        Args:
            tokens: bytes as integers, (batch, s) with s at most the resolution.

        Returns:
            Logits, (batch, s, 256).
        """
        stream = self.embedding(tokens)
        rotation = self.rotation[: tokens.shape[1]]
        for block in self.blocks:
            stream = block(stream, rotation)
        logits: Tensor = self.head(_normalise(stream))
        return logits


def build(config: Mapping[str, float], proxy: Proxy, generator: torch.Generator) -> GPT:
    """The model of one configuration, on the CPU.

    Hidden matrices start at a standard deviation of ``init_scale`` / sqrt(inputs), those that write to the
    residual stream at that over sqrt(2 depth) (Radford et al. 2019, section 2.3); the head starts at
    zero, so that the first loss is ln 256 nats a byte for every shape.

    Args:
        config: width, depth, resolution and init_scale are read.
        proxy: says how many heads.
        generator: of the initial weights.
    """
    width, depth, resolution = (int(config[name]) for name in ("width", "depth", "resolution"))
    model = GPT(width, depth, resolution, heads(width, proxy.heads))
    scale = float(config["init_scale"])
    with torch.no_grad():
        model.embedding.weight.normal_(generator=generator)
        for name, weight in model.blocks.named_parameters():
            deviation = scale / math.sqrt(weight.shape[1])
            if name.endswith(("attended.weight", "down.weight")):
                deviation /= math.sqrt(2 * depth)
            weight.normal_(std=deviation, generator=generator)
        model.head.weight.zero_()
    return model


def groups(model: GPT) -> dict[str, int]:
    """Trained numbers by group, named as in ``sweeps.cost.Cost``."""
    parts = {"params_embedding": model.embedding, "params_body": model.blocks, "params_head": model.head}
    return {name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()}


def _normalise(stream: Tensor) -> Tensor:
    return F.rms_norm(stream, stream.shape[-1:])


def _rotate(projected: Tensor, rotation: Tensor) -> Tensor:
    """Turns neighbouring pairs of numbers by their position's angle (Su et al. 2021, arXiv 2104.09864).

    As complex products, which cost a third of the time of the real form on a CPU.
    """
    pairs = torch.view_as_complex(projected.float().view(*projected.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(projected.dtype)
