"""Data of one's own: token files, archives, folders of images, the hub; broken ones; reading ahead."""

from __future__ import annotations

import pickle
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from own_data import RANDOM, load, pictures, rows_file, token_files
from PIL import Image
from torch import Tensor

from sweeps.data import read
from workers import datasets
from workers.datasets import npz, tokens
from workers.datasets.base import ReadError
from workers.datasets.prefetch import Prefetch

pytestmark = pytest.mark.usefixtures("no_data_cached")


# Token files


@pytest.mark.parametrize(("bits", "largest"), [(16, 50256), (32, 50256)])
def test_token_files_are_read_and_mapped_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, largest: int
) -> None:
    ids = RANDOM.integers(0, largest + 1, 5000)
    ids[7] = largest
    source = token_files(tmp_path, ids, bits=bits)
    held = load(source, 8, fraction=0.7)
    places = torch.randint(0, held.places["train"], (3, 5))
    x, y = held.take("train", places)
    assert load(source, 8).take("train", torch.tensor(0))[0].tolist() == ids[:8].tolist()
    hashes = held.hashes
    monkeypatch.setattr(tokens, "RESIDENT_BYTES", 100)
    datasets.load.cache_clear()
    tokens._texts.cache_clear()
    mapped = load(source, 8, fraction=0.7)
    assert held.resident and not mapped.resident
    again, following = mapped.take("train", places)
    assert torch.equal(x, again) and torch.equal(y, following)
    assert mapped.hashes == hashes
    tokens._texts.cache_clear()


def test_broken_token_files_are_named(tmp_path: Path) -> None:
    source = token_files(tmp_path / "a", [1, 2, 60000])
    with pytest.raises(ReadError, match=r"own: .*train\.bin: given the token 60000; allowed: 0 to 50256"):
        load(source, 2)
    source = token_files(tmp_path / "b", range(100))
    with (tmp_path / "b" / "val.bin").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ReadError, match=r"val\.bin: given 55 bytes; allowed: a multiple of 2"):
        load(source, 2)
    (tmp_path / "b" / "val.bin").unlink()
    with pytest.raises(ReadError, match=r"val\.bin: given no such file"):
        load(source, 2)
    with pytest.raises(ReadError, match=r"train\.bin: given an empty file"):
        load(token_files(tmp_path / "c", []), 2)
    with pytest.raises(ReadError, match="held_out: given 27 tokens; allowed: more than the resolution, 64"):
        load(token_files(tmp_path / "d", range(100)), 64)


def test_ids_beyond_the_vocabulary_are_found_where_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.zeros(5000, int)
    ids[4000] = 60000
    monkeypatch.setattr(tokens, "RESIDENT_BYTES", 100)
    monkeypatch.setattr(tokens, "PIECE", 512)
    monkeypatch.setattr(tokens, "PIECES", 2)
    found = load(token_files(tmp_path, ids), 8)
    found.take("train", torch.tensor([3900]))
    with pytest.raises(ReadError, match="train: given the token 60000"):
        found.take("train", torch.tensor([10, 3995]))


# Archives


def test_an_archive_of_rows(tmp_path: Path) -> None:
    found = load(rows_file(tmp_path / "a.npz"))
    assert found.places == {"train": 90, "held_out": 30}
    x, _ = found.take("train", torch.arange(90))
    assert float(x.mean(0).abs().max()) < 1e-5 and float((x.std(0, correction=0) - 1).abs().max()) < 1e-5
    assert len(found.evaluation(1000)) == 30


