"""The HTTP interface on a real socket and a real database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Served, finish, serve, train
from sqlalchemy import update

import conf
from api.app import create_app
from api.client import ServiceError, Unreachable, connect
from store import attempts, queue
from store.models import RunRow
from store.provenance import trace
from sweeps.runs import Branch, RunState, SweepState

PROBLEM = "application/problem+json"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service whose sweep 1 is finished; tests may only ask."""
    with serve(tmp_path_factory.mktemp("api")) as running:
        finish(running)
        yield running


def spec(*overrides: str) -> dict[str, Any]:
    return conf.sweep("gpt_tiny", *overrides)


def fields(response: httpx.Response) -> list[str]:
    assert response.headers["content-type"] == PROBLEM
    return [error["field"] for error in response.json()["errors"]]


def test_submit_is_idempotent_by_key(served: Served) -> None:
    http, keyed = served.client.http, {"Idempotency-Key": "once"}
    first = http.post("/v1/sweeps", json=spec(), headers=keyed)
    again = http.post("/v1/sweeps", json=spec(), headers=keyed)
    other = http.post("/v1/sweeps", json=spec("budget.runs=9"), headers=keyed)
    unkeyed = http.post("/v1/sweeps", json=spec())
    assert (first.status_code, again.status_code, other.status_code, unkeyed.status_code) == (
        201,
        200,
        422,
        201,
    )
    assert first.json()["id"] == again.json()["id"] != unkeyed.json()["id"]
    assert first.headers["location"] == f"/v1/sweeps/{first.json()['id']}"
    assert "another specification" in other.json()["detail"]


def test_curl_without_a_content_type_is_taken_as_json(served: Served) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    text = httpx.Request("POST", "http://x", json=spec()).content
    assert served.client.http.post("/v1/sweeps", content=text, headers=form).status_code == 201
    assert served.client.http.post("/v1/sweeps", content=text).status_code == 201


def test_lists_are_pages(served: Served) -> None:
    for _ in range(3):
        served.client.submit(spec())
    first = served.client.http.get("/v1/sweeps", params={"limit": 2}).json()
    rest = served.client.http.get("/v1/sweeps", params={"limit": 2, "after": first["next"]}).json()
    assert [sweep["id"] for sweep in first["data"] + rest["data"]] == [3, 2, 1]
    assert rest["next"] is None
    assert served.client.http.get("/v1/sweeps?state=paused").json() == {"data": [], "next": None}


def test_a_wrong_specification_names_every_field(served: Served) -> None:
    wrong = spec() | {"name": "", "budgett": 1, "seed": -1}
    wrong["space"] = wrong["space"] | {"width": [-8], "colour": [1]}
    for path in ("/v1/sweeps", "/v1/plan"):
        response = served.client.http.post(path, json=wrong)
        assert response.status_code == 422
        assert {"name", "budgett", "seed"} <= set(fields(response))
        assert all({"field", "given", "allowed"} == set(e) for e in response.json()["errors"])
    shaped = spec() | {"space": wrong["space"]}
    assert {"space.width", "space.colour"} <= set(fields(served.client.http.post("/v1/sweeps", json=shaped)))
    assert fields(served.client.http.post("/v1/sweeps", json=[1])) == ["body"]
    assert fields(
        served.client.http.post("/v1/sweeps", content=b"{", headers={"content-type": "application/json"})
    )
    nan = b'{"name": "x", "seed": NaN}'
    assert "seed" in fields(
        served.client.http.post("/v1/sweeps", content=nan, headers={"content-type": "application/json"})
    )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/sweeps/99", 404),
        ("GET", "/v1/sweeps/99/runs", 404),
        ("GET", "/v1/sweeps/99/events", 404),
        ("GET", "/v1/runs/99", 404),
        ("GET", "/v1/fits/99", 404),
        ("GET", "/v1/sweeps/99/optimum", 404),
        ("DELETE", "/v1/sweeps/1", 405),
        ("GET", "/v1/sweeps?limit=1000000", 422),
        ("GET", "/v1/sweeps/0", 422),
        ("GET", "/v1/sweeps/99999999999999999999", 422),
        ("GET", "/v1/sweeps/1/frontier?flops=nan", 422),
    ],
)
def test_every_error_is_a_problem(served: Served, method: str, path: str, status: int) -> None:
    response = served.client.http.request(method, path)
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    body = response.json()
    assert body["status"] == status
    assert body["detail"] and body["title"] and body["instance"] == path.partition("?")[0]


def test_all_methods_of_a_path_are_named(served: Served) -> None:
    response = served.client.http.delete("/v1/sweeps/1")
    assert response.headers["allow"] == "GET, PATCH"
    assert response.json()["detail"] == "DELETE is not possible here; allowed: GET, PATCH"


