"""One run of a cohort, as it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sweeps.cost import Cost
from sweeps.spec import Config, SweepSpec, to_dict
from sweeps.trunks import LENGTH
from workers import checkpoint
from workers.checkpoint import Progress
from workers.job import Job

FIRST_EVALUATION = 1 / 32  # of the steps, where the first of several evaluations lies


@dataclass
class Member:
    """One run of a cohort.

    Args:
        config: complete.
        evaluations: steps after which the held-out loss is measured.
        fingerprint: hash of all that decides the numbers of the run.
        trunk: the same without its length.
        used: device seconds.
    """

    job: Job
    config: Config
    cost: Cost
    evaluations: frozenset[int]
    fingerprint: str
    trunk: str
    progress: Progress
    used: float = 0.0
    active: bool = True

    @classmethod
    def of(cls, job: Job, spec: SweepSpec, hashes: Mapping[str, str]) -> Member:
        """The run of a job, at its first step.

        Args:
            spec: of the cohort's sweep.
            hashes: of the data.
        """
        config, whole = spec.complete(job.config), to_dict(spec)
        rest = {name: value for name, value in config.items() if name != LENGTH}
        own, trunk = (
            checkpoint.fingerprint([whole["proxy"], whole["trainer"], part, dict(hashes)])
            for part in (config, rest)
        )
        cost = spec.cost(config)
        steps = evaluation_steps(int(cost.steps), spec.trainer.evaluations)
        return cls(job, config, cost, steps, own, trunk, Progress(0, []))

    @property
    def steps(self) -> int:
        """In all."""
        return int(self.cost.steps)

    @property
    def tokens(self) -> int:
        """Seen so far."""
        return round(self.progress.step * self.cost.tokens_seen / self.cost.steps)


def evaluation_steps(steps: int, count: int) -> frozenset[int]:
    """Steps after which the held-out loss is measured: log-spaced, the last one always among them."""
    first = max(1.0, steps * FIRST_EVALUATION) if count > 1 else steps
    return frozenset(int(step) for step in np.rint(np.geomspace(first, steps, count))) | {steps}
