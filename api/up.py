"""The embedded service: MLflow, the orchestrator and the API as supervised processes on this machine."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

import conf
from api.guard import check_exposure, is_loopback
from sweeps.errors import SweepError

logger = logging.getLogger(__name__)

GRACE_SECONDS = 15.0
READY_SECONDS = 120.0
QUICK_SECONDS = 30.0  # a process that lives shorter died fast
MAX_QUICK_DEATHS = 4
LOOK_SECONDS = 0.2
TAIL_LINES = 15
READY_LINE = b"orchestrator is ready"

Say = Callable[[str], None]


class UpError(SweepError):
    """The service cannot start, or cannot be kept up."""


@dataclass(frozen=True)
class Program:
    """What a supervised process is.

    Args:
        name: of the process and its log file.
        command: to start it.
        environment: of it, added to ours.
        is_ready: whether it does its work by now, given what it has logged.
        needed: without it there is no service.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    is_ready: Callable[[bytes], bool]
    needed: bool = True


@dataclass
class Child:
    """A program's process as it is now; ``logged`` is where its part of the log begins."""

    program: Program
    log: Path
    process: subprocess.Popen[bytes] | None = None
    logged: int = 0
    started: float = 0.0
    restart_at: float = 0.0
    quick_deaths: int = 0
    ready: bool = False


@dataclass
class Service:
    """A running embedded service.

    Args:
        settings: it runs with.
        children: its processes.
        failed: why it cannot be kept up, once that is so.
    """

    settings: Mapping[str, Any]
    say: Say
    children: list[Child]
    failed: str | None = None
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Address of the API."""
        return _url(self.settings)

    def wait_until_ready(self) -> None:
        """Waits for what is needed; MLflow may come later.

        Raises:
            UpError: a process does not come up.
        """
        end = time.monotonic() + READY_SECONDS
        while not all(child.ready for child in self.children if child.program.needed):
            if self.failed:
                raise UpError(self.failed)
            if time.monotonic() > end:
                slow = [child for child in self.children if child.program.needed and not child.ready]
                raise UpError(_death(slow[0], f"is not ready after {READY_SECONDS:.0f} s"))
            time.sleep(LOOK_SECONDS)

    def watch(self) -> None:
        """Restarts what dies, until it is told to stop or a process cannot be kept up."""
        while not self.stopping.wait(LOOK_SECONDS):
            for child in self.children:
                self._look_after(child)
            if self.failed:
                return

    def _look_after(self, child: Child) -> None:
        process, moment = child.process, time.monotonic()
        if process is None:
            if child.restart_at <= moment < float("inf"):
                _start(child)
            return
        if process.poll() is None:
            if not child.ready and child.program.is_ready(child.log.read_bytes()[child.logged :]):
                child.ready = True
                self.say(f"{child.program.name} is ready after {moment - child.started:.1f} s")
            return
        child.process, child.ready = None, False
        _end_group(process.pid, [])
        quick = moment - child.started < QUICK_SECONDS
        child.quick_deaths = child.quick_deaths + 1 if quick else 0
        words = f"ended with status {process.returncode}"
        if child.quick_deaths >= MAX_QUICK_DEATHS or process.returncode == 2:
            child.restart_at = float("inf")
            if child.program.needed:
                self.failed = _death(child, words)
            else:
                self.say(f"{_death(child, words)}\nthe service goes on without {child.program.name}")
            return
        pause = 2.0**child.quick_deaths - 1.0
        child.restart_at = moment + pause
        self.say(f"{child.program.name} {words}; it is started again (log: {child.log})")


@contextmanager
def service(overrides: Sequence[str], say: Say, fresh: bool = False) -> Iterator[Service]:
    """Runs the embedded service for as long as the block lasts, then ends it and all it has started.

    Args:
        overrides: of the settings, such as ``home=data`` or ``api.port=8001``.
        say: takes lines of progress.
        fresh: what an earlier service left in its folder is thrown away.

    Raises:
        UpError: a port is taken, another service uses the same folder, or a process does not start.
        ValueError: an override is wrong.
    """
    settings = conf.load(*overrides)
    check_exposure(settings["api"]["host"], settings["api"]["token"])
    home = Path(settings["home"])
    (home / "logs").mkdir(parents=True, exist_ok=True)
    with _lock(home):
        _check_ports(settings)
        if fresh:
            _clear(home)
        children = [
            Child(program, home / "logs" / f"{program.name}.log") for program in programs(settings, overrides)
        ]
        running = Service(settings, say, children)
        watcher = threading.Thread(target=running.watch, name="supervisor")
        try:
            for child in children:
                _start(child)
            watcher.start()
            yield running
        finally:
            running.stopping.set()
            if watcher.is_alive():
                watcher.join()
            stop(children)


def programs(settings: Mapping[str, Any], overrides: Sequence[str]) -> list[Program]:
    """What the embedded service consists of."""
    home, uri = Path(settings["home"]), settings["tracking"]["uri"]
    python = [sys.executable, "-u", "-m"]
    shared = {"SCALEWISE_HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}
    found = [
        Program("api", [*python, "api", *overrides], shared, lambda _: _answers(f"{_url(settings)}/readyz")),
        Program("orchestrator", [*python, "workers", *overrides], shared, lambda log: READY_LINE in log),
    ]
    if starts_mlflow(settings):
        found.append(
            Program(
                "mlflow",
                [
                    *python,
                    *("mlflow", "server", "--host", "127.0.0.1", "--port", str(urlsplit(uri).port)),
                    *("--workers", "1", "--backend-store-uri", f"sqlite:///{home}/mlflow.db"),
                    *("--artifacts-destination", str(home / "artifacts")),
                ],
                shared | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                lambda _: _answers(f"{uri}/health"),
                needed=False,
            )
        )
    return found


def starts_mlflow(settings: Mapping[str, Any]) -> bool:
    """Whether MLflow is ours to start: at an address of this machine with a port."""
    parts = urlsplit(settings["tracking"]["uri"] or "")
    return parts.scheme == "http" and parts.port is not None and is_loopback(parts.hostname or "")


@contextmanager
def interruptible() -> Iterator[None]:
    """Turns SIGTERM and a closed terminal into what Ctrl-C is; only the first of them counts."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [signal.signal(number, interrupt) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def home_override(home: Path) -> str:
    """The setting that makes a folder the home, whatever characters its path has."""
    path = str(home.absolute()).replace("'", "\\'")
    return f"home='{path}'"


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a port can be listened on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop(children: Sequence[Child]) -> None:
    """Ends every process and all its descendants; what others lean on (MLflow) comes last."""
    for needed in (True, False):
        processes = [c.process for c in children if c.process is not None and c.program.needed == needed]
        _end(processes)
    for child in children:
        child.process = None


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """TERM to each, and KILL to what is left of their families after a while."""
    families = [_descendants(process.pid) for process in processes]
    for process in processes:
        process.send_signal(signal.SIGTERM)
    end = time.monotonic() + GRACE_SECONDS
    for process, family in zip(processes, families, strict=True):
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, end - time.monotonic()))
        _end_group(process.pid, family)
        process.wait()


