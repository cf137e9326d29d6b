"""What an operator adds by the settings: laws, data sets, and whose code may train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeps import data, laws
from sweeps.errors import Problem, SpecError
from sweeps.kinds import own
from sweeps.wording import short


def load(settings: Mapping[str, Any]) -> None:
    """Registers everything, in every process that reads specifications.

    Args:
        settings: ``laws``, ``data`` and ``trainers`` are read.

    Raises:
        ValueError: something is wrong; it is named.
    """
    laws.load(settings["laws"])
    data.load(settings["data"])
    for prefix in settings["trainers"]:
        if not isinstance(prefix, str) or not all(part.isidentifier() for part in prefix.split(".")):
            allowed = "modules, such as mylab.training"
            raise SettingsError([Problem("trainers", short(prefix), allowed)])
    own.allow(settings["trainers"])


class SettingsError(SpecError, ValueError):
    """The settings make no sense."""
