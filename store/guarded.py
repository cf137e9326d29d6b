"""The guarded UPDATE of a running attempt, by which every change of state says whether it happened."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, update
from sqlalchemy.orm import Session

from store.models import AttemptRow, Json, RunRow
from sweeps.runs import RunState

FREE: Json = {"owner": None, "lease_until": None, "granted": 0.0}  # what only a running run has
UNSYNCED = {"synchronize_session": False}


def change(
    session: Session, run_id: int, attempt: int, *guards: Any, **values: Any
) -> Row[*tuple[Any, ...]] | None:
    """Changes a running run; None when it is no longer the run's."""
    return session.execute(
        update(RunRow)
        .where(RunRow.id == run_id, RunRow.attempt == attempt, RunRow.state == RunState.RUNNING, *guards)
        .values(**values)
        .returning(RunRow.sweep_id, RunRow.role, RunRow.state, RunRow.config, RunRow.cost, RunRow.loss)
        .execution_options(**UNSYNCED)
    ).one_or_none()


def write(session: Session, run_id: int, attempt: int, *guards: Any, **values: Any) -> bool:
    """Writes into an attempt's row; False where there is none that the guards let through."""
    statement = (
        update(AttemptRow)
        .where(AttemptRow.run_id == run_id, AttemptRow.attempt == attempt, *guards)
        .values(**values)
        .returning(AttemptRow.run_id)
        .execution_options(**UNSYNCED)
    )
    return session.scalar(statement) is not None
