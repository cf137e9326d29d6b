"""Every error as problem details (RFC 9457), ``application/problem+json``."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from sweeps.errors import (
    Conflict,
    FitError,
    IllegalTransition,
    NotFound,
    Problem,
    SpecError,
    SweepError,
)

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
STATUS: dict[type[SweepError], int] = {
    SpecError: 422,
    Conflict: 422,
    NotFound: 404,
    IllegalTransition: 409,
    FitError: 409,
}
_WRAPPERS = {"function-before", "Axis", "AxisRange"}  # steps of a location that no user wrote
_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["about:blank"]},
        "title": {"type": "string", "examples": ["Unprocessable Content"]},
        "status": {"type": "integer", "examples": [422]},
        "detail": {"type": "string"},
        "instance": {"type": "string", "examples": ["/v1/sweeps"]},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("field", "given", "allowed")},
            },
            "examples": [
                [{"field": "budget.runs", "given": "0", "allowed": "greater than or equal to 1"}],
            ],
        },
    },
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"description": "Problem details (RFC 9457)", "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
}


def problem(
    status: int,
    detail: str,
    instance: str | None = None,
    errors: list[Problem] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """A problem as a response.

    Args:
        status: of HTTP.
        detail: what happened, in words.
        instance: path it happened at.
        errors: field by field.
        headers: to send along.
    """
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if instance is not None:
        body["instance"] = instance
    if errors:
        body["errors"] = [{"field": e.field, "given": e.given, "allowed": e.allowed} for e in errors]
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes the application answer every error with a problem."""

    @app.exception_handler(SweepError)
    def of_sweep(request: Request, error: SweepError) -> JSONResponse:
        errors = error.problems if isinstance(error, SpecError) else []
        detail = _summary(len(errors)) if errors else str(error)
        status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 400)
        return problem(status, detail, request.url.path, errors)

    @app.exception_handler(RequestValidationError)
    def of_request(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [_problem(detail) for detail in error.errors()]
        return problem(422, _summary(len(errors)), request.url.path, errors)

    @app.exception_handler(HTTPException)
    def of_http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods(request))
        return problem(error.status_code, _detail(request, error), request.url.path, headers=headers)

    @app.exception_handler(DBAPIError)
    def of_database(request: Request, error: DBAPIError) -> JSONResponse:
        logger.error("database: %s", error)
        return problem(
            503,
            "the database does not answer; try again later",
            request.url.path,
            headers={"Retry-After": "5"},
        )

    @app.exception_handler(Exception)
    def of_anything(request: Request, _error: Exception) -> JSONResponse:
        return problem(500, "something broke in the service; its log says what", request.url.path)


def _summary(count: int) -> str:
    return "1 field is wrong" if count == 1 else f"{count} fields are wrong"


def _detail(request: Request, error: HTTPException) -> str:
    """What Starlette leaves at the name of the status, in words."""
    if error.detail != HTTPStatus(error.status_code).phrase:
        return error.detail
    if error.status_code == 404:
        return f"there is nothing at {request.url.path}; /docs lists what there is"
    if error.status_code == 405:
        return f"{request.method} is not possible here; allowed: {', '.join(_methods(request))}"
    return error.detail


def _methods(request: Request) -> list[str]:
    """Every method some route takes at this path; Starlette names those of the first one."""
    document, steps = request.app.openapi(), request.url.path.split("/")
    found = set()
    for path, operations in document["paths"].items():
        shape = path.split("/")
        same = (a == b or a.startswith("{") for a, b in zip(shape, steps, strict=False))
        if len(shape) == len(steps) and all(same):
            found |= {method.upper() for method in operations}
    return sorted(found)


def _problem(detail: Any) -> Problem:
    """An error of pydantic's in the words of a specification's problems."""
    place, *rest = detail["loc"]
    steps = [str(step) for step in rest if str(step).split("[")[0] not in _WRAPPERS]
    kind = detail["type"]
    if kind == "json_invalid":
        return Problem("body", detail["ctx"]["error"], "JSON")
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return Problem(".".join(steps), f"unknown key {steps[-1]!r}", "no such key here; see /docs")
    given = "nothing" if kind == "missing" else _short(detail["input"])
    allowed = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return Problem(".".join(steps) or str(place), given, allowed)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
