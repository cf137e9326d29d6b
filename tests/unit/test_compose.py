"""docker-compose.yml runs what the cluster test runs, keeps no secret and opens no port."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml
from processes import COMMANDS, ROOT, VARIABLES

IN_COMPOSE = {
    "host": "0.0.0.0",
    "node": "$(hostname -i)",
    "mlflow_port": "5000",
    "mlflow_hosts": "mlflow:5000,localhost:5000,127.0.0.1:5000",
    "artifacts": "/mlflow",
    "ray_port": "6379",
    "ray": "ray-head:6379",
    "cpus": "${RAY_WORKER_CPUS:-2}",
}
SECRETS = {"POSTGRES_PASSWORD", "SCALEWISE_TOKEN", "RAY_AUTH_TOKEN"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def commands_of(service: dict[str, Any]) -> list[str]:
    """The commands a service runs, without the shell around them."""
    words = shlex.split(service["command"])
    script = words[2] if words[:2] == ["sh", "-c"] else service["command"]
    return [" ".join(part.removeprefix("exec ").split()).replace("$$", "$") for part in script.split(" && ")]


def test_compose_runs_the_commands_of_the_table(compose: dict[str, Any]) -> None:
    expected = {name: [command.format(**IN_COMPOSE)] for name, command in COMMANDS.items()}
    expected["orchestrator"] = expected.pop("ray-driver") + expected["orchestrator"]
    expected["ray-worker-gpu"] = [f"{expected['ray-worker'][0]} --num-gpus ${{RAY_WORKER_GPUS:-1}}"]
    services = compose["services"]
    assert {name: commands_of(services[name]) for name in services if "command" in services[name]} == expected


def test_compose_sets_the_variables_of_the_table(compose: dict[str, Any]) -> None:
    for name, variables in VARIABLES.items():
        assert set(compose["services"][name]["environment"]) == variables


def test_compose_keeps_no_secret_and_opens_no_port(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    defaulted = set(re.findall(r"\$\{(\w+):-", text))
    assert required == SECRETS
    example = {line.split("=")[0] for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line}
    assert example == required | defaulted
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        mounted = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert mounted <= set(compose["volumes"])


def test_compose_waits_for_health_and_shares_checkpoints(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in ("postgres", "mlflow", "ray-head", "api"):
        assert "healthcheck" in services[name]
    for name in ("ray-worker", "ray-worker-gpu", "orchestrator"):
        assert "data:/data" in services[name]["volumes"]
    gpu = services["ray-worker-gpu"]
    assert gpu["profiles"] == ["gpu"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
