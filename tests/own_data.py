"""Data sets of one's own, in files, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sweeps.data import Source, read
from workers import datasets
from workers.datasets.base import Examples, Subset

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(0)


def load(source: Source, resolution: int = 16, **subset: Any) -> Examples:
    """What a proxy trains on."""
    return datasets.load(source, resolution, CPU, Subset(**subset))


def token_files(folder: Path, train: Any, val: Any = (1, 2, 3) * 9, bits: int = 16, **entry: Any) -> Source:
    folder.mkdir(exist_ok=True)
    for name, ids in (("train", train), ("val", val)):
        np.asarray(ids, f"<u{bits // 8}").tofile(folder / f"{name}.bin")
    return read("own", {"reader": "tokens", "path": str(folder), "vocabulary": 50257, "bits": bits, **entry})


def rows_file(path: Path, **arrays: Any) -> Source:
    given = {
        "x_train": RANDOM.normal(3, 5, (90, 4)),
        "y_train": RANDOM.integers(0, 3, 90),
        "x_test": RANDOM.normal(3, 5, (30, 4)),
        "y_test": RANDOM.integers(0, 3, 30),
    }
    np.savez(path, **{name: array for name, array in (given | arrays).items() if array is not None})
    return read("own", {"reader": "npz", "path": str(path), "classes": 3, "features": 4})


def pictures(folder: Path, names: tuple[str, ...] = ("a", "b"), count: int = 12) -> Source:
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = RANDOM.integers(0, 256, (20 + i, 30, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.{'png' if i % 2 else 'jpg'}")
    return read("pets", {"reader": "images", "path": str(folder), "classes": 2})
