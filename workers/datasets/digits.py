"""Handwritten digits that come with scikit-learn: 1,797 images of 8 x 8."""

from __future__ import annotations

import numpy as np
import torch

from sweeps.data import Source
from workers.datasets.base import Examples, ReadError, Subset
from workers.datasets.rows import Split, held_out, rows

HELD_OUT = 0.2


def examples(source: Source, resolution: int, device: torch.device, subset: Subset) -> Examples:
    """The digits; a fixed fifth is held out."""
    from sklearn.datasets import load_digits  # takes a second to import, which other data sets save

    if resolution != source.resolution:
        raise ReadError(source, "resolution", str(resolution), str(source.resolution))
    found = load_digits()
    images = torch.from_numpy(found.images.astype(np.uint8))[:, None]
    labels = torch.from_numpy(found.target.astype(np.int64))
    aside = held_out(len(labels), HELD_OUT)
    splits = {
        name: Split(images[part], labels[part]) for name, part in (("train", ~aside), ("held_out", aside))
    }
    return rows(source, splits, device, subset)
