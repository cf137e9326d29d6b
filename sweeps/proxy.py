"""What a sweep trains, as a specification says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from sweeps.axis import STRICT


@dataclass(frozen=True)
class Proxy:
    """What is trained.

    Args:
        kind: of model, of ``sweeps.kinds.KINDS``.
        dataset: of ``sweeps.data.SOURCES``; ``stdlib`` is the text of Python's own standard library.
        heads: attention heads of every width; left out, each width gets heads 16 wide.
        base_width, base_depth: where the two parametrisations of the axis ``mup`` are one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: str = "gpt"
    dataset: str = "stdlib"
    heads: Annotated[int, Field(ge=1)] | None = None
    base_width: Annotated[int, Field(ge=1, exclude_if=lambda given: given == 64)] = 64
    base_depth: Annotated[int, Field(ge=1, exclude_if=lambda given: given == 2)] = 2
