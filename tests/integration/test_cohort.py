"""Runs that train together: the numbers of each are those it has alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hearing import Ear

from sweeps.data import SOURCES
from sweeps.spec import parse
from workers import cohort, train
from workers.cohort import Cohort
from workers.engines import graphs, stacked, tracing
from workers.job import Job

KINDS: Mapping[str, Mapping[str, Any]] = {
    "mlp": {"dataset": "digits", "width": 16, "depth": 2},
    "convnet": {"dataset": "digits", "width": 8, "depth": 1},
    "vit": {"dataset": "digits", "width": 16, "depth": 1, "resolution": 8},
    "gpt": {"dataset": "stdlib", "width": 16, "depth": 1, "resolution": 16},
}


def make(path: Path, kind: str = "mlp", steps: int = 60, mup: int = 0, **settings: Any) -> list[Job]:
    """Four runs that differ in rate, decay, initial scale and seed; with mup, of twice the base width."""
    given = dict(KINDS[kind])
    source = SOURCES[given.pop("dataset")]
    batch, window = 8, given.get("resolution", 1) if kind == "gpt" else 1
    shape = given | {"batch": batch, "tokens": [steps * batch * window, 2 * steps * batch * window]}
    spec = parse(
        {
            "name": "cohort",
            "proxy": {
                "kind": kind,
                "dataset": source.name,
                "base_width": given["width"] // 2,
                "base_depth": 2,
            },
            "space": shape | {"lr": [1e-3, 1e-2], "mup": mup},
            "targets": [{"at": given | {"tokens": 1e6}}],
            "trainer": {"evaluations": 3, "eval_tokens": 128} | settings,
        }
    )
    own = [
        {"lr": 1e-3},
        {"lr": 5e-3, "seed": 1.0},
        {"lr": 3e-3, "weight_decay": 1.0, "seed": 2.0},
        {"lr": 3e-3, "init_scale": 0.5, "beta2": 0.99},
    ]
    base = {name: axis.values[0] for name, axis in spec.space.items()}
    return [
        Job(run, 1, spec, source, base | one, str(path / f"{run}.pt"), 1e9, None)
        for run, one in enumerate(own)
    ]


def alone(jobs: list[Job]) -> Ear:
    ear = Ear()
    for job in jobs:
        train.train([job], ear)
    return ear


def together(jobs: list[Job], stop: Mapping[int, int] | None = None) -> Ear:
    stops = stop or {}
    ear = Ear(lambda run_id, points: bool(points) and points[-1].step >= stops.get(run_id, 1 << 60))
    train.train(jobs, ear)
    return ear


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("mup", [0, 1])
def test_a_stacked_run_has_the_numbers_of_a_single_one(
    tmp_path: Path, kind: str, optimizer: str, mup: int
) -> None:
    # fewer at mup's higher rates of SGD: later on, rounding turns a rectifier (1e-8 becomes 1e-5, then 1e-4)
    jobs = make(
        tmp_path, kind, steps=200 if optimizer == "adamw" and not mup else 60, optimizer=optimizer, mup=mup
    )
    many, single = together(jobs), alone(jobs)
    for job in jobs:
        assert many.outcomes[job.run_id].status == single.outcomes[job.run_id].status == "finished"
        for (seq, _, metric, value), (*_, expected) in zip(
            many.curve(job.run_id), single.curve(job.run_id), strict=True
        ):
            if metric in ("val_loss", "train_loss", "lr"):
                assert value == pytest.approx(expected, rel=1e-4), (seq, metric)


def test_a_run_that_is_stopped_at_its_last_step_has_finished(tmp_path: Path) -> None:
    jobs = make(tmp_path)[:2]
    ear = together(jobs, stop={0: 60, 1: 1})
    assert (ear.outcomes[0].status, ear.outcomes[0].step) == ("finished", 60)
    assert ear.outcomes[1].status == "stopped" and ear.outcomes[1].step < 60


def test_the_rate_that_is_used_and_told_follows_the_batch(tmp_path: Path) -> None:
    """Of a batch of 8 at a base of 2: twice the rate is asked for by the square root."""
    rule = make(tmp_path, batch_rule="sqrt", base_batch=2)
    plain = [replace(job, config=job.config | {"lr": 2 * job.config["lr"]}) for job in make(tmp_path)]
    ruled, doubled = together(rule), together(plain)
    assert [ruled.curve(run) for run in range(4)] == [doubled.curve(run) for run in range(4)]


@pytest.mark.parametrize("kind", KINDS)
def test_diagnostics_are_told_at_every_evaluation_and_change_nothing(tmp_path: Path, kind: str) -> None:
    asked = make(tmp_path, kind, diagnostics=["sharpness", "singular_value"])[:2]
    many, single, plain = together(asked), alone(asked), together(make(tmp_path, kind)[:2])
    own = ("sharpness", "top_singular_value")
    for run in range(2):
        found, expected = (
            {(p.step, p.metric): p.value for p in ear.got[run] if p.metric in own} for ear in (many, single)
        )
        assert len(found) == 3 * 2
        assert found == pytest.approx(expected, rel=1e-2)
        without = [(metric, value) for *_, metric, value in many.curve(run) if metric not in own]
        assert without == [(metric, value) for *_, metric, value in plain.curve(run)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_trains_in_half_precision(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = make(tmp_path, kind, precision="bfloat16")
    many, single = together(jobs), alone(jobs[:1])
    assert "not traced" not in caplog.text
    assert many.outcomes[0].loss == pytest.approx(single.outcomes[0].loss, rel=0.01)


@pytest.mark.parametrize("kind", ["mlp", "vit", "gpt"])
def test_neighbours_change_nothing_bit_for_bit(tmp_path: Path, kind: str) -> None:
    jobs = make(tmp_path, kind)
    every, pair = together(jobs), together([jobs[2], jobs[0]])
    assert every.curve(0) == pair.curve(0)
    assert every.curve(2) == pair.curve(2)


def test_a_run_that_diverges_leaves_the_others_bit_for_bit_as_they_were(tmp_path: Path) -> None:
    jobs = make(tmp_path, warmup=0.0)
    calm = together(jobs)
    wild = [*jobs[:3], replace(jobs[3], config=jobs[3].config | {"lr": 1e4, "init_scale": 1e3})]
    stormy = together(wild)
    assert stormy.outcomes[3].status == "diverged"
    assert stormy.outcomes[3].reason is not None and "training loss is" in stormy.outcomes[3].reason
    assert [stormy.curve(run) for run in range(3)] == [calm.curve(run) for run in range(3)]


def test_runs_stop_and_resume_one_by_one(tmp_path: Path) -> None:
    jobs = make(tmp_path)
    whole = together(jobs)
    ear = together(jobs, stop={0: 1, 2: 1})
    assert [ear.outcomes[run].status for run in range(4)] == ["stopped", "finished", "stopped", "finished"]
    assert [path.name for path in sorted(tmp_path.glob("*.pt"))] == ["0.pt", "2.pt"]
    assert [ear.curve(run) for run in (1, 3)] == [whole.curve(run) for run in (1, 3)]
    pair = together([jobs[0], jobs[2]])
    assert [pair.curve(run) for run in (0, 2)] == [whole.curve(run) for run in (0, 2)]


def test_a_stacked_run_goes_on_alone_and_with_runs_that_are_elsewhere(tmp_path: Path) -> None:
    jobs = make(tmp_path)
    whole = together(jobs)
    together(jobs[:2], stop={0: 1, 1: 1})
    mixed = together(jobs)  # two at a checkpoint, two at the start
    for run in range(4):
        assert mixed.outcomes[run].loss == pytest.approx(whole.outcomes[run].loss, rel=1e-5)
    together(jobs[:2], stop={0: 1, 1: 1})
    single = alone(jobs[:1])
    assert single.outcomes[0].loss == pytest.approx(whole.outcomes[0].loss, rel=1e-5)


def test_horizons_may_differ(tmp_path: Path) -> None:
    jobs = make(tmp_path, steps=40)
    longer = [replace(job, config=job.config | {"tokens": 2 * job.config["tokens"]}) for job in jobs[2:]]
    mixed, apart = together([*jobs[:2], *longer]), alone([*jobs[:2], *longer])
    assert [mixed.outcomes[run].step for run in range(4)] == [40, 40, 80, 80]
    for run in range(4):
        assert mixed.outcomes[run].loss == pytest.approx(apart.outcomes[run].loss, rel=1e-4)


def test_only_the_run_to_blame_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = make(tmp_path)
    build = cohort.proxies.build

    def broken(config: Any, *rest: Any) -> Any:
        if config["lr"] == 5e-3:
            raise RuntimeError("no such shape")
        return build(config, *rest)

    monkeypatch.setattr(cohort.proxies, "build", broken)
    ear = together(jobs)
    assert [ear.outcomes[run].status for run in range(4)] == ["finished", "failed", "finished", "finished"]
    assert ear.outcomes[1].reason == "RuntimeError: no such shape"


def test_what_cannot_be_traced_is_stacked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = make(tmp_path)
    traced = together(jobs)

    def refuse(_function: Any) -> Any:
        raise RuntimeError("data-dependent")

    monkeypatch.setattr(tracing, "make_fx", refuse)
    plain = together(jobs)
    assert "not traced, stacks as it is: data-dependent" in caplog.text
    assert [plain.curve(run) for run in range(4)] == [traced.curve(run) for run in range(4)]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_step_that_is_recorded_once_and_played_again_has_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """A CUDA graph is the code of one step over places in memory; here the same is done without a GPU."""
    jobs = make(tmp_path, optimizer=optimizer)
    expected, recordings = together(jobs), []

    class Recording:
        def __init__(self, body: graphs.Body, inputs: torch.Tensor, targets: torch.Tensor) -> None:
            recordings.append(len(inputs))
            self.inputs, self.targets, self.engine = inputs.clone(), targets.clone(), body.__self__
            update = self.engine._update
            self.places = [self.engine._flat, *update.moments.values(), update._now]
            self.body = body

        def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.inputs.copy_(inputs)
            self.targets.copy_(targets)
            update = self.engine._update
            now = [self.engine._flat, *update.moments.values(), update._now]
            assert all(a is b for a, b in zip(self.places, now, strict=True))
            return self.body(self.inputs, self.targets)

    made = stacked.Stacked.__init__

    def quick(self: stacked.Stacked, *given: Any) -> None:
        made(self, *given)
        self._quick = True

    monkeypatch.setattr(stacked, "captured", Recording)
    monkeypatch.setattr(stacked.Stacked, "__init__", quick)
    played = together(jobs)
    assert recordings == [4]
    assert [played.curve(run) for run in range(4)] == [expected.curve(run) for run in range(4)]


def test_what_cannot_be_a_graph_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def body(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return inputs, targets

    one = torch.ones(1)
    assert graphs.captured(body, one, one) is body  # there is no GPU, or they do not lie on it
    assert "no CUDA graph, steps run as they are" in caplog.text


def test_seconds_are_shared(tmp_path: Path) -> None:
    ear = together(make(tmp_path))
    seconds = [outcome.seconds for outcome in ear.outcomes.values()]
    assert max(seconds) == pytest.approx(min(seconds), rel=0.2)


def test_a_member_is_a_plain_module(tmp_path: Path) -> None:
    four = Cohort(make(tmp_path, "convnet"))
    for _ in range(3):
        four.advance()
    inputs, _ = four.examples.take("held_out", torch.arange(4))
    weights = dict(four.engine.model(2).named_parameters())
    state = four.engine.state(2)
    assert four.engine.model(2)(inputs).shape == (4, 10)
    assert all(torch.equal(weights[name], state[name]["weight"]) for name in weights)
