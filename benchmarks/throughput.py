"""Runs from queued to recorded: this service beside Ray Tune, in one run on the same Ray.

    python benchmarks/throughput.py [--rounds 1] [--skip-plain]

Two jobs: 64 multilayer perceptrons that differ in learning rate and seed (width 32, depth 2, batch 64, 500
steps on scikit-learn's digits), which can train as one stacked model, and 16 GPTs of different shapes, which
cannot. Ray Tune trains them with a bare PyTorch loop over the same data, as it comes and with
``reuse_actors``; Scalewise takes them from its database and stores every point and result there, with an
orchestrator and warm workers as ``scalewise up`` has them.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

import ray
import torch
from ray import tune
from torch import nn
from torch.nn import functional as F

from store import service
from store.db import Sessions, make_engine, make_sessions, migrate
from sweeps.data import SOURCES
from sweeps.runs import RunState
from sweeps.spec import SweepSpec, parse, to_dict
from sweeps.stacks import Packing
from workers import device, proxies
from workers.datasets import load
from workers.orchestrator import Orchestrator, Pace
from workers.pool import RayPool
from workers.stacking import Measured

SLOTS = 2
WARM = 4  # runs before the clock starts
SETTLED = 12.0  # s after them: what a calibration has found is read every ten
CPU = torch.device("cpu")

MLPS = {
    "name": "64 perceptrons",
    "proxy": {"kind": "mlp", "dataset": "digits"},
    "space": {
        "width": 32,
        "depth": 2,
        "batch": 64,
        "tokens": 64 * 500,
        "lr": {"from": 1e-4, "to": 1e-1, "steps": 16},
        "seed": [0, 1, 2, 3],
    },
    "targets": [{"at": {"width": 128, "depth": 2, "tokens": 1e6}}],
    "strategy": {"name": "grid", "first_batch": 64},
    "budget": {"runs": 64},
    "trainer": {"evaluations": 1, "eval_tokens": 256},
}
GPTS = {
    "name": "16 transformers",
    "space": {
        "width": [8, 12, 16, 20, 24, 28, 32, 40],
        "depth": [1, 2],
        "resolution": 32,
        "batch": 8,
        "tokens": 32 * 8 * 50,
    },
    "targets": [{"at": {"width": 128, "depth": 2, "tokens": 1e6}}],
    "strategy": {"name": "grid", "first_batch": 16},
    "budget": {"runs": 16},
    "trainer": {"evaluations": 1, "eval_tokens": 2048},
}


def bare(spec: SweepSpec, config: Mapping[str, float]) -> float:
    """A plain loop of PyTorch: the held-out loss after the last step."""
    torch.set_num_threads(1)
    config = spec.complete(config)
    source, steps, batch = SOURCES[spec.proxy.dataset], int(spec.cost(config).steps), int(config["batch"])
    examples = load(source, int(config["resolution"]), CPU)
    random = torch.Generator().manual_seed(int(config["seed"]))
    model: nn.Module = proxies.build(config, spec.proxy, source, random)
    optimizer = torch.optim.AdamW(model.parameters(), config["lr"], (0.9, 0.95), weight_decay=0.1, fused=True)
    for _ in range(steps):
        inputs, targets = examples.take("train", torch.randint(examples.places["train"], (batch,)))
        loss = F.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    with torch.inference_mode():
        inputs, targets = examples.take("held_out", examples.evaluation(64))
        return float(F.cross_entropy(model(inputs).flatten(0, -2), targets.flatten()))


def configs(spec: SweepSpec) -> list[dict[str, float]]:
    """Every point of the grid."""
    found: list[dict[str, float]] = [{}]
    for name, axis in spec.space.items():
        found = [one | {name: value} for one in found for value in axis.values]
    return found


class Reused(tune.Trainable):  # type: ignore[misc]
    """A trial that lends its actor to the next."""

    def setup(self, config: dict[str, Any]) -> None:
        self.config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        return {"loss": bare(self.config["spec"], self.config["config"]), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: Ray Tune asks for it before it lends an actor."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing."""


