"""The training loop against a bare one: same model, data, optimiser, clipping and precision.

    python benchmarks/loop.py [--rounds 15] [--seconds 0.3]

The bare loop is what one writes by hand: draw places, take examples, forward, backward, clip, fused AdamW; a
fixed learning rate, nothing read back. Both take turns in one thread; time is that of the processor, which
other work on the machine disturbs less than the clock. Asked for: at most 5 % more time a step from 100,000
parameters on, as the ratio of the quickest rounds and in the median.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from parts.hearing import Ends
from parts.options import options
from torch import nn

from sweeps.data import SOURCES
from sweeps.resources import Resources
from workers import proxies
from workers.calibrate import Shape, make_spec, shape_config
from workers.cohort import Cohort
from workers.job import Job
from workers.objective import mean_loss

SHAPES = {
    "mlp": (Shape(256, 3, 64), Shape(512, 3, 128)),
    "convnet": (Shape(16, 1, 32),),
    "vit": (Shape(64, 3, 32),),
    "gpt": (Shape(64, 2, 8), Shape(96, 4, 16)),
}


def main() -> None:
    given = options(__doc__, rounds=15, seconds=0.3)
    torch.set_num_threads(1)
    print(f"{'kind':>8} {'params':>8} {'bare ms':>8} {'ours ms':>8} {'quickest':>9} {'median':>7}")
    for kind, shapes in SHAPES.items():
        for shape in shapes:
            compare(kind, shape, given.rounds, given.seconds)


def compare(kind: str, shape: Shape, rounds: int, seconds: float) -> None:
    spec = make_spec(Resources(), kind, (shape,))
    spec = replace(spec, trainer=replace(spec.trainer, evaluations=1, eval_tokens=64))
    config, source = shape_config(spec, shape), SOURCES[spec.proxy.dataset]
    seen = spec.cost(config).tokens_seen / spec.cost(config).steps
    with TemporaryDirectory() as folder:
        job = Job(0, 0, spec, source, config, str(Path(folder) / "run.pt"), 1e9, None)
        step = bare(Cohort([job]), shape.batch)
        for _ in range(3):
            step()
        began = time.process_time()
        for _ in range(5):
            step()
        steps = max(10, int(seconds * 5 / (time.process_time() - began)))
        job = replace(job, config=config | {"tokens": steps * seen})
        took = []
        for _ in range(rounds):
            began = time.process_time()
            for _ in range(steps):
                step()
            middle = time.process_time()
            cohort = Cohort([job])
            ready = time.process_time()
            ends = Ends()
            cohort.run(ends)
            took.append((middle - began, time.process_time() - ready))
            assert ends.outcomes[0].status == "finished", ends.outcomes
    alone, ours = 1e3 * np.array(took).T / steps
    print(
        f"{kind:>8} {int(spec.cost(config).params_total):8} {alone.min():8.3f} {ours.min():8.3f} "
        f"{ours.min() / alone.min():9.3f} {np.median(ours / alone):7.3f}",
        flush=True,
    )


def bare(cohort: Cohort, batch: int) -> Callable[[], None]:
    """A step of the loop that one writes by hand, on the examples of a cohort."""
    job, examples = cohort.members[0].job, cohort.examples
    member, spec = cohort.members[0], job.spec
    model = proxies.build(member.config, spec.proxy, job.source, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    places = min(examples.places["train"], 1 << 30)

    def step() -> None:
        inputs, targets = examples.take("train", torch.randint(0, places, (batch,)))
        loss = mean_loss(job.source.task, model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), spec.trainer.clip)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
