"""What the laws of a sweep are fitted to: its own finished runs, and past runs from elsewhere."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.deps import After, Id, Limit, Page, Store, page
from store import service
from store.service import Received, StoredObservation
from sweeps.imports import past_runs

router = APIRouter(prefix="/v1", tags=["observations"])

EXAMPLE: dict[str, Any] = {
    "source": "old_runs.csv",
    "map": "width=d_model, tokens=1e6*Mtok, lr=lr, batch=bsz, loss=loss",
    "columns": {
        "d_model": [16, 32],
        "Mtok": [0.2, 0.4],
        "lr": [8e-3, 4e-3],
        "bsz": [8, 8],
        "loss": [2.61, 2.38],
    },
}


class PastRuns(BaseModel):
    """Past runs as columns.

    Args:
        columns: by name, each with a value for every run.
        map: the column of each axis, with constant factors where units differ, and of the loss; left out,
            every column is called what it is.
        source: where the runs are from.
        first_row: number of the first of these rows in the source.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})
    columns: Annotated[dict[str, list[Any]], Field(min_length=1, max_length=100)]
    map: Annotated[str | None, Field(max_length=10_000)] = None
    source: Annotated[str, Field(min_length=1, max_length=500)] = "import"
    first_row: Annotated[int, Field(ge=1)] = 1


@router.get("/sweeps/{id}/observations")
def list_observations(
    id: Id, store: Store, after: After = None, limit: Limit = 100
) -> Page[StoredObservation]:
    """What the laws of a sweep are fitted to, oldest first, each with where it is from."""
    service.get_sweep(store, id)
    return page(service.list_observations(store, id, after, limit + 1), limit, lambda one: one.id)


@router.post(
    "/sweeps/{id}/observations",
    status_code=201,
    responses={200: {"model": Received, "description": "Nothing new"}},
)
def import_observations(id: Id, given: PastRuns, response: Response, store: Store) -> Received:
    """Adds past runs to what the laws are fitted to; they cost no budget. The same run is added once.

    Every axis that the sweep varies has to be there. The laws are fitted again at the next look; a finished
    sweep goes on.
    """
    spec = service.get_sweep(store, id).spec
    found = past_runs(spec, given.columns, given.map, given.source, given.first_row)
    received = service.import_observations(store, id, found, given.source, given.map or "")
    response.status_code = 201 if received.added else 200
    return received
