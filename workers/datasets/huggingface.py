"""Data sets of the Hugging Face hub, by the package ``datasets``, which is an extra."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from sweeps.data import Source
from workers.datasets.base import Examples, ReadError, Subset
from workers.datasets.pictures import Album, Pictures, Pixels, Read, fitted
from workers.datasets.subsets import choose, distances
from workers.datasets.windows import windows

SPLITS = {"train": "train", "held_out": "held_out"}  # of ours, and the option that names theirs
BETWEEN = b"\n\n"  # documents


def examples(source: Source, resolution: int, device: torch.device, subset: Subset) -> Examples:
    """A column of text as bytes, resident; or images, decoded when they are first asked for.

    Raises:
        ReadError: the package is missing, the data cannot be reached, or a split or column is not there.
    """
    found = _splits(source)
    if source.task == "tokens":
        text, hashes = _text(source, device)
        return windows(source, text, hashes, resolution, device, subset)
    albums, hashes = {}, {}
    for split, one in found.items():
        labels = _labels(source, one)
        albums[split] = Album(_reader(source, one, resolution), labels, source.channels, resolution)
        told = f"{getattr(one, '_fingerprint', '')} {len(one)} {labels.tolist()}"
        hashes[split] = hashlib.sha256(told.encode()).hexdigest()
    made = Pictures(albums, hashes, device)
    score = distances(lambda places: made.take("train", places), source.outputs)
    return replace(made, chosen=choose(source, subset, made.places["train"], score))


@lru_cache(maxsize=4)
def _splits(source: Source) -> dict[str, Any]:
    try:
        load: Callable[..., Any] = import_module("datasets").load_dataset
    except ImportError as error:
        given = f"no package datasets ({error})"
        raise ReadError(
            source, "reader", given, "pip install 'scalewise[huggingface]' on every worker"
        ) from None
    options, found = source.options, {}
    for split, option in SPLITS.items():
        try:
            found[split] = load(
                options["path"],
                options.get("config"),
                split=options[option],
                revision=options.get("revision"),
            )
        except Exception as error:  # whatever the hub, the network or a data set's own files may raise
            given = f"{type(error).__name__}: {error}"
            allowed = (
                f"a data set with the split {options[option]} that this machine reaches or has in its cache"
            )
            raise ReadError(source, options["path"], given, allowed) from error
        wanted = [str(options[key]) for key in ("text", "image") if key in options]
        wanted += [str(options["label"])] if source.task == "classes" else []
        for column in wanted:
            if column not in found[split].column_names:
                allowed = ", ".join(found[split].column_names)
                raise ReadError(source, options["path"], f"the column {column}", allowed)
    return found


@lru_cache(maxsize=4)
def _text(source: Source, device: torch.device) -> tuple[dict[str, Tensor], dict[str, str]]:
    column, text, hashes = str(source.options["text"]), {}, {}
    for split, one in _splits(source).items():
        content = BETWEEN.join(document.encode() for document in one[column] if document)
        hashes[split] = hashlib.sha256(content).hexdigest()
        # An empty split has no buffer; that it is too short is said where windows are cut.
        held = torch.frombuffer(bytearray(content or b"\n"), dtype=torch.uint8)
        text[split] = held.to(device)
    return text, hashes


def _labels(source: Source, split: Any) -> Tensor:
    labels = torch.tensor(list(split[str(source.options["label"])]), dtype=torch.int64)
    if not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < source.outputs:
        given = f"labels from {labels.min()} to {labels.max()}" if len(labels) else "an empty split"
        raise ReadError(source, source.options["path"], given, f"labels from 0 to {source.outputs - 1}")
    return labels


def _reader(source: Source, split: Any, resolution: int) -> Read:
    column = str(source.options["image"])

    def read(place: int) -> Pixels:
        try:
            return fitted(split[place][column], source.channels, resolution)
        except (OSError, SyntaxError, ValueError, AttributeError) as error:
            where = f"{source.options['path']}, image {place}"
            raise ReadError(source, where, f"one that cannot be read ({error})", "PNG or JPEG") from None

    return read
