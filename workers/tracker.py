"""Where the orchestrator's mirror goes. It reads the database by itself and nothing ever waits for it."""

from __future__ import annotations

from typing import Protocol


class Tracker(Protocol):
    """A mirror of sweeps and runs for people to look at."""

    def start(self) -> None:
        """Begins to mirror, in a thread of its own."""

    def close(self, timeout: float) -> None:
        """Mirrors what is left, at most ``timeout`` seconds, and ends."""


class NoTracker:
    """The mirror where none is wanted."""

    def start(self) -> None:
        """Does nothing."""

    def close(self, timeout: float) -> None:
        """Does nothing."""
