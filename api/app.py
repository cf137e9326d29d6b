"""The HTTP application."""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from api.guard import check_exposure, guard
from api.problems import RESPONSES, install
from api.routes import answers, compare, events, health, observations, pictures, plan, runs, sweeps
from store.db import make_engine, make_sessions, migrate
from sweeps import registry

DESCRIPTION = """\
Plans a big training run from many small ones: state a question and a budget as a sweep, follow its runs
and fits, ask for the predicted loss and the best settings at the target.

Lists are pages `{data, next}`; pass `next` as `after` for the following page. Errors are problem details
(RFC 9457); those of a specification name each field, what was given and what is allowed.
"""


def version() -> str:
    """Of the installed package; a source tree that is not installed has none."""
    try:
        return importlib.metadata.version("scalewise")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def create_app(settings: Mapping[str, Any]) -> FastAPI:
    """Builds the application; nothing is opened before it starts.

    Args:
        settings: of the service, as ``conf.load`` gives them; ``store.url``, ``api.host``, ``api.token``,
            ``laws`` and ``data`` are read.

    Raises:
        ValueError: for a host that others can reach without a token, or a law or a data set that cannot be
            loaded.
    """
    check_exposure(settings["api"]["host"], settings["api"]["token"])
    registry.load(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = make_engine(settings["store"]["url"])
        await run_in_threadpool(migrate, engine)
        app.state.engine, app.state.sessions = engine, make_sessions(engine)
        yield
        engine.dispose()

    app = FastAPI(
        title="Scalewise",
        description=DESCRIPTION,
        version=version(),
        lifespan=lifespan,
        responses=RESPONSES,
        generate_unique_id_function=lambda route: route.name,
        redoc_url=None,
        strict_content_type=False,
    )
    app.state.stopping = lambda: False
    app.add_middleware(guard, settings=settings["api"])
    install(app)
    for module in (sweeps, plan, runs, observations, answers, compare, pictures, events, health):
        app.include_router(module.router)
    return app
