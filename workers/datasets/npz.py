"""Arrays in a NumPy archive: ``x_train, y_train, x_test, y_test``, or ``x, y`` with a fixed split."""

from __future__ import annotations

import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sweeps.data import Source
from workers.datasets.base import Examples, ReadError, Subset
from workers.datasets.rows import Split, held_out, rows

HELD_OUT = 0.1  # of arrays without a split of their own
NAMES = (("x_train", "y_train"), ("x_test", "y_test"))
ALLOWED = "x_train, y_train, x_test and y_test, or x and y"

Arrays = dict[str, np.ndarray[Any, Any]]


def examples(source: Source, resolution: int, device: torch.device, subset: Subset) -> Examples:
    """The arrays, resident.

    Raises:
        ReadError: the file is no archive, or an array is missing, of objects, of another shape, not finite,
            or beyond the classes.
    """
    if source.resolution is not None and resolution != source.resolution:
        raise ReadError(source, "resolution", str(resolution), str(source.resolution))
    splits, score = _splits(source)
    return rows(source, splits, device, subset, score)


@lru_cache(maxsize=4)
def _splits(source: Source) -> tuple[dict[str, Split], Tensor | None]:
    path = Path(str(source.options["path"]))
    arrays = _arrays(source, path)
    score = arrays.get("score")
    if all(name in arrays for pair in NAMES for name in pair):
        splits = {
            split: Split(_inputs(source, path, x, arrays[x]), _targets(source, path, y, arrays[y]))
            for split, (x, y) in zip(("train", "held_out"), NAMES, strict=True)
        }
    elif "x" in arrays and "y" in arrays:
        whole = Split(_inputs(source, path, "x", arrays["x"]), _targets(source, path, "y", arrays["y"]))
        if len(whole.inputs) != len(whole.targets):
            _uneven(source, path, whole)
        aside = held_out(len(whole.inputs), HELD_OUT)
        splits = {
            split: Split(whole.inputs[part], whole.targets[part])
            for split, part in (("train", ~aside), ("held_out", aside))
        }
        if score is not None and len(score) == len(aside):
            score = score[~aside.numpy()]
    else:
        given = f"the arrays {', '.join(sorted(arrays)) or 'none'}"
        raise ReadError(source, path, given, ALLOWED)
    for split, one in splits.items():
        if len(one.inputs) != len(one.targets):
            _uneven(source, path, one)
        if not len(one.inputs):
            raise ReadError(source, path, f"no examples in the split {split}", "at least one")
    if score is None:
        return splits, None
    wanted = (len(splits["train"].inputs),)
    if score.shape != wanted or score.dtype.kind not in "iuf" or not np.isfinite(score).all():
        given = f"a score of shape {score.shape} and type {score.dtype}"
        raise ReadError(source, path, given, f"finite numbers of shape {wanted}, one a training example")
    return splits, torch.from_numpy(score.astype(np.float64))


def _arrays(source: Source, path: Path) -> Arrays:
    if not path.is_file():
        raise ReadError(source, path, "no such file", "an .npz file")
    try:
        with path.open("rb") as file:  # numpy leaves a file open that it opened and could not read
            archive = np.load(file, allow_pickle=False)  # a pickle may run any code
            if isinstance(archive, np.lib.npyio.NpzFile):
                return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        pickled = "pickle" in str(error).lower()
        given = "objects or no .npz file" if pickled else f"a file that cannot be read ({error})"
        raise ReadError(source, path, given, "arrays of numbers, written by numpy.savez") from None
    raise ReadError(source, path, "a single array", f"an .npz file with {ALLOWED}")


def _inputs(source: Source, path: Path, name: str, array: np.ndarray[Any, Any]) -> Tensor:
    """Images, (n, channels, r, r), from (n, r, r, channels) and (n, r, r) too; or rows, (n, features)."""
    if array.dtype.kind not in "iuf":
        raise ReadError(source, path, f"{name} of type {array.dtype}", "numbers")
    shape = array.shape
    if source.features is not None:
        wanted: tuple[int, ...] = (source.features,)
    else:
        side = source.resolution or 0
        wanted = (source.channels, side, side)
        if shape[1:] == (side, side) and source.channels == 1:
            array = array[:, None]
        elif shape[1:] == (side, side, source.channels):
            array = np.moveaxis(array, -1, 1)
    if array.shape[1:] != wanted:
        allowed = f"(examples, {', '.join(map(str, wanted))})"
        raise ReadError(source, path, f"{name} of shape {shape}", allowed)
    if not np.isfinite(array).all():
        raise ReadError(source, path, f"{name} with NaN or infinite numbers", "finite numbers")
    kept = array if array.dtype == np.uint8 else array.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(kept))


def _targets(source: Source, path: Path, name: str, array: np.ndarray[Any, Any]) -> Tensor:
    if source.task == "values":
        values = array[:, None] if array.ndim == 1 else array
        if values.dtype.kind not in "iuf" or values.shape[1:] != (source.outputs,):
            given = f"{name} of shape {array.shape} and type {array.dtype}"
            raise ReadError(source, path, given, f"numbers of shape (examples, {source.outputs})")
        if not np.isfinite(values).all():
            raise ReadError(source, path, f"{name} with NaN or infinite numbers", "finite numbers")
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))
    labels = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        given = f"{name} of shape {array.shape} and type {array.dtype}"
        raise ReadError(source, path, given, "whole numbers of shape (examples)")
    if len(labels) and not 0 <= labels.min() <= labels.max() < source.outputs:
        given = f"{name} from {labels.min()} to {labels.max()}"
        raise ReadError(source, path, given, f"labels from 0 to {source.outputs - 1}")
    return torch.from_numpy(np.ascontiguousarray(labels, np.int64))


def _uneven(source: Source, path: Path, split: Split) -> None:
    given = f"{len(split.inputs)} inputs with {len(split.targets)} targets"
    raise ReadError(source, path, given, "as many of one as of the other")
