"""Whom trainings tell of their runs in tests."""

from __future__ import annotations

from collections.abc import Callable

from sweeps.runs import Point
from workers.job import Outcome, Provenance, Verdict

CLOCK = ("tokens_per_second", "flop_utilisation")  # what a clock decides


class Ear:
    """Remembers what trainings tell, by run.

    Args:
        stop: whether a run is to stop, asked with every report of its points.
    """

    def __init__(self, stop: Callable[[int, list[Point]], bool] = lambda *_: False) -> None:
        self._stop = stop
        self.got: dict[int, list[Point]] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.provenances: dict[int, Provenance] = {}

    def began(self, run_id: int, provenance: Provenance) -> None:
        self.provenances[run_id] = provenance

    def points(self, run_id: int, points: list[Point]) -> Verdict:
        self.got.setdefault(run_id, []).extend(points)
        return Verdict.STOP if self._stop(run_id, points) else Verdict.CONTINUE

    def ended(self, run_id: int, outcome: Outcome) -> None:
        assert run_id not in self.outcomes
        self.outcomes[run_id] = outcome

    @property
    def heard(self) -> list[Point]:
        """Of the only run."""
        (points,) = self.got.values() or [[]]
        return points

    @property
    def outcome(self) -> Outcome | None:
        """Of the only run."""
        (outcome,) = self.outcomes.values() or [None]
        return outcome

    @property
    def provenance(self) -> Provenance:
        """Of the only run."""
        (provenance,) = self.provenances.values()
        return provenance

    def curve(self, run_id: int = 1) -> list[tuple[int, int, str, float]]:
        """Number, step, metric and value of every point that no clock decides."""
        return [(p.seq, p.step, p.metric, p.value) for p in self.got[run_id] if p.metric not in CLOCK]
