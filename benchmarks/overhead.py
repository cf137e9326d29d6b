"""What a run costs beyond its training: service, orchestrator, Ray worker, database and the outbox of MLflow.

    python benchmarks/overhead.py [--runs 100] [--rounds 3] [--mirror none|away|live ...] [OVERRIDE ...]

A service with one worker, as ``scalewise up`` has it, trains perceptrons that differ in width, so that no two
can be stacked, for ten steps each. The overhead is the time from the start of the first run to the end of the
last, over the number of runs, less what a bare PyTorch loop takes for the same ones. It is taken three times:

    none  without a mirror,
    away  with one whose server does not answer, so that all is written to the outbox and nothing leaves it;
          this is what the limit is for,
    live  with an MLflow server on the same machine, which takes what is in the outbox at the same time.

Beside them, in the same run: a call of a Ray actor, and Ray Tune with ``reuse_actors`` and a function that
does nothing.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

import numpy as np
import ray
from ray import tune
from rich.console import Console
from throughput import bare

from api.client import Client
from api.demo import free_ports, planned, served
from sweeps.runs import Run, RunState, Sweep
from sweeps.spec import SweepSpec, parse

ASKED = 15.0  # ms
WARM = 20  # runs of a sweep before the one that counts
CALLS = 500
STEPS, BATCH = 10, 8
AWAY = "https://127.0.0.1:9"  # where nobody listens; of http the service would start a server itself
MIRRORS = {
    "none": ("no mirror", ["tracking=none"]),
    "away": ("outbox written, MLflow's server away", [f"tracking.uri={AWAY}"]),
    "live": ("outbox written and shipped, MLflow's server on this machine", []),
}


def job(runs: int, name: str, first: int) -> dict[str, Any]:
    """A sweep of so many shapes, each once."""
    shape = {"depth": 1, "batch": BATCH, "tokens": STEPS * BATCH}
    return {
        "name": name,
        "proxy": {"kind": "mlp", "dataset": "digits"},
        "space": shape | {"width": [*range(first, first + runs)]},
        "targets": [{"at": shape | {"width": 256}}],
        "strategy": {"name": "grid", "first_batch": runs},
        "budget": {"runs": runs},
        "trainer": {"evaluations": 1, "eval_tokens": 64},
    }


def finish(client: Client, sweep: Sweep) -> list[Run]:
    """The runs of a sweep, once it has ended."""
    while (now := client.sweep(sweep.id)).state != "finished":
        time.sleep(0.2)
    runs = client.runs(now.id)
    assert all(one.state == RunState.FINISHED for one in runs), [one.reason for one in runs]
    return runs


def wall(runs: Sequence[Run]) -> float:
    """Milliseconds a run from the start of the first to the end of the last."""
    began = min(one.started_at for one in runs if one.started_at)
    ended = max(one.finished_at for one in runs if one.finished_at)
    return 1e3 * (ended - began).total_seconds() / len(runs)


def plain(spec: SweepSpec, runs: Sequence[Run]) -> float:
    """Milliseconds a run that a bare loop takes for the same configurations."""
    for one in runs[:WARM]:
        bare(spec, one.config)
    began = time.perf_counter()
    for one in runs:
        bare(spec, one.config)
    return 1e3 * (time.perf_counter() - began) / len(runs)


@contextmanager
def local_ray() -> Iterator[None]:
    """A Ray of one processor."""
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
    ray.init(address="local", num_cpus=1, logging_level=logging.ERROR, **options)
    try:
        yield
    finally:
        ray.shutdown()


def call() -> float:
    """Milliseconds of a call of a Ray actor."""

    @ray.remote
    class Echo:
        def echo(self, value: int) -> int:
            return value

    actor: Any = Echo.remote()
    ray.get([actor.echo.remote(i) for i in range(10)])
    took = []
    for i in range(CALLS):
        began = time.perf_counter()
        ray.get(actor.echo.remote(i))
        took.append(time.perf_counter() - began)
    ray.kill(actor)
    return 1e3 * float(np.median(took))


class Nothing(tune.Trainable):  # type: ignore[misc]
    """A trial that ends at once and lends its actor to the next."""

    def setup(self, config: dict[str, Any]) -> None:
        """Nothing to set up."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return bool(new_config)

    def step(self) -> dict[str, Any]:
        return {"loss": 0.0, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: Ray Tune asks for it before it lends an actor."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing."""


def trial(runs: int) -> float:
    """Milliseconds of a trial of Ray Tune that does nothing; the start of the first is left out."""
    settings = tune.TuneConfig(metric="loss", mode="min", max_concurrent_trials=1, reuse_actors=True)
    took = []
    for count in (1, 1 + runs):
        with tempfile.TemporaryDirectory() as folder:
            run = tune.RunConfig(storage_path=folder, verbose=0, log_to_file=False)
            space = {"x": tune.grid_search([*range(count)])}
            began = time.perf_counter()
            tune.Tuner(Nothing, param_space=space, tune_config=settings, run_config=run).fit()
            took.append(time.perf_counter() - began)
    return 1e3 * (took[1] - took[0]) / runs


def overhead(runs: int, rounds: int, overrides: Sequence[str]) -> float:
    """Milliseconds a run beyond its training, the median of some rounds on one service."""
    found = []
    with tempfile.TemporaryDirectory(prefix="scalewise-overhead-", ignore_cleanup_errors=True) as folder:
        settings = [*free_ports(), "cluster.slots=1", *overrides]
        with served(Path(folder), settings, Console(quiet=True)) as (_, client):
            warm = job(WARM, "warm", 1000)
            planned(client, warm)
            finish(client, client.submit(warm))
            for count in range(rounds):
                asked = job(runs, f"round {count}", 8)
                ended = finish(client, client.submit(asked))
                took, trained = wall(ended), plain(parse(asked), ended)
                inside = 1e3 * float(np.mean([one.seconds for one in ended]))
                found.append(took - trained)
                print(
                    f"  {took:6.1f} ms a run, {trained:.1f} in a bare loop, {inside:.1f} in the worker: "
                    f"overhead {found[-1]:.1f} ms",
                    flush=True,
                )
    return float(np.median(found))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mirror", action="append", choices=[*MIRRORS], help="all three if not given")
    parser.add_argument("overrides", nargs="*", help="settings, such as store=postgres")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    ours = {}
    for mirror in given.mirror or MIRRORS:
        name, overrides = MIRRORS[mirror]
        print(f"{name}:", flush=True)
        ours[mirror] = overhead(given.runs, given.rounds, [*overrides, *given.overrides])
    with local_ray():
        actor, tuned = call(), trial(given.runs)
    for mirror, took in ours.items():
        asked = f", asked for at most {ASKED:.0f}" if mirror == "away" else ""
        print(f"overhead {took:.1f} ms{asked} ({MIRRORS[mirror][0]})")
    print(f"a call of a Ray actor {actor:.2f} ms")
    print(f"a trial of Ray Tune with reuse_actors {tuned:.1f} ms")
    sys.exit(ours.get("away", 0.0) > ASKED)


if __name__ == "__main__":
    main()
