"""Candidates that are not to be chosen: tried before, or known to break."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeps.space import Places, Table, places_of, tabulate_configs
from sweeps.spec import Config, SweepSpec


@dataclass(frozen=True)
class RuledOut:
    """What is known to be pointless.

    Args:
        places: in the grid, of configurations that were tried.
        beside: configurations that were tried beside the grid.
        diverged: a run at least as large, as fast and as noisy would diverge too.
        memory: bytes that were too many; runs that need as much would break too.
        spec: of the sweep, which tells how rates follow batches.
    """

    places: Places
    beside: frozenset[tuple[float, ...]]
    diverged: Table
    memory: float
    spec: SweepSpec

    @classmethod
    def of(
        cls,
        spec: SweepSpec,
        tried: Sequence[Config],
        diverged: Sequence[Config],
        out_of_memory: Sequence[Config],
    ) -> RuledOut:
        """From configurations that were tried, that diverged and that ran out of memory."""
        table = tabulate_configs(spec, tried)
        places = places_of(spec, table)
        beside = frozenset(_rows(table.take(places < 0)))
        needed = tabulate_configs(spec, out_of_memory)["memory"]
        least = needed[needed > 0].min(initial=np.inf)  # of one's own code nobody counts it
        return cls(places[places >= 0], beside, tabulate_configs(spec, diverged), least, spec)

    def open(self, table: Table, places: Places | None = None) -> NDArray[np.bool_]:
        """Which rows may be chosen, (n,).

        Args:
            places: of the rows in the grid; None where they lie beside it.
        """
        if places is None:
            allowed = np.array([row not in self.beside for row in _rows(table)], dtype=bool)
        else:
            allowed = ~np.isin(places, self.places)
        allowed &= table["memory"] < self.memory
        (rates, batches), (too_fast, too_small) = (self._trained(of) for of in (table, self.diverged))
        for i in range(len(self.diverged)):
            harder = (rates >= too_fast[i] * (1.0 - 1e-12)) & (batches <= too_small[i])
            allowed &= ~(harder & (table["params_total"] >= self.diverged["params_total"][i]))
        return allowed

    def _trained(self, table: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Peak rates and batches of trainings, (n,); alike where one's own code has no such axis."""
        given = {name: table[name] if name in table.axes else np.ones(len(table)) for name in ("lr", "batch")}
        return self.spec.rates(given), given["batch"]


def _rows(table: Table) -> list[tuple[float, ...]]:
    return list(zip(*(table[name].tolist() for name in table.axes), strict=True))
