"""Configurations in a few words, and who an orchestrator is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from sweeps.spec import parse
from workers.advancer import ahead
from workers.owner import identity, is_dead
from workers.titles import number, title

SPEC = parse(
    {
        "name": "titles",
        "space": {"width": [16, 32], "depth": [2], "tokens": [4e5], "lr": [1e-3, 3e-3], "batch": [16]},
        "targets": [{"at": {"width": 64, "depth": 2, "tokens": 1e7}}],
    }
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (32.0, "32"),
        (4e5, "4e5"),
        (1.23456e9, "1.23e9"),
        (3e-3, "3e-3"),
        (0.1, "0.1"),
        (0.0, "0"),
        (96.5, "96.5"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_a_title_has_shape_tokens_and_what_differs() -> None:
    config = SPEC.complete({"width": 32, "tokens": 4e5, "lr": 3e-3})
    assert title(SPEC, config) == "w32 d2 t4e5 lr3e-3"


def test_an_orchestrator_knows_itself_and_its_dead() -> None:
    assert not is_dead(identity())
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert is_dead(f"{socket.gethostname()}:{ended.pid}:1.00")


def test_a_reused_process_number_is_not_the_same_orchestrator() -> None:
    assert is_dead(f"{socket.gethostname()}:{os.getpid()}:1.00")


def test_of_another_machine_only_the_lease_tells() -> None:
    assert not is_dead("elsewhere:1:1.00")


@pytest.mark.parametrize(("fit", "runs"), [(0, 1), (1, 2), (2, 3), (8, 10)])
def test_a_few_runs_wait_in_line(fit: int, runs: int) -> None:
    assert ahead(fit) == runs
