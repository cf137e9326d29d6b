"""The mirror on a real MLflow server that goes away in mid-sweep and comes back."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from sqlalchemy import update

from store import mirror, service
from store.db import Sessions
from store.models import RunRow, SweepRow
from sweeps.runs import RunState, SweepState
from sweeps.spec import SweepSpec
from workers.mirror import Mirror

pytestmark = pytest.mark.mlflow
Tiny = Callable[..., SweepSpec]
SPACE = {
    "width": [8, 16],
    "depth": [1],
    "resolution": [16],
    "batch": [4],
    "tokens": [1280, 2560, 5120, 10240],
}


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
        return free


@pytest.fixture
def serve(start: Any, until: Any, home: Path, port: int) -> Callable[[], Any]:
    """Starts the server, again and again on the same data."""

    def healthy() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def run() -> Any:
        where = (
            "--backend-store-uri",
            f"sqlite:///{home}/mlflow.db",
            "--artifacts-destination",
            f"{home}/mlruns",
        )
        command = (
            "-m",
            "mlflow",
            "server",
            *where,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        )
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        process = start(*command, log="mlflow", **quiet)
        until(healthy, "the MLflow server")
        return process

    return run


@contextmanager
def mirroring(sessions: Sessions, port: int, owner: str = "mirror") -> Iterator[None]:
    made = Mirror(sessions, f"http://127.0.0.1:{port}", "scalewise", owner)
    made.start()
    try:
        yield
    finally:
        made.close(5.0)


def all_shown(sessions: Sessions) -> bool:
    return not mirror.unmirrored_sweeps(sessions) and not mirror.unmirrored_runs(sessions)


def forget(sessions: Sessions, names: bool = True) -> None:
    """The database no longer knows what is shown."""
    unknown: dict[str, Any] = {"mirror_state": None} | ({"mirror_id": None} if names else {})
    with sessions.begin() as session:
        session.execute(update(SweepRow).values(unknown | {"mirror_fit": 0}))
        session.execute(update(RunRow).values(unknown | {"mirror_seq": 0}))


def children(client: MlflowClient, parent: str) -> list[Run]:
    (experiment,) = client.search_experiments(filter_string="name = 'scalewise'")
    wanted = f"tags.`mlflow.parentRunId` = '{parent}'"
    return list(client.search_runs([experiment.experiment_id], wanted))


def the_parent(client: MlflowClient, name: str) -> Run:
    (experiment,) = client.search_experiments(filter_string="name = 'scalewise'")
    (found,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return found


def test_everything_arrives_although_the_server_was_away(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any, serve: Any, port: int
) -> None:
    spec = tiny(
        space=SPACE,
        targets=[{"name": "big one (1.5)", "at": {"width": 32, "depth": 1, "tokens": 20480}}],
        strategy={"name": "grid", "first_batch": 6},
        budget={"runs": 7},
        laws={"names": ["chinchilla"]},
    )
    sweep, _ = service.create_sweep(file_sessions, spec)
    server = serve()
    client = MlflowClient(f"http://127.0.0.1:{port}")
    with mirroring(file_sessions, port), orchestrate(slots=2):
        until(lambda: client.search_experiments(filter_string="name = 'scalewise'"), "the experiment")
        until(lambda: len(service.list_runs(file_sessions, sweep.id, RunState.FINISHED)) > 1, "two ends")
        server.terminate()
        server.wait()
        until(
            lambda: service.get_sweep(file_sessions, sweep.id).state is SweepState.FINISHED,
            "the sweep's end without MLflow",
        )
        verified = service.verify(file_sessions, sweep.id, "big one (1.5)", {})
        until(lambda: service.get_run(file_sessions, verified.id).state is RunState.FINISHED, "the target")
        serve()
        until(lambda: all_shown(file_sessions), "the mirror to catch up")

    parent = the_parent(client, "tiny")
    shown = children(client, parent.info.run_id)
    runs = {str(run.id): run for run in service.list_runs(file_sessions, sweep.id)}
    assert {run.data.tags["run"] for run in shown} == set(runs)
    assert {run.info.status for run in [parent, *shown]} == {"FINISHED"}
    for one in shown:
        run = runs[one.data.tags["run"]]
        assert one.data.params["width"] == f"{run.config['width']:g}"
        assert one.data.params["params_total"] == f"{run.cost.params_total:g}"
        assert one.data.metrics["val_loss"] == run.loss
        ran = service.get_run(file_sessions, run.id).provenance or {}
        assert one.data.tags["scalewise.torch"] == ran["torch"]
        assert one.data.tags["scalewise.data_train"] == ran["data_train"]
        assert one.data.tags["scalewise.deterministic"] == "true"
        history = client.get_metric_history(one.info.run_id, "val_loss")
        points = service.list_points(file_sessions, run.id, "val_loss")
        assert [(m.step, m.value, m.timestamp) for m in history] == [
            (p.step, p.value, int(p.at * 1000)) for p in points
        ]
    fits = service.list_fits(file_sessions, sweep.id)
    history = client.get_metric_history(parent.info.run_id, "big one _1_5_/predicted")
    assert [(m.step, m.value) for m in history] == [
        (fit.n_observations, fit.predictions["big one (1.5)"].loss) for fit in fits
    ]
    assert parent.data.metrics["big one _1_5_/measured"] == runs[str(verified.id)].loss
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "law.png",
        "law.html",
        "spec.json",
    }


def test_writing_twice_changes_nothing_and_what_was_deleted_stays_deleted(
    file_sessions: Sessions, tiny: Tiny, orchestrate: Any, until: Any, serve: Any, port: int
) -> None:
    sweep, _ = service.create_sweep(file_sessions, tiny(strategy={"name": "informative", "first_batch": 3}))
    serve()
    client = MlflowClient(f"http://127.0.0.1:{port}")
    with orchestrate():
        until(lambda: service.get_sweep(file_sessions, sweep.id).state is SweepState.FINISHED, "the end")
    with file_sessions.begin() as session:  # as if it had begun from another one
        session.execute(update(RunRow).where(RunRow.id == 3).values(parent_id=1, parent_step=20))
    with mirroring(file_sessions, port):
        until(lambda: all_shown(file_sessions), "the mirror")
    parent = the_parent(client, "tiny")
    shown = children(client, parent.info.run_id)
    before = [run.to_dictionary() for run in shown]
    tags = {int(run.data.tags["run"]): run.data.tags for run in shown}
    assert (tags[3]["branch.run"], tags[3]["branch.step"]) == ("1", "20")
    assert "branch.run" not in tags[1]
    for decision in service.list_decisions(file_sessions, sweep.id):
        assert decision.run_id is not None and "expected to narrow the interval" in decision.reason
        told = tags[decision.run_id]
        assert told["why"] == decision.reason
        for name in ("half_width_before", "half_width_after", "budget_share"):
            assert float(told[f"expected.{name}"]) == pytest.approx(decision.expected[name], rel=1e-3)

    forget(file_sessions)  # as after a crash before any of it was noted
    with mirroring(file_sessions, port, "another"):
        until(lambda: all_shown(file_sessions), "the mirror")
    assert the_parent(client, "tiny").info.run_id == parent.info.run_id
    assert [run.to_dictionary() for run in children(client, parent.info.run_id)] == before

    client.delete_run(before[0]["info"]["run_id"])
    forget(file_sessions, names=False)
    with mirroring(file_sessions, port, "another"):
        until(lambda: all_shown(file_sessions), "the mirror")
    assert len(children(client, parent.info.run_id)) == len(before) - 1
