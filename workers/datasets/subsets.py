"""Which places of the training split a subset leaves."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sweeps.data import Source
from workers.datasets.base import ENDLESS, ReadError, Subset, share
from workers.datasets.counter import shuffled

CHUNK = 1024
LARGEST_POOL = 1 << 24  # endless examples that may be made to choose the hardest among them

Take = Callable[[Tensor], tuple[Tensor, Tensor]]
Score = Callable[[Tensor], Tensor]  # places to how hard each is, (places)


def choose(source: Source, subset: Subset, places: int, score: Score | None) -> Tensor | None:
    """The places that are left, int64, on the host.

    Args:
        places: of the training split.
        score: of places, larger for harder ones; None where there is none.

    Returns:
        None for all of them; of an endless split that is not pruned, for the first ``subset.unique``.

    Raises:
        ReadError: there are too few, or there is no score to prune by.
    """
    if subset.kept < 1 and score is None:
        allowed = "1, as neither classes nor a score say which examples are hard"
        raise ReadError(source, "kept", f"{subset.kept:g}", allowed)
    if places == ENDLESS:
        _check_endless(source, subset)
        if subset.kept == 1:
            return None
        pool = torch.arange(_pool(subset))
    elif subset.whole:
        return None
    else:
        pool = shuffled(places)[: share(subset.fraction, places)]
    if subset.kept < 1 and score is not None:
        hardest = torch.argsort(score(pool), descending=True, stable=True)
        # In their shuffled order, so that a smaller number of unique ones is as hard as a larger one.
        pool = pool[hardest[: share(subset.kept, len(pool))].sort().values]
    if subset.unique > len(pool):
        raise ReadError(source, "unique", f"{subset.unique:,}", f"at most {len(pool):,}, which are left")
    return pool[: subset.unique] if subset.unique else pool


def distances(take: Take, classes: int) -> Score:
    """How far each example is from the mean of its class: the simplest of the scores of Sorscher et al. 2022.

    Their score is the distance to the nearest of k-means clusters of features (arXiv 2206.14486); this is
    the same with the class as the cluster and the inputs themselves as features.
    """

    def score(places: Tensor) -> Tensor:
        total: Tensor | None = None
        for inputs, targets in map(take, torch.split(places, CHUNK)):
            rows = inputs.flatten(1).double()
            if total is None:
                total = rows.new_zeros(classes, rows.shape[1] + 1)  # the last column counts
            total.index_add_(0, targets, torch.nn.functional.pad(rows, (0, 1), value=1.0))
        assert total is not None
        means = total[:, :-1] / total[:, -1:].clamp(min=1)
        parts = [
            torch.linalg.vector_norm(inputs.flatten(1).double() - means[targets], dim=1)
            for inputs, targets in map(take, torch.split(places, CHUNK))
        ]
        return torch.cat(parts).cpu()

    return score


def _check_endless(source: Source, subset: Subset) -> None:
    if subset.fraction < 1:
        raise ReadError(source, "fraction", f"{subset.fraction:g}", "1, as its examples are endless")
    if subset.kept == 1:
        return
    if not 0 < _pool(subset) <= LARGEST_POOL:
        allowed = f"1 to {int(LARGEST_POOL * subset.kept):,} with kept below 1, as its examples are endless"
        raise ReadError(source, "unique", f"{subset.unique:,}", allowed)


def _pool(subset: Subset) -> int:
    """So many that the hardest of them are as many as are to be left."""
    return math.ceil(subset.unique / subset.kept)
