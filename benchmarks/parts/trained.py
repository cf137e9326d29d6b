"""Runs trained in this process."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from parts.hearing import Ends

from sweeps.spec import Config, SweepSpec
from workers.job import Job
from workers.train import train


def trained(spec: SweepSpec, configs: Sequence[Config]) -> list[float]:
    """Final loss of each, those of equal shape as one stack; inf of those that diverged."""
    ends = Ends()
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            Job(i, 1, spec, spec.source, spec.complete(at), str(Path(folder) / f"{i}.pt"), 1e9, None)
            for i, at in enumerate(configs)
        ]
        train(jobs, ends)
    found = [ends.outcomes[run].loss for run in range(len(jobs))]
    return [math.inf if loss is None else loss for loss in found]
