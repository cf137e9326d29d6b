"""Tables of recorded runs as tasks to replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from sweeps.arithmetic import Expression
from sweeps.errors import Problem, SpecError
from sweeps.laws.base import Array, Law
from sweeps.laws.quantities import OF_ROWS
from sweeps.mapping import Mapped
from sweeps.problem import pose
from sweeps.replay import Task
from sweeps.tables import Observed, observe


def task_of(
    columns: Mapping[str, ArrayLike],
    mapping: Mapped,
    cost: Expression | None,
    *,
    test: Mapping[str, ArrayLike] | None = None,
    target: Mapping[str, float] | None = None,
    laws: str | Sequence[str | Law] = "auto",
) -> Task:
    """The task of a table: its runs are what can be bought, the test or the target what is asked about.

    Args:
        columns: of the runs to choose from.
        mapping: which column is which quantity, in both tables.
        cost: of a run; None for training FLOPs. In a table without FLOPs it stands for them.
        test: runs whose loss is asked for and never bought; ``target`` else.
        target: quantities of a configuration.
        laws: as of ``sweeps.study.fit``.

    Raises:
        TableError: a column cannot be used.
        SpecError: the cost cannot be told.
        FitError: no law can be fitted to these columns, or the target misses what they read.
    """
    table = observe(columns, mapping)
    observed = _with_compute(table, cost)
    price = observed.columns["flops"] if cost is None else cost(observed.columns, len(observed))
    asked: dict[str, ArrayLike] = {**target} if target else {}
    truth: Array | None = None
    if test is not None:
        there = {name: term for name, term in mapping.items() if name not in OF_ROWS or term.column in test}
        held = _with_compute(observe(test, there, to_fit=False), cost)
        truth = held.columns["loss"]
        asked = {name: column for name, column in held.columns.items() if name != "loss"}
    elif cost is not None and observed is not table and set(cost.names) <= set(asked):
        asked = {"flops": cost(asked, 1)} | asked
    given = {name: np.atleast_1d(np.asarray(value, dtype=float)) for name, value in asked.items()}
    problem = pose(observed, laws, given)
    return Task(problem, price, problem.columns(given), truth, given)


def _with_compute(observed: Observed, cost: Expression | None) -> Observed:
    """A table with FLOPs: its own, else its cost."""
    if "flops" in observed.columns:
        return observed
    if cost is None:
        there = ", ".join(name for name in observed.columns if name != "loss")
        given = f"none, and the table does not tell FLOPs ({there})"
        raise SpecError([Problem("cost", given, "an expression over these columns, such as params*experts")])
    columns = observed.columns | {"flops": cost(observed.columns, len(observed))}
    return replace(observed, columns=columns)
