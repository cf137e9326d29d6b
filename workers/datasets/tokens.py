"""Token files of nanoGPT: ``train.bin`` and ``val.bin``, ids one after another without a header."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from sweeps.data import Source
from workers.datasets.base import Examples, ReadError, Subset
from workers.datasets.windows import Tokens, beyond, windows

FILES = {"train": "train.bin", "held_out": "val.bin"}
RESIDENT_BYTES = 2 << 30  # of both files; larger ones stay where they are
PIECE = 1 << 20  # bytes that are checked at a time
PIECES = 1024  # that are checked, evenly spread, of files that are not resident


def examples(source: Source, resolution: int, device: torch.device, subset: Subset) -> Examples:
    """Windows of the files; resident where both are at most 2 GiB together.

    Raises:
        ReadError: a file is missing, is cut off inside an id, or holds ids beyond the vocabulary.
    """
    text, hashes = _texts(source, device)
    return windows(source, text, hashes, resolution, device, subset)


@lru_cache(maxsize=4)
def _texts(source: Source, device: torch.device) -> tuple[dict[str, Tokens], dict[str, str]]:
    size = int(source.options["bits"]) // 8
    paths = {split: Path(str(source.options["path"])) / name for split, name in FILES.items()}
    for path in paths.values():
        if not path.is_file():
            raise ReadError(source, path, "no such file", "nanoGPT's train.bin and val.bin in its path")
        if (length := path.stat().st_size) % size:
            given = f"{length:,} bytes"
            raise ReadError(source, path, given, f"a multiple of {size}: ids of {8 * size} bits, not cut off")
    resident = sum(path.stat().st_size for path in paths.values()) <= RESIDENT_BYTES
    text: dict[str, Tokens] = {}
    hashes = {}
    for split, path in paths.items():
        if path.stat().st_size == 0:
            raise ReadError(source, path, "an empty file", f"ids of {8 * size} bits")
        mapped = np.memmap(path, f"<i{size}", mode="r")
        hashes[split] = _check(source, path, mapped, len(mapped) * size if resident else PIECES * PIECE)
        text[split] = torch.from_numpy(np.array(mapped)).to(device) if resident else mapped
    return text, hashes


def _check(source: Source, path: Path, mapped: np.memmap, most: int) -> str:
    """Hashes a file, or its length and evenly spread pieces of it, and looks for ids beyond the vocabulary.

    Args:
        most: bytes that are read.
    """
    step = PIECE // mapped.itemsize
    starts = np.arange(0, len(mapped), step)
    if len(starts) * PIECE > most + PIECE:
        starts = starts[np.linspace(0, len(starts) - 1, most // PIECE).astype(np.int64)]
    digest = hashlib.sha256(f"{mapped.itemsize} {len(mapped)} ".encode())
    for start in starts:
        piece = np.asarray(mapped[start : start + step])
        digest.update(piece.data)
        if (largest := int(piece.view(f"u{mapped.itemsize}").max())) >= source.outputs:
            raise beyond(source, path, largest)
    return digest.hexdigest()
