"""Which laws a table of runs allows, and what they read of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from sweeps.errors import FitError
from sweeps.laws import LAWS
from sweeps.laws.base import Array, Law
from sweeps.laws.quantities import QUANTITIES, quantity

HYPERPARAMETERS = ("lr", "batch")
DERIVED = frozenset({"loss", "flops", "steps"})
SPECIAL = frozenset({"bnsl2", "bnsl3", "m1", "m2", "m3"})  # laws of one variable that are tried on request
PER_TOKEN = 6.0  # FLOPs by parameter and token, where a table does not tell


def compute(table: Mapping[str, Array], like: Mapping[str, Array]) -> dict[str, Array]:
    """Compute of rows that do not give it, by what the fitted table says about it."""
    if "flops" in table:
        return {}
    pair = {"params", "tokens"}
    if pair <= set(table):
        factor = PER_TOKEN
        if {*pair, "flops"} <= set(like):
            factor = float(np.median(like["flops"] / (like["params"] * like["tokens"])))
        return {"flops": factor * table["params"] * table["tokens"]}
    if pair <= set(like) or "flops" in like:
        return {}
    proxy = next((name for name in ("compute", "params", "tokens", "x", *like) if name in table), None)
    return {} if proxy is None else {"flops": np.asarray(table[proxy], dtype=float)}


def tokens(table: Mapping[str, Array], like: Mapping[str, Array]) -> dict[str, Array]:
    """Tokens of rows that give params and compute alone."""
    if "tokens" in table or "tokens" not in like or not {"params", "flops"} <= set(table):
        return {}
    factor = PER_TOKEN
    if {"params", "flops"} <= set(like):
        factor = float(np.median(like["flops"] / (like["params"] * like["tokens"])))
    return {"tokens": table["flops"] / (factor * table["params"])}


def rows_of(given: Mapping[str, Array]) -> tuple[dict[str, Array], int]:
    """Columns of one length, numbers repeated."""
    lengths = {name: len(value) for name, value in given.items() if len(value) != 1}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise FitError(f"columns of one length are needed; given {told}")
    rows = next(iter(lengths.values()), 1)
    return {name: np.broadcast_to(value, (rows,)) for name, value in given.items()}, rows


def family(
    laws: str | Sequence[str | Law], table: dict[str, Array], varied: Sequence[str]
) -> tuple[list[Law], tuple[str, ...]]:
    """The laws to fit and the quantities of scale they read."""
    if laws != "auto":
        named = _named([laws] if isinstance(laws, str) else laws, table)
        return named, _scales(named, table)
    free = {*varied, "x"} if "x" in table else {*varied}
    usable = [
        law
        for law in LAWS.values()
        if law.measures == "loss" and set(law.columns) <= free - {"flops", "steps", *HYPERPARAMETERS}
    ]
    if "x" in table:
        chosen = [law for law in usable if law.columns == ("x",) and law.name not in SPECIAL]
    else:
        most = max((len(law.columns) for law in usable), default=0)
        chosen = [law for law in usable if len(law.columns) == most]
    if not chosen:
        given = ", ".join(varied) or "nothing"
        raise FitError(f"no law reads what varies in this table ({given}); map params, tokens or flops")
    return chosen, _scales(chosen, table)


def lone_scale(varied: Sequence[str]) -> str | None:
    """The only quantity of scale that varies, if there is just one; compute where it stands alone."""
    found = [name for name in varied if name in QUANTITIES and name not in (*HYPERPARAMETERS, *DERIVED)]
    found = found or [name for name in varied if name == "flops"]
    return found[0] if len(found) == 1 else None


def _scales(family: Sequence[Law], table: Mapping[str, Array]) -> tuple[str, ...]:
    found = dict.fromkeys(name for law in family for name in law.columns)
    return tuple(name for name in found if np.ptp(table[name]) > 0.0) or tuple(found)


def _named(laws: Sequence[str | Law], table: Mapping[str, Array]) -> list[Law]:
    found = []
    for one in laws:
        if isinstance(one, str) and one not in LAWS:
            raise FitError(f"there is no law {one!r}; choose from {', '.join(LAWS)}, or auto")
        law = LAWS[one] if isinstance(one, str) else one
        missing = [name for name in law.columns if name not in table]
        if missing:
            raise FitError(f"{law.name} reads {', '.join(missing)}, which the table does not have")
        found.append(law)
    return found


def is_axis(name: str, family: Sequence[Law]) -> bool:
    """Whether a column that varies is a hyperparameter with an optimum."""
    if any(name in law.columns for law in family):
        return False
    return name in HYPERPARAMETERS or name not in QUANTITIES


def centre_of(name: str, table: Mapping[str, Array]) -> float:
    one = quantity(name)
    like = one.like if one.like in table else name
    return float(np.mean(np.log(table[like or name]))) if one.centred else 0.0


def target_flops(target: Mapping[str, ArrayLike] | None, table: Mapping[str, Array]) -> float:
    """Compute of the target: the largest of several, since misfit is what lies below; the largest run's
    where none is given."""
    largest = float(table["flops"].max())
    if target is None:
        return largest
    given = {name: np.atleast_1d(np.asarray(value, dtype=float)) for name, value in target.items()}
    given |= compute(given, table)
    return float(given["flops"].max()) if "flops" in given else largest
