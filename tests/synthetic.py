"""A world with a known law, for tests of fitting and choosing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sweeps.curves.multipower import published_loss
from sweeps.curves.schedule import track, trained
from sweeps.runs import Observation, Point, Run
from sweeps.space import candidates
from sweeps.spec import Config, SweepSpec, parse

SPACE = {
    "width": [8, 12, 16, 24, 32, 48],
    "depth": [1, 2, 3, 4],
    "tokens": {"from": 1e5, "to": 1.6e6, "steps": 5},
    "lr": {"from": 1e-3, "to": 3.2e-2, "steps": 6},
    "batch": [8, 16, 32],
}


def spec(**changes: object) -> SweepSpec:
    raw: dict[str, object] = {
        "name": "synthetic",
        "space": SPACE,
        "targets": [{"name": "big", "at": {"width": 96, "depth": 4, "tokens": 1.2e6}}],
        "budget": {"runs": 30, "flops": 3e12, "flops_per_run": 4e11},
        "strategy": {"name": "informative", "first_batch": 8},
    }
    return parse(raw | changes)


@dataclass(frozen=True)
class World:
    """L = (E + (A (N/1e5)^-a + B (D/5e5)^-b)^k) exp(bowl + seed noise)."""

    floor: float = 1.4
    of_params: float = 0.6
    of_tokens: float = 0.7
    alpha: float = 0.35
    beta: float = 0.4
    k: float = 0.8
    noise: float = 0.003

    def best(self, spec: SweepSpec, config: Config) -> tuple[float, float]:
        """Optimal learning rate and batch."""
        cost = spec.cost(spec.complete(config))
        lr = 8e-3 * (cost.params_total / 1e5) ** -0.35
        return lr, 14.0 * (cost.tokens_seen / 5e5) ** 0.5

    def loss(self, spec: SweepSpec, config: Config, rng: np.random.Generator | None = None) -> float:
        full = spec.complete(config)
        cost = spec.cost(full)
        lr, batch = self.best(spec, full)
        n, d = cost.params_total / 1e5, cost.tokens_seen / 5e5
        base = self.floor + (self.of_params * n**-self.alpha + self.of_tokens * d**-self.beta) ** self.k
        bowl = 0.02 * np.log(full["lr"] / lr) ** 2 + 0.01 * np.log(full["batch"] / batch) ** 2
        seed = self.noise * rng.standard_normal() if rng else 0.0
        return float(base * np.exp(bowl + seed))


def random_world(rng: np.random.Generator, noise: float = 0.003) -> World:
    """A law drawn at random."""
    return World(
        floor=rng.uniform(1.0, 1.7),
        of_params=rng.uniform(0.5, 0.9),
        of_tokens=rng.uniform(0.5, 0.9),
        alpha=rng.uniform(0.2, 0.5),
        beta=rng.uniform(0.25, 0.6),
        k=rng.uniform(0.5, 1.0),
        noise=noise,
    )


def observe(spec: SweepSpec, world: World, n: int, seed: int) -> list[Observation]:
    """Finished runs at random candidates."""
    rng, table = np.random.default_rng(seed), candidates(spec)
    rows = rng.choice(len(table), n, replace=False)
    configs = [table.config(int(row)) for row in rows]
    return [
        Observation(config, spec.cost(config), world.loss(spec, config, rng), run_id)
        for run_id, config in enumerate(configs, start=1)
    ]


def curve(spec: SweepSpec, run: Run, evaluations: int = 24) -> list[Point]:
    """What a run measures under a law of loss curves, with a little scatter."""
    constants, steps = (1.9, 0.35, 0.45, 3.0, 2.0, 0.5, 0.5), round(run.cost.steps)
    lr = trained(spec.trainer.schedule, steps, run.config["lr"], spec.trainer.warmup, spec.trainer.decay)
    done = np.unique(np.geomspace(max(2, steps // 32), steps, evaluations).round().astype(int))
    loss = published_loss(constants, track(lr, done - 1)) * run.config["width"] ** -0.05
    loss = loss * np.exp(1e-3 * np.random.default_rng(run.id).standard_normal(len(done)))
    return [
        Point(seq, int(step), int(step) * 64, "val_loss", float(value), 1e9 + seq)
        for seq, (step, value) in enumerate(zip(done, loss, strict=True), 1)
    ]
