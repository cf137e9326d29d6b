"""What is told of code that is the user's, and of everything else that ran."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
import torch

from workers import provenance

NAME = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")


def git(folder: Path, *command: str) -> str:
    done = subprocess.run(["git", *NAME, *command], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in a repository with one commit."""
    folder = tmp_path / "repository"
    (folder / "lab").mkdir(parents=True)
    (folder / "lab" / "__init__.py").write_text("raise RuntimeError('was run')\n")
    (folder / "lab" / "model.py").write_text("raise RuntimeError('was run')\n")
    git(folder, "init", "-q", "-b", "ideas")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_a_clean_work_tree(lab: Path) -> None:
    assert provenance.code("lab.model:build") == {
        "entry": "lab.model:build",
        "git_commit": git(lab, "rev-parse", "HEAD"),
        "git_branch": "ideas",
        "git_dirty": False,
    }


@pytest.mark.parametrize("name", ["lab/model.py", "lab/new.py"])
def test_a_dirty_work_tree(lab: Path, name: str) -> None:
    with (lab / name).open("a") as file:
        file.write("# changed\n")
    assert provenance.code("lab.model:build")["git_dirty"] is True


def test_what_git_ignores_changes_nothing(lab: Path) -> None:
    (lab / ".git" / "info" / "exclude").write_text("*.log\n")
    (lab / "output.log").write_text("")
    assert provenance.code("lab.model:build")["git_dirty"] is False


def test_no_branch_is_checked_out(lab: Path) -> None:
    git(lab, "checkout", "-q", "--detach")
    assert provenance.code("lab.model:build")["git_branch"] == "HEAD"


def test_no_commit_yet(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    found = provenance.repository(tmp_path / "model.py")
    assert "HEAD" in str(found["git"])


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("GIT_DIR", str(Path(__file__).parents[2] / ".git"))  # as hooks have it
    assert provenance.repository(tmp_path / "model.py") == {"git": "not in a repository"}


def test_no_git(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(lab))
    assert provenance.code("lab.model:build") == {
        "entry": "lab.model:build",
        "git": "git cannot be started: No such file or directory",
    }


@pytest.mark.parametrize("entry", ["nowhere.to.be:found", "sys:exit"])
def test_a_module_without_a_file(entry: str) -> None:
    assert provenance.code(entry) == {"entry": entry, "git": "its module has no file"}


def test_a_record_has_versions_device_seed_and_data() -> None:
    found = provenance.record(
        3, "a device", 2, 1, {"train": "ab", "held_out": "cd"}, True, provenance.code(None)
    )
    assert found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert {"numpy", "ray", "scalewise"} < set(found)
    assert (found["seed"], found["device"], found["threads"]) == (3, "a device", 2)
    assert (found["data_train"], found["data_held_out"], found["deterministic"]) == ("ab", "cd", True)
    assert "entry" not in found
    unknown = provenance.record(3, "a device", 2, 1, {}, None, {})
    assert "deterministic" not in unknown


def test_contents_change_with_any_file_of_the_package(lab: Path) -> None:
    before = provenance.contents("lab.model:build")
    assert before == provenance.contents("lab.model:other") != provenance.contents("lab:build")
    (lab / "beside.py").write_text("")
    assert provenance.contents("lab.model:build") == before
    (lab / "lab" / "layers.py").write_text("width = 8\n")
    assert provenance.contents("lab.model:build") != before
    assert provenance.contents("beside:build") not in (None, before)
    assert provenance.contents("nowhere.model:build") is None
