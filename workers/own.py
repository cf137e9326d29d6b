"""Trains by code that is not ours: a function in a process that is kept, or a script started anew.

The process talks over a socket that it inherits (``workers.report``). It can print, fork, hang or die as it
likes: its worker goes on.
"""

from __future__ import annotations

import json
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from sweeps.runs import Point, Ran
from workers import device, provenance
from workers.job import Job, Listener, Outcome, Provenance, Status, Verdict
from workers.output import Output
from workers.report import RUN, SOCKET

logger = logging.getLogger(__name__)

HEED_SECONDS = 0.5  # a stop is noticed within this
REAP_SECONDS = 2.0
STOP_SECONDS = 20.0  # to write a checkpoint, once a run was asked to stop
POINTS = ".scalewise-points.jsonl"
LOG = "output.log"


class Guest:
    """A process that trains one run after the other.

    Args:
        command: to start it with.
        environment: beside ours.
        log: file for what it prints.
        folder: to start it in; None for ours.
        entry: whose code it imports, as it stands now.
    """

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        log: Path,
        entry: str,
        folder: Path | None = None,
    ) -> None:
        self.code = provenance.code(entry)
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parent.parent)
        known = [
            str(Path(part).resolve()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part
        ]
        paths = os.pathsep.join([root, *known])
        given = os.environ | environment | {SOCKET: str(theirs.fileno()), "PYTHONPATH": paths}
        self.line = ours
        self._read = b""
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=given,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        theirs.close()
        assert self.process.stdout is not None
        self.output = Output(self.process.stdout, log)

    def send(self, text: str) -> None:
        """A line."""
        with suppress(OSError):
            self.line.sendall(text.encode() + b"\n")

    def receive(self, seconds: float) -> dict[str, object] | None:
        """The next message; None where none came in time.

        Raises:
            EOFError: the process is gone, or has closed its end.
        """
        end = time.monotonic() + seconds
        while b"\n" not in self._read:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.line], [], [], left)[0]:
                return None
            try:
                part = self.line.recv(1 << 16)
            except OSError:
                part = b""
            if not part:
                raise EOFError
            self._read += part
        text, _, self._read = self._read.partition(b"\n")
        found: dict[str, object] = json.loads(text)
        return found

    def reap(self) -> None:
        """Ends what the process has started beside itself."""
        with suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children(recursive=True)
            for child in children:
                with suppress(psutil.Error):
                    child.kill()
            psutil.wait_procs(children, timeout=REAP_SECONDS)

    def kill(self) -> None:
        """Ends the process with everything it has started."""
        self.reap()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.output.close()
        self.line.close()


_kept: dict[str, Guest] = {}  # by entry, for functions


