"""PNG and JPEG files in a folder for each class."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image

from sweeps.data import Source
from workers.datasets.base import Examples, ReadError, Subset
from workers.datasets.pictures import Album, Pictures, Pixels, Read, fitted
from workers.datasets.subsets import choose, distances

ENDINGS = (".png", ".jpg", ".jpeg")
HELD_OUT = 0.1  # of a folder without a split of its own
TRAIN, OTHERS = "train", ("held_out", "val", "test")  # folders of a split, the first that is there

Listed = list[tuple[Path, int]]


def examples(source: Source, resolution: int, device: torch.device, subset: Subset) -> Examples:
    """The images at any resolution, decoded when they are first asked for.

    A file is held out when a hash of its path says so, unless there are folders ``train`` and ``held_out``,
    ``val`` or ``test``. Hashes are of names and sizes of files: to read them all may take
    hours.

    Raises:
        ReadError: there is no such folder, or it has not as many classes as the source, or no images.
    """
    listed, root = _listed(source), Path(str(source.options["path"]))
    albums, hashes = {}, {}
    for split, files in listed.items():
        labels = torch.tensor([label for _, label in files])
        albums[split] = Album(_reader(source, files, resolution), labels, source.channels, resolution)
        named = ((path.relative_to(root).as_posix(), path.stat().st_size, label) for path, label in files)
        told = "\n".join(f"{name} {size} {label}" for name, size, label in named)
        hashes[split] = hashlib.sha256(told.encode()).hexdigest()
    made = Pictures(albums, hashes, device)
    score = distances(lambda places: made.take("train", places), source.outputs)
    return replace(made, chosen=choose(source, subset, made.places["train"], score))


@lru_cache(maxsize=4)
def _listed(source: Source) -> dict[str, Listed]:
    """Paths and labels of each split, sorted."""
    root = Path(str(source.options["path"]))
    if not root.is_dir():
        raise ReadError(source, root, "no such folder", "a folder with a folder for each class")
    other = next((name for name in OTHERS if (root / name).is_dir()), None)
    if (root / TRAIN).is_dir() and other is not None:
        names = _classes(source, root / TRAIN)
        if (found := _classes(source, root / other)) != names:
            odd = ", ".join(sorted(set(found) ^ set(names))[:5])
            raise ReadError(source, root / other, f"other classes ({odd})", f"those of {root / TRAIN}")
        splits = {"train": _files(root / TRAIN, names), "held_out": _files(root / other, names)}
    else:
        every = _files(root, _classes(source, root))
        aside = {path for path, _ in every if _is_held_out(path.relative_to(root))}
        splits = {
            "train": [one for one in every if one[0] not in aside],
            "held_out": [one for one in every if one[0] in aside],
        }
    for split, files in splits.items():
        if not files:
            given, allowed = f"no images in the split {split}", f"files that end in {', '.join(ENDINGS)}"
            raise ReadError(source, root, given, allowed)
    return splits


def _classes(source: Source, folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) != source.outputs:
        allowed = f"{source.outputs}, one for each of its classes"
        raise ReadError(source, folder, f"{len(names)} folders", allowed)
    return names


def _files(folder: Path, names: list[str]) -> Listed:
    return [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in ENDINGS and path.is_file()
    ]


def _is_held_out(path: Path) -> bool:
    digest = hashlib.sha256(path.as_posix().encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT * 2**64


def _reader(source: Source, files: Listed, resolution: int) -> Read:
    def read(place: int) -> Pixels:
        path, _ = files[place]
        try:
            with Image.open(path) as image:
                return fitted(image, source.channels, resolution)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ReadError(source, path, f"an image that cannot be read ({error})", "PNG or JPEG") from None

    return read
