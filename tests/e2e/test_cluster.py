"""The services of docker-compose.yml as plain processes on loopback, and a sweep over HTTP through them."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from processes import VARIABLES, Cluster, free_port, wait_for

import conf


@pytest.fixture
def cluster(postgres_server: str) -> Iterator[Cluster]:
    """Everything but the API and the orchestrator, with an empty database."""
    databases = {}
    with psycopg.connect(postgres_server.format(database="postgres"), autocommit=True) as connection:
        for name in ("scalewise", "mlflow"):
            database = f"{name}_{secrets.token_hex(4)}"
            connection.execute(f"CREATE DATABASE {database}")
            address = postgres_server.format(database=database)
            databases[name] = address.replace("postgresql://", "postgresql+psycopg://")
    ports = {name: free_port() for name in ("mlflow", "ray", "api")}
    # Ray's sockets have long names and may not lie deep
    with tempfile.TemporaryDirectory(prefix="sw-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        running = Cluster(
            Path(folder),
            {
                "host": "127.0.0.1",
                "mlflow_port": str(ports["mlflow"]),
                "mlflow_hosts": "127.0.0.1:*",
                "artifacts": f"{folder}/artifacts",
                "ray_port": str(ports["ray"]),
                "ray": f"127.0.0.2:{ports['ray']}",
                "cpus": "2",
            },
            {
                "SCALEWISE_HOME": f"{folder}/data",
                "SCALEWISE_DATABASE_URL": databases["scalewise"],
                "SCALEWISE_TOKEN": secrets.token_hex(16),
                "SCALEWISE_HOST": "127.0.0.1",
                "SCALEWISE_PORT": str(ports["api"]),
                "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
                "MLFLOW_BACKEND_STORE_URI": databases["mlflow"],
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": secrets.token_hex(32),
                "RAY_ADDRESS": f"127.0.0.2:{ports['ray']}",
            },
        )
        try:
            yield running
        finally:
            running.kill()


def listens(host: str, port: str) -> bool:
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


def start_all(cluster: Cluster) -> httpx.Client:
    """Starts the services in the order that docker-compose.yml asks for."""
    values = cluster.values
    cluster.start("mlflow", "mlflow")
    cluster.start("ray-head", "ray-head", node="127.0.0.2")
    assert cluster.start("migrate", "migrate").wait(60) == 0, cluster.log("migrate")
    cluster.wait_for("ray-head", lambda: listens("127.0.0.2", values["ray_port"]), 60)
    cluster.start("api", "api")
    base = f"http://127.0.0.1:{cluster.variables['SCALEWISE_PORT']}"
    mlflow = cluster.variables["MLFLOW_TRACKING_URI"]
    cluster.wait_for("api", lambda: httpx.get(f"{base}/readyz").is_success, 60)
    cluster.wait_for("mlflow", lambda: httpx.get(f"{mlflow}/health").is_success, 120)
    for name, node, more in (("ray-worker", "127.0.0.3", ""), ("ray-driver", "127.0.0.4", " --block")):
        cluster.start(name, name, more, node=node)  # one at a time: on one machine they look for free ports
        cluster.wait_for(name, lambda name=name: "Ray runtime started" in cluster.log(name), 150)
    cluster.start("orchestrator", "orchestrator")
    return httpx.Client(
        base_url=base,
        headers={"Authorization": f"Bearer {cluster.variables['SCALEWISE_TOKEN']}"},
        timeout=60,
    )


def ask_ray(cluster: Cluster) -> dict[str, list[str]]:
    """Addresses of the living nodes that have processors, and names of the actors."""
    script = (
        "import json, ray; ray.init(namespace='scalewise', log_to_driver=False, logging_level='ERROR');"
        "nodes = [n['NodeManagerAddress'] for n in ray.nodes() if n['Alive'] and n['Resources'].get('CPU')];"
        "print(json.dumps({'nodes': nodes, 'actors': ray.util.list_named_actors()}))"
    )
    environment = os.environ | {
        key: cluster.variables[key] for key in VARIABLES["ray-head"] | {"RAY_ADDRESS"}
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def rows(cluster: Cluster, query: str) -> list[tuple[Any, ...]]:
    address = cluster.variables["SCALEWISE_DATABASE_URL"].replace("+psycopg", "")
    with psycopg.connect(address) as connection:
        return connection.execute(query).fetchall()


def get(client: httpx.Client, path: str, **query: Any) -> Any:
    return client.get(path, params=query).raise_for_status().json()


def children(client: MlflowClient, parent: MlflowRun) -> list[MlflowRun]:
    return list(
        client.search_runs(
            [parent.info.experiment_id],
            f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'",
            max_results=100,
        )
    )


@pytest.mark.e2e
@pytest.mark.timeout(900)
@pytest.mark.ray
@pytest.mark.mlflow
def test_a_sweep_through_the_whole_cluster(cluster: Cluster) -> None:
    with start_all(cluster) as api:
        assert httpx.get(f"{api.base_url}/v1/sweeps").status_code == 401
        spec = conf.sweep("gpt_tiny")
        first = api.post("/v1/sweeps", json=spec, headers={"Idempotency-Key": "once"})
        again = api.post("/v1/sweeps", json=spec, headers={"Idempotency-Key": "once"})
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["id"] == again.json()["id"]
        sweep = f"/v1/sweeps/{first.json()['id']}"

        # The orchestrator is killed while the cluster trains; another one takes over what it led.
        cluster.wait_for(
            "orchestrator", lambda: get(api, f"{sweep}/runs", state="finished")["data"], seconds=120
        )
        cluster.processes["orchestrator"].kill()
        cluster.start("orchestrator-again", "orchestrator")

        cluster.wait_for("orchestrator-again", lambda: get(api, sweep)["state"] == "finished", seconds=180)
        ray = ask_ray(cluster)
        check_runs(cluster, api, sweep, spec["budget"]["runs"], ray)
        check_answers(api, sweep)
        check_mirror(cluster, spec["budget"]["runs"])

    assert cluster.stop("orchestrator-again") == 0, cluster.log("orchestrator-again")
    assert cluster.stop("api") in (0, -signal.SIGTERM), cluster.log("api")
    for name in ("ray-worker", "ray-driver", "ray-head", "mlflow"):
        cluster.stop(name)
    assert wait_for("every process has ended", lambda: not cluster.left(), 30)


def check_runs(
    cluster: Cluster, api: httpx.Client, sweep: str, budget: int, ray: dict[str, list[str]]
) -> None:
    """Every run is there once, was trained on the cluster's worker, and its metrics stand in PostgreSQL."""
    runs = get(api, f"{sweep}/runs")["data"]
    assert len(runs) == budget
    assert {run["state"] for run in runs} <= {"finished", "diverged"}
    finished = [run["id"] for run in runs if run["state"] == "finished"]
    assert sorted(row[0] for row in rows(cluster, "SELECT run_id FROM observations")) == sorted(finished)
    assert ray["nodes"] == ["127.0.0.3"]  # no other node has a processor to train on
    workers = {row[0] for row in rows(cluster, "SELECT worker FROM attempts WHERE outcome = 'finished'")}
    assert workers & set(ray["actors"]), (workers, ray)
    for run in runs:
        stored = rows(cluster, f"SELECT seq, value FROM points WHERE run_id = {run['id']} ORDER BY seq")
        assert [seq for seq, _ in stored] == list(range(1, len(stored) + 1))
        assert len(stored) >= 2
        points = get(api, f"/v1/runs/{run['id']}/points")["data"]
        assert [(point["seq"], point["value"]) for point in points] == stored