class Training:
    """One attempt at one run.

    Args:
        job: of a sweep whose proxy names an entry.
        listener: is told of points and the end.
    """

    def __init__(self, job: Job, listener: Listener) -> None:
        self._job, self._listener = job, listener
        self._entry = job.spec.proxy.entry or ""
        self._metric = job.spec.metric.name
        self._folder = Path(job.checkpoint)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._points = _read_points(self._folder / POINTS)
        self._result: float | None = None
        self._step = self._tokens = 0
        self._began = self._heard = time.monotonic()
        self._stop_reason: str | None = None
        self._stop_at = math.inf

    def run(self) -> None:
        """Trains until the run has ended."""
        for point in self._points:
            self._note(point.metric, point.value, point.step, point.tokens)
        if self._listener.points(self._job.run_id, list(self._points)) is Verdict.STOP:
            self._end("stopped", "asked to stop")
            return
        guest = self._start()
        self._listener.began(self._job.run_id, self._provenance(guest))
        try:
            outcome = self._serve(guest)
        except EOFError:
            outcome = self._gone(guest)
        if outcome is None or not self._reusable or guest.process.poll() is not None:
            _kept.pop(self._entry, None)
            guest.kill()
        else:
            guest.reap()
        self._listener.ended(self._job.run_id, outcome or self._outcome("stopped", self._stop_reason))

    @property
    def _reusable(self) -> bool:
        return ":" in self._entry

    def _start(self) -> Guest:
        job, log = self._job, self._folder / LOG
        config, asked = job.spec.complete(job.config), job.spec.resources
        run = json.dumps(
            {
                "config": config,
                "seed": int(config.get("seed", 0)),
                "checkpoint": str(self._folder),
                "cpus": asked.cpus,
                "gpus": asked.gpus,
                "metric": self._metric,
            }
        )
        threads = {"OMP_NUM_THREADS": str(max(1, int(asked.cpus)))}
        if not self._reusable:
            overrides = [f"{name}={_plain(value)}" for name, value in config.items()]
            command = [sys.executable, "-m", self._entry, *overrides]
            return Guest(command, threads | {RUN: run}, log, self._entry, self._folder)
        guest = _kept.get(self._entry)
        if guest is None or guest.process.poll() is not None:
            command = [sys.executable, "-m", "workers.guest"]
            guest = _kept[self._entry] = Guest(command, threads, log, self._entry)
        guest.send(json.dumps([self._entry, run]))
        return guest

    def _provenance(self, guest: Guest) -> Provenance:
        job = self._job
        return provenance.record(
            seed=int(job.spec.complete(job.config).get("seed", 0)),
            device=self._device,
            threads=job.spec.resources.threads,
            processes=1,
            hashes={},
            deterministic=None,
            code=guest.code,
        )

    def _serve(self, guest: Guest) -> Outcome | None:
        """Answers reports until the end; None where the process has to be killed."""
        silence = self._job.spec.trainer.silence
        while True:
            message = guest.receive(HEED_SECONDS)
            self._heed()
            now = time.monotonic()
            if message is None:
                if now > self._stop_at:
                    return None
                if now - self._heard > silence:
                    reason = f"nothing was reported for {silence:g} s (trainer.silence); it was ended"
                    guest.kill()
                    return self._outcome("failed", reason)
                continue
            self._heard = now
            if "metrics" in message:
                trouble = self._take(message)
                guest.send("stop" if self._stop_reason or trouble else "continue")
                if trouble is not None:
                    guest.kill()
                    return self._outcome("diverged", trouble)
                continue
            guest.send("")
            if "error" in message:
                logger.info("run %d: %s", self._job.run_id, message["traceback"])
                return self._outcome("failed", str(message["error"]))
            return self._finished()

    def _heed(self) -> None:
        """Asks the run to stop where a user, the budget or nobody any longer wants it to go on."""
        if self._stop_reason is not None:
            return
        limit = self._job.max_seconds
        if self._listener.points(self._job.run_id, []) is Verdict.STOP:
            self._stop_reason = "asked to stop"
        elif limit is not None and self._seconds() >= limit:
            self._stop_reason = "device-second budget"
        if self._stop_reason is not None:
            self._stop_at = time.monotonic() + STOP_SECONDS

    def _take(self, message: dict[str, object]) -> str | None:
        """Stores a report; why the run has diverged, if it has."""
        step, metrics = message["step"], message["metrics"]
        tokens = message["tokens"] or 0
        assert isinstance(step, int) and isinstance(metrics, dict) and isinstance(tokens, int)
        first, now = len(self._points) + 1, time.time()
        points = [
            Point(seq, step, tokens, name, value, now)
            for seq, (name, value) in enumerate(metrics.items(), first)
        ]
        self._points += points
        with (self._folder / POINTS).open("a") as file:
            file.writelines(json.dumps(vars(point)) + "\n" for point in points)
        for name, value in metrics.items():
            self._note(name, value, step, tokens)
        self._listener.points(self._job.run_id, points)
        if self._result is not None and not math.isfinite(self._result):
            return f"{self._metric} is {self._result} at step {step}"
        return None

    def _note(self, metric: str, value: float, step: int, tokens: int) -> None:
        self._step, self._tokens = max(self._step, step), max(self._tokens, tokens)
        if metric == self._metric:
            self._result = value

    def _finished(self) -> Outcome:
        if self._stop_reason is not None:
            return self._outcome("stopped", self._stop_reason)
        if self._result is None:
            reason = f"{self._entry} ended without reporting {self._metric}"
            return self._outcome("failed", reason)
        return self._outcome("finished", None)

    def _gone(self, guest: Guest) -> Outcome:
        """The process has ended: a script does so when it is done, a function never."""
        status = guest.process.wait()
        if status == 0 and not self._reusable:
            return self._finished()
        if self._stop_reason is not None:
            return self._outcome("stopped", self._stop_reason)
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return self._outcome("failed", f"{self._entry} ended with {how}: {guest.output.tail()}")

    def _end(self, status: Status, reason: str) -> None:
        self._listener.ended(self._job.run_id, self._outcome(status, reason))

    def _seconds(self) -> float:
        asked = self._job.spec.resources
        return (time.monotonic() - self._began) * (asked.gpus or asked.cpus)

    def _outcome(self, status: Status, reason: str | None) -> Outcome:
        loss, ran = self._result if status == "finished" else None, Ran(self._device)
        return Outcome(status, loss, self._step, self._tokens, self._seconds(), reason, ran=ran)

    @property
    def _device(self) -> str:
        return device.name(None if self._job.spec.resources.gpus else device.CPU)


def train(job: Job, listener: Listener) -> None:
    """Trains one run by the entry that its sweep names."""
    Training(job, listener).run()


def _read_points(path: Path) -> list[Point]:
    """Those of earlier attempts, in their order."""
    if not path.exists():
        return []
    return [Point(**json.loads(line)) for line in path.read_text().splitlines()]


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
