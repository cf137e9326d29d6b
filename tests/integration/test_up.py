"""The supervisor with small processes of its own."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from api import up
from api.up import Child, Program, Service, UpError

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("child", child.pid, "is ready", flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("is ready", flush=True)
time.sleep(600)
"""


def program(code: str, needed: bool = True) -> Program:
    return Program("small", [sys.executable, "-c", code], {}, lambda log: b"is ready" in log, needed)


@contextmanager
def supervised(folder: Path, *programs: Program) -> Iterator[tuple[Service, list[str]]]:
    said: list[str] = []
    children = [Child(one, folder / f"{index}.log") for index, one in enumerate(programs)]
    service = Service({}, said.append, children)
    watcher = threading.Thread(target=service.watch)
    watcher.start()
    try:
        yield service, said
    finally:
        service.stopping.set()
        watcher.join()
        up.stop(children)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with supervised(tmp_path, program(FAMILY)) as (service, _):
        service.wait_until_ready()
        process = service.children[0].process
        assert process is not None
        pids = [process.pid, int((tmp_path / "0.log").read_text().split()[1])]
        assert all(psutil.pid_exists(pid) for pid in pids)
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_a_process_that_does_not_heed_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "GRACE_SECONDS", 0.5)
    with supervised(tmp_path, program(STUBBORN)) as (service, _):
        service.wait_until_ready()
        process = service.children[0].process
        assert process is not None
    assert process.returncode == -9


def test_a_process_that_dies_is_started_again(tmp_path: Path) -> None:
    with supervised(tmp_path, program(FAMILY)) as (service, said):
        service.wait_until_ready()
        child = service.children[0]
        assert child.process is not None
        first = child.process.pid
        os.kill(first, 9)
        until(lambda: child.process is not None and child.process.pid != first and child.ready)
        assert any("is started again" in line for line in said)


def test_one_that_keeps_dying_ends_the_service_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "MAX_QUICK_DEATHS", 2)
    with (
        supervised(tmp_path, program("raise SystemExit('no such thing')")) as (service, _),
        pytest.raises(UpError, match=r"ended with status 1(.|\n)*no such thing"),
    ):
        service.wait_until_ready()


def test_the_service_goes_on_without_what_it_does_not_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "MAX_QUICK_DEATHS", 1)
    with supervised(tmp_path, program(FAMILY), program("raise SystemExit(3)", False)) as (service, said):
        service.wait_until_ready()
        until(lambda: any("goes on without small" in line for line in said))
        assert service.failed is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("api.port={}", "the API\\) is taken; choose another one with api.port="),
        ("tracking.uri=http://127.0.0.1:{}", "MLflow\\) is taken; choose another one with tracking.uri="),
    ],
)
def test_a_taken_port_is_named(tmp_path: Path, settings: str, message: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        given = [up.home_override(tmp_path), f"api.port={up.free_port()}", "tracking=none"]
        if "tracking" in settings:
            given.pop()
        given.append(settings.format(taken.getsockname()[1]))
        with pytest.raises(UpError, match=message), up.service(given, print):
            raise AssertionError("it must not start")


def test_a_folder_serves_one(tmp_path: Path) -> None:
    given = [up.home_override(tmp_path), "tracking=none"]
    with (
        up._lock(tmp_path),
        pytest.raises(UpError, match="another service uses"),
        up.service(given, print),
    ):
        raise AssertionError("it must not start")


def test_a_fresh_start_removes_only_what_a_service_wrote(tmp_path: Path) -> None:
    for name in ("scalewise.db", "scalewise.db-wal", "mlflow.db", "logs/api.log", "checkpoints/run-1.pt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "thesis.tex").touch()
    up._clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"logs", "thesis.tex"}


def test_any_path_can_be_home(tmp_path: Path) -> None:
    import conf

    for name in ("with space", "it's", "a=b,c", "back\\slash"):
        assert conf.load(up.home_override(tmp_path / name))["home"] == str(tmp_path / name)
