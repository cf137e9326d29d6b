"""The block of which transformers are made."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Attention, then a feed-forward part, each on a normalised copy of the stream and added to it.

    Queries and keys are normalised too: runs near the highest stable rate then depend less on their seed
    (Wortsman et al. 2023, arXiv 2309.14322, section 3.1).

    Args:
        causal: whether a position sees no later one.
    """

    def __init__(self, width: int, head_count: int, causal: bool) -> None:
        super().__init__()
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
            attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=self.causal)
        stream = stream + self.attended(attended.transpose(1, 2).reshape(batch, positions, width))
        update: Tensor = self.down(F.gelu(self.up(normalise(stream)), approximate="tanh"))
        return stream + update


def start(blocks: nn.ModuleList, scale: float, generator: torch.Generator) -> None:
    """Draws the weights of blocks, in place.

    Matrices start at a standard deviation of ``scale`` / sqrt(inputs), those that write to the residual
    stream at that over sqrt(2 depth) (Radford et al. 2019, section 2.3).
    """
    for name, weight in blocks.named_parameters():
        deviation = scale / math.sqrt(weight.shape[1])
        if name.endswith(("attended.weight", "down.weight")):
            deviation /= math.sqrt(2 * len(blocks))
        weight.normal_(std=deviation, generator=generator)


def normalise(stream: Tensor) -> Tensor:
    """Numbers of the last dimension over their root mean square."""
    return F.rms_norm(stream, stream.shape[-1:])


def _rotate(projected: Tensor, rotation: Tensor) -> Tensor:
    """Turns neighbouring pairs of numbers by their position's angle (Su et al. 2021, arXiv 2104.09864).

    As complex products, which cost a third of the time of the real form on a CPU.
    """
    pairs = torch.view_as_complex(projected.float().view(*projected.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(projected.dtype)
