"""What is known of a data set before it is read: what one example is, and what is to be predicted of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from sweeps.errors import Problem, SpecError
from sweeps.wording import booleans, choices, problems, short

Task: TypeAlias = Literal["tokens", "classes", "values"]


@dataclass(frozen=True)
class Source:
    """A data set by name.

    Args:
        name: as specifications say it.
        reader: module of ``workers.datasets`` that reads it.
        task: ``tokens`` is the next token of a sequence, ``classes`` the class of an image or a row,
            ``values`` numbers (squared error).
        outputs: size of the vocabulary, number of classes, or numbers to predict.
        unit: of the loss.
        channels: of its images; 0 where it has none.
        resolution: the one that its images have; None where any may be asked for.
        features: numbers of a row; None where its images are rows once they are flattened.
        options: what its reader takes beside, such as a path.
    """

    name: str
    reader: str
    task: Task
    outputs: int
    unit: str
    channels: int = 0
    resolution: int | None = None
    features: int | None = None
    options: Mapping[str, str | float] = field(default_factory=dict, hash=False)  # no mapping has a hash

    def inputs(self, resolution: float) -> float:
        """Numbers of one example as a row.

        Args:
            resolution: of its images along a side.
        """
        return self.features if self.features is not None else self.channels * resolution**2

    def example_bytes(self, resolution: ArrayLike) -> NDArray[np.float64]:
        """Of one example in a batch, with what is to be predicted of it.

        Inputs and targets of tokens are views of one window; tokens and classes are int64, numbers float32.

        Args:
            resolution: of its images along a side, or tokens of a window; (n,) or a number.
        """
        r = np.asarray(resolution, dtype=float)
        if self.task == "tokens":
            return 8.0 * (r + 1.0)
        inputs = self.channels * r**2 if self.features is None else self.features + 0.0 * r
        return 4.0 * inputs + (8.0 if self.task == "classes" else 4.0 * self.outputs)

    @property
    def guessing(self) -> float:
        """Loss of whoever knows nothing: of even chances, or of the mean of values of variance 1."""
        return 1.0 if self.task == "values" else math.log(self.outputs)


class DataError(SpecError, ValueError):
    """A data set of the settings makes no sense."""


TEACHER_FEATURES, TEACHER_EXPONENT = 256, 0.5

STDLIB = Source("stdlib", "stdlib", "tokens", 256, "nats/byte")
GLYPHS = Source("glyphs", "glyphs", "classes", 62, "nats/image", channels=1)
DIGITS = Source("digits", "digits", "classes", 10, "nats/image", channels=1, resolution=8)
TEACHER = Source(
    "teacher",
    "teacher",
    "values",
    TEACHER_FEATURES,
    "squared error",
    features=TEACHER_FEATURES,
    options={"exponent": TEACHER_EXPONENT, "noise": 0.0},
)

_BY_NAME = {source.name: source for source in (STDLIB, GLYPHS, DIGITS, TEACHER)}
SOURCES: Mapping[str, Source] = MappingProxyType(_BY_NAME)  # grows with ``register``

_Text: TypeAlias = Annotated[str, Field(min_length=1)]
_Count: TypeAlias = Annotated[int, Field(ge=1)]
_Classes: TypeAlias = Annotated[int, Field(ge=2)]
_Channels: TypeAlias = Literal[1, 3]
_entry = checked(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))


@_entry
class Tokens:
    """nanoGPT's ``train.bin`` and ``val.bin`` in a folder.

    Args:
        bits: of a token in the files; 16 where left out and the vocabulary allows it.
    """

    reader: Literal["tokens"]
    path: _Text
    vocabulary: _Classes
    bits: Literal[16, 32] | None = None
    unit: _Text = "nats/token"

    def source(self, name: str) -> Source:
        bits = self.bits or (16 if self.vocabulary <= 1 << 16 else 32)
        options: dict[str, str | float] = {"path": self.path, "bits": bits}
        return Source(name, "tokens", "tokens", self.vocabulary, self.unit, options=options)


@_entry
class Npz:
    """Arrays of images or rows, with classes or values to predict."""

    reader: Literal["npz"]
    path: _Text
    classes: _Classes | None = None
    outputs: _Count | None = None
    channels: _Count | None = None
    resolution: _Count | None = None
    features: _Count | None = None
    unit: _Text | None = None

    def source(self, name: str) -> Source:
        images = self.channels is not None and self.resolution is not None
        if (self.classes is None) == (self.outputs is None):
            raise DataError([_wrong(name, "classes", self.classes, "either classes, or outputs for values")])
        if images == (self.features is not None) or (self.channels is None) != (self.resolution is None):
            allowed = "either features, or channels and resolution for images"
            raise DataError([_wrong(name, "features", self.features, allowed)])
        unit = self.unit or (
            "squared error" if self.classes is None else f"nats/{'image' if images else 'row'}"
        )
        return Source(
            name,
            "npz",
            "values" if self.classes is None else "classes",
            self.classes or self.outputs or 0,
            unit,
            self.channels or 0,
            self.resolution,
            self.features,
            {"path": self.path},
        )


@_entry
class Images:
    """A folder of PNG and JPEG files for each class."""

    reader: Literal["images"]
    path: _Text
    classes: _Classes
    channels: _Channels = 3
    unit: _Text = "nats/image"

    def source(self, name: str) -> Source:
        options: dict[str, str | float] = {"path": self.path}
        return Source(name, "images", "classes", self.classes, self.unit, self.channels, options=options)


@_entry
class HuggingFace:
    """A data set of the Hugging Face hub: a column of text, read as bytes, or columns of images and labels.

    Args:
        path: its name on the hub, or a folder.
        config, revision: which of it.
        train, held_out: its splits.
        text, image, label: its columns.
    """

    reader: Literal["huggingface"]
    path: _Text
    config: _Text | None = None
    revision: _Text | None = None
    train: _Text = "train"
    held_out: _Text = "test"
    text: _Text | None = None
    image: _Text | None = None
    label: _Text = "label"
    classes: _Classes | None = None
    channels: _Channels = 3
    unit: _Text | None = None

    def source(self, name: str) -> Source:
        if (self.text is None) == (self.image is None):
            raise DataError([_wrong(name, "text", self.text, "the column of either text or image")])
        if (self.image is None) != (self.classes is None):
            raise DataError([_wrong(name, "classes", self.classes, "a number with image, nothing with text")])
        told = ("path", "config", "revision", "train", "held_out", "text", "image", "label")
        options = {key: value for key in told if (value := getattr(self, key)) is not None}
        if self.classes is None:
            return Source(name, "huggingface", "tokens", 256, self.unit or "nats/byte", options=options)
        unit = self.unit or "nats/image"
        return Source(name, "huggingface", "classes", self.classes, unit, self.channels, options=options)


@_entry
class Teacher:
    """Synthetic values whose exponents are known.

    Args:
        features: kinds of example that can be told apart, and numbers to predict.
        exponent: of the loss against the width of a network.
        noise: variance that nobody can predict, added to the loss.
    """

    reader: Literal["teacher"]
    features: Annotated[int, Field(ge=2, le=65536)] = TEACHER_FEATURES
    exponent: Annotated[float, Field(gt=0, le=4)] = TEACHER_EXPONENT
    noise: Annotated[float, Field(ge=0, le=100)] = 0.0
    unit: _Text = "squared error"

    def source(self, name: str) -> Source:
        options: dict[str, str | float] = {"exponent": self.exponent, "noise": self.noise}
        return Source(
            name, "teacher", "values", self.features, self.unit, features=self.features, options=options
        )


ENTRIES = {"tokens": Tokens, "npz": Npz, "images": Images, "huggingface": HuggingFace, "teacher": Teacher}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def read(name: str, entry: object) -> Source:
    """A data set as the settings describe it.

    Args:
        name: for specifications.
        entry: its ``reader``, and what that reader takes.

    Raises:
        DataError: with one problem per key that is wrong.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        allowed = "a name of letters, digits, _, . and -, at most 64"
        raise DataError([Problem("data", short(name), allowed)])
    if not isinstance(entry, Mapping):
        raise DataError([Problem(f"data.{name}", short(entry), "keys with values, reader among them")])
    reader = entry.get("reader")
    if not isinstance(reader, str) or reader not in ENTRIES:
        raise DataError([_wrong(name, "reader", reader, choices(reader, [*ENTRIES]))])
    kind: Any = ENTRIES[reader]
    if found := [*booleans(entry, f"data.{name}")]:
        raise DataError(found)
    try:
        made = TypeAdapter(kind).validate_python({str(key): value for key, value in entry.items()})
    except ValidationError as error:
        found = problems(error.errors(include_url=False), kind)
        raise DataError(
            [Problem(f"data.{name}.{one.field}", one.given, one.allowed) for one in found]
        ) from None
    source: Source = made.source(name)
    return source


def register(source: Source) -> Source:
    """Adds a data set, which specifications may then name.

    Raises:
        DataError: another data set has its name.
    """
    if _BY_NAME.get(source.name, source) != source:
        allowed = f"a name of its own; {source.name} is another data set already"
        raise DataError([Problem("data", repr(source.name), allowed)])
    _BY_NAME[source.name] = source
    return source


def load(entries: Mapping[str, object]) -> list[Source]:
    """Registers the data sets of the settings.

    Args:
        entries: what is under ``data``, by name.

    Raises:
        DataError: the first that makes no sense.
    """
    return [register(read(name, entry)) for name, entry in entries.items()]


def _wrong(name: str, key: str, given: object, allowed: str) -> Problem:
    return Problem(f"data.{name}.{key}", "nothing" if given is None else short(given), allowed)
