"""Settings and sweep presets: YAML and overrides composed by Hydra into plain dictionaries."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

_SETTING_GROUPS = ("api", "cluster", "store", "tracking")
_LISTS = {  # settings that are lists of text: how many colons an entry has, and what is allowed in words
    "laws": (1, "a list of package.module:NAME"),
    "trainers": (0, "a list of modules, such as [mylab.training]"),
}
_COMPOSING = threading.RLock()  # Hydra holds what it composes in a global


def load(*overrides: str) -> dict[str, Any]:
    """Composes the settings of the service.

    Args:
        overrides: such as ``api.port=8001`` for a value or ``store=postgres`` for an option of a group.

    Returns:
        Plain values under ``home``, ``laws``, ``data``, ``trainers``, ``store``, ``tracking``, ``cluster``
        and ``api``; ``home`` is absolute.

    Raises:
        ValueError: an override names no setting or no option of a group, or a setting comes from an
            environment variable that is not set.
    """
    changes = [_read(text) for text in overrides]
    choices = _check_choices(changes, _SETTING_GROUPS)
    settings = _compose("config", [change.text for change in choices])
    names = [
        "home",
        "laws",
        "data",
        "trainers",
        *(f"{group}.{name}" for group in _SETTING_GROUPS for name in map(str, settings[group])),
    ]
    for change in changes:
        if change in choices:
            continue
        of_data = change.path.startswith("data.")
        if change.remove or (change.path not in names and not of_data):
            raise ValueError(f"override {change.text!r} names no setting; settings are {', '.join(names)}")
        _check_type(change, OmegaConf.select(settings, change.path))
        single = change.path in _LISTS and isinstance(change.value, str)
        value = [change.value] if single else change.value
        OmegaConf.update(settings, change.path, value, merge=False, force_add=of_data)
    settings.home = str(Path(settings.home).absolute())
    return _plain(settings)


def sweep(preset: str, *overrides: str) -> dict[str, Any]:
    """Composes a sweep preset.

    Args:
        preset: one of ``presets()``.
        overrides: relative to the sweep: ``budget.runs=40``, ``space.lr=[1e-3,3e-3]``,
            ``targets.0.at.width=128``; ``~space.batch`` takes something out. They may add what the preset
            leaves out; what the specification does not know is for its own check to say.

    Returns:
        A mapping for ``sweeps.spec.parse``.

    Raises:
        ValueError: there is no such preset, or an override cannot be read or does not fit the preset.
    """
    if preset not in presets():
        raise ValueError(f"there is no preset {preset!r}; presets are {', '.join(presets())}")
    changes = [_read(text) for text in overrides]
    choices = _check_choices(changes, ("proxy",))
    composed = _plain(_compose(f"sweep/{preset}", [change.text for change in choices]))
    for change in changes:
        if change not in choices:
            _apply(composed, change)
    return composed


def sweep_file(path: str | Path, *overrides: str) -> dict[str, Any]:
    """Reads a sweep of the user's own.

    Args:
        path: of a YAML or JSON file.
        overrides: as for ``sweep``.

    Returns:
        A mapping for ``sweeps.spec.parse``.

    Raises:
        ValueError: the file cannot be read or holds no mapping, or an override does not fit it.
    """
    try:
        composed = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    if not isinstance(composed, DictConfig):
        raise ValueError(
            f"{path} holds no mapping; a sweep is keys with values, such as name, space, targets"
        )
    read = _plain(composed)
    for text in overrides:
        _apply(read, _read(text))
    return read


def presets() -> list[str]:
    """Names of the sweeps in ``conf/sweep``."""
    return _options("sweep")


@dataclass(frozen=True)
class _Change:
    """One override: what it says, where, and the value to put there."""

    text: str
    path: str
    value: Any
    remove: bool


def _read(text: str) -> _Change:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ValueError(f"override {text!r} cannot be read ({error}); write key=value") from None
    if override.type not in (OverrideType.CHANGE, OverrideType.DEL) or override.package is not None:
        raise ValueError(f"override {text!r} cannot be read; write key=value, or ~key to take it out")
    if override.is_sweep_override():
        raise ValueError(f"override {text!r} holds several values; write a list as key=[a,b]")
    return _Change(text, override.key_or_group, override.value(), override.type is OverrideType.DEL)


def _check_choices(changes: list[_Change], groups: tuple[str, ...]) -> list[_Change]:
    """The overrides that choose an option of a group, each checked."""
    choices = [change for change in changes if change.path in groups]
    for change in choices:
        options = _options(change.path)
        if change.remove or change.value not in options:
            raise ValueError(f"override {change.text!r}: {change.path} is one of {', '.join(options)}")
    return choices


def _check_type(change: _Change, present: object) -> None:
    """A number stays a number; nothing below a group is a list or a mapping.

    ``laws`` and ``trainers`` are lists, and ``data`` a mapping whose entries the core checks.
    """
    if change.path == "data" and not isinstance(change.value, dict):
        allowed = "data sets by name, such as {owt: {reader: tokens, path: /data/owt, vocabulary: 50257}}"
        raise ValueError(f"override {change.text!r}: given {change.value!r}; allowed: {allowed}")
    if change.path.split(".")[0] == "data":
        return
    if change.path in _LISTS:
        colons, allowed = _LISTS[change.path]
        entries = change.value if isinstance(change.value, list) else [change.value]
        if not all(isinstance(entry, str) and entry.count(":") == colons for entry in entries):
            raise ValueError(f"override {change.text!r}: given {change.value!r}; allowed: {allowed}")
        return
    number = isinstance(present, int | float)
    if isinstance(change.value, list | dict | bool) or (number and not isinstance(change.value, int | float)):
        allowed = "a number" if number else "one value"
        raise ValueError(f"override {change.text!r}: given {change.value!r}; allowed: {allowed}")


def _options(group: str) -> list[str]:
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in (files("conf") / group).iterdir()
        if entry.name.endswith(".yaml")
    )


def _compose(name: str, overrides: list[str]) -> DictConfig:
    with _COMPOSING, initialize_config_module("conf", version_base="1.3"):
        return compose(name, overrides)


def _plain(composed: DictConfig) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0].removeprefix("KeyError raised while resolving interpolation: ")
        raise ValueError(f"setting {error.full_key}: {message}") from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _apply(composed: dict[str, Any], change: _Change) -> None:
    """Puts a value in its place, or takes it out; a step of the path into a list is a number from 0."""
    *parents, last = change.path.split(".")
    at: Any = composed
    for step in parents:
        at = at.setdefault(step, {}) if isinstance(at, dict) else _member(at, step, change)
    if isinstance(at, list):
        _member(at, last, change)
        at[int(last)] = change.value
    elif not isinstance(at, dict):
        raise ValueError(f"override {change.text!r}: {'.'.join(parents)} is {at!r} and holds no {last!r}")
    elif not change.remove:
        at[last] = change.value
    elif last in at:
        del at[last]
    else:
        raise ValueError(f"override {change.text!r}: there is no {last!r}; there are {', '.join(at)}")


def _member(parent: Any, step: str, change: _Change) -> Any:
    if not isinstance(parent, list) or not step.isdecimal() or int(step) >= len(parent):
        allowed = f"0 to {len(parent) - 1}" if isinstance(parent, list) else "nothing below it"
        raise ValueError(f"override {change.text!r}: given {step!r}; allowed: {allowed}")
    return parent[int(step)]
