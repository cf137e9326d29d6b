"""Which column of a sweep's table a law reads each quantity from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

from sweeps.axis import Axis
from sweeps.cost import Cost
from sweeps.errors import Problem
from sweeps.kinds.base import SCALE, AxisRule
from sweeps.laws import LAWS

COSTS = {one.name: one.name for one in fields(Cost) if one.name != "layers"}  # tables say depth
RENAMED = {"tokens": "tokens_seen", "active_params": "params_active"}


def sources(names: Sequence[str], count: str) -> dict[str, str]:
    """The column of every quantity that some laws read; parameters, tokens and FLOPs are always there.

    Args:
        names: of the laws.
        count: of N.
    """
    renamed = RENAMED | {"params": f"params_{count}"}
    read = dict.fromkeys(["tokens", "flops", "params", *(c for name in names for c in LAWS[name].columns)])
    return {column: renamed.get(column, column) for column in read}


def problems(
    names: Sequence[str],
    axes: Mapping[str, AxisRule],
    space: Mapping[str, Axis],
    targets: Sequence[Mapping[str, float]],
) -> Iterator[Problem]:
    """Laws that a sweep has no columns for, or that are of no loss.

    Args:
        axes: of the kind of proxy.
        targets: the configurations asked about.
    """
    optimal = {name for name, axis in space.items() if len(axis.values) > 1} - {*SCALE}
    plain = {"params", "flops", *RENAMED, *COSTS, *axes} - optimal - {"seed"}
    for name in names:
        law = LAWS[name]
        if law.measures != "loss":
            yield Problem("laws.names", f"{name!r}, a law of the {law.measures}", "laws of the loss")
        missing = [column for column in law.columns if column not in plain]
        zero = [
            column
            for column in law.columns
            if column in axes and min(_values(column, axes[column], space, targets), default=1.0) <= 0.0
        ]
        if missing:
            why = [f"{c} varies here and has an optimum" for c in missing if c in optimal]
            given = f"{name!r}, which reads {', '.join(missing)}" + (f" ({'; '.join(why)})" if why else "")
            allowed = f"laws of what a sweep knows of its runs: {', '.join(sorted(plain))}"
            yield Problem("laws.names", given, allowed)
        elif zero:
            given = f"{name!r}, which reads {', '.join(zero)}"
            yield Problem("laws.names", given, "columns above 0 in the space and at the targets")


def asked(names: Sequence[str], space: Mapping[str, Axis]) -> list[str]:
    """What a sweep asks about: the loss, the optimum of each hyperparameter that varies, and the split of
    compute where a law tells one (a law that is registered no more may have told one)."""
    optimal = sorted({name for name, axis in space.items() if len({*axis.values}) > 1} - {*SCALE} - {"seed"})
    splits = any(name not in LAWS or LAWS[name].split is not None for name in names)
    return ["loss", *optimal, *(["split"] if splits else [])]


def _values(
    name: str, rule: AxisRule, space: Mapping[str, Axis], targets: Sequence[Mapping[str, float]]
) -> list[float]:
    """What an axis is at in the space and at the targets."""
    default = () if rule.default is None else (rule.default,)
    return [*(space[name].values if name in space else default), *(at[name] for at in targets if name in at)]
