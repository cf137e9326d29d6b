"""Past runs join a sweep as observations: what is read, what is refused, what the scheduler makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from serving import Served, serve, train
from typer.testing import CliRunner

import conf
from api.cli import app
from api.client import ServiceError
from store import attempts, queue, service
from store.db import Sessions
from sweeps.errors import IllegalTransition, NotFound
from sweeps.imports import past_runs
from sweeps.mapping import TableError
from sweeps.runs import RunState, SweepState
from sweeps.spec import Budget, SweepSpec, parse, to_dict

AXES = "width=width, depth=depth, tokens=tokens, lr=lr, loss=loss"
LADDER = parse(
    {
        "name": "ladder",
        "space": {"width": [16, 32, 64], "depth": 2, "tokens": [1e5, 2e5, 4e5], "batch": 8},
        "targets": [{"at": {"width": 256, "depth": 2, "tokens": 1e7}}],
    }
)


def spec(**changes: Any) -> SweepSpec:
    """A sweep over four axes."""
    given = {
        "name": "small",
        "space": {
            "width": [16, 32, 64],
            "depth": [1, 2],
            "tokens": [1e5, 2e5, 4e5],
            "lr": [2e-3, 4e-3, 8e-3],
        },
        "targets": [{"at": {"width": 256, "depth": 4, "tokens": 1e7}}],
        "strategy": {"name": "grid", "first_batch": 4},
        "budget": {"runs": 4},
    }
    return parse(given | changes)


def loss_of(params: Any, tokens: Any) -> Any:
    """What a training would reach."""
    return 1.2 + 30.0 * params**-0.3 + 40.0 * tokens**-0.3


def rows(n: int = 12) -> dict[str, list[float]]:
    """Columns of past runs, none of them in the grid of the sweep."""
    rng = np.random.default_rng(1)
    width, tokens = 2.0 * rng.integers(4, 40, n), np.round(10 ** rng.uniform(5, 6, n))
    depth, lr = rng.integers(1, 4, n).astype(float), 10 ** rng.uniform(-3, -2, n)
    loss = loss_of(12 * depth * width**2 + 512 * width, tokens)
    return {
        name: column.tolist()
        for name, column in zip(
            ("width", "depth", "tokens", "lr", "loss"), (width, depth, tokens, lr, loss), strict=True
        )
    }


def finish_queued(sessions: Sessions) -> None:
    """Ends every queued run."""
    with sessions.begin() as session:
        claims = queue.claim(session, "a", 30.0, 100)
    for held in claims:
        loss = float(loss_of(held.run.cost.params_total, held.run.cost.tokens_seen))
        with sessions.begin() as session:
            assert attempts.finish(session, held.run.id, held.attempt, RunState.FINISHED, loss, 1.0)


def take(
    sessions: Sessions, sweep_id: int, columns: dict[str, list[float]], source: str = "old.csv"
) -> service.Received:
    """Imports columns."""
    found = past_runs(service.get_sweep(sessions, sweep_id).spec, columns, AXES, source)
    return service.import_observations(sessions, sweep_id, found, source, AXES)


def refused(asked: SweepSpec, columns: dict[str, Any], mapping: str | None = None) -> str:
    """What is said of rows that do not fit a sweep."""
    with pytest.raises(TableError) as caught:
        past_runs(asked, columns, mapping, "old.csv")
    return str(caught.value)


def test_rows_become_complete_observations() -> None:
    asked = spec()
    found = past_runs(asked, rows(), AXES, "old.csv", 101)
    assert len(found.observations) == 12
    for i, one in enumerate(found.observations):
        given = {name: column[i] for name, column in rows().items() if name != "loss"}
        assert one.config == asked.complete(given)
        assert one.cost == asked.cost(one.config)
        assert (one.loss, one.run_id) == (rows()["loss"][i], None)
        assert one.provenance == f"old.csv, row {101 + i}"
    assert found.notes == ()


def test_units_and_tokens_a_step() -> None:
    given = {
        "w": [16, 32],
        "d": [1, 1],
        "Mtok": [0.1, 0.2],
        "b": [512, 1024],
        "lr": [1e-3, 1e-3],
        "L": [3, 2],
    }
    asked = spec(space=spec().space | {"batch": parse_axis([8, 16])})
    mapping = "width=w, depth=d, tokens=1e6*Mtok, batch_tokens=b, lr=lr, loss=L"
    first, second = past_runs(asked, given, mapping, "a").observations
    assert (first.config["tokens"], first.config["batch"], second.config["batch"]) == (1e5, 8.0, 16.0)
    given["b"] = [500, 1024]
    assert "map.batch: given 7.8125 in row 1; allowed: a whole number" in refused(asked, given, mapping)


def parse_axis(values: list[float]) -> Any:
    """An axis of a space."""
    return LADDER.space["width"].__class__(tuple(map(float, values)), "log")


def test_an_axis_that_varies_has_to_be_there() -> None:
    said = refused(spec(), rows(), "width=width, depth=depth, tokens=tokens, loss=loss")
    assert "map.lr: given nothing; allowed: lr=COLUMN, since the sweep varies it" in said
    said = refused(spec(), rows(), "params=width, flops=tokens, loss=loss")
    assert "map.depth" in said and "map.lr" in said and "`scalewise fit`" in said
    said = refused(spec(), rows(), "lr=lr, loss=loss")
    assert "width=COLUMN or params" in said and "tokens=COLUMN or flops and params" in said
    assert "did you mean width?" in refused(spec(), rows(), AXES.replace("width=", "widht="))
    assert "map.width: given 'w'; allowed: a column of the table" in refused(
        spec(), rows(), "width=w, loss=loss"
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("width", 17.0, "map.width: given 17 in row 2; allowed: an even number"),
        ("width", 16.5, "given 16.5 in row 2; allowed: a whole number"),
        ("width", 2.0, "given 2 in row 2; allowed: a number from 4 to 65536"),
        ("lr", 100.0, "given 100 in row 2; allowed: a number from 1e-08 to 10"),
        ("lr", 0.0, "lr=lr: given 0 in row 2"),
        ("loss", -1.0, "loss=loss: given -1 in row 2"),
        ("loss", float("nan"), "loss=loss: given 1 missing or NaN in row 2"),
    ],
)
def test_values_that_no_run_could_have_are_refused(name: str, value: float, said: str) -> None:
    given = rows()
    given[name][1] = value
    assert said in refused(spec(), given, AXES)


def test_axes_whose_lowest_value_is_0_may_be_0() -> None:
    given = rows() | {"seed": [0.0] * 12, "weight_decay": [0.0] * 12}
    found = past_runs(spec(), given, None, "a")
    assert {one.config["weight_decay"] for one in found.observations} == {0.0}
    (note,) = found.notes
    assert note.code == "off_space" and "weight_decay is 0 in rows 1, 2" in note.message


def test_parameters_and_flops_are_compared_with_the_shape() -> None:
    asked, given = spec(), rows()
    costs = [one.cost for one in past_runs(asked, given, AXES, "a").observations]
    for params in ("params_total", "params_body", "params_active"):
        given["N"] = [getattr(cost, params) for cost in costs]
        given["C"] = [cost.flops for cost in costs]
        assert past_runs(asked, given, AXES + ", params=N, flops=C", "a").notes == ()
    given["N"] = [1.2 * cost.params_total for cost in costs]
    given["C"] = [3.0 * cost.flops for cost in costs]
    codes = [note.code for note in past_runs(asked, given, AXES + ", params=N, flops=C", "a").notes]
    assert codes == ["params_differ", "flops_differ"]


def test_parameters_tell_the_width_where_nothing_else_is_open() -> None:
    widths = np.array([16.0, 48.0, 100.0, 256.0])
    params = 24 * widths**2 + 512 * widths
    given = {"Model Size": params * 1.001, "Training FLOP": 6 * params * 3e5, "loss": [4.0, 3.0, 2.5, 2.0]}
    found = past_runs(LADDER, given, "params=Model Size, flops=Training FLOP, loss=loss", "a")
    assert [one.config["width"] for one in found.observations] == widths.tolist()
    assert all(abs(one.config["tokens"] / 3e5 - 1) < 2e-3 for one in found.observations)
    assert [note.code for note in found.notes] == ["width_solved"]
    said = refused(LADDER, {"params": [100.0], "tokens": [1e5], "loss": [2.0]})
    assert "map.params: given 100 in row 1; allowed: parameters that some width has (the nearest:" in said


def test_what_the_sweep_does_not_vary_is_filled_in() -> None:
    fixed = parse({**to_dict(LADDER), "space": {"width": 32, "depth": 2, "tokens": [1e5, 2e5], "batch": 8}})
    (one,) = past_runs(fixed, {"tokens": [3e5], "loss": [2.0]}, None, "a").observations
    assert one.config == fixed.complete({"tokens": 3e5})
    found = past_runs(fixed, {"params": [24 * 64.0**2 + 512 * 64], "tokens": [3e5], "loss": [2.0]}, None, "a")
    assert found.observations[0].config["width"] == 64
    assert [note.code for note in found.notes] == ["width_solved", "off_space"]


def test_copies_are_spoken_of() -> None:
    given = {name: [*column, column[0]] for name, column in rows().items()}
    (note,) = past_runs(spec(), given, AXES, "a").notes
    assert note.code == "duplicates" and note.message.endswith("row 13")


def test_importing_twice_changes_nothing(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, spec())
    assert take(sessions, sweep.id, rows()) == service.Received(12, 0, 12)
    assert take(sessions, sweep.id, rows(), "copy.csv") == service.Received(0, 12, 12)
    assert take(sessions, sweep.id, rows(14)).imported > 12
    changed = rows()
    changed["loss"][0] += 0.01
    assert take(sessions, sweep.id, changed).added == 1
    stored = service.list_observations(sessions, sweep.id, limit=5)
    assert [one.provenance for one in stored] == [f"old.csv, row {row}" for row in range(1, 6)]
    assert all(one.run_id is None and one.cost == spec().cost(one.config) for one in stored)
    rest = service.list_observations(sessions, sweep.id, stored[-1].id)
    assert rest[0].id > stored[-1].id
    events = [event for event in service.list_events(sessions, sweep.id) if event.kind == "sweep_imported"]
    assert events[0].data == {"source": "old.csv", "mapping": AXES, "added": 12, "known": 0}
    assert len(events) == 3


def test_importing_at_once_adds_each_run_once(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, spec())
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: take(sessions, sweep.id, rows()), range(8)))
    assert sum(one.added for one in answers) == 12
    assert sum(one.known for one in answers) == 7 * 12
    assert service.get_sweep(sessions, sweep.id).imported == 12


def test_imported_runs_are_fitted_and_cost_nothing(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, spec())
    take(sessions, sweep.id, rows())
    finish_queued(sessions)
    assert service.advance(sessions, sweep.id, 4)
    assert not service.advance(sessions, sweep.id, 4)
    fit = service.latest_fit(sessions, sweep.id)
    assert fit is not None
    assert fit.n_observations == 16
    assert len(fit.ensemble.runs) == 4
    ended = service.get_sweep(sessions, sweep.id)
    assert (ended.state, ended.spent.runs, ended.imported) == (SweepState.FINISHED, 4, 12)
    assert len(service.observations(sessions, sweep.id)) == 16


def test_a_finished_sweep_looks_again(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, spec())
    finish_queued(sessions)
    service.advance(sessions, sweep.id, 4)
    assert service.get_sweep(sessions, sweep.id).state == SweepState.FINISHED
    take(sessions, sweep.id, rows())
    assert service.get_sweep(sessions, sweep.id).state == SweepState.RUNNING
    assert service.advance(sessions, sweep.id, 4)
    fit, ended = service.latest_fit(sessions, sweep.id), service.get_sweep(sessions, sweep.id)
    assert fit is not None and fit.n_observations == 16
    assert ended.state == SweepState.FINISHED and ended.finished_at is not None
    take(sessions, sweep.id, rows())
    assert service.get_sweep(sessions, sweep.id) == ended


def test_runs_beside_the_grid_take_no_place_in_it(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, spec())
    near = {"width": [15.0 + 1], "depth": [1.0], "tokens": [99_999.0], "lr": [2e-3], "loss": [4.0]}
    take(sessions, sweep.id, {name: column * 1 for name, column in near.items()})
    take(sessions, sweep.id, rows())
    finish_queued(sessions)
    service.extend(sessions, sweep.id, Budget(runs=54))
    for _ in range(60):
        if service.get_sweep(sessions, sweep.id).state != SweepState.RUNNING:
            break
        service.advance(sessions, sweep.id, 54)
        finish_queued(sessions)
    assert len(service.list_runs(sessions, sweep.id)) == 54


def test_a_cancelled_sweep_takes_nothing(sessions: Sessions) -> None:
    sweep, _ = service.create_sweep(sessions, spec())
    service.cancel(sessions, sweep.id)
    with pytest.raises(IllegalTransition, match="cancelled"):
        take(sessions, sweep.id, rows())
    found = replace(past_runs(spec(), rows(), AXES, "a"))
    with pytest.raises(NotFound, match="there is no sweep 7"):
        service.import_observations(sessions, 7, found, "a", AXES)


def test_the_orchestrator_notices(file_sessions: Sessions, tiny: Any, orchestrate: Any, until: Any) -> None:
    asked = tiny(budget={"runs": 3})
    sweep, _ = service.create_sweep(file_sessions, asked)

    def finished() -> bool:
        return service.get_sweep(file_sessions, sweep.id).state == SweepState.FINISHED

    with orchestrate():
        until(finished, "the end of the sweep")
        assert service.latest_fit(file_sessions, sweep.id) is None
        tokens = np.geomspace(6e3, 6e4, 6).round()
        found = past_runs(asked, {"tokens": tokens, "loss": 3.0 + 40.0 * tokens**-0.3}, None, "old.csv")
        service.import_observations(file_sessions, sweep.id, found, "old.csv", "")
        until(lambda: service.latest_fit(file_sessions, sweep.id), "a fit to the imported runs")
        until(finished, "the end of the sweep")
    fit = service.latest_fit(file_sessions, sweep.id)
    assert fit is not None and fit.n_observations == 9


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service whose sweep 1 has finished its first batch."""
    with serve(tmp_path_factory.mktemp("import")) as running:
        running.client.submit(conf.sweep("gpt_tiny"))
        train(running, 1)
        yield running


