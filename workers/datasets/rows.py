"""Examples that lie on the device as one tensor of inputs and one of targets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sweeps.data import Source
from workers.datasets.base import SPLITS, Subset, spread
from workers.datasets.counter import mix
from workers.datasets.subsets import Score, choose, distances

LEAST_SPREAD = 1e-6  # of a feature; one that never changes is only centred


@dataclass(frozen=True)
class Split:
    """Inputs, (n, channels, resolution, resolution) or (n, features), uint8 or float32; targets, int64 (n) or
    float32 (n, outputs)."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Rows:
    """``Examples`` of resident rows or images.

    Args:
        splits: on the device.
        centre, scale: of inputs, (channels, 1, 1) or (features): (input - centre) / scale is handed out.
        chosen: places of the training split that a subset leaves, (places); None for all.
    """

    splits: Mapping[str, Split]
    hashes: Mapping[str, str]
    centre: Tensor
    scale: Tensor
    chosen: Tensor | None = None
    resident: bool = True

    @property
    def places(self) -> dict[str, int]:
        counts = {name: len(split.targets) for name, split in self.splits.items()}
        return counts if self.chosen is None else counts | {"train": len(self.chosen)}

    def take(self, split: str, places: Tensor) -> tuple[Tensor, Tensor]:
        if split == "train" and self.chosen is not None:
            places = self.chosen[places]
        held, flat = self.splits[split], places.flatten()
        inputs = held.inputs.index_select(0, flat).float().sub_(self.centre).div_(self.scale)
        targets = held.targets.index_select(0, flat)
        shape = places.shape
        return inputs.view(shape + inputs.shape[1:]), targets.view(shape + targets.shape[1:])

    def evaluation(self, examples: int) -> Tensor:
        return spread(self.places["held_out"], examples, self.centre.device)


def rows(
    source: Source,
    splits: Mapping[str, Split],
    device: torch.device,
    subset: Subset,
    score: Tensor | None = None,
) -> Rows:
    """Moves splits to a device and takes a subset.

    Inputs are centred and scaled to variance 1, each channel or feature by what the whole training split
    says; values to predict likewise, so that guessing their mean costs 1.

    Args:
        score: of the training examples, (n); None for the distance to the mean of the class, if there are
            classes.
    """
    hashes = {name: content_hash(splits[name]) for name in SPLITS}
    inputs = splits["train"].inputs
    dims = (0, 2, 3) if inputs.dim() == 4 else (0,)
    centre, scale = _moments(inputs, dims)
    if source.task == "values":
        middle, spread_ = _moments(splits["train"].targets, (0,))
        splits = {name: Split(one.inputs, (one.targets - middle) / spread_) for name, one in splits.items()}
    placed = {name: Split(one.inputs.to(device), one.targets.to(device)) for name, one in splits.items()}
    made = Rows(placed, hashes, centre.to(device), scale.to(device))
    hard: Score | None = None
    if score is not None:
        given = score
        hard = lambda places: given[places]  # noqa: E731
    elif source.task == "classes":
        hard = distances(lambda places: made.take("train", places.to(device)), source.outputs)
    chosen = choose(source, subset, len(inputs), hard)
    return made if chosen is None else Rows(placed, hashes, made.centre, made.scale, chosen.to(device))


def held_out(count: int, part: float) -> Tensor:
    """Which of so many examples are held out: a fixed random share; bool, (count) on the host."""
    return (mix(torch.arange(count)) >> 11 & (1 << 53) - 1).double() * 2.0**-53 < part


def content_hash(split: Split) -> str:
    """SHA-256 of inputs and targets with their shapes."""
    digest = hashlib.sha256()
    for part in (split.inputs, split.targets):
        digest.update(f"{part.dtype} {tuple(part.shape)} ".encode())
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


def _moments(numbers: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over dimensions, float32, without the first dimension."""
    exact = numbers.double()
    centre, spread_ = exact.mean(dims, keepdim=True)[0], exact.std(dims, correction=0, keepdim=True)[0]
    return centre.float(), torch.where(spread_ < LEAST_SPREAD, 1.0, spread_).float()
