"""Who an orchestrator is, so that another one can tell whether it still lives."""

from __future__ import annotations

import os
import socket

import psutil


def identity() -> str:
    """``host:pid:start``; the start time tells a process from a later one with the same number."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def is_dead(owner: str) -> bool:
    """Whether an orchestrator is known to be gone: it was on this machine and its process is not there.

    Of another machine's nothing is known; there the lease decides.
    """
    host, _, rest = owner.partition(":")
    pid, _, started = rest.partition(":")
    return host == socket.gethostname() and pid.isdigit() and _started(int(pid)) != started


def _started(pid: int) -> str | None:
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return None
