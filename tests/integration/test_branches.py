"""Runs that begin from another's checkpoint: their numbers, their place in the budget, their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import update

from store import attempts, lifecycle, queue, service, trunks
from store.budget import totals
from store.db import Sessions, reading
from store.models import RunRow
from store.queue import Claim
from store.records import new_run
from store.timings import timings
from sweeps.runs import Branch, Decision, Observation, Point, Role, RunState, Spent, SweepState
from sweeps.spec import SweepSpec, parse
from sweeps.trunks import Trunk, joints
from workers import train
from workers.job import Job, Joint, Outcome, Provenance, Verdict
from workers.trunks import joints_of

TRUNKS = {"schedule": "constant", "warmup": 4, "decay": 0.25, "evaluations": 4, "eval_tokens": 128}
STEPS = (40, 80, 160)  # of the three lengths, which decay from 31, 61 and 121


def lengths(**changes: Any) -> SweepSpec:
    """A perceptron over digits at three lengths and two rates."""
    given = {
        "name": "lengths",
        "proxy": {"kind": "mlp", "dataset": "digits"},
        "space": {
            "width": [8, 16],
            "depth": 1,
            "resolution": 8,
            "batch": 8,
            "lr": [1e-3, 1e-2],
            "tokens": [8 * steps for steps in STEPS],
        },
        "targets": [{"at": {"width": 64, "depth": 1, "tokens": 1e5}}],
        "trainer": TRUNKS,
    }
    return parse(given | changes)


class Ear:
    """Remembers what a training tells; asks runs to stop at a step."""

    def __init__(self, stop: int = 1 << 60) -> None:
        self.stop = stop
        self.got: dict[int, list[Point]] = {}
        self.outcomes: dict[int, Outcome] = {}

    def began(self, run_id: int, provenance: Provenance) -> None:
        pass

    def points(self, run_id: int, points: list[Point]) -> Verdict:
        self.got.setdefault(run_id, []).extend(points)
        return Verdict.STOP if points and points[-1].step >= self.stop else Verdict.CONTINUE

    def ended(self, run_id: int, outcome: Outcome) -> None:
        self.outcomes[run_id] = outcome


def job(path: Path, run_id: int, steps: int, lr: float = 1e-3, begins: int = 0, **settings: Any) -> Job:
    spec = lengths(trainer=TRUNKS | settings)
    config = spec.complete({"width": 8.0, "lr": lr, "tokens": 8.0 * steps})

    def joint(step: int) -> Joint:
        return Joint(step, str(path / f"trunk-{lr}-{step}.pt"))

    return Job(
        run_id,
        1,
        spec,
        spec.source,
        config,
        str(path / f"{run_id}.pt"),
        1e9,
        None,
        joint(begins) if begins else None,
        tuple(joint(step) for step in joints(spec, config) if step > begins),
    )


def trained(*jobs: Job, stop: int = 1 << 60) -> Ear:
    ear = Ear(stop)
    train.train(list(jobs), ear)
    return ear


def last(ear: Ear, run_id: int) -> dict[str, float]:
    """What was measured at the last step, but by the clock or since the evaluation before."""
    step = ear.got[run_id][-1].step
    left_out = ("tokens_per_second", "flop_utilisation", "train_loss")
    return {p.metric: p.value for p in ear.got[run_id] if p.step == step and p.metric not in left_out}


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd"}, {"decay": 0.0}], ids=str)
def test_a_branch_has_the_numbers_of_the_run_trained_from_its_start(tmp_path: Path, settings: Any) -> None:
    long, short = job(tmp_path, 1, 160, **settings), job(tmp_path, 2, 80, **settings)
    assert trained(long).outcomes[1].status == "finished"
    from_start = trained(replace(short, leaves=()))
    assert Path(long.leaves[1].path).exists()
    branch = job(tmp_path, 3, 80, begins=long.leaves[1].step, **settings)
    ear = trained(branch)
    assert ear.outcomes[3].loss == from_start.outcomes[2].loss
    assert last(ear, 3) == last(from_start, 2)
    assert ear.outcomes[3].step == 80
    assert [p.seq for p in ear.got[3]] == list(range(1, len(ear.got[3]) + 1))
    assert min(p.step for p in ear.got[3]) > long.leaves[1].step


def test_a_longer_run_goes_on_from_a_shorter_ones_trunk(tmp_path: Path) -> None:
    trained(job(tmp_path, 1, 40))
    from_start = trained(replace(job(tmp_path, 2, 160), leaves=()))
    ear = trained(job(tmp_path, 3, 160, begins=31))
    assert ear.outcomes[3].loss == from_start.outcomes[2].loss
    # It leaves what lies ahead of it for others, which then go on from there.
    ear = trained(job(tmp_path, 4, 80, begins=61))
    assert ear.outcomes[4].loss == trained(replace(job(tmp_path, 5, 80), leaves=())).outcomes[5].loss


def test_members_of_a_stack_leave_and_begin_as_they_do_alone(tmp_path: Path) -> None:
    rates = (1e-3, 3e-3, 1e-2)
    trained(*(job(tmp_path, run_id, 160, lr) for run_id, lr in enumerate(rates, 1)))
    size = {path.stat().st_size for path in tmp_path.glob("trunk-*-31.pt")}
    assert len(size) == 1
    trained(job(tmp_path / "alone", 1, 160, 1e-3))
    (alone,) = (tmp_path / "alone").glob("trunk-*-31.pt")
    assert size.pop() <= alone.stat().st_size  # not the whole stack
    ear = trained(*(job(tmp_path, run_id, 40, lr, begins=31) for run_id, lr in enumerate(rates, 11)))
    whole = trained(
        *(replace(job(tmp_path, run_id, 40, lr), leaves=()) for run_id, lr in enumerate(rates, 21))
    )
    for run_id in (11, 12, 13):
        assert last(ear, run_id) == last(whole, run_id + 10)


def test_an_interrupted_branch_goes_on_where_it_was(tmp_path: Path) -> None:
    trained(job(tmp_path, 1, 160, evaluations=20))
    whole = trained(job(tmp_path, 2, 80, begins=61, evaluations=20))
    stopped = job(tmp_path, 3, 80, begins=61, evaluations=20)
    assert trained(stopped, stop=62).outcomes[3].status == "stopped"
    (tmp_path / "trunk-0.001-61.pt").unlink()
    assert trained(replace(stopped, attempt=2)).outcomes[3].loss == whole.outcomes[2].loss


def test_a_branch_does_not_begin_from_another_trainers_checkpoint(tmp_path: Path) -> None:
    trained(job(tmp_path, 1, 160))
    other = trained(job(tmp_path, 2, 80, begins=61, clip=0.5)).outcomes[2]
    assert other.status == "failed" and not (tmp_path / "trunk-0.001-61.pt").exists()


@pytest.mark.parametrize("content", [None, b"nothing"])
def test_a_branch_without_its_checkpoint_trains_nothing(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "trunk-0.001-61.pt").write_bytes(content)
    found = trained(job(tmp_path, 1, 80, begins=61)).outcomes[1]
    assert (found.status, found.step, found.hopeless) == ("failed", 0, False)
    assert "the checkpoint at step 61" in (found.reason or "")
    assert list(tmp_path.glob("trunk-*")) == []


# -- in the store ----------------------------------------------------------------------------------------


def stored(sessions: Sessions, spec: SweepSpec, steps: int, branch: Branch | None = None) -> int:
    """A queued run beside those of the scheduler."""
    config = spec.complete({"width": 8.0, "lr": 1e-3, "tokens": 8.0 * steps})
    run = new_run(1, Role.PROXY, config, spec.cost(config), expected_seconds=10.0, branch=branch)
    with sessions.begin() as session:
        return queue.enqueue(session, 1, [run])[0]


@pytest.fixture
def empty(sessions: Sessions) -> Callable[..., SweepSpec]:
    """A sweep whose own runs are out of the way."""

    def make(**changes: Any) -> SweepSpec:
        sweep, _ = service.create_sweep(sessions, lengths(**changes))
        with sessions.begin() as session:
            dropped = update(RunRow).values(state=RunState.CANCELLED, config_hash=RunRow.id)
            session.execute(dropped)
        return sweep.spec

    return make


def claimed(sessions: Sessions) -> Claim:
    with sessions.begin() as session:
        (claim,) = queue.claim(session, "me", 60.0)
    return claim


def used(sessions: Sessions) -> tuple[Spent, Spent]:
    with reading(sessions) as session:
        found = totals(session, [1])[1]
    return found.spent, found.reserved


def test_a_branch_is_charged_for_its_own_steps(sessions: Sessions, empty: Callable[..., SweepSpec]) -> None:
    spec = empty(budget={"runs": 100, "flops": 1e12})
    parent = stored(sessions, spec, 160)
    flops = {steps: spec.cost(spec.complete({"width": 8, "tokens": 8 * steps})).flops for steps in STEPS}
    claim = claimed(sessions)
    with sessions.begin() as session:
        attempts.finish(session, parent, claim.attempt, RunState.FINISHED, 2.0, 3.0)
    assert used(sessions)[0].flops == pytest.approx(flops[160])
    branch = stored(sessions, spec, 80, Branch(parent, 61))
    run = service.get_run(sessions, branch)
    assert (run.branch, run.step, run.tokens) == (Branch(parent, 61), 61, 61 * 8)
    assert used(sessions)[1].flops == pytest.approx(flops[80] * 19 / 80)
    claim = claimed(sessions)
    assert claim.run.id == branch and claim.run.branch == Branch(parent, 61)
    with sessions.begin() as session:
        attempts.append(session, branch, 1, [Point(1, 70, 560, "val_loss", 2.0, 1e9)], "val_loss")
        known = Observation(run.config, run.cost, 2.0, branch, "forecast", 0.01)
        assert lifecycle.halt(session, 1, known, "enough")
    assert used(sessions)[0].flops == pytest.approx(flops[160] + flops[80] * 9 / 80)
    # The laws see a run of full length; what it took says nothing of such.
    assert service.observations(sessions, 1)[-1].cost.flops == flops[80]
    assert [one.cost.flops for one in timings(sessions)] == [flops[160]]


def test_a_finished_branch_observes_a_whole_run(sessions: Sessions, empty: Callable[..., SweepSpec]) -> None:
    spec = empty()
    parent = stored(sessions, spec, 160)
    claimed(sessions)
    branch = stored(sessions, spec, 40, Branch(parent, 31))
    claim = claimed(sessions)
    with sessions.begin() as session:
        attempts.finish(session, branch, claim.attempt, RunState.FINISHED, 2.0, 3.0)
    (seen,) = service.observations(sessions, 1)
    assert (seen.run_id, seen.cost) == (branch, claim.run.cost)
    assert timings(sessions) == []


def test_what_runs_left_is_known_until_it_is_deleted(
    sessions: Sessions, empty: Callable[..., SweepSpec]
) -> None:
    spec = empty()
    run_id = stored(sessions, spec, 160)
    for steps in ([61], [31, 61], []):
        with sessions.begin() as session:
            trunks.keep(session, run_id, steps)
    config = service.get_run(sessions, run_id).config
    with reading(sessions) as session:
        assert trunks.trunks(session, 1) == [Trunk(run_id, config, (31, 61))]
        assert trunks.outlived(session) == []
    service.cancel(sessions, 1)
    with sessions.begin() as session:
        assert [sweep_id for sweep_id, _ in trunks.outlived(session)] == [1]
        trunks.forget(session, 1)
        assert trunks.trunks(session, 1) == [] and trunks.outlived(session) == []


@pytest.mark.parametrize("enough", [True, False])
def test_a_branch_whose_checkpoint_is_gone_keeps_the_budget(
    sessions: Sessions, empty: Callable[..., SweepSpec], enough: bool
) -> None:
    spec = empty(budget={"runs": 100, "flops": 1e12})
    flops = {steps: spec.cost(spec.complete({"width": 8, "tokens": 8 * steps})).flops for steps in STEPS}
    parent = stored(sessions, spec, 160)
    claimed(sessions)
    branch = stored(sessions, spec, 80, Branch(parent, 61))
    with sessions.begin() as session:
        trunks.keep(session, parent, [31, 61])
    limit = flops[160] + flops[80] * (1.001 if enough else 0.999)
    service.extend(sessions, 1, replace(spec.budget, flops=limit))
    claim = claimed(sessions)
    with sessions.begin() as session:
        assert trunks.uproot(session, claim) is enough
        assert [one.steps for one in trunks.trunks(session, 1)] == [(31,)]
    run, reserved = service.get_run(sessions, branch), used(sessions)[1].flops
    assert run.reason is not None and f"the checkpoint of run {parent} at step 61 is gone" in run.reason
    if enough:
        assert (run.state, run.branch, run.step) == (RunState.QUEUED, None, 0)
        assert reserved == pytest.approx(flops[160] + flops[80])
        assert claimed(sessions).run.branch is None
    else:
        assert run.state is RunState.CANCELLED
        assert reserved == pytest.approx(flops[160])
    assert sum(one.flops for one in used(sessions)) <= limit
    with pytest.raises(ValueError, match="begins at its first step"), sessions.begin() as session:
        trunks.uproot(session, replace(claim, run=run if enough else replace(run, branch=None)))


# -- end to end -----------------------------------------------------------------------------------------


def ended(sessions: Sessions, sweep_id: int) -> bool:
    return service.get_sweep(sessions, sweep_id).state is not SweepState.RUNNING


EVERY = (40, 60, 80, 120, 160)


def every(runs: int) -> SweepSpec:
    """One model at five lengths, of which three are trained before any has ended."""
    space = {"width": 8, "depth": 1, "resolution": 8, "batch": 8, "lr": 1e-3}
    space["tokens"] = [8 * steps for steps in EVERY]
    return lengths(space=space, strategy={"name": "random", "first_batch": 3}, budget={"runs": runs})


def test_a_sweep_branches_and_leaves_no_files(
    file_sessions: Sessions, orchestrate: Any, until: Any, home: Path
) -> None:
    sweep, _ = service.create_sweep(file_sessions, every(runs=5))
    with orchestrate(slots=1):
        until(lambda: ended(file_sessions, sweep.id), "the sweep's end")
    assert list((home / "checkpoints").glob("**/*")) == []
    sweep = service.get_sweep(file_sessions, sweep.id)
    runs = service.list_runs(file_sessions, sweep.id)
    assert [run.state for run in runs] == [RunState.FINISHED] * 5
    branches = [run for run in runs if run.branch is not None]
    assert branches
    assert sweep.spent.flops < 0.9 * sum(run.cost.flops for run in runs)
    decisions: dict[int | None, Decision] = {
        one.run_id: one for one in service.list_decisions(file_sessions, sweep.id)
    }
    for run in branches:
        assert run.branch is not None
        parent = service.get_run(file_sessions, run.branch.run_id)
        assert {k: v for k, v in parent.config.items() if k != "tokens"} == {
            k: v for k, v in run.config.items() if k != "tokens"
        }
        assert decisions[run.id].branch == run.branch
        assert f"branches from run {parent.id} at step {run.branch.step}" in decisions[run.id].reason
        points = service.list_points(file_sessions, run.id, "val_loss")
        assert points[0].step > run.branch.step and points[-1].step == run.cost.steps
    with reading(file_sessions) as session:
        assert trunks.trunks(session, sweep.id) == []


@pytest.mark.parametrize("damaged", [False, True])
def test_a_branch_whose_checkpoint_is_lost_trains_from_its_first_step(
    file_sessions: Sessions, orchestrate: Any, until: Any, home: Path, damaged: bool
) -> None:
    sweep, _ = service.create_sweep(file_sessions, every(runs=4))
    chosen = {run.config["tokens"] for run in service.list_runs(file_sessions, sweep.id)}
    steps = next(steps for steps in EVERY if 8.0 * steps not in chosen)
    lost = service.get_run(file_sessions, stored(file_sessions, sweep.spec, steps, Branch(1, 25)))
    begins, _ = joints_of(Claim(lost, sweep.spec, 1, None, sweep.created_at), home / "checkpoints")
    assert begins is not None
    if damaged:
        Path(begins.path).parent.mkdir(parents=True)
        torch.save({"run": "another"}, begins.path)
    with orchestrate(slots=1):
        until(lambda: ended(file_sessions, sweep.id), "the sweep's end")
    run = service.get_run(file_sessions, lost.id)
    assert (run.state, run.branch, run.step) == (RunState.FINISHED, None, steps)
    events = service.list_events(file_sessions, sweep.id)
    told = [str(one.data["reason"]) for one in events if one.kind == "run_requeued"]
    assert len(told) == 1 + damaged and "trains from its first step" in told[-1]
    assert service.get_sweep(file_sessions, sweep.id).spent.runs == 4
