"""Observations from elsewhere: past runs that join a sweep."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import Table, func, select
from sqlalchemy.orm import Session

from store import lifecycle
from store.db import Sessions, insert_new, now, reading
from store.events import emit
from store.models import Json, ObservationRow, SweepRow
from sweeps.cost import Cost
from sweeps.errors import IllegalTransition, NotFound
from sweeps.imports import Imported
from sweeps.runs import Observation, SweepState
from sweeps.spec import Config
from sweeps.tables import Warning

OBSERVATIONS = cast(Table, ObservationRow.__table__)


@dataclass(frozen=True)
class StoredObservation:
    """An observation of a sweep.

    Args:
        run_id: the run it came from, None when it was imported.
        provenance: where it comes from, in words; ``forecast`` for a run that was stopped early.
        deviation: standard deviation of ln loss beyond that of a finished run, 0 unless it is a forecast.
    """

    id: int
    sweep_id: int
    run_id: int | None
    config: Config
    cost: Cost
    loss: float
    provenance: str
    deviation: float
    created_at: datetime


@dataclass(frozen=True)
class Received:
    """What became of imported rows.

    Args:
        added: observations that are new.
        known: rows that the sweep had already, or that were given twice.
        imported: that the sweep has now.
        warnings: what is odd about the rows.
    """

    added: int
    known: int
    imported: int
    warnings: tuple[Warning, ...] = ()


def import_observations(
    sessions: Sessions, sweep_id: int, given: Imported, source: str, mapping: str
) -> Received:
    """Adds past runs to what the laws of a sweep are fitted to. The same run is added once.

    A sweep that gets new ones is fitted again at the next look, and goes on if it had finished.

    Args:
        given: past runs in the axes of the sweep, see ``sweeps.imports``.
        source, mapping: for the record.

    Raises:
        NotFound: no such sweep.
        IllegalTransition: it is cancelled.
    """
    moment = now()
    rows = [
        {
            "sweep_id": sweep_id,
            "run_id": None,
            "config": one.config,
            "cost": asdict(one.cost),
            "loss": one.loss,
            "provenance": one.provenance,
            "digest": _digest(one),
            "created_at": moment,
        }
        for one in given.observations
    ]
    with sessions.begin() as session:
        sweep = session.get(SweepRow, sweep_id, with_for_update={"key_share": True})
        if sweep is None:
            raise NotFound(f"there is no sweep {sweep_id}")
        if sweep.state == SweepState.CANCELLED:
            raise IllegalTransition(f"sweep {sweep_id} is cancelled; nothing is fitted to it any more")
        before = _imported(session, sweep_id)
        if rows:
            session.connection().execute(insert_new(session, OBSERVATIONS), rows)
        after = _imported(session, sweep_id)
        received = Received(after - before, len(rows) - (after - before), after, given.notes)
        if received.added:
            lifecycle.look_again(session, sweep_id)
            told: Json = {"source": source, "mapping": mapping, "added": received.added}
            emit(session, sweep_id, "sweep_imported", told | {"known": received.known})
        return received


def list_observations(
    sessions: Sessions, sweep_id: int, after: int | None = None, limit: int = 1000
) -> list[StoredObservation]:
    """Observations of a sweep, oldest first.

    Args:
        after: id of the last observation already seen.
        limit: at most so many.
    """
    statement = (
        select(ObservationRow)
        .where(ObservationRow.sweep_id == sweep_id, ObservationRow.id > (after or 0))
        .order_by(ObservationRow.id)
        .limit(limit)
    )
    with reading(sessions) as session:
        return [_stored(row) for row in session.scalars(statement)]


def _stored(row: ObservationRow) -> StoredObservation:
    return StoredObservation(
        id=row.id,
        sweep_id=row.sweep_id,
        run_id=row.run_id,
        config=row.config,
        cost=Cost(**row.cost),
        loss=row.loss,
        provenance=row.provenance,
        deviation=row.deviation,
        created_at=row.created_at,
    )


def _imported(session: Session, sweep_id: int) -> int:
    wanted = (ObservationRow.sweep_id == sweep_id, ObservationRow.run_id.is_(None))
    return session.scalar(select(func.count()).select_from(ObservationRow).where(*wanted)) or 0


def _digest(one: Observation) -> str:
    """Stands for what was run and what came out; where it was written down does not matter."""
    text = json.dumps({"config": one.config, "loss": one.loss}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
