"""Which examples every step of a run trains on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

BLOCK = 64  # steps whose places are drawn, and sent to the device, at once


class Sampler:
    """Places of examples by step, the same for a run whoever trains beside it and whenever it is asked.

    Args:
        places: at which an example may begin.
        seeds: of the members.
        batch: examples of a step.
        device: that takes them.
        rows: of every batch that are asked for here, where others take the rest.
    """

    def __init__(
        self, places: int, seeds: Sequence[int], batch: int, device: torch.device, rows: slice = slice(None)
    ) -> None:
        self._places = places
        self._seeds = list(seeds)
        self._batch = batch
        self._device = device
        self._rows = rows
        self._number = -1
        self._block = torch.empty(0)

    def __call__(self, step: int) -> Tensor:
        """Of one step: int64, (members, batch) or the rows of it."""
        number, at = divmod(step, BLOCK)
        if number != self._number:
            drawn = np.stack([self._draw(seed, number) for seed in self._seeds], axis=1)[:, :, self._rows]
            block = torch.from_numpy(np.ascontiguousarray(drawn))
            # From pinned memory, since a step waits for nothing.
            block = block.pin_memory() if self._device.type == "cuda" else block
            self._block = block.to(self._device, non_blocking=True)
            self._number = number
        return self._block[at]

    def keep(self, members: Sequence[int]) -> None:
        """Goes on with some of the members."""
        self._seeds = [self._seeds[member] for member in members]
        self._number = -1

    def _draw(self, seed: int, number: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        """Counted, not continued (Salmon et al. 2011): any block can be drawn first."""
        random = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, number]))
        return random.integers(0, self._places, (BLOCK, self._batch))