def test_what_breaks_inside_is_a_problem_without_details(served: Served) -> None:
    server_app = served.server.config.app
    server_app.state.sessions = None  # type: ignore[union-attr]
    response = served.client.http.get("/v1/sweeps")
    server_app.state.sessions = served.sessions  # type: ignore[union-attr]
    assert (response.status_code, response.headers["content-type"]) == (500, PROBLEM)
    assert "Traceback" not in response.text and "NoneType" not in response.text


def test_an_answer_before_there_is_a_fit_is_a_conflict(served: Served) -> None:
    served.client.submit(spec())
    for path in ("predict", "optimum", "frontier?flops=1e12", "picture.png"):
        response = served.client.http.get(f"/v1/sweeps/1/{path}")
        assert response.status_code == 409
        assert response.json()["detail"] == "no fit yet: 0 of 5 runs of the first batch are done"
    with pytest.raises(ServiceError, match="no fit yet"):
        served.client.verify(1)


def test_a_sweep_is_steered(served: Served) -> None:
    client = served.client
    client.submit(spec())
    assert client.change(1, action="pause").state == SweepState.PAUSED
    assert client.change(1, action="resume").state == SweepState.RUNNING
    with pytest.raises(ServiceError, match="only a paused sweep can be resumed"):
        client.change(1, action="resume")
    changed = client.change(1, budget={"runs": 20, "flops": 1e12}, tolerance=0.05)
    assert (changed.spec.budget.runs, changed.spec.budget.flops, changed.spec.stop.tolerance) == (
        20,
        1e12,
        0.05,
    )
    assert client.change(1, budget={"flops": None}).spec.budget.flops is None
    assert client.change(1, action="cancel").state == SweepState.CANCELLED
    assert client.http.patch("/v1/sweeps/1", json={"action": "resume"}).status_code == 409
    for body in ({}, {"action": "explode"}, {"budget": {"runs": 0}}, {"sharpness": 1}):
        assert client.http.patch("/v1/sweeps/1", json=body).status_code == 422


def test_more_budget_lets_a_finished_sweep_go_on(served: Served) -> None:
    id = finish(served)
    assert served.client.change(id, budget={"runs": 10}).state == SweepState.RUNNING
    train(served, id)
    assert served.client.runs(id, RunState.QUEUED)


def test_plan_starts_nothing(served: Served) -> None:
    found = served.client.plan(spec())
    assert found.runs == 8 and found.flops > 0 and found.targets[0].name == "small"
    assert served.client.sweeps() == []


def test_a_ladder_is_planned_beside_its_rival(served: Served) -> None:
    found = served.client.ladder(spec(), {"kind": "multiples", "sizes": 2, "tokens_per_param": [3, 6]})
    assert len(found.rungs) == 4 and found.half_width_after["small"] < found.half_width_before["small"]
    assert served.client.sweeps() == []
    for ladder, field in (({"kind": "steps"}, "ladder.kind"), ({"sizes": 1}, "ladder.sizes")):
        answer = served.client.http.post("/v1/ladder", json={"spec": spec(), "ladder": ladder})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


def test_answers(answering: Served) -> None:
    client = answering.client
    best = client.optimum(1, {})
    assert best == client.optimum(1, {"target": "small"})
    assert best.prediction.low < best.prediction.loss < best.prediction.high
    assert {"lr", "batch"} <= set(best.settings)
    at = {"width": 48, "depth": 2, "tokens": 1e5}
    one = client.predict(1, at | {"lr": 0.01})
    assert one.at["lr"] == 0.01 and one.at["width"] == 48
    assert client.predict(1, {"target": "small", "tokens": 1e5}).at["tokens"] == 1e5
    assert [split.flops for split in client.frontier(1, [1e11, 1e12])] == [1e11, 1e12]
    assert client.fits(1)[-1].predictions["small"].loss == pytest.approx(best.prediction.loss)
    fit = client.http.get(f"/v1/fits/{client.fits(1)[-1].id}").json()
    assert sum(law["weight"] for law in fit["laws"]) == pytest.approx(1.0)
    assert len(client.decisions(1)) == 8
    for decision in client.decisions(1):
        assert decision.reason and decision.run_id
        assert decision.expected["half_width_after"] <= decision.expected["half_width_before"]


def test_ways_to_scale_a_shape(answering: Served) -> None:
    client = answering.client
    found = client.shapes(1, 4.0, "flops", {})
    assert {one.strategy for one in found} == {"w", "dw", "d"} and found[0].best
    assert [one.loss for one in found] == sorted(one.loss for one in found)
    assert all(one.flops == pytest.approx(4.0, rel=0.2) and one.seconds > 0.0 for one in found)
    half = client.shapes(1, 0.5, "activations", {"width": 48, "depth": 2, "tokens": 1e5})
    assert all(one.at["width"] <= 48 and one.at["tokens"] == 1e5 for one in half)
    for query in ("factor=0", "factor=nan", "budget=flops", "factor=2&budget=time", "factor=2&widht=8"):
        assert client.http.get(f"/v1/sweeps/1/shapes?{query}").status_code == 422


