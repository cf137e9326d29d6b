"""The demo and `scalewise up` as a user runs them, with a sweep of seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from api.up import free_port, home_override

pytestmark = pytest.mark.e2e

KEYS = {"runs", "seconds", "flops", "predicted", "low", "high", "measured", "inside"}
KEYS |= {"interval_first", "interval_last", "lr", "batch", "target"}


def users_of(folder: Path) -> list[psutil.Process]:
    """Processes that were started for this data folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SCALEWISE_HOME") == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.ray
@pytest.mark.mlflow
def test_the_demo_measures_what_it_predicts(tmp_path: Path) -> None:
    home = tmp_path / "demo" / ".scalewise"
    command = [sys.executable, "-m", "api.cli", "demo", "--home", str(home), "--preset", "gpt_tiny"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    told = json.loads((home.parent / "result.json").read_text())
    assert set(told) >= KEYS
    assert told["runs"] == 8
    assert told["inside"] == (told["low"] <= told["measured"] <= told["high"])
    assert told["interval_last"] > 0
    assert (home.parent / "law.png").stat().st_size > 10_000
    assert (home.parent / "law.html").stat().st_size > 10_000
    for words in (
        "chosen: ",
        "fit on ",
        "plateau",
        "compute-optimal",
        "predicted",
        "measured",
        "scalewise up --home",
    ):
        assert words in result.stdout
    assert users_of(home) == []


@pytest.mark.ray
def test_up_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "api.cli",
        "up",
        home_override(tmp_path),
        f"api.port={port}",
        "tracking=none",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + 120
        while "orchestrator is ready" not in _log(tmp_path / "logs" / "orchestrator.log"):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.2)
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        assert users_of(tmp_path)
    finally:
        os.kill(process.pid, signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert "The service has ended." in output
    assert users_of(tmp_path) == []


def _log(path: Path) -> str:
    return path.read_text() if path.exists() else ""
