"""What a validator found, in words for the person who wrote the specification."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from sweeps.errors import Problem

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
OUTSIDE = {
    "greater_than": ("gt", "a number above {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "a number below {}"),
    "less_than_equal": ("le", "at most {}"),
}


def problems(details: Sequence[Mapping[str, Any]], root: type) -> list[Problem]:
    """Pydantic's findings as problems, one for each field.

    Args:
        details: ``ValidationError.errors()``.
        root: the dataclass that was validated, for naming what is allowed in each place.
    """
    paths = [tuple(detail["loc"]) for detail in details]
    found = []
    for detail, path in zip(details, paths, strict=True):
        inner = any(other != path and other[: len(path)] == path for other in paths)
        if not (inner and detail["type"] == "too_short"):  # its members are wrong, not their number
            found.append(_problem(detail, path, root))
    return found


def booleans(given: Any, path: str = "") -> Iterator[Problem]:
    """Finds every boolean: it would be read as 0 or 1, and a specification has none."""
    if isinstance(given, bool):
        yield Problem(path, repr(given), "a number or text")
    elif isinstance(given, Mapping):
        for key, value in given.items():
            yield from booleans(value, f"{path}.{key}" if path else str(key))
    elif isinstance(given, list | tuple):
        for index, value in enumerate(given):
            yield from booleans(value, f"{path}.{index}")


def short(value: object) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def choices(given: object, allowed: Sequence[str], what: str = "one of") -> str:
    """The allowed names, and which of them was probably meant."""
    close = get_close_matches(str(given), allowed, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return f"{what} {', '.join(allowed)}{meant}"


def _problem(detail: Mapping[str, Any], path: tuple[Any, ...], root: type) -> Problem:
    shown = [str(step) for step in path if step != "[key]"]
    if shown[:1] == ["space"]:  # an axis may be written as a plain list
        shown = shown[:2] + [step for step in shown[2:] if step != "values"]
    field = ".".join(shown) or "spec"
    if detail["type"] in UNKNOWN:
        keys = _keys(_annotation(root, path[:-1]))
        return Problem(field, f"unknown key {str(path[-1])!r}", choices(path[-1], keys, "the keys"))
    if path[-1:] == ("[key]",):
        return Problem(field, short(detail["input"]), "a name")
    given = "nothing" if detail["type"] == "missing" else short(detail["input"])
    return Problem(field, given, _allowed(detail, _annotation(root, path)))


def _allowed(detail: Mapping[str, Any], annotation: Any) -> str:
    kind, context = str(detail["type"]), detail.get("ctx", {})
    if kind in OUTSIDE:
        name, words = OUTSIDE[kind]
        return words.format(f"{context[name]:g}")
    if kind == "too_short":
        return f"at least {context['min_length']} entry"
    if kind == "too_long":
        return f"at most {context['max_length']} entries"
    if kind == "string_too_short":
        return "some text"
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    if kind == "finite_number":
        return "a finite number"
    if kind == "value_error":
        return str(context["error"])
    return _name(annotation) or str(detail["msg"])


def _name(annotation: Any) -> str:
    """What a type holds, in words."""
    if dataclasses.is_dataclass(annotation):
        return f"keys with values: {', '.join(_keys(annotation))}"
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(map(str, get_args(annotation)))}"
    words = {
        int: "a whole number",
        float: "a number",
        str: "text",
        tuple: "a list",
        dict: "names with values",
    }
    return words.get(get_origin(annotation) or annotation, "")


def _keys(annotation: Any) -> list[str]:
    if not dataclasses.is_dataclass(annotation):
        return []
    return [field.name.rstrip("_") for field in dataclasses.fields(annotation)]


def _annotation(root: Any, path: Sequence[Any]) -> Any:
    """The type that stands at a path, without its constraints; None where there is none."""
    at = _bare(root)
    for step in path:
        if dataclasses.is_dataclass(at):
            hints = get_type_hints(at, include_extras=False)
            at = _bare(hints.get(str(step), hints.get(f"{step}_")))
        elif get_origin(at) in (tuple, dict):
            arguments = get_args(at)
            at = _bare(arguments[0] if get_origin(at) is tuple else arguments[1])
        else:
            return None
    return at


def _bare(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _bare(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation
