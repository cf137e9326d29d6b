"""What is known of a data set before it is read: what one example is, and what is to be predicted of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

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
    options: Mapping[str, str | float] = field(default_factory=dict)

    def inputs(self, resolution: float) -> float:
        """Numbers of one example as a row.

        Args:
            resolution: of its images along a side.
        """
        return self.features if self.features is not None else self.channels * resolution**2

    @property
    def guessing(self) -> float:
        """Loss of whoever knows nothing: of even chances, or of the mean of values of variance 1."""
        return 1.0 if self.task == "values" else math.log(self.outputs)


STDLIB = Source("stdlib", "stdlib", "tokens", 256, "nats/byte")
GLYPHS = Source("glyphs", "glyphs", "classes", 62, "nats/image", channels=1)
DIGITS = Source("digits", "digits", "classes", 10, "nats/image", channels=1, resolution=8)
TEACHER = Source("teacher", "teacher", "values", 1, "squared error", features=8)

_BY_NAME = {source.name: source for source in (STDLIB, GLYPHS, DIGITS, TEACHER)}
SOURCES: Mapping[str, Source] = MappingProxyType(_BY_NAME)
