"""A database, tiny sweeps, and orchestrators in threads and processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from store.db import Sessions, make_engine, make_sessions, migrate
from sweeps.spec import SweepSpec, parse
from sweeps.stacks import Packing
from workers.calibrate import SHAPES, Shape
from workers.inprocess import InProcessPool
from workers.orchestrator import Orchestrator, Pace

PACE = Pace(lease=3.0, poll=0.05, checkpoint=0.2)
Until: TypeAlias = Callable[[Callable[[], Any], str], Any]
Orchestrate: TypeAlias = Callable[..., AbstractContextManager[Orchestrator]]
Process: TypeAlias = "subprocess.Popen[bytes]"
Start: TypeAlias = Callable[..., Process]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The data directory of a service."""
    return tmp_path / "home"


@pytest.fixture
def file_sessions(home: Path) -> Iterator[Sessions]:
    """A fresh SQLite database where a service with that home looks for it."""
    engine = make_engine(f"sqlite:///{home / 'scalewise.db'}")
    migrate(engine)
    yield make_sessions(engine)
    engine.dispose()


@pytest.fixture
def tiny() -> Callable[..., SweepSpec]:
    """Sweeps of models that train in a fraction of a second; keywords change the specification."""

    def make(**changes: Any) -> SweepSpec:
        given = {
            "name": "tiny",
            "space": {
                "width": [8],
                "depth": [1],
                "resolution": [16],
                "batch": [4],
                "tokens": [1280, 2560, 5120],
            },
            "targets": [{"at": {"width": 16, "depth": 1, "tokens": 20480}}],
            "strategy": {"name": "grid", "first_batch": 3},
            "budget": {"runs": 3},
            "trainer": {"eval_tokens": 1024, "evaluations": 4},
        }
        return parse(given | changes)

    return make


@pytest.fixture
def long_space() -> dict[str, Any]:
    """One configuration that trains for some seconds."""
    return {"width": [8], "depth": [1], "resolution": [16], "batch": [4], "tokens": [80_000]}


@pytest.fixture
def until() -> Until:
    """Waits until something is true and gives it back."""

    def wait(what: Callable[[], Any], message: str, seconds: float = 240.0) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := what():
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited {seconds:g} s for: {message}")

    return wait


@pytest.fixture
def orchestrate(file_sessions: Sessions, home: Path, monkeypatch: pytest.MonkeyPatch) -> Orchestrate:
    """An orchestrator in a thread, ended cleanly at the end of the block; it calibrates by one shape."""
    monkeypatch.setattr("workers.calibrate.SHAPES", {kind: (Shape(8, 1, 4),) for kind in SHAPES})

    @contextmanager
    def run(owner: str = "one", slots: int = 1, members: int = 1, sharers: int = 1) -> Iterator[Orchestrator]:
        pool, folder = InProcessPool(slots), home / "checkpoints"
        orchestrator = Orchestrator(
            file_sessions, pool, owner, folder, PACE, lambda *_: Packing(members, sharers)
        )
        stopping = threading.Event()
        thread = threading.Thread(target=orchestrator.run, args=(stopping,))
        thread.start()
        try:
            yield orchestrator
        finally:
            stopping.set()
            thread.join(60)
            assert not thread.is_alive()

    return run


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Starts processes in groups of their own, with a service's home; what is left at the end is killed."""
    started: list[Process] = []
    root = Path(__file__).resolve().parents[2]

    def run(*command: str, log: str, **environment: str) -> Process:
        home.mkdir(exist_ok=True)
        variables = os.environ | {"SCALEWISE_HOME": str(home), "PYTHONPATH": str(root)} | environment
        with (home / f"{log}.log").open("ab") as output:
            process = subprocess.Popen(
                command if Path(command[0]).is_absolute() else (sys.executable, *command),
                cwd=home,
                env=variables,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield run
    for process in reversed(started):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            process.terminate()
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