def test_an_archive_of_images_values_and_scores(tmp_path: Path) -> None:
    path = tmp_path / "cells.npz"
    np.savez(path, x=RANDOM.integers(0, 256, (200, 6, 6, 3), np.uint8), y=RANDOM.integers(0, 7, (200, 1)))
    entry = {"reader": "npz", "path": str(path), "classes": 7, "channels": 3, "resolution": 6}
    found = load(read("cells", entry), 6)
    assert sum(found.places.values()) == 200 and 8 < found.places["held_out"] < 35
    assert found.take("train", torch.arange(4))[0].shape == (4, 3, 6, 6)
    with pytest.raises(ReadError, match="cells: resolution: given 8; allowed: 6"):
        load(read("cells", entry), 8)
    path = tmp_path / "values.npz"
    score = np.arange(90.0)
    x, y = RANDOM.normal(size=(90, 4)), np.arange(90.0) * 10 + 500
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y, score=score)
    source = read("values", {"reader": "npz", "path": str(path), "outputs": 1, "features": 4})
    hard, whole = load(source, kept=0.1), load(source)
    _, values = whole.take("train", torch.arange(90))
    assert float(values.mean()) == pytest.approx(0, abs=1e-5) and values.shape == (90, 1)
    assert sorted(hard.take("train", torch.arange(9))[1].flatten().tolist()) == values.flatten()[-9:].tolist()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y_train": np.full(90, 3)}, "y_train from 3 to 3; allowed: labels from 0 to 2"),
        ({"y_test": np.full(30, -1)}, "y_test from -1 to -1"),
        ({"y_train": np.zeros(90)}, "y_train of shape .* float64; allowed: whole numbers"),
        ({"y_train": np.zeros(80, int)}, "90 inputs with 80 targets"),
        ({"x_train": np.zeros((90, 5))}, r"x_train of shape \(90, 5\); allowed: \(examples, 4\)"),
        ({"x_test": np.full((30, 4), np.nan)}, "x_test with NaN"),
        ({"x_train": np.array([["a"] * 4] * 90)}, "x_train of type"),
        ({"x_train": np.array([{}] * 90, object)}, "objects or no .npz file; allowed: arrays of numbers"),
        ({"y_test": None}, "the arrays x_test, x_train, y_train; allowed"),
        ({"score": np.zeros(7)}, r"a score of shape \(7,\)"),
        ({"x_test": np.zeros((0, 4)), "y_test": np.zeros(0, int)}, "no examples in the split held_out"),
    ],
)
def test_a_broken_archive_says_what_is_wrong(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    source = rows_file(tmp_path / "a.npz", **arrays)
    with pytest.raises(ReadError, match=f"own: .*a.npz: given .*{said}"):
        load(source)


def test_what_is_no_archive_is_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "a.npz"
    source = read("own", {"reader": "npz", "path": str(path), "classes": 3, "features": 4})
    with pytest.raises(ReadError, match="no such file"):
        load(source)
    for content in (b"", b"x,y\n1,2\n", b"PK\3\4broken", pickle.dumps(Trap())):
        path.write_bytes(content)
        with pytest.raises(ReadError, match=r"own: .*a\.npz: given"):
            load(source)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ReadError, match="a single array"):
        load(source)
    assert not (tmp_path / "sprung").exists()
    npz._splits.cache_clear()


# Folders of images


def test_a_folder_of_images_at_any_resolution(tmp_path: Path) -> None:
    source = pictures(tmp_path, count=30)
    found = load(source, 8)
    assert not found.resident
    assert sum(found.places.values()) == 60 and found.places["held_out"] > 0
    x, y = found.take("train", torch.tensor([[0, 1], [found.places["train"] - 1, 0]]))
    assert x.shape == (2, 2, 3, 8, 8) and y.tolist() == [[0, 0], [1, 0]]
    assert torch.equal(x[0, 0], x[1, 1])
    assert load(source, 24).take("held_out", found.evaluation(2))[0].shape == (2, 3, 24, 24)
    assert load(source, 8, kept=0.5, fraction=0.8).places["train"] == round(
        round(found.places["train"] * 0.8) / 2 + 0.01
    )


def test_a_folder_with_its_own_split(tmp_path: Path) -> None:
    pictures(tmp_path / "train")
    pictures(tmp_path / "val", count=3)
    source = read("pets", {"reader": "images", "path": str(tmp_path), "classes": 2, "channels": 1})
    found = load(source, 8)
    assert found.places == {"train": 24, "held_out": 6}
    assert found.take("train", torch.arange(2))[0].shape == (2, 1, 8, 8)
    (tmp_path / "val" / "b").rename(tmp_path / "val" / "c")
    with pytest.raises(ReadError, match=r"other classes \(b, c\)"):
        load(read("pets", {**dict(source.options), "reader": "images", "classes": 2}), 8)