@pytest.fixture
def table(served: Served, tmp_path: Path) -> Path:
    """Past runs of sweep 1 with every axis."""
    axes = [one.config for one in served.client.runs(1)][:8]
    frame = pd.DataFrame(axes).assign(seed=7.0, loss=np.linspace(2.5, 3.2, len(axes)))
    frame.to_csv(tmp_path / "old.csv", index=False)
    return tmp_path / "old.csv"


def test_over_http_and_the_command_line(served: Served, table: Path) -> None:
    frame = pd.read_csv(table)
    mapping = ", ".join(f"{name}={name}" for name in frame.columns)
    arguments = ["--url", served.url, "import", "1", str(table), "--map", mapping]
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    added = json.loads(result.stdout)
    assert (added["added"], added["known"], added["imported"]) == (len(frame), 0, len(frame))
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert f"has {len(frame)} imported runs: 0 new, {len(frame)} known already" in result.stdout
    observed = served.client.observations(1)
    imported = [one for one in observed if one.run_id is None]
    assert [one.provenance for one in imported] == [f"old.csv, row {row}" for row in range(1, len(frame) + 1)]
    assert {one.deviation for one in observed} == {0.0}
    assert len(observed) > len(imported)
    assert served.client.sweep(1).imported == len(frame)
    response = served.client.http.post("/v1/sweeps/1/observations", json={"columns": frame.to_dict("list")})
    assert response.status_code == 200
    columns = {name: column[:1] for name, column in frame.to_dict("list").items()} | {"loss": [9.0]}
    response = served.client.http.post("/v1/sweeps/1/observations", json={"columns": columns})
    assert (response.status_code, response.json()["added"]) == (201, 1)


