"""Every data set behind one interface: shapes, splits, hashes and subsets."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_data import load, token_files

from sweeps.data import DIGITS, GLYPHS, SOURCES, STDLIB, TEACHER, Source, read
from workers import datasets
from workers.datasets import stdlib
from workers.datasets.base import ENDLESS, ReadError, Subset
from workers.datasets.counter import below, mix, normal, shuffled, uniform

pytestmark = pytest.mark.usefixtures("no_data_cached")


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


def test_bytes_of_an_example_are_those_of_a_batch_as_it_is_read() -> None:
    """Inputs and targets of tokens are views of one window."""
    for source, resolution in ((DIGITS, 8), (GLYPHS, 12), (TEACHER, 1), (STDLIB, 32)):
        batch = datasets.load(source, resolution, torch.device("cpu")).take("train", torch.arange(5))
        parts = [part.untyped_storage() for part in batch]
        stored = {part.data_ptr(): part.nbytes() for part in parts}
        assert 5 * source.example_bytes(resolution) == pytest.approx(sum(stored.values()), rel=0.01)