def test_where_a_run_begins_is_told(served: Served) -> None:
    client, sweep = served.client, served.client.submit(spec())
    first, second = client.runs(sweep.id)[:2]
    with served.sessions.begin() as session:  # as the scheduler does once a trunk is there
        begun = {"parent_id": first.id, "parent_step": 5}
        session.execute(update(RunRow).where(RunRow.id == second.id).values(begun))
    branch = {"run_id": first.id, "step": 5}
    assert client.http.get(f"/v1/runs/{second.id}").json()["branch"] == branch
    assert client.http.get(f"/v1/runs/{first.id}").json()["branch"] is None
    told = {one.run_id: one.branch for one in client.decisions(sweep.id)}
    assert told[second.id] == Branch(first.id, 5) and told[first.id] is None


def test_answers_tell_of_runs_that_diverged(served: Served) -> None:
    client, sweep = served.client, served.client.submit(spec())
    with served.sessions.begin() as session:
        (claim,) = queue.claim(session, "test", 60.0, 1)
    with served.sessions.begin() as session:
        attempts.finish(session, claim.run.id, claim.attempt, RunState.DIVERGED, None, 1.0)
    while client.sweep(sweep.id).state == SweepState.RUNNING:
        train(served, sweep.id)
    lr = claim.run.config["lr"]
    for near, times in ((True, 1.0), (False, 0.1)):
        at = {"width": 48, "depth": 2, "tokens": 1e5, "lr": times * lr}
        for warnings in (client.predict(1, at).warnings, client.optimum(1, at).prediction.warnings):
            assert ("diverged_near" in [one.code for one in warnings]) == near


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("widht=8&depth=1&tokens=1e5", "widht"),
        ("width=wide&depth=1&tokens=1e5", "width"),
        ("width=nan&depth=1&tokens=1e5", "width"),
        ("width=-8&depth=1&tokens=1e5", "width"),
        ("width=8&depth=1", "tokens"),
        ("width=8.5&depth=1&tokens=1e5", "width"),
    ],
)
def test_a_question_is_checked_axis_by_axis(answering: Served, query: str, field: str) -> None:
    for path in ("predict", "optimum"):
        response = answering.client.http.get(f"/v1/sweeps/1/{path}?{query}")
        assert response.status_code == 422
        assert fields(response) == [field]
    if field == "widht":
        assert "width, depth, resolution, tokens, lr" in response.json()["errors"][0]["allowed"]


def test_unknown_target_is_not_found(answering: Served) -> None:
    with pytest.raises(ServiceError, match="this sweep has small") as caught:
        answering.client.optimum(1, {"target": "huge"})
    assert caught.value.status == 404


def test_pictures(answering: Served) -> None:
    assert answering.client.picture(1, "png").startswith(b"\x89PNG")
    assert b"plotly" in answering.client.picture(1, "html").lower()


def test_a_target_is_verified_once(served: Served) -> None:
    id = finish(served)
    run = served.client.verify(id, "small", {"lr": 0.01})
    assert (run.target, run.config["lr"], run.state) == ("small", 0.01, RunState.QUEUED)
    assert served.client.verify(id, "small", {"lr": 0.01}).id == run.id
    with pytest.raises(ServiceError, match="learning_rate"):
        served.client.verify(id, "small", {"learning_rate": 0.01})
    train(served, id)
    assert served.client.run(run.id).loss is not None
    assert run.id not in served.client.fits(id)[-1].predictions["small"].runs


def test_runs_and_points(answering: Served) -> None:
    client = answering.client
    runs = client.runs(1)
    assert len(runs) == 8 and {run.state for run in runs} == {RunState.FINISHED}
    assert len(client.points(runs[0].id)) == 40
    thin = client.http.get(f"/v1/sweeps/1/runs/{runs[0].id}/points?limit=5&metric=val_loss").json()["data"]
    assert [point["seq"] for point in (thin[0], thin[-1])] == [1, 40] and len(thin) == 5
    assert client.http.get(f"/v1/sweeps/2/runs/{runs[0].id}/points").status_code == 404


def test_a_run_tells_what_ran(served: Served) -> None:
    run = served.client.runs(served.client.submit(spec()).id)[0]
    assert served.client.run(run.id).provenance is None
    with served.sessions.begin() as session:
        (claim,) = queue.claim(session, "test", 60.0)
        trace(session, claim.run.id, claim.attempt, {"torch": "2.0", "git_dirty": True})
    assert served.client.run(claim.run.id).provenance == {"torch": "2.0", "git_dirty": True}


