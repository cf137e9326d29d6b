"""The text: split by file, fixed, and its batches a function of seed and step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from workers.datasets import stdlib

TEXT = torch.arange(1000, dtype=torch.int64).to(torch.uint8)


def write(root: Path, count: int = 60, size: int = 30_000) -> None:
    for number in range(count):
        path = root / f"package{number % 7}" / f"module{number}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(f"# file {number}\n" + "x = 1\n" * (size // 6))


def test_the_standard_library_is_enough_text_and_split_by_file() -> None:
    text = stdlib.load()
    assert len(text.train) > 5_000_000
    assert 0.04 < text.files[1] / sum(text.files) < 0.12
    assert 0.02 < len(text.held_out) / len(text.train) < 0.2
    assert text.train.dtype == text.held_out.dtype == torch.uint8
    assert stdlib.load() is text


def test_files_are_on_one_side_and_read_once(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "copy.py").write_text((tmp_path / "package0/module0.py").read_text() + "\n\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test/test_it.py").write_text("left out")
    text = stdlib.load(tmp_path)
    sides = [bytes(side.tolist()) for side in (text.train, text.held_out)]
    assert sum(text.files) == 60
    assert not any(b"left out" in side for side in sides)
    for number in range(60):
        assert sum(side.count(b"# file %d\n" % number) for side in sides) == 1


def test_the_hashes_follow_the_text(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    first, same = stdlib.load(tmp_path / "a"), stdlib.load(tmp_path / "b")
    assert (first.train_hash, first.held_out_hash) == (same.train_hash, same.held_out_hash)
    (tmp_path / "c").mkdir()
    write(tmp_path / "c", count=61)
    other = stdlib.load(tmp_path / "c")
    assert (first.train_hash, first.held_out_hash) != (other.train_hash, other.held_out_hash)


def test_too_little_text_is_an_error_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("x = 1\n")
    with pytest.raises(FileNotFoundError, match="found 6 bytes of Python files in"):
        stdlib.load(tmp_path)
