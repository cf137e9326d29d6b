"""Trains one run: from its first batch, or its checkpoint, to the final evaluation."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sweeps.data import STDLIB
from sweeps.runs import Point
from sweeps.spec import Config, Resources, SweepSpec, Trainer, to_dict
from workers import checkpoint, optimizer
from workers.checkpoint import Progress
from workers.datasets import stdlib
from workers.job import Job, Outcome, Report, Status, Verdict
from workers.proxies import build

logger = logging.getLogger(__name__)

DATASETS = {"stdlib": stdlib.load}

REPORT_SECONDS = 1.0  # a stop is noticed within this
READ_STEPS = 16  # losses are read from the device this often
DIVERGED_STEPS = 20  # so many in a row above the limit
DIVERGED_LOSS = STDLIB.guessing + 0.5  # nats a byte: half a nat worse than guessing
FIRST_EVALUATION = 1 / 32  # of the steps, where the first of several evaluations lies


@dataclass
class Training:
    """A model in training with everything a step needs.

    Args:
        text: on the device.
        steps: in all.
        losses: of the steps since they were last read, on the device.
        norm: of the last step's gradient before clipping, on the device.
    """

    spec: SweepSpec
    config: Config
    steps: int
    device: torch.device
    text: stdlib.Text
    model: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress
    losses: list[Tensor]
    norm: Tensor


def train(job: Job, report: Report) -> Outcome:
    """Trains one run to its end, its divergence, a stop, or the end of its device seconds.

    Given the number of threads, an interrupted and resumed training gives the same numbers, bit for bit, as
    one that was left alone. A later attempt reports the points of the earlier ones again, under the
    same sequence numbers.

    Args:
        job: what to train.
        report: is called with new points, and at least about once a second, to learn of a stop.

    Returns:
        How it ended. The checkpoint stays: whoever stores the outcome deletes it.

    Raises:
        RuntimeError: when GPUs are asked for and there is none.
    """
    started = time.monotonic()
    devices = job.spec.resources.gpus or job.spec.resources.cpus
    training, path = start(job.spec, job.config), Path(job.checkpoint)
    resume(training, path)
    progress = training.progress
    evaluations = evaluation_steps(training.steps, job.spec.trainer.evaluations)
    size = int(training.config["batch"] * training.config["resolution"])
    reported = saved = measured = time.monotonic()
    measured_step = progress.step

    def used() -> float:
        return (time.monotonic() - started) * devices

    def outcome(status: Status, loss: float | None = None, reason: str | None = None) -> Outcome:
        if status == "stopped":
            save(training, path)
        return Outcome(status, loss, progress.step, progress.step * size, used(), reason)

    verdict = report(list(progress.points))
    while progress.step < training.steps:
        if verdict is Verdict.STOP:
            return outcome("stopped", reason="asked to stop")
        if job.max_seconds is not None and used() >= job.max_seconds:
            return outcome("stopped", reason="device-second budget")
        if time.monotonic() - saved >= job.checkpoint_seconds:
            save(training, path)
            saved = time.monotonic()
        advance(training)
        evaluate_now = progress.step in evaluations
        if evaluate_now or len(training.losses) >= READ_STEPS:
            trouble = read_losses(training)
            if trouble is not None:
                return outcome("diverged", reason=trouble)
        if evaluate_now:
            speed = (progress.step - measured_step) * size / (time.monotonic() - measured)
            points = measure(training, speed)
            progress.points.extend(points)
            verdict = report(points)
            reported = measured = time.monotonic()
            measured_step = progress.step
        elif time.monotonic() - reported >= REPORT_SECONDS:
            verdict = report([])
            reported = time.monotonic()
    final = {point.metric: point.value for point in progress.points}
    if not math.isfinite(final["val_loss"]):
        return outcome("diverged", reason=f"the held-out loss is {final['val_loss']} after the last step")
    return outcome("finished", final[job.spec.metric.name])


def start(spec: SweepSpec, given: Mapping[str, float]) -> Training:
    """Model, optimiser and text before the first step.

    Raises:
        RuntimeError: when GPUs are asked for and there is none.
    """
    config = spec.complete(given)
    device = pick_device(spec.resources)
    torch.set_num_threads(max(1, int(spec.resources.cpus)))
    text = stdlib.to(DATASETS[spec.proxy.dataset](), device)
    generator = torch.Generator().manual_seed(int(config["seed"]))
    model = build(config, spec.proxy, spec.source, generator).to(device)
    return Training(
        spec=spec,
        config=config,
        steps=int(spec.cost(config).steps),
        device=device,
        text=text,
        model=model,
        optimizer=optimizer.make(model, config, spec.trainer),
        progress=Progress(step=0, points=[]),
        losses=[],
        norm=torch.zeros((), device=device),
    )


def resume(training: Training, path: Path) -> None:
    """Takes the training to where its checkpoint stands, if there is one."""
    found = checkpoint.load(path, fingerprint(training), training.device)
    if found is None:
        return
    training.progress, weights, state = found
    training.model.load_state_dict(weights)
    training.optimizer.load_state_dict(state)
    logger.info("%s goes on from step %d", path.name, training.progress.step)


def save(training: Training, path: Path) -> None:
    """Writes the checkpoint."""
    read_losses(training)
    model, state = training.model.state_dict(), training.optimizer.state_dict()
    checkpoint.save(path, fingerprint(training), training.progress, model, state)


def fingerprint(training: Training) -> str:
    """Hash of all that decides the numbers of a run."""
    spec, text = to_dict(training.spec), training.text
    parts = [spec["proxy"], spec["trainer"], training.config, text.train_hash, text.held_out_hash]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def pick_device(resources: Resources) -> torch.device:
    """The GPU where one is asked for, the CPU otherwise.

    Raises:
        RuntimeError: when GPUs are asked for and there is none.
    """
    if resources.gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"resources.gpus is {resources.gpus:g}, but PyTorch {torch.__version__} sees no GPU here; "
            "set resources.gpus to 0 or start a worker with a GPU and a CUDA build of PyTorch"
        )
    return torch.device("cuda")


def evaluation_steps(steps: int, count: int) -> frozenset[int]:
    """Steps after which the held-out loss is measured: log-spaced, the last one always among them."""
    first = max(1.0, steps * FIRST_EVALUATION) if count > 1 else steps
    return frozenset(int(step) for step in np.rint(np.geomspace(first, steps, count))) | {steps}


def advance(training: Training) -> None:
    """One optimiser step."""
    config, trainer, progress = training.config, training.spec.trainer, training.progress
    size, resolution = int(config["batch"]), int(config["resolution"])
    lr = config["lr"] * optimizer.rate(trainer, progress.step, training.steps)
    for group in training.optimizer.param_groups:
        group["lr"] = lr
    inputs, following = stdlib.batch(
        training.text.train, int(config["seed"]), progress.step, size, resolution
    )
    with precision(trainer, training.device):
        loss = cross_entropy(training.model(inputs), following)
    torch.autograd.backward(loss)
    training.norm = nn.utils.clip_grad_norm_(training.model.parameters(), trainer.clip)
    training.optimizer.step()
    training.optimizer.zero_grad()  # here, so that the forward pass does not find old gradients in memory
    training.losses.append(loss.detach())
    progress.step += 1


def read_losses(training: Training) -> str | None:
    """Takes the losses of the last steps from the device, and says why the run diverged if it did."""
    progress = training.progress
    losses = torch.stack(training.losses).tolist() if training.losses else []
    training.losses.clear()
    for step, loss in enumerate(losses, progress.step - len(losses) + 1):
        progress.loss_sum += loss
        progress.loss_count += 1
        warm = step > training.spec.trainer.warmup * training.steps
        progress.above = progress.above + 1 if warm and loss > DIVERGED_LOSS else 0
        if not math.isfinite(loss):
            return f"the training loss is {loss} at step {step} of {training.steps}"
        if progress.above >= DIVERGED_STEPS:
            return (
                f"the training loss is {loss:.3g} at step {step} of {training.steps}, "
                f"and has been above {DIVERGED_LOSS:.3g} for {DIVERGED_STEPS} steps"
            )
    return None


def measure(training: Training, tokens_per_second: float) -> list[Point]:
    """Evaluates, and gives the points of this moment with the next sequence numbers."""
    progress, config = training.progress, training.config
    values = {
        "val_loss": evaluate(training),
        "train_loss": progress.loss_sum / progress.loss_count,
        "lr": float(training.optimizer.param_groups[0]["lr"]),
        "grad_norm": float(training.norm),
        "tokens_per_second": tokens_per_second,
    }
    progress.loss_sum, progress.loss_count = 0.0, 0
    tokens = int(progress.step * config["batch"] * config["resolution"])
    first = len(progress.points) + 1
    return [
        Point(seq, progress.step, tokens, metric, value, time.time())
        for seq, (metric, value) in enumerate(values.items(), first)
    ]


def evaluate(training: Training) -> float:
    """Mean loss on the fixed held-out windows, nats a byte."""
    config, trainer = training.config, training.spec.trainer
    resolution = int(config["resolution"])
    starts = stdlib.evaluation(training.text.held_out, trainer.eval_tokens, resolution)
    # Twice the training batch needs less memory than training does, since nothing is kept.
    chunks = np.split(starts, range(2 * int(config["batch"]), len(starts), 2 * int(config["batch"])))
    total = torch.zeros((), dtype=torch.float64, device=training.device)
    with torch.inference_mode(), precision(trainer, training.device):
        for chunk in chunks:
            inputs, following = stdlib.windows(training.text.held_out, chunk, resolution)
            total += cross_entropy(training.model(inputs), following, reduction="sum")
    return float(total) / (len(starts) * resolution)


def cross_entropy(logits: Tensor, following: Tensor, reduction: str = "mean") -> Tensor:
    """Loss in nats a byte: logits (batch, s, 256) against the bytes that follow, (batch, s)."""
    return F.cross_entropy(logits.flatten(0, 1).float(), following.flatten(), reduction=reduction)


def precision(trainer: Trainer, device: torch.device) -> torch.autocast:
    """What matrix products are computed in."""
    return torch.autocast(device.type, torch.bfloat16, enabled=trainer.precision == "bfloat16")
