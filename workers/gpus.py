"""Whether a share of a GPU is free, which the sum over all GPUs does not tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sweeps.resources import Resources


def fits(asked: Resources, held: Sequence[tuple[Resources, str | None]], gpus: float) -> bool:
    """Whether one GPU has the share that is asked for, or enough of them are untouched.

    Ray fills a GPU before it begins another: equal shares leave no gaps whatever their places, and the sum
    tells all.

    Args:
        asked: of a new worker.
        held: what each of the others has, and the place of its GPU, None where that is not known (yet).
        gpus: of all machines.
    """
    others = [(resources, place) for resources, place in held if resources.gpus > 0]
    if asked.gpus == 0 or all(
        resources.gpus in (asked.gpus, resources.undivided.gpus) for resources, _ in others
    ):
        return True
    taken: defaultdict[str, float] = defaultdict(float)
    untouched, unplaced = gpus, 0.0
    for resources, place in others:
        if place is None:
            untouched -= resources.undivided.gpus
            unplaced += resources.gpus if resources.gpus < 1.0 else 0.0
        else:
            untouched -= 0.0 if place in taken else 1.0
            taken[place] += resources.gpus
    # A share whose place is not known may lie on any of those that are begun.
    room = 1.0 - unplaced - asked.gpus + 1e-9
    shared = asked.gpus < 1.0 and any(part <= room for part in taken.values())
    return shared or untouched >= asked.undivided.gpus
