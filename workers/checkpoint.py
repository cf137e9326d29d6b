"""A run's progress on disk: written whole or not at all, read without running what it contains."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from sweeps.runs import Point
from workers.engines import State
from workers.job import Joint
from workers.vigil import Vigil

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """What a training has reached, apart from weights and optimiser.

    Args:
        step: optimiser steps done.
        points: every point so far; a later attempt reports them again, so none is lost with its worker.
        vigil: over its losses.
    """

    step: int
    points: list[Point]
    vigil: Vigil = field(default_factory=Vigil)


def fingerprint(parts: Sequence[object]) -> str:
    """Hash of all that decides the numbers of a run."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save(path: Path, run: str, progress: Progress, state: State) -> None:
    """Replaces the checkpoint at ``path``; a crash at any moment leaves the old one or the new one.

    Args:
        path: of the checkpoint.
        run: fingerprint of what is trained; a checkpoint is only used for the same.
        progress: so far.
        state: of the engine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    content = {"run": run, "progress": asdict(progress), "state": state}
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path, run: str, device: torch.device) -> tuple[Progress, State] | None:
    """Reads the checkpoint at ``path``.

    Args:
        path: of the checkpoint.
        run: fingerprint that it must carry.
        device: where tensors go.

    Returns:
        Progress and the engine's state; None, with a warning in the log, where the file is damaged or
        belongs to something else, and None where there is no file.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        if content["run"] != run:
            logger.warning("checkpoint %s belongs to another run; training starts over", path)
            return None
        given = content["progress"]
        points = [Point(**point) for point in given["points"]]
        return Progress(given["step"], points, Vigil(**given["vigil"])), content["state"]
    except FileNotFoundError:
        return None
    except (
        OSError,
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        logger.warning("checkpoint %s cannot be read (%s); training starts over", path, error)
        return None


def leave(joint: Joint, run: str, progress: Progress, state: State) -> None:
    """Writes the checkpoint that other runs can begin from. What the run has measured stays its own.

    Args:
        joint: at which the run stands.
        run: fingerprint of what runs that differ in length alone have in common.
    """
    vigil = replace(progress.vigil, loss_sum=0.0, loss_count=0)
    save(Path(joint.path), run, Progress(joint.step, [], vigil), state)


def begin(joint: Joint, run: str, device: torch.device) -> tuple[Progress, State]:
    """Reads the checkpoint that another run left.

    Args:
        run: fingerprint, as for ``leave``.

    Raises:
        RuntimeError: it is missing or cannot be used. It is deleted, so that nobody tries again.
    """
    found = load(Path(joint.path), run, device)
    if found is None:
        Path(joint.path).unlink(missing_ok=True)
        raise RuntimeError(f"the checkpoint at step {joint.step} that this run begins from cannot be used")
    return found
