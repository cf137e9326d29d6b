"""Training code that is not ours: whatever it does wrong, the run says so and its worker lives on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from hearing import Ear

from store import service
from store.db import Sessions
from sweeps.errors import SpecError
from sweeps.kinds import own as kinds
from sweeps.runs import RunState, SweepState
from sweeps.spec import SweepSpec, parse
from workers import own
from workers.job import Job
from workers.train import train

PAGE = (Path(__file__).parents[2] / "docs" / "trainers.md").read_text()
FILES = re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL)
SPECS = {
    name: yaml.safe_load(text)
    for name, text in re.findall(r"<!-- spec: (\w+) -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
}

Module = Callable[[str], str]


@pytest.fixture(autouse=True)
def mylab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The documentation's examples as modules that the operator allows."""
    for name, text in FILES:
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'code'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.setattr(kinds, "_allowed", ["mylab"])
    yield tmp_path / "code" / "mylab"
    for guest in own._kept.values():
        guest.kill()
    own._kept.clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "mylab"]:
        del sys.modules[name]


@pytest.fixture
def module(mylab: Path) -> Module:
    """Writes a module with a function ``train(run, report)`` of a body; its entry."""

    def write(body: str) -> str:
        name = f"m{len(list(mylab.glob('*.py')))}"
        (mylab / f"{name}.py").write_text(
            f"import os, sys, time\n\ndef train(run, report):\n{textwrap.indent(body, '    ')}\n"
        )
        return f"mylab.{name}:train"

    return write


def spec_of(entry: str, **settings: Any) -> SweepSpec:
    return parse(
        {
            "name": "own",
            "proxy": {"kind": "own", "entry": entry, "cost": {"params": "10*width"}},
            "space": {"width": [8, 16], "tokens": [1000, 2000]},
            "targets": [{"at": {"width": 64, "tokens": 4000}}],
        }
        | settings
    )


def go(spec: SweepSpec, path: Path, stop_after: float = 1e9, **config: float) -> Ear:
    base = {name: axis.values[0] for name, axis in spec.space.items()} | config
    stop_at = time.monotonic() + stop_after
    ear = Ear(lambda *_: time.monotonic() > stop_at)
    train([Job(1, 1, spec, spec.source, base, str(path / "run-1.pt"), 1e9, None)], ear)
    assert ear.outcome is not None
    return ear


@pytest.mark.parametrize("name", SPECS)
def test_the_examples_of_the_documentation_train(name: str, tmp_path: Path) -> None:
    ear = go(parse(SPECS[name]), tmp_path)
    assert ear.outcome is not None and ear.outcome.reason is None
    assert ear.outcome.status == "finished"
    assert ear.outcome.loss == [point.value for point in ear.heard if point.metric == "val_loss"][-1]
    assert [point.seq for point in ear.heard] == list(range(1, len(ear.heard) + 1))
    assert ear.outcome.tokens > 0


def test_a_process_is_kept_for_the_next_run_of_a_function(module: Module, tmp_path: Path) -> None:
    entry = module("report(1, {'val_loss': os.getpid(), 'parent': os.getppid()})")
    first, second = go(spec_of(entry), tmp_path / "a"), go(spec_of(entry), tmp_path / "b")
    assert [p.value for p in first.heard] == [p.value for p in second.heard]
    assert first.heard[1].value == os.getpid()


def test_the_commit_of_the_code_is_told(module: Module, mylab: Path, tmp_path: Path) -> None:
    entry = module("report(1, {'val_loss': 1.0})")
    for command in ("init -q -b ideas", "add .", "-c user.name=a -c user.email=a@b.c commit -q -m first"):
        subprocess.run(["git", *command.split()], cwd=mylab.parent, check=True)
    found = go(spec_of(entry), tmp_path).provenance
    assert (found["entry"], found["git_branch"], found["git_dirty"]) == (entry, "ideas", False)
    assert re.fullmatch("[0-9a-f]{40}", str(found["git_commit"]))
    assert found["seed"] == 0 and "deterministic" not in found


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("raise ValueError('no such shape')", "failed", "ValueError: no such shape"),
        ("return None", "failed", "ended without reporting val_loss"),
        ("report(1, {'other': 1.0})", "failed", "ended without reporting val_loss"),
        ("report(1, {'val_loss': float('nan')}); time.sleep(60)", "diverged", "val_loss is nan at step 1"),
        ("report(1, {'val_loss': 'low'})", "failed", "given 'low'; allowed: a number"),
        ("report(1.5, {'val_loss': 1})", "failed", "step: given 1.5; allowed: a whole number"),
        ("print('last words', flush=True); os._exit(3)", "failed", "status 3: last words"),
        ("os.kill(os.getpid(), 9)", "failed", "signal 9"),
        ("sys.exit('enough')", "failed", "SystemExit: enough"),
        ("time.sleep(600)", "failed", "nothing was reported for 2 s"),
    ],
)
def test_what_goes_wrong_is_told_and_the_worker_lives_on(
    module: Module, tmp_path: Path, body: str, status: str, reason: str
) -> None:
    ear = go(spec_of(module(body), trainer={"silence": 2}), tmp_path)
    assert ear.outcome is not None
    assert ear.outcome.status == status
    assert ear.outcome.reason is not None and reason in ear.outcome.reason
    good = go(spec_of(module("report(1, {'val_loss': 1.0})")), tmp_path / "next")
    assert good.outcome is not None and good.outcome.status == "finished"


