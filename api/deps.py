"""What routes ask for: the database, pages, a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Path, Query, Request

from store.db import Sessions

T = TypeVar("T")

MAX_PAGE = 500
MAX_ID = 2**63 - 1


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a list.

    Args:
        data: the items.
        next: pass it as ``after`` for the following ones; None at the end.
    """

    data: list[T]
    next: int | None = None


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


Store = Annotated[Sessions, Depends(_sessions)]
Id = Annotated[int, Path(ge=1, le=MAX_ID)]
After = Annotated[int | None, Query(ge=0, le=MAX_ID, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="items on a page")]


def page(items: Sequence[T], limit: int, cursor: Callable[[T], int | None]) -> Page[T]:
    """A page from one item more than it holds, which tells whether another follows."""
    shown = list(items[:limit])
    return Page(shown, cursor(shown[-1]) if len(items) > limit and shown else None)
