"""Which column of a table is which quantity, as one line of text.

``params=N, tokens=1e9*D, loss=loss``: a quantity, and its column with constant factors on either side. A
column whose name holds ``,``, ``=``, ``*`` or a quote stands in quotes, with a quote in it doubled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sweeps.errors import Problem, SpecError
from sweeps.wording import short

ALIASES = {"batch_tokens": "batch"}
QUOTES = "\"'"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class TableError(SpecError):
    """A table of runs, or its mapping, makes no sense."""


@dataclass(frozen=True)
class Term:
    """Where a quantity comes from: a column times a constant above 0."""

    column: str
    factor: float = 1.0

    def __str__(self) -> str:
        name = self.column
        if name != name.strip() or set(name) & set(",=*" + QUOTES) or _NUMBER.fullmatch(name):
            name = '"' + name.replace('"', '""') + '"'
        if self.factor == 1.0:
            return name
        brief = f"{self.factor:g}"
        text = brief if float(brief) == self.factor else repr(self.factor)
        return f"{re.sub(r'e[+]?0*', 'e', text)}*{name}"


Mapped: TypeAlias = Mapping[str, Term]


def parse_mapping(text: str, aliases: Mapping[str, str] = ALIASES) -> dict[str, Term]:
    """Reads a mapping.

    Args:
        aliases: other names of quantities.

    Raises:
        TableError: with a problem per part that is wrong.
    """
    found: dict[str, Term] = {}
    problems = []
    for part in _split(text, ","):
        name, *rest = (piece.strip() for piece in _split(part, "="))
        name = aliases.get(name, name)
        term = _term(rest[0]) if len(rest) == 1 else None
        if not name.isidentifier() or term is None:
            allowed = (
                "quantity=column or quantity=factor*column, such as tokens=1e9*D; "
                "a column with , = or * in its name stands in quotes"
            )
            problems.append(Problem("map", short(part.strip()), allowed))
        elif name in found:
            problems.append(Problem("map", f"{name} twice", "each quantity once"))
        else:
            found[name] = term
    if problems:
        raise TableError(problems)
    return found


def parse_term(text: str) -> Term:
    """Reads one column with its factor.

    Raises:
        TableError: it is none.
    """
    term = _term(text.strip())
    if term is None:
        raise TableError([Problem("column", short(text), "a column, or a factor times a column: 1e9*D")])
    return term


def format_mapping(mapping: Mapped) -> str:
    """A mapping as text; ``parse_mapping`` gives it back."""
    return ", ".join(f"{name}={term}" for name, term in mapping.items())


def _split(text: str, at: str) -> list[str]:
    """Splits outside of quotes, which open where a column may begin."""
    parts, quote, begins = [""], "", True
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in QUOTES and (begins or parts[-1].endswith(letter)):  # the second of two opens again
            quote = letter
        elif letter == at:
            parts.append("")
            begins = True
            continue
        parts[-1] += letter
        begins = not quote and (letter in ",=*" or (begins and letter.isspace()))
    return parts


def _term(text: str) -> Term | None:
    pieces = [piece.strip() for piece in _split(text, "*")]
    names = [i for i, piece in enumerate(pieces) if not _NUMBER.fullmatch(piece)] or [len(pieces) - 1]
    factor = math.prod(float(piece) for i, piece in enumerate(pieces) if i not in names)
    column = pieces[names[0]]
    if len(column) >= 2 and column[0] in QUOTES and column[-1] == column[0]:
        column = column[1:-1].replace(column[0] * 2, column[0])
    return Term(column, factor) if len(names) == 1 and column and 0.0 < factor < math.inf else None
