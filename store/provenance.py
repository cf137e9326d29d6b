"""What ran in an attempt, kept in its row."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from store.models import AttemptRow


def trace(session: Session, run_id: int, attempt: int, provenance: Mapping[str, object]) -> None:
    """Stores what runs in an attempt."""
    session.execute(
        update(AttemptRow)
        .where(AttemptRow.run_id == run_id, AttemptRow.attempt == attempt)
        .values(provenance=dict(provenance))
        .execution_options(synchronize_session=False)
    )


def traced(session: Session, run_id: int, attempt: int) -> dict[str, object] | None:
    """What ran in an attempt, None where that is not known."""
    found = select(AttemptRow.provenance).where(AttemptRow.run_id == run_id, AttemptRow.attempt == attempt)
    return session.scalar(found)
