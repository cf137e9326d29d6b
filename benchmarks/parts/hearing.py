"""Whom trainings tell of their runs in benchmarks."""

from __future__ import annotations

from sweeps.runs import Point
from workers.job import Outcome, Provenance, Verdict


class Ends:
    """Keeps how runs ended, and lets all of them go on."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}

    def began(self, _run: int, _provenance: Provenance) -> None:
        """Is not asked about."""

    def points(self, _run: int, _points: list[Point]) -> Verdict:
        return Verdict.CONTINUE

    def ended(self, run_id: int, outcome: Outcome) -> None:
        self.outcomes[run_id] = outcome
