"""A client of the HTTP interface: the service's records in Python."""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

import httpx
from pydantic import TypeAdapter

from store.service import FitHeader, Received, StoredObservation
from sweeps.answers import Optimum, Prediction, Split
from sweeps.curves.running import RunForecast
from sweeps.errors import Problem, SweepError
from sweeps.ladder import LadderPlan
from sweeps.plan import Plan
from sweeps.runs import Decision, Event, Point, Run, Sweep
from sweeps.shape_choice import Choice
from sweeps.spec import Config

T = TypeVar("T")

TIMEOUT = httpx.Timeout(60.0, connect=5.0)  # an open stream gets heartbeats more often
PAGE = 500
FAILURES = 10  # in a row, a second apart, before a stream of events is given up


class ServiceError(SweepError):
    """The service refused a request.

    Args:
        status: of HTTP.
        detail: what happened, in words.
        problems: field by field.
    """

    def __init__(self, status: int, detail: str, problems: list[Problem]) -> None:
        self.status = status
        self.detail = detail
        self.problems = problems
        super().__init__("\n".join([detail, *(f"  {problem}" for problem in problems)]))


class Unreachable(SweepError):
    """The service is not up."""


@dataclass(frozen=True)
class Client:
    """Speaks to one service.

    Args:
        url: such as ``http://127.0.0.1:8000``.
        http: connection to it.
    """

    url: str
    http: httpx.Client

    def submit(self, spec: Mapping[str, Any], key: str | None = None) -> Sweep:
        """Submits a sweep; the same key and specification give the same sweep again."""
        headers = {"Idempotency-Key": key} if key else {}
        return _read(Sweep, self._send("POST", "/v1/sweeps", json=dict(spec), headers=headers))

    def plan(self, spec: Mapping[str, Any]) -> Plan:
        """What a sweep would cost."""
        return _read(Plan, self._send("POST", "/v1/plan", json=dict(spec)))

    def ladder(self, spec: Mapping[str, Any], ladder: Mapping[str, Any]) -> LadderPlan:
        """What a fixed ladder over the space of a sweep would cost and tell."""
        body = {"spec": dict(spec), "ladder": dict(ladder)}
        return _read(LadderPlan, self._send("POST", "/v1/ladder", json=body))

    def sweep(self, id: int) -> Sweep:
        """One sweep."""
        return _read(Sweep, self._get(f"/v1/sweeps/{id}"))

    def sweeps(self, state: str | None = None, limit: int = 50) -> list[Sweep]:
        """The newest sweeps, newest first."""
        return _read(list[Sweep], self._get("/v1/sweeps", state=state, limit=limit)["data"])

    def change(self, id: int, **change: Any) -> Sweep:
        """Changes a sweep: ``action``, ``budget``, ``tolerance``."""
        return _read(Sweep, self._send("PATCH", f"/v1/sweeps/{id}", json=change))

    def runs(self, id: int, state: str | None = None, role: str | None = None) -> list[Run]:
        """Every run of a sweep, oldest first."""
        return _read(list[Run], self._all(f"/v1/sweeps/{id}/runs", state=state, role=role))

    def run(self, id: int) -> Run:
        """One run."""
        return _read(Run, self._get(f"/v1/runs/{id}"))

    def points(self, run: int, metric: str | None = None) -> list[Point]:
        """The curves of a run."""
        return _read(list[Point], self._get(f"/v1/runs/{run}/points", metric=metric)["data"])

    def forecast(
        self, id: int, run: int, until: int | None = None, level: float | None = None
    ) -> RunForecast:
        """The final loss of a run from its curve so far, or from what it had measured after some steps."""
        path = f"/v1/sweeps/{id}/runs/{run}/forecast"
        return _read(RunForecast, self._get(path, until=until, level=level))

    def fits(self, id: int, after: int = 0) -> list[FitHeader]:
        """Every fit of a sweep after one of them, oldest first."""
        return _read(list[FitHeader], self._all(f"/v1/sweeps/{id}/fits", after=after))

    def decisions(self, id: int, after: int = 0) -> list[Decision]:
        """Every decision of a sweep after one of them, oldest first."""
        return _read(list[Decision], self._all(f"/v1/sweeps/{id}/decisions", after=after))

    def predict(self, id: int, at: Mapping[str, Any]) -> Prediction:
        """The loss at a configuration, or at ``{"target": name}``."""
        return _read(Prediction, self._get(f"/v1/sweeps/{id}/predict", **at))

    def optimum(self, id: int, at: Mapping[str, Any]) -> Optimum:
        """The best settings at a configuration, or at ``{"target": name}``."""
        return _read(Optimum, self._get(f"/v1/sweeps/{id}/optimum", **at))

    def frontier(self, id: int, flops: list[float]) -> list[Split]:
        """The best use of amounts of compute."""
        return _read(list[Split], self._get(f"/v1/sweeps/{id}/frontier", flops=flops))

    def shapes(self, id: int, factor: float, budget: str, at: Mapping[str, Any]) -> list[Choice]:
        """Ways to scale a configuration, or ``{"target": name}``, to so many times its budget."""
        return _read(list[Choice], self._get(f"/v1/sweeps/{id}/shapes", factor=factor, budget=budget, **at))

    def verify(self, id: int, target: str | None = None, overrides: Config | None = None) -> Run:
        """Trains a target with the predicted settings."""
        body = {"target": target, "overrides": overrides or {}}
        return _read(Run, self._send("POST", f"/v1/sweeps/{id}/verifications", json=body))

    def picture(self, id: int, kind: str) -> bytes:
        """The picture of a sweep, ``png`` or ``html``."""
        return self._request("GET", f"/v1/sweeps/{id}/picture.{kind}").content

    def observations(self, id: int, after: int = 0) -> list[StoredObservation]:
        """Every observation of a sweep after one of them, oldest first, imported ones included."""
        return _read(list[StoredObservation], self._all(f"/v1/sweeps/{id}/observations", after=after))

    def import_runs(self, id: int, rows: Mapping[str, Any]) -> Received:
        """Adds past runs to what the laws of a sweep are fitted to; the same run is added once.

        Args:
            rows: ``columns``, ``map`` where they are not called what they are, ``source``, ``first_row``.
        """
        return _read(Received, self._send("POST", f"/v1/sweeps/{id}/observations", json=dict(rows)))

    def events(self, id: int, after: int = 0) -> Iterator[Event]:
        """What happened and happens, until the sweep is over; a broken connection is taken up again."""
        failures = FAILURES  # the first connection must work
        while True:
            try:
                query = {"after": after}
                with self.http.stream("GET", f"/v1/sweeps/{id}/events", params=query) as response:
                    if not response.is_success:
                        response.read()
                        raise _error(response)
                    failures = 0
                    for kind, data in _messages(response.iter_lines()):
                        if kind == "end":
                            return
                        event = _read(Event, json.loads(data))
                        after = event.id
                        yield event
                    raise httpx.RemoteProtocolError("the service went away")
            except httpx.TransportError as error:
                failures += 1
                if failures > FAILURES:
                    raise self._unreachable() from error
                time.sleep(1.0)

    def ready(self) -> bool:
        """Whether the service answers and can work."""
        try:
            return self.http.get("/readyz", timeout=5.0).is_success
        except httpx.TransportError:
            return False

    def _all(self, path: str, **query: Any) -> list[Any]:
        """Every page of a list."""
        items: list[Any] = []
        while True:
            part = self._get(path, limit=PAGE, **query)
            items += part["data"]
            if part["next"] is None:
                return items
            query["after"] = part["next"]

    def _get(self, path: str, **query: Any) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return self._send("GET", path, params=given)

    def _send(self, method: str, path: str, **what: Any) -> Any:
        return self._request(method, path, **what).json()

    def _request(self, method: str, path: str, **what: Any) -> httpx.Response:
        try:
            response = self.http.request(method, path, **what)
        except httpx.TransportError as error:
            raise self._unreachable() from error
        if not response.is_success:
            raise _error(response)
        return response

    def _unreachable(self) -> Unreachable:
        return Unreachable(f"no service at {self.url}; start it with `scalewise up`")


def connect(url: str, token: str | None = None) -> Client:
    """A client of the service at an address; nothing is sent yet."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = url.rstrip("/")
    return Client(url, httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT))


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _read(kind: type[T], given: Any) -> T:
    """A record from JSON."""
    record: T = _adapter(cast("Hashable", kind)).validate_python(given)
    return record


def _error(response: httpx.Response) -> ServiceError:
    try:
        body = response.json()
        detail = body["detail"]
        problems = [Problem(**problem) for problem in body.get("errors", [])]
    except (ValueError, KeyError, TypeError):  # something else than our service answered
        detail, problems = f"{response.status_code} {response.reason_phrase} from {response.url}", []
    return ServiceError(response.status_code, detail, problems)


def _messages(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Kind and data of each server-sent event."""
    kind = data = ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            kind = value
        elif field == "data":
            data = value
        elif not line and data:
            yield kind, data
            kind = data = ""
