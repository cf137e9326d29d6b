"""The block of which transformers are made."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sweeps.kinds.transformer import heads
from sweeps.proxy import Proxy
from workers.proxies.model import Branch, Multiples


class Block(Branch):
    """Attention, then a feed-forward part, each on a normalised copy of the stream and added to it.

    Queries and keys are normalised too: runs near the highest stable rate then depend less on their seed
    (Wortsman et al. 2023, arXiv 2309.14322, section 3.1).

    Args:
        causal: whether a position sees no later one.
        scale: of products of queries and keys; None is 1 / sqrt(head width).
    """

    def __init__(self, width: int, head_count: int, causal: bool, scale: float | None = None) -> None:
        super().__init__()
        self.scale = scale
        self.head_count, self.causal = head_count, causal
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.attended = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, stream: Tensor, rotation: Tensor | None = None) -> Tensor:
        """One layer.

        Args:
            stream: (batch, positions, width).
            rotation: of queries and keys, as unit complex numbers by position,
                (positions, 1, 1, head width / 2).

        Returns:
            (batch, positions, width).
        """
        batch, positions, width = stream.shape
        shape = (batch, positions, 3, self.head_count, width // self.head_count)
        mixed = self.queries_keys_values(normalise(stream)).view(shape)
        turning, values = mixed.split((2, 1), dim=2)
        turned = normalise(turning)
        if rotation is not None:
            turned = _rotate(turned, rotation)
        values = values.squeeze(2).transpose(1, 2)
        queries, keys = turned.permute(2, 0, 3, 1, 4).to(values.dtype)
        # Gradients of stacked attention mix precisions where it chooses them itself; here all have one.
        with torch.autocast(stream.device.type, enabled=False):
            attended = F.scaled_dot_product_attention(
                queries, keys, values, is_causal=self.causal, scale=self.scale
            )
        update = self.attended(attended.transpose(1, 2).reshape(batch, positions, width))
        stream = torch.add(stream, update, alpha=self.multiplier)
        update = self.down(F.gelu(self.up(normalise(stream)), approximate="tanh"))
        return torch.add(stream, update, alpha=self.multiplier)


def start(blocks: nn.ModuleList, scale: float, times: Multiples, generator: torch.Generator) -> None:
    """Draws the weights of blocks, in place.

    Matrices start at a standard deviation of ``scale`` / sqrt(inputs), those that write to the residual
    stream at that over sqrt(2 depth) (Radford et al. 2019, section 2.3), of the base depth under ``mup``,
    where a multiplier of the branch does the rest.
    """
    for name, weight in blocks.named_parameters():
        deviation = scale / math.sqrt(weight.shape[1])
        if name.endswith(("attended.weight", "down.weight")):
            deviation /= math.sqrt(2 * len(blocks) / times.depth)
        weight.normal_(std=deviation, generator=generator)


def logit_scale(config: Mapping[str, float], proxy: Proxy) -> float | None:
    """What products of queries and keys are multiplied by; None is 1 / sqrt(head width).

    Normalised queries and keys are sqrt(k) long at a head width of k, so 1 / sqrt(k) makes logits sqrt(k)
    cos: of order one while the two are unrelated, where cos ~ 1 / sqrt(k), and up to sqrt(k) once training
    has aligned them. The norm bounds the length and not the alignment, so the sharpest attention that a head
    can learn still grows with its width. Under ``mup`` the scale is sqrt(base k) / k (Yang et al. 2022,
    arXiv 2203.03466, definition 4.1): logits are at most sqrt(base k) at every width. Where heads keep their
    width and grow in number, as they do by default, nothing changes.
    """
    width, base = int(config["width"]), proxy.base_width
    own, like = width / heads(width, proxy.heads), base / heads(base, proxy.heads)
    return math.sqrt(like) / own if config.get("mup", 0) and own != like else None


def normalise(stream: Tensor) -> Tensor:
    """Numbers of the last dimension over their root mean square."""
    return F.rms_norm(stream, stream.shape[-1:])


def _rotate(projected: Tensor, rotation: Tensor) -> Tensor:
    """Turns neighbouring pairs of numbers by their position's angle (Su et al. 2021, arXiv 2104.09864).

    As complex products, which cost a third of the time of the real form on a CPU.
    """
    pairs = torch.view_as_complex(projected.float().view(*projected.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(projected.dtype)
