"""Checkpoints are whole or absent, and never run what they contain."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from sweeps.runs import Point
from workers import checkpoint
from workers.checkpoint import Progress
from workers.vigil import Vigil

CPU = torch.device("cpu")
PROGRESS = Progress(7, [Point(1, 5, 320, "val_loss", 2.5, 1e9)], Vigil(1.25, 2, 1, 2.0, 1))


def write(path: Path) -> None:
    checkpoint.save(path, "run", PROGRESS, {"head": {"weight": torch.arange(3.0)}, "step": 7})


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "run-1.pt"
    write(path)
    found = checkpoint.load(path, "run", CPU)
    assert found is not None
    progress, state = found
    assert progress == PROGRESS
    assert torch.equal(state["head"]["weight"], torch.arange(3.0))
    assert state["step"] == 7
    assert [file.name for file in path.parent.iterdir()] == ["run-1.pt"]


def test_a_missing_checkpoint_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert checkpoint.load(tmp_path / "none.pt", "run", CPU) is None
    assert caplog.records == []


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_damaged_checkpoint_is_ignored_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, keep: int
) -> None:
    path = tmp_path / "run-1.pt"
    write(path)
    path.write_bytes(path.read_bytes()[:keep])
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load(path, "run", CPU) is None
    assert "training starts over" in caplog.text


@pytest.mark.parametrize(
    "content", [{"run": "run"}, {"run": "run", "progress": {"points": []}}, [1], b"text"]
)
def test_something_else_in_its_place_is_ignored_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: object
) -> None:
    path = tmp_path / "run-1.pt"
    torch.save(content, path)
    assert checkpoint.load(path, "run", CPU) is None
    assert "training starts over" in caplog.text


def test_the_checkpoint_of_another_run_is_ignored_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "run-1.pt")
    assert checkpoint.load(tmp_path / "run-1.pt", "other", CPU) is None
    assert "belongs to another run" in caplog.text


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("trapped"),)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"run": "run", "progress": Trap()}, tmp_path / "run-1.pt")
    assert checkpoint.load(tmp_path / "run-1.pt", "run", CPU) is None
    assert not (tmp_path / "trapped").exists()
