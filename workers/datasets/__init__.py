"""Data sets by the name of their reader.

A further reader is a module here, an entry below, and one in ``sweeps.data.ENTRIES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

import torch

from sweeps.data import Source
from workers.datasets import digits, glyphs, huggingface, images, npz, stdlib, teacher, tokens
from workers.datasets.base import WHOLE, Examples, Subset

Reader = Callable[[Source, int, torch.device, Subset], Examples]
READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "stdlib": stdlib.examples,
        "digits": digits.examples,
        "glyphs": glyphs.examples,
        "teacher": teacher.examples,
        "tokens": tokens.examples,
        "npz": npz.examples,
        "images": images.examples,
        "huggingface": huggingface.examples,
    }
)
CACHED = 16  # of what was loaded; those of one source share their data


@lru_cache(maxsize=CACHED)
def load(source: Source, resolution: int, device: torch.device, subset: Subset = WHOLE) -> Examples:
    """The examples of a source, read once a process.

    Args:
        resolution: of images along a side, or tokens of a window; rows have none.
        subset: of the training split.

    Raises:
        ReadError: the data are missing or broken, or not as the source says.
        FileNotFoundError: a data set that should come with Python or a package did not.
    """
    return READERS[source.reader](source, resolution, device, subset)
