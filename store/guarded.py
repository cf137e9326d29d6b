"""The guarded UPDATE of a running attempt, by which every change of state says whether it happened.

A statement takes longer to build than to execute: those that every run needs are built once, and take what
differs as parameters.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Update, bindparam, update
from sqlalchemy.orm import Session

from store.models import ATTEMPTS, RUNS, Fields, Json
from sweeps.runs import RunState

FREE: Json = {"owner": None, "lease_until": None, "granted": 0.0}  # what only a running run has
UNSYNCED = {"synchronize_session": False}


def changing(*guards: ColumnElement[bool], **values: Any) -> Update:
    """The statement that changes a running run.

    Args:
        values: of columns, where they are expressions; plain ones are given with each call of ``change``.
    """
    ours = (RUNS.c.id == bindparam("of_run"), RUNS.c.attempt == bindparam("of_attempt"))
    statement = update(RUNS).where(*ours, RUNS.c.state == RunState.RUNNING, *guards)
    return (statement.values(**values) if values else statement).returning(
        RUNS.c.sweep_id, RUNS.c.role, RUNS.c.state, RUNS.c.config, RUNS.c.cost, RUNS.c.loss
    )


def change(session: Session, statement: Update, run_id: int, attempt: int, **values: Any) -> Fields | None:
    """Changes a running run; None when it is no longer the run's.

    Args:
        statement: as ``changing`` gives it.
        values: of columns, and of the statement's parameters.
    """
    return session.execute(statement, {"of_run": run_id, "of_attempt": attempt} | values).one_or_none()


def writing(*guards: ColumnElement[bool]) -> Update:
    """The statement that writes into an attempt's row."""
    of = (ATTEMPTS.c.run_id == bindparam("of_run"), ATTEMPTS.c.attempt == bindparam("of_attempt"))
    return update(ATTEMPTS).where(*of, *guards).returning(ATTEMPTS.c.run_id)


_ANY, _OPEN = writing(), writing(ATTEMPTS.c.ended_at.is_(None))


def write(session: Session, run_id: int, attempt: int, ended: bool = True, **values: Any) -> bool:
    """Writes into an attempt's row; False where there is none.

    Args:
        ended: also where it has ended.
    """
    given = {"of_run": run_id, "of_attempt": attempt} | values
    return session.execute(_ANY if ended else _OPEN, given).first() is not None