def plain(config: dict[str, Any]) -> None:
    """A trial as the documentation shows it."""
    tune.report({"loss": bare(config["spec"], config["config"])})


def with_tune(trainable: Any, spec: SweepSpec, reuse: bool) -> float:
    """Seconds that Ray Tune takes for the grid, on a Ray that is up."""
    asked = configs(spec)
    space = {"spec": spec, "config": tune.grid_search(asked)}
    settings = tune.TuneConfig(metric="loss", mode="min", max_concurrent_trials=SLOTS, reuse_actors=reuse)
    with tempfile.TemporaryDirectory() as folder:
        run = tune.RunConfig(storage_path=folder, verbose=0, log_to_file=False)
        began = time.perf_counter()
        results = tune.Tuner(trainable, param_space=space, tune_config=settings, run_config=run).fit()
        elapsed = time.perf_counter() - began
    assert len(results) == len(asked) and not results.errors
    return elapsed


def with_scalewise(spec: SweepSpec, members: int | None) -> float:
    """Seconds from the insertion of the runs until the last is recorded, with warm workers."""
    with tempfile.TemporaryDirectory() as folder:
        engine = make_engine(f"sqlite:///{folder}/scalewise.db")
        migrate(engine)
        sessions = make_sessions(engine)
        pool = RayPool(None, "bench", SLOTS)
        stacking = (
            Measured(sessions, pool.device, pool.capacity) if members is None else lambda *_: Packing(members)
        )
        orchestrator = Orchestrator(sessions, pool, "bench", Path(folder), Pace(), stacking)
        stopping = threading.Event()
        thread = threading.Thread(target=orchestrator.run, args=(stopping,))
        thread.start()
        try:
            few = {"budget": {"runs": WARM}, "strategy": {"name": "grid", "first_batch": WARM}}
            warm, _ = service.create_sweep(sessions, parse(to_dict(spec) | few | {"name": "warm"}))
            known = f"{device.name()}", spec.proxy.kind
            while finished(sessions, warm.id) < WARM or not service.calibrated(sessions, *known):
                time.sleep(0.05)
            time.sleep(SETTLED)
            began = time.perf_counter()
            sweep, _ = service.create_sweep(sessions, spec)
            while finished(sessions, sweep.id) < spec.budget.runs:
                time.sleep(0.02)
            return time.perf_counter() - began
        finally:
            stopping.set()
            thread.join(60)
            engine.dispose()


def finished(sessions: Sessions, sweep_id: int) -> int:
    """Runs whose results are stored; one that diverged is a result."""
    ended = (RunState.FINISHED, RunState.DIVERGED)
    return sum(len(service.list_runs(sessions, sweep_id, state)) for state in ended)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--skip-plain", action="store_true", help="leave Ray Tune as it comes out")
    parser.add_argument("--members", type=int, help="so many runs in a cohort, instead of what is measured")
    given = parser.parse_args()
    logging.basicConfig(level=os.environ.get("LOG", "WARNING"), format="%(asctime)s %(name)s %(message)s")
    warnings.simplefilter("ignore")
    for job in (MLPS, GPTS):
        spec = parse(job)
        print(f"{spec.name}, {SLOTS} workers")
        for _ in range(given.rounds):
            ours = with_scalewise(spec, given.members)
            print(f"  {'Scalewise':34}{ours:8.2f} s", flush=True)
            ray.init(
                address="local",
                num_cpus=SLOTS,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            arms: list[tuple[str, Any, bool]] = [("Ray Tune, reuse_actors", Reused, True)]
            if not given.skip_plain:
                arms.append(("Ray Tune as it comes", plain, False))
            for name, trainable, reuse in arms:
                seconds = with_tune(trainable, spec, reuse)
                print(f"  {name:34}{seconds:8.2f} s   {seconds / ours:6.1f} times ours", flush=True)
            ray.shutdown()


if __name__ == "__main__":
    main()
