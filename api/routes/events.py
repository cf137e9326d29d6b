"""What happens to a sweep, as server-sent events or as a list."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.sse import format_sse_event
from pydantic import TypeAdapter
from starlette.responses import StreamingResponse

from api.deps import MAX_ID, After, Id, Limit, Page, Store, page
from store import service
from store.db import Sessions
from sweeps.runs import Event, Role, RunState, SweepState

router = APIRouter(prefix="/v1", tags=["events"])

POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 15.0
BATCH = 500
_EVENT = TypeAdapter(Event)
_PAGE = TypeAdapter(Page[Event])


@router.get(
    "/sweeps/{id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "model": Page[Event],
            "description": "A stream of events; a list with `follow=false`",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": 'id: 7\nevent: run_finished\ndata: {"id":7,"sweep_id":1,"run_id":3,'
                    '"kind":"run_finished","data":{"loss":2.31},"at":"2026-01-01T12:00:00Z"}\n\n',
                },
            },
        },
        204: {"description": "The sweep is over and everything was sent; do not connect again"},
    },
)
def list_events(
    id: Id,
    request: Request,
    store: Store,
    after: After = None,
    limit: Limit = 100,
    follow: Annotated[
        bool | None,
        Query(
            description="false gives a list; true stays open; left out, the stream ends with the sweep "
            "and its verifications"
        ),
    ] = None,
    last: Annotated[
        int | None, Header(alias="Last-Event-ID", ge=0, le=MAX_ID, description="resumes after this event")
    ] = None,
) -> Response:
    """What happened and happens: submitted, queued, started, finished, fitted, decided.

    Every event is JSON with id, kind, run_id, data and time. A stream sends those so far first, and an
    event named ``end`` when nothing more is to come.
    """
    service.get_sweep(store, id)
    start = max(after or 0, last or 0)
    if follow is False:
        found = page(service.list_events(store, id, start, limit + 1), limit, lambda event: event.id)
        return Response(_PAGE.dump_json(found), media_type="application/json")
    if last is not None and follow is None:
        over, news = _look(store, id, start)
        if over and not news:
            return Response(status_code=204)
    stream = _stream(store, id, start, bool(follow), request.app.state.stopping)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(
    store: Sessions, id: int, after: int, follow: bool, stopping: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Reads in a thread for moments only, so that many may listen and a shutdown need not wait."""
    quiet, sent = 0, time.monotonic()
    while not stopping():
        over, news = await run_sync(_look, store, id, after)
        for event in news:
            after, sent = event.id, time.monotonic()
            yield format_sse_event(
                data_str=_EVENT.dump_json(event).decode(), event=event.kind, id=str(event.id)
            )
        quiet = quiet + 1 if over and not news else 0
        if quiet == 2 and not follow:  # the last event may become visible just after the state it tells of
            yield format_sse_event(event="end", data_str="{}")
            return
        if time.monotonic() - sent > HEARTBEAT_SECONDS:
            sent = time.monotonic()
            yield format_sse_event(comment="still here")
        if len(news) < BATCH:
            await anyio.sleep(POLL_SECONDS)


def _look(store: Sessions, id: int, after: int) -> tuple[bool, list[Event]]:
    """Whether nothing more is to come, and what is new."""
    sweep = service.get_sweep(store, id)
    over = sweep.state in (SweepState.FINISHED, SweepState.CANCELLED) and not any(
        service.list_runs(store, id, state, Role.TARGET, limit=1)
        for state in (RunState.QUEUED, RunState.RUNNING)
    )
    return over, service.list_events(store, id, after, BATCH)
