"""What ran in an attempt, kept in its row."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.guarded import write
from store.models import AttemptRow


def trace(session: Session, run_id: int, attempt: int, provenance: Mapping[str, object]) -> None:
    """Stores what runs in an attempt."""
    write(session, run_id, attempt, provenance=dict(provenance))


def traced(session: Session, run_id: int, attempt: int) -> dict[str, object] | None:
    """What ran in an attempt, None where that is not known."""
    found = select(AttemptRow.provenance).where(AttemptRow.run_id == run_id, AttemptRow.attempt == attempt)
    return session.scalar(found)
