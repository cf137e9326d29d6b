"""Whether the service works."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException

from store.db import is_current

router = APIRouter(tags=["health"])


@dataclass(frozen=True)
class Health:
    """How the service is."""

    status: str


@router.get("/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health("ok")


@router.get("/readyz")
def readyz(request: Request) -> Health:
    """The database answers too, and has the schema of this version."""
    if not is_current(request.app.state.engine):
        raise HTTPException(
            503, "the database has the schema of another version; run `python -m store migrate`"
        )
    return Health("ready")
