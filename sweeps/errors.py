"""The errors a user can meet. Each message says what was given, what is allowed and what to change."""

from __future__ import annotations

from dataclasses import dataclass


class SweepError(Exception):
    """Something about the sweep is wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


@dataclass(frozen=True)
class Warning:
    """A reason to trust a table, a fit or an answer less.

    Args:
        code: stable name for programs; docs/warnings.md explains each.
        message: in words.
    """

    code: str
    message: str


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a specification.

    Args:
        field: path into the specification, such as ``space.width``.
        given: what stood there, as text.
        allowed: what may stand there, in words.
    """

    field: str
    given: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.field}: given {self.given}; allowed: {self.allowed}"


class SpecError(SweepError):
    """The specification makes no sense."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class FitError(SweepError):
    """The observations cannot be fitted."""


class NotFound(SweepError):
    """There is no such thing."""


class IllegalTransition(SweepError):
    """The state does not allow this change."""


class Conflict(SweepError):
    """The request contradicts an earlier one."""
