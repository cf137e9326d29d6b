"""Every data set behind one interface: shapes, splits, hashes, subsets, and data that are broken."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sweeps.data import DIGITS, GLYPHS, SOURCES, STDLIB, TEACHER, Source, read
from workers import datasets
from workers.datasets import npz, stdlib, tokens
from workers.datasets.base import ENDLESS, Examples, ReadError, Subset
from workers.datasets.counter import below, mix, normal, shuffled, uniform
from workers.datasets.prefetch import Prefetch

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def nothing_cached() -> Iterator[None]:
    yield
    datasets.load.cache_clear()


def load(source: Source, resolution: int = 16, **subset: Any) -> Examples:
    return datasets.load(source, resolution, CPU, Subset(**subset))


def token_files(folder: Path, train: Any, val: Any = (1, 2, 3) * 9, bits: int = 16, **entry: Any) -> Source:
    folder.mkdir(exist_ok=True)
    for name, ids in (("train", train), ("val", val)):
        np.asarray(ids, f"<u{bits // 8}").tofile(folder / f"{name}.bin")
    return read("own", {"reader": "tokens", "path": str(folder), "vocabulary": 50257, "bits": bits, **entry})


def rows_file(path: Path, **arrays: Any) -> Source:
    given = {
        "x_train": RANDOM.normal(3, 5, (90, 4)),
        "y_train": RANDOM.integers(0, 3, 90),
        "x_test": RANDOM.normal(3, 5, (30, 4)),
        "y_test": RANDOM.integers(0, 3, 30),
    }
    np.savez(path, **{name: array for name, array in (given | arrays).items() if array is not None})
    return read("own", {"reader": "npz", "path": str(path), "classes": 3, "features": 4})


def pictures(folder: Path, names: tuple[str, ...] = ("a", "b"), count: int = 12) -> Source:
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = RANDOM.integers(0, 256, (20 + i, 30, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.{'png' if i % 2 else 'jpg'}")
    return read("pets", {"reader": "images", "path": str(folder), "classes": 2})


# The interface


@pytest.mark.parametrize(
    ("source", "resolution", "inputs", "targets"),
    [
        (STDLIB, 24, (24,), (24,)),
        (DIGITS, 8, (1, 8, 8), ()),
        (GLYPHS, 8, (1, 8, 8), ()),
        (GLYPHS, 13, (1, 13, 13), ()),
        (GLYPHS, 40, (1, 40, 40), ()),
        (TEACHER, 1, (256,), (256,)),
    ],
)
def test_examples_have_the_shape_of_their_places(
    source: Source, resolution: int, inputs: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    found = load(source, resolution)
    assert found.resident
    assert set(found.hashes) == set(found.places) == {"train", "held_out"}
    places = found.evaluation(12).reshape(3, 4)
    x, y = found.take("held_out", places)
    assert x.shape == (3, 4, *inputs) and y.shape == (3, 4, *targets)
    assert x.dtype == (torch.int64 if source.task == "tokens" else torch.float32)
    assert y.dtype == (torch.float32 if source.task == "values" else torch.int64)
    one, _ = found.take("held_out", places[1, 2])  # alone as among others
    torch.testing.assert_close(one, x[1, 2], atol=1e-4, rtol=0)
    if source.task != "tokens":  # of variance 1, about
        many = found.take("train", torch.arange(500))[0]
        assert abs(float(many.mean())) < 0.1 and 0.7 < float(many.std()) < 1.3
    assert load(source, resolution) is found


def test_every_source_has_a_reader() -> None:
    assert {source.reader for source in SOURCES.values()} <= set(datasets.READERS)
    assert pickle.loads(pickle.dumps(TEACHER)) == TEACHER  # it travels with a job
    assert hash(TEACHER) == hash(pickle.loads(pickle.dumps(TEACHER)))


def test_the_standard_library_is_as_it_was() -> None:
    found, text = load(STDLIB, 64), stdlib.load()
    assert found.hashes == {"train": text.train_hash, "held_out": text.held_out_hash}
    starts = np.linspace(0, len(text.held_out) - 65, 100).astype(np.int64)
    assert found.evaluation(100).tolist() == starts.tolist()
    inputs, following = found.take("held_out", found.evaluation(100))
    assert inputs[7].tolist() == text.held_out[starts[7] : starts[7] + 64].tolist()
    assert following[7].tolist() == text.held_out[starts[7] + 1 : starts[7] + 65].tolist()


# Random numbers of a counter


def test_random_numbers_are_those_of_the_published_generator() -> None:
    # First outputs of splitmix64 with the seed 0.
    first = [number - (1 << 64) * (number >> 63) for number in (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4)]
    assert mix(torch.tensor([1, 2])).tolist() == first
    many = torch.arange(100_000)
    assert abs(float(uniform(many, 1).mean()) - 0.5) < 0.005
    assert abs(float(normal(many).mean())) < 0.01 and abs(float(normal(many).std()) - 1) < 0.01
    assert torch.bincount(below(many, 7), minlength=7).min() > 13_500
    assert sorted(shuffled(1000).tolist()) == list(range(1000))


# Glyphs


def test_a_place_is_the_same_image_in_any_order_and_batch() -> None:
    found = load(GLYPHS)
    places = torch.tensor([5, 1 << 39, 77, 5])
    x, y = found.take("train", places)
    again, labels = found.take("train", places.flip(0))
    assert torch.equal(y, labels.flip(0))
    for ours, theirs in ((x, again.flip(0)), (x[0], x[3]), (x[1], found.take("train", places[1])[0])):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)  # sines differ by a bit between paths
    assert not torch.allclose(x[0], x[2], atol=0.1)


def test_the_same_glyph_is_seen_at_every_resolution() -> None:
    small, large = load(GLYPHS, 16), load(GLYPHS, 32)
    places = torch.arange(200)
    (x, y), (fine, labels) = small.take("train", places), large.take("train", places)
    assert torch.equal(y, labels)
    coarse = torch.nn.functional.avg_pool2d(fine, 2)
    assert np.corrcoef(x.flatten(), coarse.flatten())[0, 1] > 0.6


def test_held_out_glyphs_are_others_and_even() -> None:
    found = load(GLYPHS)
    train, labels = found.take("train", torch.arange(3000))
    held, _ = found.take("held_out", found.evaluation(3000))
    both = {image.numpy().tobytes() for image in (*train, *held)}
    assert len(both) == 6000
    assert torch.bincount(labels, minlength=62).min() > 20
    assert found.hashes["train"] != found.hashes["held_out"]


# The teacher


def test_the_teacher_has_the_chances_it_says() -> None:
    source = read("t", {"reader": "teacher", "features": 32, "exponent": 0.5})
    found = load(source, 1)
    x, y = found.take("train", torch.arange(40_000))
    even, _ = found.take("held_out", found.evaluation(2000))
    seen = (x > 0).sum(1)
    assert set(seen.tolist()) == {0, 1}
    for width in (1, 4, 16, 32):  # kinds beyond, among them those without an input
        beyond = 1 - float((x[:, :width] > 0).any(1).double().mean())
        assert beyond == pytest.approx((4 * width + 1) ** -0.5, abs=0.015)
        held = 1 - float((even[:, :width] > 0).any(1).double().mean())
        assert held == pytest.approx((4 * width + 1) ** -0.5, abs=0.002)
    assert float(y.square().mean()) == pytest.approx(1.0, abs=1e-3)
    # What 8 dimensions leave out, and all of what has no input.
    told = y[seen == 1].double()
    variances = torch.linalg.eigvalsh(told.T @ told / len(y)).flip(0) / 32
    assert float(variances[8:].sum()) + 129**-0.5 == pytest.approx(33**-0.5, rel=0.03)


def test_noise_is_added_to_what_the_teacher_says() -> None:
    plain, noisy = (
        load(read("t", {"reader": "teacher", "features": 32, "noise": noise}), 1) for noise in (0, 0.25)
    )
    places = torch.arange(5000)
    (x, y), (same, z) = plain.take("train", places), noisy.take("train", places)
    assert torch.equal(x, same)
    assert float((z - y).square().mean()) == pytest.approx(0.25, rel=1e-3)
    assert plain.hashes != noisy.hashes


# Subsets


def test_a_subset_limits_the_training_split_alone() -> None:
    whole, part = load(DIGITS, 8), load(DIGITS, 8, fraction=0.5)
    assert part.places == {"train": 722, "held_out": whole.places["held_out"]}
    assert part.hashes == whole.hashes
    assert torch.equal(*(one.take("held_out", one.evaluation(9))[0] for one in (whole, part)))


def test_a_smaller_subset_is_part_of_a_larger_one() -> None:
    def seen(**subset: Any) -> set[bytes]:
        found = load(DIGITS, 8, **subset)
        images, _ = found.take("train", torch.arange(found.places["train"]))
        return {image.numpy().tobytes() for image in images}

    assert len(seen(unique=40)) == 40
    assert seen(unique=40) < seen(unique=300) < seen(fraction=0.5) < seen()
    assert seen(kept=0.2) < seen(kept=0.6) < seen()


def test_the_examples_that_are_kept_are_the_farthest_from_their_class() -> None:
    def distance(**subset: Any) -> float:
        found = load(DIGITS, 8, **subset)
        x, y = (part for part in found.take("train", torch.arange(found.places["train"])))
        means = torch.stack([whole[labels == i].mean(0) for i in range(10)])
        return float((x - means[y]).flatten(1).norm(dim=1).min())

    everything = load(DIGITS, 8)
    whole, labels = everything.take("train", torch.arange(everything.places["train"]))
    assert distance(kept=0.25) > distance(kept=0.5) > distance()


def test_endless_examples_are_limited_too() -> None:
    assert load(GLYPHS, unique=50).places == {"train": 50, "held_out": ENDLESS}
    assert load(TEACHER, 1, unique=10**9).places["train"] == 10**9
    hard = load(GLYPHS, 8, unique=50, kept=0.25)
    assert hard.places["train"] == 50
    assert hard.take("train", torch.arange(50))[0].shape == (50, 1, 8, 8)


def test_a_subset_of_text_is_made_of_blocks_of_it(tmp_path: Path) -> None:
    source = token_files(tmp_path, np.arange(50_000))
    found = load(source, 8, unique=2000)
    x, y = found.take("train", torch.arange(found.places["train"]))
    assert torch.equal(x[:, 1:], y[:, :-1])
    ids = set(x.flatten().tolist()) | set(y.flatten().tolist())
    assert len(ids) == 2000
    assert max(ids) - min(ids) > 10_000  # of several parts of the text
    more = load(source, 8, fraction=0.5)
    assert ids < set(more.take("train", torch.arange(more.places["train"]))[0].flatten().tolist())


@pytest.mark.parametrize(
    ("source", "subset", "said"),
    [
        (STDLIB, {"kept": 0.5}, "stdlib: kept: given 0.5; allowed: 1, as nothing"),
        (TEACHER, {"kept": 0.5, "unique": 9}, "teacher: kept: given 0.5; allowed: 1, as neither"),
        (TEACHER, {"fraction": 0.5}, "teacher: fraction: given 0.5; allowed: 1, as its examples are endless"),
        (GLYPHS, {"kept": 0.5}, "glyphs: unique: given 0; allowed: 1 to"),
        (DIGITS, {"unique": 5000}, "digits: unique: given 5,000; allowed: at most 1,444"),
        (STDLIB, {"unique": 8}, "8 tokens; allowed: more than the resolution, 8"),
    ],
)
def test_a_subset_that_cannot_be_is_refused(source: Source, subset: dict[str, Any], said: str) -> None:
    with pytest.raises(ReadError, match=said):
        load(source, 8, **subset)


@pytest.mark.parametrize("subset", [{"unique": -1}, {"fraction": 0.0}, {"fraction": 1.5}, {"kept": 0.0}])
def test_a_share_is_a_share(subset: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(subset))}: given"):
        Subset(**subset)


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


def test_bytes_of_an_example_are_those_of_a_batch_as_it_is_read() -> None:
    """Inputs and targets of tokens are views of one window."""
    for source, resolution in ((DIGITS, 8), (GLYPHS, 12), (TEACHER, 1), (STDLIB, 32)):
        batch = datasets.load(source, resolution, torch.device("cpu")).take("train", torch.arange(5))
        parts = [part.untyped_storage() for part in batch]
        stored = {part.data_ptr(): part.nbytes() for part in parts}
        assert 5 * source.example_bytes(resolution) == pytest.approx(sum(stored.values()), rel=0.01)
