"""Training speed with the MLflow server up and with it down, on the real orchestrator, Ray and MLflow.

    python benchmarks/mlflow_down.py [--rounds 2]

Each round trains the same sweep of ten runs twice, in turn: once beside an MLflow server that takes every
metric, once with nothing listening at its address. Printed: tokens a second while training (the
workers' own metric, median over runs) and the sweep's wall time, and the ratio down / up.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
from parts.options import options

import conf
from store import service
from store.db import make_engine, make_sessions, migrate
from sweeps.runs import SweepState
from sweeps.spec import parse

OVERRIDES = (
    "budget.runs=10",
    "strategy={name: grid, first_batch: 10}",
    "space.width=[16, 32]",
    "space.tokens=[1e5, 1.4e5, 2e5]",
    "space.lr=[8e-3, 1.6e-2]",
)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process group politely, then by force."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start(command: list[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A process in a group of its own that writes to a log."""
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | environment,
        )


def mlflow(home: Path, port: int) -> subprocess.Popen[bytes]:
    """A real server on SQLite, ready to answer."""
    backend = f"sqlite:///{home}/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", backend, "--artifacts-destination", str(home / "artifacts")]
    server = start(command, home / "mlflow.log", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    for _ in range(120):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return server
        except httpx.TransportError:
            time.sleep(0.5)
    stop(server)
    raise SystemExit(f"MLflow did not start; see {home}/mlflow.log")


def measure(up: bool) -> tuple[float, float]:
    """One sweep: median tokens a second over its runs, and its wall seconds."""
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), free_port()
        server = mlflow(home, port) if up else None
        settings = [f"home='{home}'", f"tracking.uri=http://127.0.0.1:{port}"]
        engine = make_engine(conf.load(*settings)["store"]["url"])
        migrate(engine)
        sessions = make_sessions(engine)
        workers = start([sys.executable, "-m", "workers", *settings], home / "workers.log")
        try:
            sweep, _ = service.create_sweep(sessions, parse(conf.sweep("gpt_stdlib", *OVERRIDES)))
            while service.get_sweep(sessions, sweep.id).state is SweepState.RUNNING:
                time.sleep(0.2)
            done = service.get_sweep(sessions, sweep.id)
            speeds = []
            for run in service.list_runs(sessions, sweep.id):
                points = service.list_points(sessions, run.id, "tokens_per_second")
                speeds.append(float(np.median([point.value for point in points])))
            assert done.finished_at is not None
            first = min(run.started_at for run in service.list_runs(sessions, sweep.id) if run.started_at)
            return float(np.median(speeds)), (done.finished_at - first).total_seconds()
        finally:
            stop(workers)
            if server is not None:
                stop(server)
            engine.dispose()


def main() -> None:
    rounds = options(__doc__, rounds=2).rounds
    print(f"{'round':>5} {'':>6} {'tokens/s':>10} {'seconds':>9}")
    ratios = []
    for number in range(1, rounds + 1):
        found = {}
        for up in (True, False):
            found[up] = measure(up)
            speed, seconds = found[up]
            print(f"{number:>5} {'up' if up else 'down':>6} {speed:>10,.0f} {seconds:>9.1f}", flush=True)
        ratios.append(found[False][0] / found[True][0])
    print(f"tokens a second, down / up: {np.median(ratios):.3f}")


if __name__ == "__main__":
    main()
