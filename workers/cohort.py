"""Trains a cohort: runs of equal shape, from their first batch or their checkpoints to their ends."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sweeps.curves.schedule import rising_steps
from sweeps.data import register
from sweeps.errors import SweepError
from sweeps.runs import Point, Ran
from workers import checkpoint, device, diagnostics, provenance, proxies
from workers.datasets import load
from workers.datasets.base import Examples, Subset, spread
from workers.datasets.prefetch import Batch, Prefetch
from workers.engines import Plan, make_engine
from workers.job import Job, Listener, Outcome, Provenance, Status, Verdict
from workers.member import Member
from workers.parametrisation import rules
from workers.sampling import Sampler
from workers.team import Team

logger = logging.getLogger(__name__)

REPORT_SECONDS = 1.0  # a stop is noticed within this
READ_STEPS = 16  # losses are read from the device this often
DIAGNOSED = 64  # training examples whose loss has the sharpness that is reported, the same for all runs
SEQUENCES = frozenset({"tokens"})  # tasks whose examples are many tokens each


class Cohort:
    """Runs that train together, all at the same step.

    Given the number of threads, an interrupted and resumed run gives the same numbers, bit for bit, as one
    that was left alone.

    Args:
        jobs: runs of one sweep that differ in nothing that gives a tensor its shape.
        team: processes that train the only run together; None where this one does alone.

    Raises:
        RuntimeError: when GPUs are asked for and there is none.
        MemoryError: the device has less memory than the runs will take.
        SweepError: the processes of the team cannot share the batch.
        ValueError: the data cannot be used; what is wrong is named.
    """

    def __init__(self, jobs: Sequence[Job], team: Team | None = None) -> None:
        first, self._team = jobs[0], team
        register(first.source)  # a worker does not read the operator's settings
        self._spec, self._source = first.spec, first.source
        self._device = device.pick(self._spec.resources)
        self._check_memory(jobs)
        device.set_kernels(self._spec.trainer)
        device.forget_peak(self._device)
        config = self._spec.complete(first.config)
        self._batch, self._resolution = int(config["batch"]), int(config.get("resolution", 1))
        processes = 1 if team is None else team.processes
        if self._batch % processes:
            given = f"resources.processes: given {processes}"
            raise SweepError(f"{given}; allowed: a number that divides the batch of {self._batch}")
        subset = Subset(int(config.get("unique", 0)), config.get("fraction", 1.0), config.get("kept", 1.0))
        self.examples: Examples = load(self._source, self._resolution, self._device, subset)
        self.members = [Member.of(job, self._spec, self.examples.hashes) for job in jobs]
        self._memory = device.Meter(self._device)
        models = [
            proxies.build(
                member.config,
                self._spec.proxy,
                self._source,
                torch.Generator().manual_seed(int(member.config["seed"])),
            ).to(self._device)
            for member in self.members
        ]
        plan = Plan(
            task=self._source.task,
            trainer=self._spec.trainer,
            configs=[member.config for member in self.members],
            steps=[member.steps for member in self.members],
            rules=rules(models[0], config, self._spec.proxy, self._spec.trainer.optimizer),
            device=self._device,
            team=team,
        )
        self.engine = make_engine(plan, models)
        self._rates = plan.rates
        self._rows = list(self.members)  # as the engine has them
        seeds = [int(member.config["seed"]) for member in self.members]
        resident = self.examples.resident
        where = self._device if resident else torch.device("cpu")
        rows = slice(None) if team is None else team.rows
        self._sampler = Sampler(self.examples.places["train"], seeds, self._batch, where, rows)
        self._ahead: Prefetch | None = None
        self._losses: list[Tensor] = []
        self._pace = REPORT_SECONDS  # of a step of the team
        self.step = 0

    def _check_memory(self, jobs: Sequence[Job]) -> None:
        """Refuses what cannot fit, before anything breaks in the middle of it."""
        needed = sum(self._spec.cost(self._spec.complete(job.config)).memory for job in jobs)
        there = device.memory(self._device)
        if needed > there:
            raise MemoryError(
                f"training {len(jobs)} of this shape takes about {needed / 1e9:.3g} GB, "
                f"{device.name(self._device)} has {there / 1e9:.3g} GB; "
                "take a smaller batch, width, depth or resolution, or a larger device"
            )

    def resume(self) -> list[int]:
        """Takes every run to where its checkpoint stands, or to where it begins; the step of each."""
        for row, member in enumerate(self.members):
            path, begins = Path(member.job.checkpoint), member.job.begins
            found = checkpoint.load(path, member.fingerprint, self._device)
            if found is None and begins is not None:
                found = checkpoint.begin(begins, member.trunk, self._device)
            if found is not None:
                member.progress, state = found
                self.engine.load(row, state)
                logger.info("%s goes on from step %d", path.name, member.progress.step)
        self.step = self.members[0].progress.step
        if self._team is not None:
            self._team.agree(self.step)
        return [member.progress.step for member in self.members]

    def advance(self) -> Tensor:
        """One optimiser step of every run; losses before it, on the device, one a row of the engine."""
        inputs, targets = self._take()
        losses = self.engine.step(self.step, inputs, targets)
        self.step += 1
        self._losses.append(losses)
        return losses

    def _take(self) -> Batch:
        """The batch of the next step: from the device, or from a thread that reads ahead."""
        if self.examples.resident:
            return self.examples.take("train", self._sampler(self.step))
        if self._ahead is None:
            last = max(member.steps for member in self._rows)
            self._ahead = Prefetch(self.examples, self._sampler, self.step, last)
            self._batches = iter(self._ahead)
        return next(self._batches)

    def stop_reading(self) -> None:
        """Ends the thread that reads ahead, if there is one."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def run(self, listener: Listener) -> None:
        """Trains until every run has ended; all must be at the same step."""
        try:
            self._run(listener)
            if self._team is not None:
                self._team.order(0)
        finally:
            self.stop_reading()

    def follow(self) -> None:
        """Trains the steps that the first process of the team orders; reports and writes nothing."""
        assert self._team is not None
        try:
            while steps := self._team.ordered():
                self._train_together(self._team, steps)
                self._losses.clear()
        finally:
            self.stop_reading()

    def _run(self, listener: Listener) -> None:
        self._listener = listener
        self._charged = reported = saved = self._measured = time.monotonic()
        self._measured_step = self.step
        evaluations = frozenset.union(*(member.evaluations for member in self.members))
        joints = frozenset(joint.step for member in self.members for joint in member.job.leaves)
        self._stops = sorted(evaluations | joints)
        every = min(member.job.checkpoint_seconds for member in self.members)
        for member in self.members:
            listener.began(member.job.run_id, self._provenance(member))
            self._tell(member, list(member.progress.points))
        while self._active():
            self._heed_limits()
            if time.monotonic() - saved >= every:
                self._read()
                for member in self._active():
                    self._save(member)
                saved = time.monotonic()
            if not self._active():
                return
            self._go_on()
            if self.step in joints:
                self._read()
                self._leave()
            if self.step in evaluations:
                self._read()
                self._measure()
                reported = time.monotonic()
            elif len(self._losses) >= READ_STEPS:
                self._read()
            if time.monotonic() - reported >= REPORT_SECONDS:
                for member in self._active():
                    self._tell(member, [])
                reported = time.monotonic()

    def _go_on(self) -> None:
        """One step; of a team as many as nothing has to be decided in between, within half a second."""
        if self._team is None:
            self.advance()
            return
        due = next(step for step in self._stops if step > self.step) - self.step
        steps = max(1, min(due, READ_STEPS - len(self._losses), int(REPORT_SECONDS / 2 / self._pace)))
        began = time.monotonic()
        self._team.order(steps)
        self._train_together(self._team, steps)
        self._pace = max(1e-6, (time.monotonic() - began) / steps)

    def _train_together(self, team: Team, steps: int) -> None:
        """Ordered steps; their losses are the means over the team."""
        for _ in range(steps):
            self.advance()
        self._losses[-steps:] = team.mean(torch.stack(self._losses[-steps:])).unbind()

    def _provenance(self, member: Member) -> Provenance:
        return provenance.record(
            seed=int(member.config["seed"]),
            device=device.name(self._device),
            threads=torch.get_num_threads(),
            hashes=self.examples.hashes,
            processes=1 if self._team is None else self._team.processes,
            deterministic=self._device.type == "cpu" or self._spec.trainer.kernels == "deterministic",
            code=provenance.imported(self._spec.proxy.entry),
        )

    def _active(self) -> list[Member]:
        return [member for member in self.members if member.active]

    def _charge(self) -> None:
        """Shares the device seconds since the last call among the runs that train."""
        moment, resources, active = time.monotonic(), self._spec.resources, self._active()
        for member in active:
            member.used += (moment - self._charged) * (resources.gpus or resources.cpus) / len(active)
        self._charged = moment

    def _heed_limits(self) -> None:
        self._charge()
        for member in self._active():
            limit = member.job.max_seconds
            if limit is not None and member.used >= limit:
                self._end(member, "stopped", reason="device-second budget")

    def _tell(self, member: Member, points: list[Point]) -> None:
        verdict = self._listener.points(member.job.run_id, points)
        if verdict is Verdict.STOP and self.step < member.steps:  # at its last step it has finished
            self._end(member, "stopped", reason="asked to stop")

    def _read(self) -> None:
        """Takes the losses of the last steps from the device, and ends the runs that diverged."""
        if not self._losses:
            return
        table = torch.stack(self._losses).tolist()
        self._losses.clear()
        warmup, guessing = self._spec.trainer.warmup, self._source.guessing
        for row, member in enumerate(self._rows):
            for step, losses in enumerate(table, self.step - len(table) + 1):
                if not member.active or step > member.steps:
                    break
                member.progress.step = step
                warm = step > rising_steps(member.steps, warmup)
                why = member.progress.vigil.see(losses[row], step, member.steps, warm, guessing)
                if why is not None:
                    self._end(member, "diverged", reason=why)

    def _save(self, member: Member) -> None:
        path, state = Path(member.job.checkpoint), self.engine.state(self._rows.index(member))
        checkpoint.save(path, member.fingerprint, member.progress, state)

    def _leave(self) -> None:
        """Writes what runs of other lengths begin from."""
        for member in self._active():
            for joint in member.job.leaves:
                if joint.step == self.step:
                    state = self.engine.state(self._rows.index(member))
                    checkpoint.leave(joint, member.trunk, member.progress, state)

    def _end(
        self, member: Member, status: Status, loss: float | None = None, reason: str | None = None
    ) -> None:
        self._charge()
        if status == "stopped":
            self._read()
            if not member.active:  # what was read ended it
                return
            self._save(member)
        member.active = False
        ran = Ran(device.name(self._device), len(self.members), self._memory.peak())
        outcome = Outcome(status, loss, member.progress.step, member.tokens, member.used, reason, ran=ran)
        self._listener.ended(member.job.run_id, outcome)
        left = [row for row, other in enumerate(self._rows) if other.active]
        if left and 2 * len(left) <= len(self._rows) and not self._losses:
            self._rows = [self._rows[row] for row in left]
            self._rates = self._rates[:, left]
            self.engine.keep(left)
            self.stop_reading()
            self._sampler.keep(left)

    def _measure(self) -> None:
        """Evaluates, reports what is due, and ends the runs that have made their last step."""
        elapsed = time.monotonic() - self._measured
        done = self.step - self._measured_step
        due = [member for member in self._active() if self.step in member.evaluations]
        flops = sum(member.cost.flops / member.cost.steps for member in self._active()) * done / elapsed
        peak = device.peak_flops(self._device.type, self._spec.trainer.precision, torch.get_num_threads())
        peak *= 1 if self._team is None else self._team.processes
        loss, error = self._evaluate()
        rates, norms = self._rates[self.step - 1].tolist(), self.engine.norms.tolist()
        for row, member in [(self._rows.index(member), member) for member in due]:
            values = {"val_loss": loss[row]}
            if self._source.task == "classes":
                values["val_error"] = error[row]
            values |= {
                "train_loss": member.progress.vigil.mean(),
                "lr": rates[row],
                "grad_norm": norms[row],
                "tokens_per_second": done * member.cost.tokens_seen / member.cost.steps / elapsed,
                "flop_utilisation": flops / peak,
                "spikes": float(member.progress.vigil.spikes),
            } | self._diagnose(row)
            first, now = len(member.progress.points) + 1, time.time()
            points = [
                Point(seq, self.step, member.tokens, metric, value, now)
                for seq, (metric, value) in enumerate(values.items(), first)
            ]
            member.progress.points.extend(points)
            self._tell(member, points)
        self._measured, self._measured_step = time.monotonic(), self.step
        for member in due:
            if member.active and self.step == member.steps:
                self._finish(member)

    def _diagnose(self, row: int) -> dict[str, float]:
        """What the trainer asks for beside the losses."""
        found: dict[str, float] = {}
        asked = self._spec.trainer.diagnostics
        if not asked:
            return found
        model = self.engine.model(row)
        if "sharpness" in asked:
            places = spread(self.examples.places["train"], DIAGNOSED, self._device)
            batch = self.examples.take("train", places)
            found["sharpness"] = diagnostics.sharpness(self._source.task, model, *batch)
        if "singular_value" in asked and (top := diagnostics.top_singular_value(model)) is not None:
            found["top_singular_value"] = top
        return found

    def _finish(self, member: Member) -> None:
        final = {point.metric: point.value for point in member.progress.points}
        if math.isfinite(final["val_loss"]):
            self._end(member, "finished", final[self._spec.metric.name])
        else:
            what = f"the held-out loss is {final['val_loss']} after the last step"
            self._end(member, "diverged", reason=what)

    def _evaluate(self) -> tuple[list[float], list[float]]:
        """Mean loss, and share of wrong classes, on the fixed held-out examples, by row of the engine."""
        asked = self._spec.trainer.eval_tokens
        count = -(-asked // self._resolution) if self._source.task in SEQUENCES else asked
        places = self.examples.evaluation(count)
        totals = torch.zeros(2, len(self._rows), dtype=torch.float64, device=self._device)
        # Twice the training batch needs less memory than training does, since nothing is kept.
        for chunk in torch.split(places, 2 * self._batch):
            totals += len(chunk) * torch.stack(self.engine.evaluate(*self.examples.take("held_out", chunk)))
        loss, error = (totals / len(places)).tolist()
        return loss, error
