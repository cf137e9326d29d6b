"""The picture of a sweep."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api import questions
from api.deps import Id, Store
from store import service
from store.db import Sessions
from sweeps.plot import Picture, html, picture, png
from sweeps.runs import Role, RunState

router = APIRouter(prefix="/v1", tags=["answers"])

MAX_FITS = 10_000


@router.get(
    "/sweeps/{id}/picture.png", response_class=Response, responses={200: {"content": {"image/png": {}}}}
)
def picture_png(id: Id, store: Store) -> Response:
    """The law, the runs, the targets and their verification as an image."""
    return Response(png(_picture(store, id)), media_type="image/png")


@router.get(
    "/sweeps/{id}/picture.html", response_class=Response, responses={200: {"content": {"text/html": {}}}}
)
def picture_html(id: Id, store: Store) -> Response:
    """The same to look into: hover and zoom, in one file that needs no network."""
    return Response(html(_picture(store, id)), media_type="text/html; charset=utf-8")


def _picture(store: Store, id: int) -> Picture:
    sweep, ensemble = questions.fitted(store, id)
    first = sweep.spec.targets[0].name
    history = [
        (fit.n_observations, fit.predictions[first].relative)
        for fit in service.list_fits(store, id, limit=MAX_FITS)
        if first in fit.predictions
    ]
    return picture(sweep.spec, ensemble, service.observations(store, id), _measured(store, id), history)


def _measured(store: Sessions, id: int) -> dict[str, float]:
    """The latest verification of each target."""
    runs = service.list_runs(store, id, RunState.FINISHED, Role.TARGET)
    return {run.target: run.loss for run in runs if run.target is not None and run.loss is not None}
