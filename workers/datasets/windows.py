"""Windows of a long run of tokens, which lies on the device or in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sweeps.data import Source
from workers.datasets.base import ReadError, Subset, share, spread
from workers.datasets.counter import shuffled

BLOCK = 4096  # tokens that stay together when a subset is taken
BLOCKS = 64  # shorter texts have shorter blocks, this many

Tokens = Tensor | np.memmap  # uint8, or uint16 and uint32 held as int16 and int32; (tokens)


@dataclass(frozen=True)
class Windows:
    """``Examples`` of tokens: a window and the token that follows each of its tokens.

    Args:
        text: of each split.
        resolution: tokens of a window.
        vocabulary: ids are below it; checked of windows from a file.
        device: where windows are handed out.
        blocks: of the training text, in the order of a subset, (blocks); None for the text as it is.
        block: tokens of one.
        length: tokens of the subset.
    """

    source: Source
    text: Mapping[str, Tokens]
    hashes: Mapping[str, str]
    resolution: int
    device: torch.device
    blocks: Tensor | None = None
    block: int = BLOCK
    length: int = 0

    @property
    def resident(self) -> bool:
        return isinstance(self.text["train"], Tensor)

    @property
    def places(self) -> dict[str, int]:
        counts = {split: len(text) - self.resolution for split, text in self.text.items()}
        return counts if self.blocks is None else counts | {"train": self.length - self.resolution}

    def take(self, split: str, places: Tensor) -> tuple[Tensor, Tensor]:
        text = self.text[split]
        if not isinstance(text, Tensor):
            places = places.cpu()
        index = places[..., None] + torch.arange(self.resolution + 1, device=places.device)
        if split == "train" and self.blocks is not None:
            index = self.blocks[index // self.block] * self.block + index % self.block
        if isinstance(text, Tensor):
            cut = text[index].long()
            if text.dtype != torch.uint8:  # undoes that unsigned ids are held as signed ones
                cut = cut & (1 << 8 * text.element_size()) - 1
        else:
            cut = self._read(split, text[index.numpy()])
        return cut[..., :-1], cut[..., 1:]

    def evaluation(self, examples: int) -> Tensor:
        return spread(
            self.places["held_out"], examples, self.device if self.resident else torch.device("cpu")
        )

    def _read(self, split: str, found: np.ndarray[tuple[int, ...], np.dtype[np.signedinteger]]) -> Tensor:
        unsigned = found.view(f"u{found.itemsize}").astype(np.int64)
        if (largest := int(unsigned.max(initial=0))) >= self.source.outputs:
            raise beyond(self.source, split, largest)
        read = torch.from_numpy(unsigned)
        return read.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else read


def windows(
    source: Source,
    text: Mapping[str, Tokens],
    hashes: Mapping[str, str],
    resolution: int,
    device: torch.device,
    subset: Subset,
) -> Windows:
    """Windows of texts that lie on the device already, or in files.

    A subset is made of blocks in a fixed random order, so that it is of all parts of the text; windows run
    over the seams between them.

    Raises:
        ReadError: a split, or what a subset leaves of it, is too short for one window, or it is to be pruned.
    """
    whole = Windows(source, text, hashes, resolution, device)
    for split, count in whole.places.items():
        if count < 1:
            given, allowed = f"{len(text[split]):,} tokens", f"more than the resolution, {resolution:,}"
            raise ReadError(source, split, given, allowed)
    if subset.kept < 1:
        raise ReadError(source, "kept", f"{subset.kept:g}", "1, as nothing says which tokens are hard")
    if subset.whole:
        return whole
    total = len(text["train"])
    block = min(BLOCK, max(1, total // BLOCKS))
    # The remainder, shorter than a block, would break the arithmetic anywhere but at the end.
    length = min(share(subset.fraction, total), total // block * block)
    if subset.unique > length:
        raise ReadError(source, "unique", f"{subset.unique:,} tokens", f"at most {length:,}, which are left")
    length = subset.unique or length
    if length <= resolution:
        raise ReadError(source, "a subset", f"{length:,} tokens", f"more than the resolution, {resolution:,}")
    order = shuffled(total // block)[: -(-length // block)]
    place = device if whole.resident else torch.device("cpu")
    return replace(whole, blocks=order.to(place), block=block, length=length)


def beyond(source: Source, where: object, largest: int) -> ReadError:
    """An id that the vocabulary does not have."""
    return ReadError(source, where, f"the token {largest}", f"0 to {source.outputs - 1}, the vocabulary")
