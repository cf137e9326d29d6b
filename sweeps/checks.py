"""Whether a specification makes sense, beyond what types alone say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sweeps import scaling
from sweeps.bounds import problems as out_of_bounds
from sweeps.bounds import untied
from sweeps.columns import asked
from sweeps.columns import problems as unreadable
from sweeps.errors import Problem
from sweeps.kinds import KINDS
from sweeps.kinds.own import Own
from sweeps.laws import LAWS
from sweeps.scaling import SIZE
from sweeps.transfer import RULES as TRANSFERS
from sweeps.wording import choices, short

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec
    from sweeps.trainer import Trainer

MIN_STEPS = 10
MOST_WARMUP = 0.5  # of the steps

T = TypeVar("T")


def problems(spec: SweepSpec) -> Iterator[Problem]:
    """Everything that types alone do not say."""
    kind = KINDS.get(spec.proxy.kind)
    if kind is None:
        yield Problem("proxy.kind", repr(spec.proxy.kind), choices(spec.proxy.kind, [*KINDS]))
        return
    if spec.proxy.dataset not in kind.datasets:
        allowed = choices(spec.proxy.dataset, kind.datasets)
        yield Problem("proxy.dataset", repr(spec.proxy.dataset), allowed)
        return
    if spec.proxy.heads is not None and not kind.attention:
        yield Problem("proxy.heads", str(spec.proxy.heads), f"null, since {spec.proxy.kind} has no attention")
    if isinstance(kind, Own):
        wrong = [*kind.wrong(spec.proxy, spec.axes)]
        if wrong:
            yield from wrong
            return
    elif spec.proxy.entry is not None or spec.proxy.cost is not None:
        yield Problem(
            "proxy.entry", f"an entry or a cost of the kind {spec.proxy.kind}", "the kinds own, module"
        )
    if spec.proxy.scaling:
        wrong = [*scaling.problems(spec.proxy, kind, spec.source)]
        if wrong:
            yield from wrong
            return
    for name in spec.laws.names:
        if name not in LAWS:
            yield Problem("laws.names", repr(name), choices(name, tuple(LAWS), "any of"))
    known = [name for name in spec.laws.names if name in LAWS]
    every = {**kind.axes(spec.source), **spec.axes}
    yield from unreadable(known, every, spec.space, [target.at for target in spec.targets])
    yield from _of_weights(spec)
    units = spec.metrics
    if spec.metric.name not in units:
        yield Problem("metric.name", repr(spec.metric.name), choices(spec.metric.name, [*units]))
    elif spec.metric.unit not in (None, units[spec.metric.name]):
        yield Problem("metric.unit", repr(spec.metric.unit), units[spec.metric.name])
    if spec.metric.direction != "minimize":
        allowed = f"minimize, since {spec.metric.name} is the better the lower it is"
        yield Problem("metric.direction", "'maximize'", allowed)
    yield from _of_schedule(spec.trainer)
    yield from _of_processes(spec)
    if spec.laws.transfer not in TRANSFERS:
        allowed = choices(spec.laws.transfer, [*TRANSFERS])
        yield Problem("laws.transfer", repr(spec.laws.transfer), allowed)
    targets = [(target.name, target.at) for target in spec.targets]
    if not spec.proxy.scaling:
        yield from out_of_bounds(spec.axes, spec.space, targets)
        yield from untied(kind, spec.proxy, spec.axes, spec.space, targets)
        return
    yield from _of_scaling(spec)


def _of_schedule(trainer: Trainer) -> Iterator[Problem]:
    """Warm-up is a share or a number of steps, and over before the rate falls."""
    warmup, decay = trainer.warmup, trainer.decay
    if warmup > MOST_WARMUP and (warmup < 1 or warmup % 1):
        allowed = f"a share of the steps of at most {MOST_WARMUP}, or a whole number of steps"
        yield Problem("trainer.warmup", f"{warmup:g}", allowed)
    elif trainer.schedule == "constant" and warmup < 1 < warmup + decay:
        given = f"{warmup:g} warm-up and {decay:g} decay"
        yield Problem("trainer.decay", given, "shares of the steps that sum to at most 1")
    elif trainer.schedule == "constant" and warmup >= 1 and decay == 1:
        yield Problem("trainer.decay", f"1 after {warmup:g} steps of warm-up", "a share of the steps below 1")


def kept_apart(spec: SweepSpec) -> Iterator[str]:
    """A warning where a warm-up keeps runs from sharing their first steps (see ``sweeps.trunks``)."""
    trainer, lengths = spec.trainer, spec.space.get("tokens")
    ours = trainer.schedule == "constant" and spec.proxy.kind != "own"
    if ours and 0 < trainer.warmup < 1 and lengths is not None and len(lengths.values) > 1:
        yield (
            f"trainer.warmup: {trainer.warmup:g} of each run's steps keeps runs of different lengths apart; "
            "with a number of steps they share a trunk, and a branch of it costs its decay alone"
        )


def least_steps(trainer: Trainer) -> int:
    """Optimiser steps of the shortest run that may be trained: its warm-up must leave time for the rest."""
    if trainer.warmup < 1:
        return MIN_STEPS
    most = min(MOST_WARMUP, 1.0 - trainer.decay) if trainer.schedule == "constant" else MOST_WARMUP
    return max(MIN_STEPS, math.ceil(trainer.warmup / most))


def _of_weights(spec: SweepSpec) -> Iterator[Problem]:
    weights, parts = spec.strategy.weights, asked(spec.laws.names, spec.space)
    for name in weights:
        if name not in parts:
            yield Problem(f"strategy.weights.{name}", f"unknown name {name!r}", choices(name, parts))
    if all(weights.get(part) == 0.0 for part in parts):
        yield Problem("strategy.weights", short(weights), f"one above 0, of {', '.join(parts)}")


def _of_processes(spec: SweepSpec) -> Iterator[Problem]:
    """Processes that train a run together must have equal shares of its batch, and of its GPUs one each."""
    every = (
        sorted({*spec.space["batch"].values} if "batch" in spec.space else {spec.complete({})["batch"]})
        if spec.proxy.kind != "own" and "batch" not in spec.derived
        else []
    )
    asked: list[tuple[str, str | None, list[float]]] = [("resources", None, every)]
    for i, one in enumerate(spec.targets):
        if one.resources is not None:
            batches = [one.at["batch"]] if "batch" in one.at else every
            asked.append((f"targets.{i}.resources", one.name, batches))
    for path, target, batches in asked:
        resources = spec.resources_of(target)
        if resources.sharing == "measured" and (resources.gpus != 1.0 or resources.processes > 1):
            given = f"measured, with {resources.gpus:g} GPUs for {resources.processes} processes"
            yield Problem(f"{path}.sharing", given, "none, or measured with gpus: 1 and one process")
        elif resources.sharing == "measured" and spec.proxy.kind == "own":
            allowed = "none, since what a trainer of one's own takes of a GPU is not measured"
            yield Problem(f"{path}.sharing", "measured", allowed)
        if resources.processes == 1:
            continue
        count = resources.processes
        if spec.proxy.kind == "own":
            allowed = "1, since a trainer of one's own starts its own processes"
            yield Problem(f"{path}.processes", str(count), allowed)
        elif resources.gpus not in (0.0, float(count)):
            yield Problem(
                f"{path}.gpus", f"{resources.gpus:g}", f"0 or {count}, one for each of the processes"
            )
        uneven = [batch for batch in batches if batch % count]
        if uneven:
            allowed = f"a number that divides every batch, of which {uneven[0]:g} is one"
            yield Problem(f"{path}.processes", str(count), allowed)


def _of_scaling(spec: SweepSpec) -> Iterator[Problem]:
    """What is wrong with axes, targets, and what their sizes set."""

    def free(given: Mapping[str, T]) -> dict[str, T]:
        return {name: value for name, value in given.items() if name not in spec.derived}

    space, targets = free(spec.space), [(one.name, free(one.at)) for one in spec.targets]
    yield from scaling.misplaced(spec.proxy, "space", spec.space)
    for i, one in enumerate(spec.targets):
        yield from scaling.misplaced(spec.proxy, f"targets.{i}.at", one.at)
    yield from out_of_bounds(spec.axes, space, targets)
    default = {name: [] if rule.default is None else [rule.default] for name, rule in spec.axes.items()}
    spanned = default | {name: [*axis.values] for name, axis in space.items()}
    wanted = [
        (f"targets.{i}.at", spanned | {n: [v] for n, v in at.items()}) for i, (_, at) in enumerate(targets)
    ]
    for path, values in [("space", spanned), *wanted]:
        yield from scaling.unfit(spec.proxy, spec.kind, spec.source, f"{path}.{SIZE}", values)


def unaffordable(spec: SweepSpec) -> Iterator[Problem]:
    """The budget must pay for the cheapest run that has enough steps to train at all."""
    columns = {name: np.array([value]) for name, value in spec.complete({}).items()}
    columns |= {name: np.array(axis.values[:1]) for name, axis in spec.space.items()}
    grown = SIZE if "tokens" in spec.derived else "tokens"
    columns[grown] = np.array(spec.space[grown].values)
    columns = {name: column[:, None] for name, column in (columns | spec.derive(columns)).items()}
    if "batch" in spec.space:
        columns["batch"] = np.array(spec.space["batch"].values)
    cost = spec.costs(columns)
    if not np.min(cost[f"params_{spec.laws.count}"]) > 0:
        allowed = f"total, since the smallest {spec.proxy.kind} has none but the input layer and the head"
        yield Problem("laws.count", repr(spec.laws.count), allowed)
    least = least_steps(spec.trainer)
    trainable = cost["flops"][cost["steps"] >= least]
    if not trainable.size:
        needed = least * (cost["tokens_seen"] / cost["steps"]).min()
        allowed = f"at least {needed:g}, which is {least} steps of the smallest batch"
        yield Problem("space.tokens", f"{columns['tokens'].max():g}", allowed)
        return
    for name in ("flops", "flops_per_run"):
        limit = getattr(spec.budget, name)
        if limit is not None and limit < trainable.min():
            allowed = f"at least {trainable.min():.3g}, the cost of the cheapest run"
            yield Problem(f"budget.{name}", f"{limit:g}", allowed)
