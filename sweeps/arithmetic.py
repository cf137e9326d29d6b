"""Small expressions over named columns, such as the cost of runs as ``6*params*tokens``."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from sweeps.errors import Problem, SpecError
from sweeps.laws.base import Array
from sweeps.laws.quantities import OF_ROWS
from sweeps.mapping import ALIASES
from sweeps.tables import rows_in_words
from sweeps.wording import choices, short

LONGEST = 400  # characters of an expression
GRAMMAR = "numbers and columns with + - * / ** and parentheses, such as 6*params*tokens"
UNKNOWN = ("loss", *OF_ROWS)  # what is not known of a run before it is paid for, or no quantity of it

OPERATIONS: Mapping[type[ast.operator], Callable[[Array, Array], Array]] = MappingProxyType(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.Pow: operator.pow,
    }
)


@dataclass(frozen=True)
class Expression:
    """An expression over named columns.

    Args:
        text: as it was given.
        tree: parsed.
        field: that problems are told of.
    """

    text: str
    tree: ast.expr
    field: str

    @property
    def names(self) -> list[str]:
        """Columns that it reads, in order."""
        return list(
            dict.fromkeys(_name(node.id) for node in ast.walk(self.tree) if isinstance(node, ast.Name))
        )

    def __call__(self, columns: Mapping[str, ArrayLike], rows: int) -> Array:
        """Its values, (n,).

        Args:
            columns: by name, each (n,) or a number.
            rows: n.

        Raises:
            SpecError: a column is missing, or a value is not a positive number.
        """
        known = [name for name in columns if name not in UNKNOWN]
        missing = [name for name in self.names if name not in known]
        if missing:
            raise SpecError(
                [Problem(self.field, n, choices(n, known, "the columns mapped:")) for n in missing]
            )
        with np.errstate(all="ignore"):
            found = np.array(np.broadcast_to(_value(self.tree, columns), (rows,)), dtype=float)
        wrong = np.flatnonzero(~(np.isfinite(found) & (found > 0.0)))
        if wrong.size:
            given = f"{self.text} is {found[wrong[0]]:g} in {rows_in_words(wrong + 1)}"
            raise SpecError([Problem(self.field, given, "a positive number in every row")])
        return found


def parse_expression(text: str, field: str = "cost") -> Expression:
    """Reads an expression.

    Args:
        field: that problems are told of.

    Raises:
        SpecError: it is none; what is wrong is named.
    """
    if len(text) > LONGEST:
        raise SpecError([Problem(field, f"{len(text)} characters", f"at most {LONGEST}")])
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        _check(tree, field)
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        raise SpecError([Problem(field, short(text), GRAMMAR)]) from None
    return Expression(text.strip(), tree, field)


def _check(node: ast.expr, field: str) -> None:
    match node:
        case ast.BinOp(left, symbol, right) if type(symbol) in OPERATIONS:
            _check(left, field)
            _check(right, field)
        case ast.UnaryOp(ast.USub() | ast.UAdd(), operand):
            _check(operand, field)
        case ast.Constant(int() | float() as value) if not isinstance(value, bool):
            if not abs(value) < 1e300:
                raise SpecError([Problem(field, short(ast.unparse(node)), "a number below 1e300")])
        case ast.Name():
            pass
        case _:
            raise SpecError([Problem(field, short(ast.unparse(node)), GRAMMAR)])


def _value(node: ast.expr, columns: Mapping[str, ArrayLike]) -> Array:
    match node:
        case ast.BinOp(left, symbol, right):
            return OPERATIONS[type(symbol)](_value(left, columns), _value(right, columns))
        case ast.UnaryOp(symbol, operand):
            value = _value(operand, columns)
            return -value if isinstance(symbol, ast.USub) else value
        case ast.Name(name):
            return np.asarray(columns[_name(name)], dtype=float)
        case _:
            assert isinstance(node, ast.Constant) and isinstance(node.value, int | float)
            return np.asarray(float(node.value))


def _name(name: str) -> str:
    return ALIASES.get(name, name)
