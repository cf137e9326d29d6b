"""What the worker of a claimed run gets of the resources that the run asks for."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from store import leases
from store.leases import Orphan
from store.queue import Claim
from sweeps.resources import Resources
from sweeps.runs import Run
from sweeps.spec import SweepSpec
from sweeps.stacks import ALONE
from workers.stacking import Stacking


class Placement:
    """Shares of devices, by what was measured and by what broke.

    Args:
        stacking: how runs of a configuration's shape are to train together.
        capacity: how many workers with given resources fit at once.
    """

    def __init__(self, stacking: Stacking, capacity: Callable[[Resources], int]) -> None:
        self._stacking = stacking
        self._capacity = capacity
        self._latest: dict[Resources, Resources] = {}  # that were given, by what was asked for

    def place(self, session: Session, claim: Claim) -> tuple[int, Resources]:
        """How many runs of the shape of a claimed one are to train together, and what their worker gets.

        A run that had too little memory on a share of a device gets a whole one, and others of its sweep get
        twice the share at least.
        """
        spec, run = claim.spec, claim.run
        asked = spec.resources_of(run.target)
        if run.undivided:
            return 1, asked.undivided
        packing = ALONE if asked.processes > 1 else self._stacking(spec, asked, run.config)
        sharers = packing.sharers
        if sharers > 1 and (broke := leases.too_many_sharers(session, run.sweep_id)) is not None:
            sharers = min(sharers, max(1, broke // 2))
        self._latest[asked] = asked.shared(sharers)
        return packing.members, self._latest[asked]

    def capacity(self, asked: Resources) -> int:
        """How many workers fit at once whose runs ask for these resources, placed as the last of them."""
        return self._capacity(self._latest.get(asked, asked))


def placed(spec: SweepSpec, run: Run, orphan: Orphan) -> Resources:
    """What the worker of a running attempt got."""
    asked = spec.resources_of(run.target)
    return asked.undivided if run.undivided else asked.shared(orphan.sharers // asked.sharers)