def _url(settings: Mapping[str, Any]) -> str:
    """The API's address on this machine."""
    host, port = settings["api"]["host"], settings["api"]["port"]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)
    return f"http://{host}:{port}"


def _check_ports(settings: Mapping[str, Any]) -> None:
    host, port = settings["api"]["host"], settings["api"]["port"]
    if not port_is_free(port, host):
        raise UpError(f"port {port} (the API) is taken; choose another one with api.port={port + 1}")
    if starts_mlflow(settings):
        port = urlsplit(settings["tracking"]["uri"]).port or 0
        if not port_is_free(port):
            other = f"tracking.uri=http://127.0.0.1:{port + 1}"
            raise UpError(
                f"port {port} (MLflow) is taken; choose another one with {other}, or leave MLflow out "
                "with tracking=none"
            )


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    """Lets one service at a time use a folder."""
    with (home / "up.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UpError(
                f"another service uses {home}; end it, or choose another folder with home="
            ) from None
        yield


def _clear(home: Path) -> None:
    """Removes what a service writes, and nothing else."""
    for pattern in ("scalewise.db*", "mlflow.db*", "logs/*.log"):
        for path in home.glob(pattern):
            path.unlink()
    for name in ("checkpoints", "artifacts"):
        shutil.rmtree(home / name, ignore_errors=True)


def _start(child: Child) -> None:
    child.started, child.ready = time.monotonic(), False
    with child.log.open("ab") as log:
        child.logged = log.tell()
        child.process = subprocess.Popen(
            child.program.command,
            env=os.environ | child.program.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us to pass on
        )
    if not child.program.needed:
        with suppress(psutil.Error):
            psutil.Process(child.process.pid).nice(5)  # training first


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _end_group(group: int, family: Sequence[psutil.Process]) -> None:
    """Ends what is left of a process group, and of a family that has spread over others."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    for process in family:
        with suppress(psutil.Error):
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).is_success
    except httpx.TransportError:
        return False


def _death(child: Child, words: str) -> str:
    lines = child.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    tail = "\n".join(f"  {line}" for line in lines)
    return f"{child.program.name} {words}; its log {child.log} ends with\n{tail}"
