"""Kinds whose code is the user's: a trainer of any framework, or a network that is trained as ours are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sweeps.arithmetic import parse_expression
from sweeps.data import Source
from sweeps.errors import Problem, SpecError
from sweeps.kinds.base import TRAINING, Array, AxisRule, Columns, Kind
from sweeps.proxy import Proxy
from sweeps.wording import choices

ANY = AxisRule(False, -1e300, 1e300, 0.0)  # of an axis that only the user's code knows
FLOPS = "6*params*tokens"
PARTS = ("params", "flops")

_allowed: list[str] = []  # beginnings of entries, from the operator's settings


def allow(prefixes: Iterable[str]) -> None:
    """Lets entries run whose module is one of these, or lies below one."""
    _allowed.extend(prefix for prefix in prefixes if prefix not in _allowed)


def allowed(entry: str) -> bool:
    """Whether the operator lets an entry run."""
    module = entry.partition(":")[0]
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in _allowed)


@dataclass(frozen=True, kw_only=True)
class Own(Kind):
    """A kind whose costs are expressions over its axes, and which knows every axis that a space names.

    Args:
        function: entries must name one.
        takes_data: it is trained on one of our data sets.
    """

    function: bool = False
    takes_data: bool = False

    def learns(self, source: Source, /) -> bool:
        """A trainer brings its own data, a network may suit any."""
        return self.takes_data or source.name == "stdlib"

    def cost(self, columns: Columns, proxy: Proxy, _source: Source, /) -> dict[str, Array]:
        """The fields of ``sweeps.cost.Cost`` from the expressions of ``proxy.cost``, each (n,) or a number.

        Nothing is known of steps but by ``batch``, and nothing of activations and memory.
        """
        known = {name: np.asarray(column, dtype=float) for name, column in columns.items()}
        shape = np.broadcast_shapes(*(column.shape for column in known.values()))
        flat = {name: np.broadcast_to(column, shape).ravel() for name, column in known.items()}
        rows, given = int(np.prod(shape)), proxy.cost or {}
        params = parse_expression(given["params"])(flat, rows)
        flops = parse_expression(given.get("flops", FLOPS))(flat | {"params": params}, rows)
        zero = np.zeros(rows)
        tokens = flat["tokens"] + zero
        steps = np.maximum(1.0, np.round(tokens / flat["batch"])) if "batch" in flat else tokens
        found = {
            "params_embedding": zero,
            "params_body": params,
            "params_head": zero,
            "params_total": params,
            "params_active": params,
            "tokens_seen": tokens,
            "steps": steps,
            "flops": flops,
            "flops_6nd": 6.0 * params * tokens,
            "activations": zero,
            "memory": zero,
            "layers": zero + 1.0,
        }
        return {name: column.reshape(shape) for name, column in found.items()}

    def wrong(self, proxy: Proxy, axes: Mapping[str, AxisRule]) -> Iterator[Problem]:
        """What is wrong with the entry and the expressions."""
        entry = proxy.entry
        form = "package.module:function" if self.function else "package.module or package.module:function"
        if entry is None or not all(part.isidentifier() for part in entry.replace(":", ".").split(".")):
            yield Problem("proxy.entry", "nothing" if entry is None else repr(entry), form)
        elif self.function and ":" not in entry:
            yield Problem("proxy.entry", repr(entry), form)
        elif not allowed(entry):
            told = ", ".join(_allowed) or "none"
            yield Problem(
                "proxy.entry", repr(entry), f"modules that the operator's settings allow (trainers): {told}"
            )
        given = proxy.cost or {}
        if "params" not in given:
            yield Problem(
                "proxy.cost.params", "nothing", "an expression of the axes, such as 12*depth*width**2"
            )
        for name, text in given.items():
            if name not in PARTS:
                yield Problem(f"proxy.cost.{name}", f"unknown key {name!r}", choices(name, PARTS))
                continue
            known = [*axes, *(["params"] if name == "flops" else [])]
            try:
                unknown = [one for one in parse_expression(text).names if one not in known]
            except SpecError as error:
                yield Problem(f"proxy.cost.{name}", error.problems[0].given, error.problems[0].allowed)
                continue
            for one in unknown:
                yield Problem(f"proxy.cost.{name}", f"unknown name {one!r}", choices(one, known))


TRAINER_AXES = {"tokens": TRAINING["tokens"], "seed": TRAINING["seed"]}


def _of_module(source: Source) -> Mapping[str, AxisRule]:
    side = source.resolution if source.channels else None
    resolution = AxisRule(True, side or 1, side or 1 << 20, side or (64 if source.task == "tokens" else 16))
    rest = {name: rule for name, rule in TRAINING.items() if name != "mup"}
    return {"resolution": resolution, **rest}


TRAINER = Own(axes=lambda _: TRAINER_AXES, step=lambda *_: 1.0)
MODULE = Own(axes=_of_module, step=lambda *_: 1.0, function=True, takes_data=True)
