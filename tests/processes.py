"""The services of docker-compose.yml as plain processes: one table of commands, for both."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]

COMMANDS = {
    "migrate": "python -m store migrate",
    "mlflow": (
        "mlflow server --host {host} --port {mlflow_port} --workers 1"
        " --artifacts-destination {artifacts} --allowed-hosts {mlflow_hosts}"
    ),
    "ray-head": (
        "ray start --head --block --node-ip-address {node} --port {ray_port} --num-cpus 0"
        " --object-store-memory 100000000 --include-dashboard false --disable-usage-stats"
    ),
    "ray-worker": (
        "ray start --block --node-ip-address {node} --address {ray} --num-cpus {cpus}"
        " --object-store-memory 100000000 --disable-usage-stats"
    ),
    "ray-driver": (
        "ray start --node-ip-address {node} --address {ray} --num-cpus 0"
        " --object-store-memory 100000000 --disable-usage-stats"
    ),
    "orchestrator": "python -m workers cluster=ray store=postgres",
    "api": "python -m api store=postgres",
}
VARIABLES = {
    "migrate": {"SCALEWISE_HOME", "SCALEWISE_DATABASE_URL", "SCALEWISE_TOKEN", "MLFLOW_TRACKING_URI"},
    "mlflow": {"MLFLOW_BACKEND_STORE_URI", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"},
    "ray-head": {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"},
    "ray-worker": {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"},
}
VARIABLES["api"] = VARIABLES["migrate"] | {"SCALEWISE_HOST"}
VARIABLES["orchestrator"] = VARIABLES["migrate"] | VARIABLES["ray-head"] | {"RAY_ADDRESS"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, check: Callable[[], Any], seconds: float) -> Any:
    """What ``check`` gives as soon as it gives something; it may fail to connect until then."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = check()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            last = error
        if last and not isinstance(last, Exception):
            return last
        time.sleep(0.5)
    raise TimeoutError(f"{what} within {seconds:g} s; last seen: {last!r}")


@dataclass
class Cluster:
    """Processes of the service, each in a session of its own with a log file."""

    folder: Path
    values: dict[str, str]
    variables: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    sessions: set[int] = field(default_factory=set)

    def start(self, name: str, service: str, more: str = "", **values: str) -> subprocess.Popen[bytes]:
        """Starts a service under a name of its own."""
        command = COMMANDS[service].format(**(self.values | values)) + more
        owner = "orchestrator" if service == "ray-driver" else service
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("SCALEWISE_", "RAY_", "MLFLOW_"))
        }
        environment = kept | {key: self.variables[key] for key in VARIABLES[owner]}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "PYTHONPATH": str(ROOT),
            "RAY_TMPDIR": str(self.folder / "ray"),
            "RAY_raylet_start_wait_time_s": "120",  # a busy machine takes its time
            "SCALEWISE_PORT": self.variables["SCALEWISE_PORT"],
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                shlex.split(command),
                env=environment,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes[name] = process
        self.sessions.add(process.pid)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def wait_for(self, name: str, check: Callable[[], Any], seconds: float) -> Any:
        """Waits for a service; when it does not come, its log says why."""
        try:
            return wait_for(name, check, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.log(name)[-3000:]}") from None

    def stop(self, name: str, seconds: float = 60.0) -> int:
        """Asks a process to end and gives its exit status."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(seconds)

    def left(self) -> list[psutil.Process]:
        """What still runs in the sessions of our processes."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) in self.sessions and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found

    def kill(self) -> None:
        """Ends whatever is left, however a test went."""
        for process in self.left():
            process.kill()
        for started in self.processes.values():
            started.wait(30)
