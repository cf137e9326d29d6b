"""A run's progress on disk: written whole or not at all, read without running what it contains."""

from __future__ import annotations

import logging
import os
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sweeps.runs import Point

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """What a training has reached, apart from weights and optimiser.

    Args:
        step: optimiser steps done.
        points: every point so far; a later attempt reports them again, so none is lost with its worker.
        loss_sum, loss_count: training loss since the last evaluation.
        above: consecutive steps with a loss above the limit.
    """

    step: int
    points: list[Point]
    loss_sum: float = 0.0
    loss_count: int = 0
    above: int = 0


def save(path: Path, run: str, progress: Progress, model: dict[str, Any], optimizer: dict[str, Any]) -> None:
    """Replaces the checkpoint at ``path``; a crash at any moment leaves the old one or the new one.

    Args:
        path: of the checkpoint.
        run: fingerprint of what is trained; a checkpoint is only used for the same.
        progress: so far.
        model, optimizer: their state dicts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    content = {"run": run, "progress": asdict(progress), "model": model, "optimizer": optimizer}
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(
    path: Path, run: str, device: torch.device
) -> tuple[Progress, dict[str, Any], dict[str, Any]] | None:
    """Reads the checkpoint at ``path``.

    Args:
        path: of the checkpoint.
        run: fingerprint that it must carry.
        device: where tensors go.

    Returns:
        Progress and the state dicts of model and optimiser; None, with a warning in the log, where the
        file is damaged or belongs to something else, and None where there is no file.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        if content["run"] != run:
            logger.warning("checkpoint %s belongs to another run; training starts over", path)
            return None
        given = content["progress"]
        points = [Point(**point) for point in given.pop("points")]
        return Progress(points=points, **given), content["model"], content["optimizer"]
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
