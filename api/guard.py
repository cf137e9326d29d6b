"""What every request must pass before it reaches a route: host, origin, token, size."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import problem

MAX_BODY = 1 << 20
TOO_LARGE = f"the body is larger than {MAX_BODY:,} bytes"
OPEN = frozenset({"/healthz", "/readyz"})  # a probe has no token
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def check_exposure(host: str, token: str | None) -> None:
    """Refuses to listen where others can reach it without a token.

    Raises:
        ValueError: for any address but loopback without a token.
    """
    if token or is_loopback(host):
        return
    raise ValueError(
        f"api.host={host} can be reached from other machines, and there is no token; "
        "set SCALEWISE_TOKEN (or api.token), or leave api.host at 127.0.0.1"
    )


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def guard(app: ASGIApp, settings: Mapping[str, Any]) -> ASGIApp:
    """Wraps an application.

    Without a token only requests that name a loopback host are served, and none that another web page
    sends: a page that rebinds its name to 127.0.0.1 would otherwise speak to the service from a browser.
    With a token every request needs it, whatever its host; a foreign page does not know it.

    Args:
        app: the application.
        settings: ``host`` and ``token`` of the ``api`` settings.
    """
    token: str | None = settings["token"]
    hosts = LOOPBACK | {str(settings["host"]).lower()}

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), scope["path"]
        refused = _token_problem(headers, path, token) if token else _host_problem(headers, path, hosts)
        length = headers.get("content-length", "")
        if refused is None and length.isdecimal() and int(length) > MAX_BODY:
            refused = problem(413, TOO_LARGE, path)
        if refused is not None:
            await refused(scope, receive, send)
            return
        await app(_as_json(scope, headers), _limited(receive), send)

    return guarded


def _host_problem(headers: Headers, path: str, hosts: frozenset[str]) -> ASGIApp | None:
    given = headers.get("host", "")
    if urlsplit(f"//{given}").hostname not in hosts:
        allowed = ", ".join(sorted(hosts))
        return problem(400, f"given the host {given!r}; allowed without a token: {allowed}", path)
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != given:
        return problem(
            403, f"given the origin {origin!r}; other web pages may not speak to this service", path
        )
    return None


def _token_problem(headers: Headers, path: str, token: str) -> ASGIApp | None:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if path in OPEN or (
        scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
    ):
        return None
    return problem(
        401,
        "no valid token; send it as `Authorization: Bearer TOKEN` (SCALEWISE_TOKEN for the command line)",
        path,
        headers={"WWW-Authenticate": "Bearer"},
    )


def _as_json(scope: Scope, headers: Headers) -> Scope:
    """Takes `curl -d` at its word: it calls every body a form, and no route here reads forms."""
    if headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        return scope
    kept = [pair for pair in scope["headers"] if pair[0].lower() != b"content-type"]
    return {**scope, "headers": [*kept, (b"content-type", b"application/json")]}


def _limited(receive: Receive) -> Receive:
    """Counts a body that does not state its length."""
    read = 0

    async def limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > MAX_BODY:
            raise HTTPException(413, TOO_LARGE)
        return message

    return limited
