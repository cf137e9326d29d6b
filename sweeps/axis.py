"""An axis of the space and the short forms it may be written in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from sweeps.wording import problems

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
WHOLE_FROM = 1000  # a range's values from here up are whole numbers: a token more or less is no matter

FORMS = "a number, a list of numbers, or {from, to, steps, scale}"


@dataclass(frozen=True)
class Axis:
    """A dimension of the space.

    Args:
        values: what it may hold, ascending, without repeats.
        scale: on which its values are evenly spread; the scale of interpolation and of plots.
        kind: of a ``continuous`` hyperparameter values between those given are tried too, once there is a
            fit; an axis given by its ends is continuous, unless it holds whole numbers.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    values: Annotated[tuple[float, ...], Field(min_length=1)]
    scale: Literal["log", "linear"] = "linear"
    # Left out where it says nothing new, so that a specification's hash stays what it was.
    kind: Annotated[Literal["listed", "continuous"], Field(exclude_if=lambda kind: kind == "listed")] = (
        "listed"
    )


@dataclass(frozen=True)
class AxisRange:
    """An axis by its ends: ``{from: 1e-3, to: 1e-1, steps: 5, scale: log}``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    from_: Annotated[float, Field(alias="from")]
    to: float
    steps: Annotated[int, Field(ge=2, le=10_000)]
    scale: Literal["log", "linear"] = "log"


def _expand(given: Any) -> Any:
    """Turns the short forms of an axis (a number, a list, a range) into values and a scale."""
    if given is None or isinstance(given, bool | str):
        raise ValueError(FORMS)
    if isinstance(given, int | float):
        return {"values": [given]}
    if isinstance(given, Mapping) and "values" not in given:
        return _spread(_read_range(given))
    if isinstance(given, list | tuple):
        return {"values": list(given), "scale": _guess_scale(given)}
    return given


def _read_range(given: Mapping[Any, Any]) -> AxisRange:
    try:
        return TypeAdapter(AxisRange).validate_python(given)
    except ValidationError as error:
        found = problems(error.errors(include_url=False), AxisRange)
        wrong = "; ".join(f"{p.field}: {p.given} was given, {p.allowed} is allowed" for p in found)
        raise ValueError(f"{{from, to, steps, scale}} ({wrong})") from None


def _spread(ends: AxisRange) -> dict[str, Any]:
    if ends.scale == "log":
        if ends.from_ <= 0 or ends.to <= 0:
            raise ValueError("ends above 0 on a log scale; or scale: linear")
        values = np.geomspace(ends.from_, ends.to, ends.steps)
    else:
        values = np.linspace(ends.from_, ends.to, ends.steps)
    tidy = [_tidy(float(value)) for value in values]
    return {"values": tidy, "scale": ends.scale, "kind": "continuous"}


def _tidy(value: float) -> float:
    """Six digits, so that a range reads the same on every machine; whole where the fraction is no matter."""
    return float(f"{value:.0f}" if WHOLE_FROM <= abs(value) < 1e6 else f"{value:.6g}")


def _guess_scale(values: Sequence[Any]) -> str:
    """A list that spans more than a factor of 4 is read on a log scale."""
    numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    positive = bool(numbers) and min(numbers) > 0
    return "log" if positive and max(numbers) / min(numbers) > 4 else "linear"


AxisField = Annotated[
    Axis, BeforeValidator(_expand, json_schema_input_type=float | list[float] | AxisRange | Axis)
]
