"""The record of what happened, written in the transaction in which it happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from store.db import Sessions, oldest_transaction, reading
from store.models import EVENTS, EventRow, Json
from store.records import to_event
from sweeps.runs import Event

_INSERT = insert(EVENTS)


def emit(session: Session, sweep_id: int, kind: str, data: Json, run_id: int | None = None) -> None:
    """Writes one event."""
    emit_all(session, [event(sweep_id, kind, data, run_id)])


def event(sweep_id: int, kind: str, data: Json, run_id: int | None = None) -> Json:
    """The columns of an event."""
    return {"sweep_id": sweep_id, "run_id": run_id, "kind": kind, "data": data}


def told(config: Json, loss: float | None, reason: str | None = None) -> Json:
    """What an event says of a run."""
    return {"config": config, "loss": loss} | ({"reason": reason} if reason else {})


def emit_all(session: Session, events: Sequence[Json]) -> None:
    """Writes events in their order."""
    if events:
        session.execute(_INSERT, list(events))


def list_events(sessions: Sessions, sweep_id: int | None, after: int = 0, limit: int = 1000) -> list[Event]:
    """Events in the order they happened, of one sweep or (None) of all.

    Following ``after`` from one call to the next misses none: an event waits for transactions that began
    before its own and may still commit one with a smaller number.

    Args:
        after: id of the last event already seen.
        limit: at most so many.
    """
    wanted: list[Any] = [EventRow.id > after, EventRow.transaction < oldest_transaction()]
    if sweep_id is not None:
        wanted.append(EventRow.sweep_id == sweep_id)
    with reading(sessions) as session:
        rows = session.scalars(select(EventRow).where(*wanted).order_by(EventRow.id).limit(limit))
        return [to_event(row) for row in rows]
