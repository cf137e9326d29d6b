"""The API on a real port of this machine, and runs that end at once with a known loss."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

import conf
from api.app import create_app
from api.client import Client, connect
from api.up import free_port
from store import attempts, queue, service
from store.db import Sessions
from sweeps.runs import Point, RunState, SweepState


@dataclass(frozen=True)
class Served:
    """A service, the store below it and a client of it."""

    url: str
    sessions: Sessions
    client: Client
    server: uvicorn.Server


@contextmanager
def serve(folder: Path, token: str | None = None) -> Iterator[Served]:
    """The API on a SQLite file in a folder."""
    settings = conf.load(f"store.url='sqlite:///{folder}/scalewise.db'")
    settings["api"]["token"] = token
    app = create_app(settings)
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=20)
    )
    app.state.stopping = lambda: server.should_exit
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    client = connect(f"http://127.0.0.1:{port}", token)
    try:
        while not client.ready():
            assert thread.is_alive(), "the service did not start"
            time.sleep(0.02)
        yield Served(client.url, app.state.sessions, client, server)
    finally:
        server.should_exit = True
        thread.join(60)
        client.http.close()
    assert not thread.is_alive(), "the service did not end"


def train(served: Served, sweep_id: int) -> None:
    """Ends every queued run of a sweep with a loss that follows a law, and lets the scheduler look."""
    with served.sessions.begin() as session:
        claims = queue.claim(session, "test", 60.0, 1000)
    for claim in claims:
        cost, config = claim.run.cost, claim.run.config
        loss = 1.5 + 9.0 * cost.params_total**-0.3 + 8.0 * cost.tokens_seen**-0.25
        loss *= 1.0 + 0.05 * (config["lr"] / 0.01 - 1.0) ** 2
        points = [
            Point(seq, seq * 10, seq * 1000, "val_loss", loss + 1.0 / seq, 1e9 + seq) for seq in range(1, 41)
        ]
        with served.sessions.begin() as session:
            attempts.append(session, claim.run.id, claim.attempt, points, "val_loss")
        with served.sessions.begin() as session:
            attempts.finish(session, claim.run.id, claim.attempt, RunState.FINISHED, loss, 1.0)
    service.advance(served.sessions, sweep_id, 4)


def finish(served: Served, **changes: Any) -> int:
    """Submits the tiny sweep and brings it to its end."""
    sweep = served.client.submit(conf.sweep("gpt_tiny") | changes)
    while service.get_sweep(served.sessions, sweep.id).state == SweepState.RUNNING:
        train(served, sweep.id)
    return sweep.id
