"""Fits as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import select
from sqlalchemy.orm import Session

from store.db import Sessions, reading
from store.models import FitRow, Json
from sweeps.answers import Prediction
from sweeps.ensemble import Ensemble, from_dict, to_dict
from sweeps.errors import NotFound
from sweeps.scheduler import Step

_PREDICTIONS: TypeAdapter[dict[str, Prediction]] = TypeAdapter(dict[str, Prediction])


@dataclass(frozen=True)
class FitHeader:
    """A fit without its payload.

    Args:
        n_observations: it rests on.
        predictions: by target name.
        stop: why the scheduler then started nothing further, None when it went on.
    """

    id: int
    sweep_id: int
    n_observations: int
    predictions: dict[str, Prediction]
    stop: str | None
    created_at: datetime


@dataclass(frozen=True)
class StoredFit:
    """A fit.

    Args:
        key: stands for what the scheduler saw.
        ensemble: the laws.
        n_observations, predictions, stop: as in ``FitHeader``.
    """

    id: int
    sweep_id: int
    key: str
    n_observations: int
    ensemble: Ensemble
    predictions: dict[str, Prediction]
    stop: str | None
    created_at: datetime


def columns(sweep_id: int, key: str, n_observations: int, step: Step) -> Json:
    """The columns of what a look of the scheduler led to."""
    return {
        "sweep_id": sweep_id,
        "key": key,
        "n_observations": n_observations,
        "ensemble": None if step.ensemble is None else to_dict(step.ensemble),
        "predictions": _PREDICTIONS.dump_python(step.predictions, mode="json"),
        "stop": step.stop,
    }


def summary(predictions: dict[str, Prediction]) -> Json:
    """What an event says of a fit's predictions."""
    return {name: {"loss": one.loss, "low": one.low, "high": one.high} for name, one in predictions.items()}


def latest_fit(sessions: Sessions, sweep_id: int) -> StoredFit | None:
    """The newest fit of a sweep, None while it has too few observations."""
    with reading(sessions) as session:
        return newest(session, sweep_id)


def newest(session: Session, sweep_id: int, after: int = 0) -> StoredFit | None:
    """The newest fit of a sweep if it is newer than the one with the id ``after``."""
    row = session.scalar(
        select(FitRow)
        .where(FitRow.sweep_id == sweep_id, FitRow.ensemble.is_not(None), FitRow.id > after)
        .order_by(FitRow.id.desc())
        .limit(1)
    )
    return None if row is None else _stored(row)


def get_fit(sessions: Sessions, fit_id: int) -> StoredFit:
    """A fit by its id.

    Raises:
        NotFound: no such fit.
    """
    with reading(sessions) as session:
        row = session.get(FitRow, fit_id)
    if row is None or row.ensemble is None:
        raise NotFound(f"there is no fit {fit_id}")
    return _stored(row)


def list_fits(
    sessions: Sessions, sweep_id: int, after: int | None = None, limit: int = 1000
) -> list[FitHeader]:
    """Fits of a sweep, oldest first, without their payload.

    Args:
        after: id of the last fit already seen.
        limit: at most so many.
    """
    wanted: list[Any] = [FitRow.sweep_id == sweep_id, FitRow.ensemble.is_not(None), FitRow.id > (after or 0)]
    statement = select(
        FitRow.id, FitRow.sweep_id, FitRow.n_observations, FitRow.predictions, FitRow.stop, FitRow.created_at
    )
    with reading(sessions) as session:
        rows = session.execute(statement.where(*wanted).order_by(FitRow.id).limit(limit)).all()
    return [
        FitHeader(id_, sweep, n, _PREDICTIONS.validate_python(predictions), stop, created)
        for id_, sweep, n, predictions, stop, created in rows
    ]


def _stored(row: FitRow) -> StoredFit:
    return StoredFit(
        id=row.id,
        sweep_id=row.sweep_id,
        key=row.key,
        n_observations=row.n_observations,
        ensemble=from_dict(row.ensemble or {}),
        predictions=_PREDICTIONS.validate_python(row.predictions),
        stop=row.stop,
        created_at=row.created_at,
    )
