"""Images that are decoded when they are asked for, and kept where memory allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from workers.datasets.base import spread

KEPT_BYTES = 1 << 30  # of the decoded images of one split at one resolution
THREADS = 4
MIDDLE, SPREAD = 0.5, 0.25  # of pixels from 0 to 1, about; taken off and divided by

Pixels: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Read: TypeAlias = Callable[[int], Pixels]
MODES = {1: "L", 3: "RGB"}


class Album:
    """Images of one split.

    Args:
        read: the pixels of a place, as ``fitted`` gives them; its errors name the file.
        labels: int64, (images), on the host.
    """

    def __init__(self, read: Read, labels: Tensor, channels: int, resolution: int) -> None:
        self.read, self.labels, self.channels, self.resolution = read, labels, channels, resolution
        shape = (len(labels), channels, resolution, resolution)
        keeps = int(np.prod(shape)) <= KEPT_BYTES
        self.known = np.zeros(len(labels), bool)
        self.kept = np.zeros(shape, np.uint8) if keeps else None  # untouched pages take no memory

    def pixels(self, places: Tensor) -> Pixels:
        """Images of places, (n) on the host, as (n, channels, resolution, resolution)."""
        asked = places.numpy()
        if self.kept is None:
            with ThreadPoolExecutor(THREADS) as pool:
                return np.stack([*pool.map(self.read, asked.tolist())])
        missing = np.unique(asked[~self.known[asked]])
        if len(missing):
            with ThreadPoolExecutor(THREADS) as pool:
                for place, image in zip(missing, pool.map(self.read, missing.tolist()), strict=True):
                    self.kept[place] = image
            self.known[missing] = True
        found: Pixels = self.kept[asked]
        return found


def fitted(image: Image.Image, channels: int, resolution: int) -> Pixels:
    """The square in the middle of an image, resized: (channels, resolution, resolution)."""
    image.draft(MODES[channels], (resolution, resolution))  # lets a JPEG be decoded at a smaller scale
    image = image.convert(MODES[channels])
    edge = min(image.size)
    left, top = ((length - edge) / 2 for length in image.size)
    box = (left, top, left + edge, top + edge)
    side = (resolution, resolution)
    pixels = np.asarray(image.resize(side, Image.Resampling.BICUBIC, box, reducing_gap=2.0))
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


@dataclass(frozen=True)
class Pictures:
    """``Examples`` of albums.

    Args:
        chosen: training places that a subset leaves, on the host; None for all.
    """

    albums: Mapping[str, Album]
    hashes: Mapping[str, str]
    device: torch.device
    chosen: Tensor | None = None
    resident: bool = False

    @property
    def places(self) -> dict[str, int]:
        counts = {split: len(album.labels) for split, album in self.albums.items()}
        return counts if self.chosen is None else counts | {"train": len(self.chosen)}

    def take(self, split: str, places: Tensor) -> tuple[Tensor, Tensor]:
        places = places.cpu()
        if split == "train" and self.chosen is not None:
            places = self.chosen[places]
        album = self.albums[split]
        pixels = torch.from_numpy(album.pixels(places.flatten())).reshape(
            *places.shape, album.channels, album.resolution, album.resolution
        )
        labels = album.labels[places]
        if self.device.type == "cuda":
            pixels, labels = (
                part.pin_memory().to(self.device, non_blocking=True) for part in (pixels, labels)
            )
        return (pixels.float() / 255.0 - MIDDLE) / SPREAD, labels

    def evaluation(self, examples: int) -> Tensor:
        return spread(self.places["held_out"], examples, torch.device("cpu"))
