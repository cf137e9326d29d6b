"""Real text that every machine has: the source files of Python's standard library, as bytes."""

from __future__ import annotations

import hashlib
import logging
import sysconfig
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from sweeps.data import Source
from workers.datasets.base import Examples, Subset
from workers.datasets.windows import windows as examples_of

logger = logging.getLogger(__name__)

HELD_OUT = 0.08  # share of the files
TESTS = frozenset({"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test"})
TABLES = frozenset({"encodings", "pydoc_data"})  # generated, and each codec repeats the others
LEAST_BYTES = 1 << 20


@dataclass(frozen=True)
class Text:
    """Bytes to train on and bytes that are held out; no file has a part in both.

    Args:
        train, held_out: uint8, (bytes,).
        train_hash, held_out_hash: SHA-256 of each.
        files: how many files each part has.
    """

    train: Tensor
    held_out: Tensor
    train_hash: str
    held_out_hash: str
    files: tuple[int, int]


@lru_cache(maxsize=2)
def load(root: Path | None = None) -> Text:
    """Reads the text, once a process.

    A file is held out when a hash of its relative path says so, the same on every machine with this
    version of Python. Left out are tests, tables, and what an installation writes for itself; of files with
    the same text (but for white space) only the first is read, so nothing held out is also trained on.

    Args:
        root: folder of ``.py`` files, None for the running interpreter's standard library.

    Raises:
        FileNotFoundError: when the folder holds less than 1 MiB of text.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    seen: set[bytes] = set()
    for path in sorted(path.relative_to(root) for path in root.rglob("*.py")):
        if (TESTS | TABLES) & set(path.parts) or path.parts[0].startswith(("config-", "_sysconfigdata")):
            continue
        content = (root / path).read_bytes()
        digest = hashlib.sha256(b"".join(content.split())).digest()
        if content and digest not in seen:
            seen.add(digest)
            parts[held_out(path)].append(content)
    train, held = (b"\n".join(part) for part in parts)
    if len(train) + len(held) < LEAST_BYTES or not held:
        raise FileNotFoundError(
            f"the data set stdlib found {len(train) + len(held):,} bytes of Python files in {root}; "
            "it needs 1 MiB; use a Python that has its standard library as files"
        )
    text = Text(
        _bytes(train),
        _bytes(held),
        hashlib.sha256(train).hexdigest(),
        hashlib.sha256(held).hexdigest(),
        (len(parts[0]), len(parts[1])),
    )
    logger.info(
        "stdlib: %d files, %d bytes to train on (%s), %d held out (%s)",
        sum(text.files),
        len(train),
        text.train_hash[:12],
        len(held),
        text.held_out_hash[:12],
    )
    return text


def examples(source: Source, resolution: int, device: torch.device, subset: Subset) -> Examples:
    """Windows of the text on a device."""
    text = load()
    split = to(text, device)
    hashes = {"train": text.train_hash, "held_out": text.held_out_hash}
    parts = {"train": split.train, "held_out": split.held_out}
    return examples_of(source, parts, hashes, resolution, device, subset)


@lru_cache(maxsize=4)
def to(text: Text, device: torch.device) -> Text:
    """The text on a device; the same tensors where they are there already."""
    return replace(text, train=text.train.to(device), held_out=text.held_out.to(device))


def held_out(path: Path) -> bool:
    """Whether a file, by its path in the library, is held out."""
    digest = hashlib.sha256(path.as_posix().encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT * 2**64


def _bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