def check_answers(api: httpx.Client, sweep: str) -> None:
    """The question is answered, and why each run was chosen can be read."""
    optimum = get(api, f"{sweep}/optimum", target="small")
    assert optimum["prediction"]["low"] < optimum["prediction"]["loss"] < optimum["prediction"]["high"]
    rate = optimum["settings"]["lr"]
    assert rate["low"] <= rate["value"] <= rate["high"]
    assert get(api, f"{sweep}/predict", width=32, depth=2, tokens=1e5)["loss"] > 0
    decisions = get(api, f"{sweep}/decisions")["data"]
    assert {decision["run_id"] for decision in decisions} == {
        run["id"] for run in get(api, f"{sweep}/runs")["data"]
    }
    assert all(decision["reason"] for decision in decisions)
    kinds = set()
    with api.stream("GET", f"{sweep}/events", params={"after": 0}) as stream:
        for line in stream.iter_lines():
            if line.startswith("event:"):
                kinds.add(line.removeprefix("event:").strip())
            if "sweep_finished" in kinds:
                break
    assert kinds >= {"sweep_created", "run_queued", "run_started", "run_finished", "fit", "decision"}


def check_mirror(cluster: Cluster, budget: int) -> None:
    """MLflow shows a closed parent run with every run below it, and every point of each."""
    client = MlflowClient(cluster.variables["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("scalewise")
    assert experiment is not None

    def closed() -> list[MlflowRun]:
        found = client.search_runs([experiment.experiment_id], "tags.sweep = '1'", max_results=100)
        parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
        runs = parents + [child for parent in parents for child in children(client, parent)]
        ended = all(run.info.status != "RUNNING" for run in runs)
        return runs if ended and len(runs) == budget + 1 else []

    parent, *below = wait_for("MLflow shows every run closed", closed, 90)
    assert parent.info.status == "FINISHED"
    assert any(name.startswith("prediction.") for name in parent.data.tags)
    for run in below:
        number = int(run.data.tags["run"])
        stored = rows(
            cluster,
            f"SELECT step, value FROM points WHERE run_id = {number} AND metric = 'val_loss' ORDER BY seq",
        )
        shown = client.get_metric_history(run.info.run_id, "val_loss")
        assert [(one.step, one.value) for one in sorted(shown, key=lambda one: one.step)] == stored
        assert {"width", "depth", "lr"} <= set(run.data.params)
