"""What a data set offers to training, whatever it is read from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sweeps.data import Source
from sweeps.errors import SweepError

ENDLESS = 1 << 40  # places of a split that is made up as it is asked for
SPLITS = ("train", "held_out")


class ReadError(SweepError, ValueError):
    """A data set cannot be read."""

    def __init__(self, source: Source, where: object, given: str, allowed: str) -> None:
        super().__init__(f"data set {source.name}: {where}: given {given}; allowed: {allowed}")


class Examples(Protocol):
    """A data set at one resolution, on one device.

    Args:
        hashes: SHA-256 of what each split holds, before a subset of it is taken.
        places: how many places an example of a split may begin at.
        resident: it lies on the device: ``take`` waits for nothing and belongs into the step loop. Where
            it does not, ``workers.datasets.prefetch`` reads ahead of the loop.
    """

    @property
    def hashes(self) -> Mapping[str, str]: ...
    @property
    def places(self) -> Mapping[str, int]: ...
    @property
    def resident(self) -> bool: ...

    def take(self, split: str, places: Tensor) -> tuple[Tensor, Tensor]:
        """Examples and what is to be predicted of them, on the device.

        Args:
            split: ``train`` or ``held_out``.
            places: int64, of any shape (*s); on the device where the data are resident, else better on the
                host.

        Returns:
            Tokens: int64 and int64, each (*s, resolution). Classes: float32, (*s, channels, resolution,
            resolution) or (*s, features), and int64, (*s). Values: float32, (*s, features) and (*s, outputs).
        """
        ...

    def evaluation(self, examples: int) -> Tensor:
        """Fixed places of the held-out split, int64, (examples) or fewer where the split has fewer."""
        ...


@dataclass(frozen=True)
class Subset:
    """What is left of the training split; the held-out one stays whole, so that results compare.

    Without pruning, a smaller subset is part of every larger one.

    Args:
        unique: so many examples (tokens, of text) are trained on again and again; 0 for all there are.
        fraction: share of the split that there is to choose from.
        kept: share of that which is kept, the hardest by score.
    """

    unique: int = 0
    fraction: float = 1.0
    kept: float = 1.0

    def __post_init__(self) -> None:
        if self.unique < 0:
            raise ValueError(f"unique: given {self.unique}; allowed: a whole number of at least 0")
        for name in ("fraction", "kept"):
            if not 0.0 < (share := getattr(self, name)) <= 1.0:
                raise ValueError(f"{name}: given {share}; allowed: a share above 0 and at most 1")

    @property
    def whole(self) -> bool:
        """Whether it leaves the split as it is."""
        return self == WHOLE


WHOLE = Subset()


def spread(places: int, examples: int, device: torch.device) -> Tensor:
    """Places from the first to the last at even distances, each at most once; int64, (examples)."""
    if examples >= places:
        return torch.arange(places, device=device)
    if places == ENDLESS:  # all alike, and the first of them are part of every larger evaluation
        return torch.arange(examples, device=device)
    return torch.linspace(0, places - 1, examples, dtype=torch.float64).long().to(device)


def described(source: Source, version: str) -> dict[str, str]:
    """Hashes of the splits of a data set that its description decides.

    Args:
        version: changes with the code or the files that make the examples.
    """
    told = [source.reader, source.outputs, source.features, dict(source.options), version]
    return {
        split: hashlib.sha256(json.dumps([*told, split], sort_keys=True).encode()).hexdigest()
        for split in SPLITS
    }


def share(part: float, count: int) -> int:
    """So many of a count are a share of it, one at least."""
    return max(1, math.floor(part * count + 0.5))
