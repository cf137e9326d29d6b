"""shim"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.datasets import stdlib


@dataclass(frozen=True)
class Subset:
    unique: int = 0
    fraction: float = 1.0
    kept: float = 1.0


class Examples:
    def __init__(self, text, resolution):
        self.text, self.resolution = text, resolution
        self.hashes = {"train": text.train_hash, "held_out": text.held_out_hash}
        self.places = {"train": len(text.train) - resolution, "held_out": len(text.held_out) - resolution}

    def take(self, split, places):
        text = self.text.train if split == "train" else self.text.held_out
        cut = text[places[..., None] + torch.arange(self.resolution + 1, device=places.device)].long()
        return cut[..., :-1], cut[..., 1:]

    def evaluation(self, examples):
        return torch.from_numpy(
            stdlib.evaluation(self.text.held_out, examples * self.resolution, self.resolution)
        )


def load(source, resolution, device, subset=Subset()):
    return Examples(stdlib.to(stdlib.load(), device), resolution)
