"""Runs that share their first steps.

At a constant rate, runs that differ in length alone are one until the rate of the shorter one begins to fall:
it is a branch of their trunk (Haegele et al. 2024, arXiv 2405.18392).
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sweeps.curves.schedule import Steps, decays_from
from sweeps.laws.base import Array
from sweeps.runs import Branch
from sweeps.space import Table, tabulate, tabulate_configs
from sweeps.spec import Config, SweepSpec

LENGTH = "tokens"  # the axis that runs of one trunk differ in

Row: TypeAlias = tuple[float, ...]


@dataclass(frozen=True)
class Trunk:
    """A run that others may branch off.

    Args:
        run_id: of the run.
        config: complete.
        steps: at which there is a checkpoint of it, ascending; at the full rate up to there.
    """

    run_id: int
    config: Config
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Branches:
    """Where each of some configurations would begin.

    Args:
        run_id: (n,) of the run whose checkpoint it begins from, 0 for none.
        step: (n,) of that checkpoint.
        rest: (n,) share of its steps that is left to train.
    """

    run_id: Steps
    step: Steps
    rest: Array

    def of(self, index: int) -> Branch | None:
        """Where one of them begins, None at its first step."""
        if self.run_id[index] == 0:
            return None
        return Branch(int(self.run_id[index]), int(self.step[index]))


def shares(spec: SweepSpec) -> bool:
    """Whether runs that differ in length alone have the same rates until one decays.

    A warm-up that is a share of the steps makes them differ from the first step on; what a trainer of one's
    own does is not known.
    """
    trainer = spec.trainer
    alike = trainer.warmup == 0 or trainer.warmup >= 1
    return spec.proxy.kind != "own" and trainer.schedule == "constant" and alike


def trunk_key(config: Config) -> str:
    """Hash of a complete configuration without its length."""
    rest = {name: float(value) for name, value in config.items() if name != LENGTH}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def joints(spec: SweepSpec, config: Config) -> tuple[int, ...]:
    """Steps after which runs of the space's other lengths leave the trunk of this one, or it leaves theirs;
    ascending. Checkpoints there are what they can begin from.

    Args:
        config: complete.
    """
    if not shares(spec) or LENGTH not in spec.space:
        return ()
    others = [tokens for tokens in spec.space[LENGTH].values if tokens != config[LENGTH]]
    lengths = [config[LENGTH], *others]
    own, *leave = _leaves(spec, tabulate(spec, {**config, LENGTH: np.array(lengths)})).tolist()
    return tuple(sorted({min(own, step) for step in leave if step > 0}))


def branches(spec: SweepSpec, trunks: Sequence[Trunk], table: Table) -> Branches:
    """The latest checkpoint that each configuration can begin from.

    It is of a run that differs in length alone, and from before the rate of either begins to fall.
    """
    n = len(table)
    found = Branches(np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), np.ones(n))
    if not trunks or not n or not shares(spec):
        return found
    known = tabulate_configs(spec, [trunk.config for trunk in trunks])
    axes = [name for name in table.axes if name != LENGTH]
    kept: Mapping[Row, list[tuple[int, int]]] = defaultdict(list)
    for row, trunk in zip(_rows(known, axes), trunks, strict=True):
        kept[row] += [(step, trunk.run_id) for step in trunk.steps]
    leaves = _leaves(spec, table)
    # Few of many rows are like a trunk in every axis: the rest is left out before rows are compared.
    some = np.flatnonzero(np.isin(_number(table, axes), _number(known, axes)))
    for index, row in zip(some, _rows(table.take(some), axes), strict=True):
        places = sorted(kept.get(row, ()), key=lambda place: (place[0], -place[1]))
        before = bisect_right([step for step, _ in places], leaves[index])
        if before:
            step, run_id = places[before - 1]
            found.run_id[index], found.step[index] = run_id, step
            found.rest[index] = 1.0 - step / table["steps"][index]
    return found


def _leaves(spec: SweepSpec, table: Table) -> Steps:
    """After how many steps each row leaves its trunk, (n,); one at least is its own."""
    steps = table["steps"]
    return np.minimum(decays_from(steps, spec.trainer.decay), steps.astype(np.int64) - 1)


def _rows(table: Table, axes: Sequence[str]) -> list[Row]:
    return list(zip(*(table[name].tolist() for name in axes), strict=True))


def _number(table: Table, axes: Sequence[str]) -> NDArray[np.float64]:
    """Equal for rows that agree in all of these axes, and hardly ever for others; (n,)."""
    number = np.zeros(len(table))
    for i, name in enumerate(axes):
        number += np.sqrt(i + 2.7) * table[name]
    return number
