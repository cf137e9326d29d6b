"""For training code of your own: what to train, and how to tell of it. Needs nothing but Python.

    from workers.report import report, run

    config = run().config
    for step in range(1, 1001):
        loss = ...
        if step % 100 == 0 and report(step, {"val_loss": loss}) == "stop":
            break  # write a checkpoint into run().checkpoint first, where there is something to go on from

Outside of the service ``run`` has an empty configuration and ``report`` prints: a script can be tried.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["continue", "stop"]

RUN = "SCALEWISE_RUN"  # JSON of the run
SOCKET = "SCALEWISE_SOCKET"  # number of an open one
_turn = threading.Lock()


@dataclass(frozen=True)
class Run:
    """What is to be trained.

    Args:
        config: value of every axis by name; whole numbers are ints.
        seed: of every random choice.
        checkpoint: folder that every attempt at this run finds as the last one left it.
        cpus, gpus: that the run may use.
        metric: name of the number that counts; its last reported value is the run's result.
    """

    config: Mapping[str, float]
    seed: int
    checkpoint: Path
    cpus: float
    gpus: float
    metric: str


def read_run(text: str) -> Run:
    """A run from its JSON."""
    given: dict[str, Any] = json.loads(text)
    config = {name: int(v) if v == int(v) else v for name, v in given.pop("config").items()}
    return Run(config=config, checkpoint=Path(given.pop("checkpoint")), **given)


@cache
def run() -> Run:
    """The run that this process was started for."""
    text = os.environ.get(RUN)
    if text is None:
        return Run({}, 0, Path(tempfile.mkdtemp(prefix="scalewise-")), 1.0, 0.0, "val_loss")
    return read_run(text)


@cache
def connection() -> socket.socket | None:
    """To the worker, None outside of the service."""
    number = os.environ.get(SOCKET)
    return None if number is None else socket.socket(fileno=int(number))


def report(step: int, metrics: Mapping[str, float], tokens: int | None = None) -> Verdict:
    """Tells of a moment of the training.

    Args:
        step: so far, counted from 1; may not go back.
        metrics: finite numbers by name, the one that counts among them at the last step.
        tokens: or samples seen so far; 0 where it is not told.

    Returns:
        ``stop`` where the run is to end as soon as it can, with what it needs to go on in its folder.

    Raises:
        TypeError: the step is no whole number or a metric no number; which is named.
    """
    if isinstance(step, bool) or int(step) != step:
        raise TypeError(f"report: step: given {step!r}; allowed: a whole number")
    found = {}
    for name, value in metrics.items():
        try:
            found[str(name)] = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"report: metrics[{name!r}]: given {value!r}; allowed: a number") from None
    answer = tell({"step": int(step), "metrics": found, "tokens": tokens})
    if answer is None:
        print(f"step {step}: " + "  ".join(f"{name} {value:.6g}" for name, value in found.items()))  # noqa: T201
    return "stop" if answer == "stop" else "continue"


def tell(message: Mapping[str, Any]) -> str | None:
    """Sends a message to the worker and waits for its answer; None outside of the service."""
    line = connection()
    if line is None:
        return None
    with _turn:
        line.sendall(json.dumps(message).encode() + b"\n")
        return read_line(line)


def read_line(line: socket.socket) -> str:
    """Up to the next end of line; empty where the other end is gone."""
    read = b""
    while not read.endswith(b"\n"):
        part = line.recv(1)
        if not part:
            return ""
        read += part
    return read.decode().rstrip("\n")
