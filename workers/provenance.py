"""What ran: versions, device, seed, data, and the commit of code that is the user's."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from workers.job import Provenance

PACKAGES = ("scalewise", "torch", "numpy", "ray")
GIT_SECONDS = 10.0
# Hooks set them, and they would speak of another repository.
FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")


def record(
    seed: int,
    device: str,
    threads: int,
    processes: int,
    hashes: Mapping[str, str],
    deterministic: bool | None,
    code: Provenance,
) -> Provenance:
    """What a run is, beyond its configuration.

    Args:
        threads: of each process.
        processes: that train it together.
        hashes: of the data, by split; none where the code brings its own.
        deterministic: whether the same run gives the same numbers bit for bit; None where nobody knows.
        code: of the user's, as ``code`` gives it.
    """
    found: dict[str, str | int | bool] = {**_versions(), "device": device, "seed": seed}
    found |= {"threads": threads, "processes": processes}
    found |= {f"data_{split}": digest for split, digest in hashes.items()}
    if deterministic is not None:
        found["deterministic"] = deterministic
    return found | dict(code)


def code(entry: str | None) -> Provenance:
    """The repository of the user's code that an entry names, as it stands now; nothing without an entry."""
    if entry is None:
        return {}
    file = source_file(entry.partition(":")[0])
    told = {"git": "its module has no file"} if file is None else repository(file)
    return {"entry": entry, **told}


@lru_cache(maxsize=64)
def imported(entry: str | None) -> Provenance:
    """The same for code that this process imports and keeps: as it stood when it was first asked for."""
    return code(entry)


def contents(entry: str) -> str | None:
    """Digest of the Python files of the package that an entry lies in; None where its module has no file."""
    module = entry.partition(":")[0]
    file = source_file(module)
    if file is None:
        return None
    above = module.count(".") + (file.name == "__init__.py")  # folders up to that of the package
    files = sorted(file.parents[above - 1].rglob("*.py")) if above else [file]
    digest = hashlib.sha256(module.encode())
    for one in files:
        digest.update(one.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=64)
def imported_contents(entry: str) -> str | None:
    """The same for code that this process imports and keeps: as it stood when it was first asked for."""
    return contents(entry)


def source_file(module: str) -> Path | None:
    """The file of a module, found without running any of it; None where there is none."""
    path: list[str] | None = None
    name, origin = "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        specs = (finder.find_spec(name, path) for finder in sys.meta_path)
        found = next((one for one in specs if one is not None), None)
        if found is None:
            return None
        path = [*(found.submodule_search_locations or [])]
        origin = found.origin if found.has_location else None
    return None if origin is None else Path(origin)


def repository(file: Path) -> Provenance:
    """Commit and branch of the repository that holds a file, and whether its work tree differs from them.

    Untracked files that git does not ignore make it differ too: the file itself may be one.
    """
    try:
        _git(file, "rev-parse", "--show-toplevel")
        commit = _git(file, "rev-parse", "HEAD")
        branch = _git(file, "rev-parse", "--abbrev-ref", "HEAD")
        changed = _git(file, "status", "--porcelain")
    except OSError as error:
        return {"git": f"git cannot be started: {error.strerror}"}
    except subprocess.TimeoutExpired:
        return {"git": f"git did not answer within {GIT_SECONDS:g} s"}
    except subprocess.CalledProcessError as error:
        told = " ".join(str(error.stderr).split())
        if "not a git repository" in told:
            return {"git": "not in a repository"}
        return {"git": told[:200] or f"git ended with status {error.returncode}"}
    return {"git_commit": commit, "git_branch": branch, "git_dirty": bool(changed)}


def _git(file: Path, *command: str) -> str:
    """What git says of the folder of a file; it writes nothing and speaks English."""
    ours = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return subprocess.run(
        ["git", "-C", str(file.resolve().parent), *command],
        env=ours | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=GIT_SECONDS,
    ).stdout.strip()


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    """Of Python and of what computes."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "a source tree"
    return found
