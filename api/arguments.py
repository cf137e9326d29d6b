"""What a command line says, as values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import conf
from sweeps import registry
from sweeps.errors import SweepError


class UsageError(SweepError):
    """The command line makes no sense."""


def pairs(given: list[str] | None) -> dict[str, str]:
    """``key=value`` arguments as a mapping.

    Raises:
        UsageError: one is not of this form.
    """
    found = {}
    for text in given or []:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise UsageError(f"given {text!r}; allowed: key=value, such as width=256")
        found[name] = value
    return found


def numbers(given: list[str] | None) -> dict[str, float]:
    """``key=value`` arguments whose values are numbers.

    Raises:
        UsageError: one is not of this form.
    """
    found = {}
    for name, value in pairs(given).items():
        try:
            found[name] = float(value)
        except ValueError:
            raise UsageError(f"given {name}={value}; allowed: a number") from None
    return found


def read_spec(source: str, overrides: list[str] | None) -> dict[str, Any]:
    """A specification from a preset or a file.

    Raises:
        UsageError: there is no such preset or file, or an override does not fit.
    """
    given = overrides or []
    try:
        if Path(source).suffix in (".yaml", ".yml", ".json"):
            return conf.sweep_file(source, *given)
        return conf.sweep(source, *given)
    except ValueError as error:
        raise UsageError(str(error)) from None


def read_settings() -> None:
    """Registers the laws, data sets and trainers of the operator's settings, as the service does.

    A command that reads a specification or fits laws itself, without the service, calls this first.

    Raises:
        UsageError: the settings make no sense.
    """
    try:
        registry.load(conf.load())
    except (ValueError, SweepError) as error:
        raise UsageError(str(error)) from None