def test_gigabytes_of_output_are_cut(module: Module, tmp_path: Path) -> None:
    body = "line = 'x' * 65535\nfor _ in range(1000): print(line)\nreport(1, {'val_loss': 1.0})"
    ear = go(spec_of(module(body)), tmp_path)
    assert ear.outcome is not None and ear.outcome.status == "finished"
    assert (tmp_path / "run-1.pt" / "output.log").stat().st_size < 1_100_000


def test_processes_left_behind_are_ended(module: Module, tmp_path: Path) -> None:
    body = "child = os.fork()\nif child == 0:\n    time.sleep(600)\nreport(1, {'val_loss': child})"
    ear = go(spec_of(module(body)), tmp_path)
    assert ear.outcome is not None and ear.outcome.loss is not None
    child = int(ear.outcome.loss)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_stop_is_told_and_the_next_attempt_goes_on(module: Module, tmp_path: Path) -> None:
    body = """
saved = run.checkpoint / "step"
step = int(saved.read_text()) if saved.exists() else 0
while step < 40:
    step += 1
    time.sleep(0.05)
    if report(step, {"val_loss": 1.0 / step}, tokens=step) == "stop":
        saved.write_text(str(step))
        return
"""
    spec = spec_of(module(body))
    first = go(spec, tmp_path, stop_after=1.5)
    assert first.outcome is not None and first.outcome.status == "stopped"
    assert 0 < first.outcome.step < 40
    second = go(spec, tmp_path)
    assert second.outcome is not None and second.outcome.status == "finished"
    assert second.heard[: len(first.heard)] == first.heard
    assert [point.step for point in second.heard] == list(range(1, 41))
    assert [point.seq for point in second.heard] == list(range(1, 41))


def test_a_stop_that_is_ignored_ends_the_process(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "STOP_SECONDS", 1.0)
    ear = go(spec_of(module("time.sleep(600)")), tmp_path, stop_after=0.5)
    assert ear.outcome is not None and ear.outcome.status == "stopped"


def test_only_what_the_operator_allows_may_run() -> None:
    for entry in ("os:system", "mylabs.forest:train", "mylab forest", "mylab.forest:", None):
        with pytest.raises(SpecError) as error:
            spec_of(entry)  # type: ignore[arg-type]
        assert error.value.problems[0].field == "proxy.entry"
    with pytest.raises(SpecError, match=r"proxy.cost.params.*unknown name 'layers'"):
        parse(SPECS["net"] | {"proxy": SPECS["net"]["proxy"] | {"cost": {"params": "layers**2"}}})


def test_a_network_that_is_none_fails_for_good(mylab: Path, tmp_path: Path) -> None:
    (mylab / "odd.py").write_text("def build(config, source):\n    return 3\n")
    given = SPECS["net"] | {"proxy": SPECS["net"]["proxy"] | {"entry": "mylab.odd:build"}}
    ear = go(parse(given), tmp_path)
    assert ear.outcome is not None and ear.outcome.status == "failed" and ear.outcome.hopeless
    assert "mylab.odd:build, which made a int; allowed: a torch.nn.Module" in (ear.outcome.reason or "")


def test_a_sweep_of_ones_own_code_runs_to_its_end(
    module: Module, file_sessions: Sessions, orchestrate: Any, until: Any
) -> None:
    entry = module("report(1, {'val_loss': 2 + 10 / run.config['width'] + 100 / run.config['tokens']})")
    spec = spec_of(
        entry,
        space={"width": [8, 16, 32], "tokens": [1000, 2000, 4000]},
        strategy={"first_batch": 5},
        budget={"runs": 7},
        laws={"names": ["chinchilla"]},
    )
    sweep, _ = service.create_sweep(file_sessions, spec)
    with orchestrate():
        until(
            lambda: service.get_sweep(file_sessions, sweep.id).state is not SweepState.RUNNING,
            "the sweep's end",
        )
    runs = service.list_runs(file_sessions, sweep.id)
    assert [run.state for run in runs] == [RunState.FINISHED] * 7
    assert service.latest_fit(file_sessions, sweep.id) is not None
    known = service.durations(file_sessions, spec)
    assert known is not None and known.alone.timings == 7
