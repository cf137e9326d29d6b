"""What a sweep trains, as a specification says it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field

from sweeps.axis import STRICT


def _scale(given: Any) -> float | str:
    if isinstance(given, str):
        return given.strip()
    if isinstance(given, int | float) and math.isfinite(given):
        return float(given)
    raise ValueError("a number or text")


Scale = Annotated[float | str, BeforeValidator(_scale)]


@dataclass(frozen=True)
class Proxy:
    """What is trained.

    Args:
        kind: of model, of ``sweeps.kinds.KINDS``.
        dataset: of ``sweeps.data.SOURCES``; ``stdlib`` is the text of Python's own standard library.
        heads: attention heads of every width; left out, each width gets heads 16 wide.
        scaling: a ``rule`` by which one axis ``size`` sets others, with numbers or expressions by name
            (``sweeps.scaling``); None where every axis is given by itself.
        entry: of the kind ``own`` a training function, package.module:function, or a module that is run as a
            script; of ``module`` a function that builds a network. The operator's settings must allow it.
        cost: of these kinds, expressions of the axes: ``params``, and ``flops`` (6*params*tokens).
        base_width, base_depth: where the two parametrisations of the axis ``mup`` are one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: str = "gpt"
    dataset: str = "stdlib"
    heads: Annotated[int, Field(ge=1)] | None = None
    # Left out where there is none, so that a specification's hash stays what it was.
    scaling: Annotated[
        Annotated[dict[str, Scale], Field(min_length=1)] | None, Field(exclude_if=lambda given: given is None)
    ] = None
    entry: Annotated[str | None, Field(max_length=200, exclude_if=lambda given: given is None)] = None
    cost: Annotated[dict[str, str] | None, Field(exclude_if=lambda given: given is None)] = None
    base_width: Annotated[int, Field(ge=1, exclude_if=lambda given: given == 64)] = 64
    base_depth: Annotated[int, Field(ge=1, exclude_if=lambda given: given == 2)] = 2

    @property
    def trainer(self) -> str:
        """What measurements of its runs go by: each code of one's own by itself."""
        return trainer_of(self.kind, self.entry)


def trainer_of(kind: str, entry: str | None) -> str:
    """A kind of proxy, with the code that it trains where that is the user's."""
    return kind if entry is None else f"{kind} {entry}"