def test_broken_folders_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"pets: .*none: given no such folder"):
        load(read("pets", {"reader": "images", "path": str(tmp_path / "none"), "classes": 2}))
    source = pictures(tmp_path / "three", ("a", "b", "c"))
    with pytest.raises(ReadError, match="given 3 folders; allowed: 2"):
        load(source)
    source = pictures(tmp_path / "two")
    (tmp_path / "two" / "a" / "1.png").write_bytes(b"\x89PNG no more")
    (tmp_path / "two" / "a" / "2.jpg").write_bytes((tmp_path / "two" / "a" / "2.jpg").read_bytes()[:300])
    found = load(source)
    named = set()
    for place in range(found.places["train"]):
        try:
            found.take("train", torch.tensor(place))
        except ReadError as error:
            named |= {name for name in ("1.png", "2.jpg") if name in str(error)}
    assert named == {"1.png", "2.jpg"}
    empty = tmp_path / "empty"
    for name in "ab":
        (empty / name).mkdir(parents=True)
    with pytest.raises(ReadError, match="no images in the split train"):
        load(read("pets", {"reader": "images", "path": str(empty), "classes": 2}))


# Hugging Face


class Fake:
    """A split as the package has it."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns, self.column_names = columns, [*columns]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        return {name: column[key] for name, column in self.columns.items()}


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    source = read("imdb", {"reader": "huggingface", "path": "stanfordnlp/imdb", "text": "text"})
    with pytest.raises(
        ReadError, match=r"imdb: reader: given no package datasets .*scalewise\[huggingface\]"
    ):
        load(source)


def test_the_hub_gives_text_and_images(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [Image.fromarray(RANDOM.integers(0, 256, (9, 9, 3), np.uint8)) for _ in range(6)]
    columns = {"text": ["héllo " * 9, "", "you " * 9] * 2, "img": images, "label": [0, 1, 2, 0, 1, 2]}

    def load_dataset(path: str, _config: str | None, split: str, revision: str | None) -> Fake:
        assert revision is None
        if path == "gone":
            raise ConnectionError("no route to the hub")
        return Fake(columns if split == "train" else {name: column[:3] for name, column in columns.items()})

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    text = load(read("imdb", {"reader": "huggingface", "path": "imdb", "text": "text"}), 8)
    assert bytes(text.take("train", torch.tensor(0))[0].tolist()) == "héllo h".encode()[:8]
    entry = {"reader": "huggingface", "path": "cifar", "image": "img", "classes": 3}
    found = load(read("cifar", entry), 4)
    x, y = found.take("train", torch.arange(6))
    assert x.shape == (6, 3, 4, 4) and y.tolist() == columns["label"]
    for changed, said in (
        ({"path": "gone"}, "gone: given ConnectionError: no route"),
        ({"label": "fine"}, "the column fine; allowed: text, img, label"),
        ({"classes": 2}, "labels from 0 to 2; allowed: labels from 0 to 1"),
    ):
        with pytest.raises(ReadError, match=said):
            load(read("cifar", entry | changed), 4)


# Reading ahead


def places_of(step: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(step).integers(0, 40, 4))


def test_batches_come_in_the_order_of_their_steps(tmp_path: Path) -> None:
    found = load(token_files(tmp_path, range(64)), 8)
    with Prefetch(found, places_of, 3, 9) as ahead:
        batches = [*ahead]
    assert len(batches) == 6
    for step, batch in enumerate(batches, 3):
        for ours, theirs in zip(batch, found.take("train", places_of(step)), strict=True):
            assert torch.equal(ours, theirs)


def test_reading_ahead_ends_when_nobody_takes(tmp_path: Path) -> None:
    found = load(token_files(tmp_path, range(64)), 8)
    with Prefetch(found, places_of, 0, 1 << 40) as ahead:
        for _, batch in zip(range(2), ahead, strict=False):
            assert batch[0].shape == (4, 8)
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())
    assert [*ahead] == []


def test_what_reading_raises_is_raised_where_batches_are_taken(tmp_path: Path) -> None:
    source = pictures(tmp_path)
    found = load(source)
    (tmp_path / "a" / "0.jpg").write_bytes(b"gone")
    everything = torch.arange(found.places["train"])
    with (
        Prefetch(found, lambda _: everything, 0, 5) as ahead,
        pytest.raises(ReadError, match="cannot be read"),
    ):
        next(iter(ahead))