def test_events_end_with_the_sweep_and_resume(answering: Served) -> None:
    client = answering.client
    events = list(client.events(1))
    assert [events[0].kind, events[-1].kind] == ["sweep_created", "sweep_finished"]
    assert [event.id for event in events] == sorted(event.id for event in events)
    assert [event.id for event in client.events(1, after=events[-3].id)] == [e.id for e in events[-2:]]
    seen = {"Last-Event-ID": str(events[-2].id)}
    with client.http.stream("GET", "/v1/sweeps/1/events", headers=seen) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = response.read().decode()
    assert text.startswith("event: sweep_finished\ndata: {") and "event: end" in text
    nothing = {"Last-Event-ID": str(events[-1].id)}
    assert client.http.get("/v1/sweeps/1/events", headers=nothing).status_code == 204
    page = client.http.get("/v1/sweeps/1/events?follow=false&limit=3").json()
    assert [event["id"] for event in page["data"]] == [e.id for e in events[:3]]
    assert page["next"] == events[2].id


def test_open_streams_get_what_happens_and_do_not_hold_up_the_end(tmp_path: Path) -> None:
    with serve(tmp_path) as running:
        running.client.submit(spec())
        lines: list[str] = []
        got_paused = threading.Semaphore(0)

        def listen() -> None:
            with httpx.stream("GET", f"{running.url}/v1/sweeps/1/events?follow=true", timeout=60) as response:
                for line in response.iter_lines():
                    lines.append(line)
                    if line == "event: sweep_paused":
                        got_paused.release()

        listeners = [threading.Thread(target=listen, daemon=True) for _ in range(60)]
        for listener in listeners:
            listener.start()
        running.client.change(1, action="pause")  # answered though more listen than there are threads
        for _ in listeners:  # a stream that is not open yet when the service ends is refused, not ended
            assert got_paused.acquire(timeout=60)
    for listener in listeners:
        listener.join(30)
        assert not listener.is_alive()
    assert "event: sweep_created" in lines


def test_only_this_machine_is_served_without_a_token(served: Served) -> None:
    http = served.client.http
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        response = http.get("/v1/sweeps", headers={"Host": host})
        assert (response.status_code, response.headers["content-type"]) == (400, PROBLEM)
    assert http.get("/v1/sweeps", headers={"Host": "localhost:1234"}).status_code == 200
    foreign = http.post("/v1/sweeps", json=spec(), headers={"Origin": "http://evil.example"})
    assert foreign.status_code == 403
    assert http.get("/healthz", headers={"Origin": served.url}).status_code == 200


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    with serve(tmp_path, token="right") as running:
        assert running.client.sweeps() == []
        assert httpx.get(f"{running.url}/readyz", headers={"Host": "any.example"}).status_code == 200
        for given in (None, "wrong", "right2", ""):
            stranger = connect(running.url, given)
            with stranger.http, pytest.raises(ServiceError, match="no valid token") as caught:
                stranger.sweeps()
            assert caught.value.status == 401
        assert httpx.get(f"{running.url}/docs").status_code == 401


def test_large_bodies_are_refused(served: Served) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 65536

    json = {"content-type": "application/json"}
    assert served.client.http.post("/v1/sweeps", content=b" " * (2 << 20), headers=json).status_code == 413
    assert served.client.http.post("/v1/sweeps", content=chunks(), headers=json).status_code == 413


def test_an_address_others_can_reach_needs_a_token() -> None:
    settings = conf.load("api.host=0.0.0.0")
    settings["api"]["token"] = None
    with pytest.raises(ValueError, match="SCALEWISE_TOKEN"):
        create_app(settings)
    settings["api"]["token"] = "secret"
    create_app(settings)


def test_the_description_is_complete(served: Served) -> None:
    document = served.client.http.get("/openapi.json").json()
    operations = [each for path in document["paths"].values() for each in path.values()]
    names = [each["operationId"] for each in operations]
    assert len(names) == len(set(names)) and "create_sweep" in names
    assert all(each["description"] and "default" in each["responses"] for each in operations)
    body = document["paths"]["/v1/sweeps"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    example = body["examples"][0]
    assert served.client.http.post("/v1/plan", json=example).status_code == 200
    assert served.client.http.get("/docs").status_code == 200


def test_the_client_says_when_nothing_is_up() -> None:
    client = connect("http://127.0.0.1:9")
    with client.http:
        assert not client.ready()
        with pytest.raises(Unreachable, match="start it with `scalewise up`"):
            client.sweeps()
        with pytest.raises(Unreachable):
            list(client.events(1))
