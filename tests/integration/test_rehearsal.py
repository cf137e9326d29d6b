"""Networks that the user's code builds are timed, and stacked only where that changes no numbers."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sweeps.kinds import own
from sweeps.resources import Resources
from sweeps.space import specimens
from sweeps.spec import SweepSpec, parse
from workers import rehearsal
from workers.executor import Calibration, Networks
from workers.rehearsal import rehearse

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, inputs, width, outputs, kind):
        super().__init__()
        self.first, self.last = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.kind, self.calls = kind, 0
        self.norm = nn.BatchNorm1d(width)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x):
        x = self.first(x.flatten(1))
        if self.kind == "batch":
            x = self.norm(x)
        if self.kind == "random":
            x = nn.functional.dropout(x)
        if self.kind == "branch" and x.mean() > 0:
            x = 2 * x
        if self.kind == "calls":
            self.calls += 1
            x = x / self.calls
        if self.kind == "buffer":
            self.steps += 1
        return self.last(torch.tanh(x))


def maker(kind):
    def build(config, source):
        if kind == "wide" and config["width"] > 8:
            raise ValueError("too wide")
        if kind == "none":
            raise ValueError("no such shape")
        return Net(int(source.inputs(config["resolution"])), config["width"], source.outputs, kind)
    return build


plain, batch, random, branch, calls, buffer, wide, none = map(
    maker, ("plain", "batch", "random", "branch", "calls", "buffer", "wide", "none")
)
"""


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that the operator allows, and as few steps as may be."""
    (tmp_path / "netlab.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(own, "_allowed", ["netlab"])
    monkeypatch.setattr(rehearsal, "STACKED", (1, 3, 5))
    monkeypatch.setattr(rehearsal, "SECONDS", 0.05)
    rehearsal.provenance.imported_contents.cache_clear()
    yield tmp_path
    sys.modules.pop("netlab", None)


def spec_of(kind: str) -> SweepSpec:
    return parse(
        {
            "name": "networks",
            "proxy": {
                "kind": "module",
                "entry": f"netlab:{kind}",
                "dataset": "digits",
                "cost": {"params": "75*width"},
            },
            "space": {"width": [8, 16], "batch": 4, "lr": [0.001, 0.01], "tokens": [640, 1280]},
            "targets": [{"at": {"width": 64, "tokens": 12800}}],
        }
    )


def go(kind: str, refused: str | None = None) -> Calibration:
    spec = spec_of(kind)
    networks = Networks(spec, spec.source, specimens(spec, 6), refused)
    return rehearse(Resources(), spec.proxy.trainer, networks)


def test_what_trains_the_same_in_a_stack_is_timed_alone_and_stacked() -> None:
    threads = torch.get_num_threads()
    found = go("plain")
    assert torch.get_num_threads() == threads
    assert found.trouble is None and found.kind == "module netlab:plain"
    assert found.code is not None and re.fullmatch("[0-9a-f]{64}", found.code)
    assert [one.members for one in found.timings] == [1, 3, 5, 1, 3, 5]
    for one in found.timings:
        assert one.kind == found.kind and one.seconds > 0 and one.cost.steps == 1
        assert one.memory is not None and one.memory > 4 * one.members * one.cost.params_total


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("batch", r"a step changes the buffer norm\.running_mean, which members of a stack would share"),
        ("buffer", "a step changes the buffer steps"),
        ("random", "called random operation"),
        ("branch", "data-dependent control flow"),
        ("calls", r"does not train as it does alone: loss .* alone, loss .* stacked"),
    ],
)
def test_what_would_train_otherwise_in_a_stack_is_timed_alone(kind: str, reason: str) -> None:
    found = go(kind)
    assert [one.members for one in found.timings] == [1, 1]
    assert found.trouble is not None and re.search(reason, found.trouble)


def test_what_is_known_to_be_refused_is_not_tried_again() -> None:
    found = go("plain", refused="it was refused")
    assert ([one.members for one in found.timings], found.trouble) == ([1, 1], "it was refused")


def test_shapes_that_break_are_left_out() -> None:
    found = go("wide")
    assert found.trouble is None and [one.members for one in found.timings] == [1, 3, 5]
    nothing = go("none")
    assert nothing.timings == [] and nothing.trouble == "ValueError: no such shape"


def test_time_and_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as small:
        small.setattr(rehearsal, "available", lambda _: 1.0)
        assert [one.members for one in go("plain").timings] == [1, 1]
    monkeypatch.setattr(rehearsal, "LONGEST", 0.0)
    late = go("plain")
    assert [one.members for one in late.timings] == [1] and late.trouble is None