def test_what_is_wrong_is_said_field_by_field(served: Served, table: Path, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="loss=loss: given 1 missing or NaN in row 1") as caught:
        served.client.import_runs(1, {"columns": {"width": [8], "loss": [None]}})
    assert caught.value.status == 422
    with pytest.raises(ServiceError, match="there is no sweep 99"):
        served.client.import_runs(99, {"columns": {"loss": [1.0]}})
    response = served.client.http.post("/v1/sweeps/1/observations", json={"rows": []})
    assert {error["field"] for error in response.json()["errors"]} == {"columns", "rows"}
    for arguments, said in (
        (["1", str(table), "--map", "widht=width, loss=loss"], "did you mean width?"),
        (["1", str(tmp_path / "no.csv"), "--map", "loss=loss"], "No such file"),
        (["1", str(table), "--map", "loss"], "allowed: quantity=column"),
    ):
        result = CliRunner().invoke(app, ["--url", served.url, "import", *arguments])
        assert result.exit_code == 2
        assert result.stdout == "" and said in result.stderr


def test_many_rows_are_sent_in_parts(served: Served, table: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(table)
    many = pd.concat([frame.iloc[:1]] * 4_500, ignore_index=True).assign(loss=np.linspace(2, 3, 4_500))
    many.to_parquet(tmp_path / "many.parquet")
    mapping = ", ".join(f"{name}={name}" for name in frame.columns)
    given = ["--url", served.url, "import", "1", str(tmp_path / "many.parquet"), "--map", mapping]
    result = CliRunner().invoke(app, [*given, "--source", "archive", "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["added"] == 4_500
    assert served.client.observations(1)[-1].provenance == "archive, row 4500"
