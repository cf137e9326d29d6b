"""The cost of runs as an expression: what it may hold, and what is said of one that makes no sense."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.arithmetic import parse_expression
from sweeps.errors import SpecError

TABLE = {"params": np.array([1e6, 2e6]), "tokens": np.array([1e8, 3e8]), "batch": np.array([8.0, 16.0])}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6*params*tokens", [6e14, 3.6e15]),
        ("6 * (params + 2e6) * tokens / 2", [9e14, 3.6e15]),
        ("params**0.5", [1e3, 2e6**0.5]),
        ("-1 + 2", [1.0, 1.0]),
        ("+tokens - -tokens", [2e8, 6e8]),
        ("batch_tokens*params", [8e6, 3.2e7]),
    ],
)
def test_values(text: str, expected: list[float]) -> None:
    assert parse_expression(text)(TABLE, 2) == pytest.approx(expected)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_it_means_what_python_means(a: float, b: float) -> None:
    text = "3*a + (a - b)**2/b + 2**0.5"
    found = parse_expression(text)({"a": a, "b": b}, 1)
    assert found == pytest.approx([3 * a + (a - b) ** 2 / b + 2**0.5])


@pytest.mark.parametrize(
    "text",
    [
        "", "6 params", "6*", "params.x", "f(params)", "__import__('os')", "'a'", "True", "1j", "params[0]",
        "params if 1 else 2", "lambda: 1", "params @ tokens", "params // 2", "params % 2", "~params", "\0",
        "params, tokens", "x := 1", "1e400", "9" * 390,
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="cost: given"):
        parse_expression(text)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(SpecError, match=r"given parms; allowed: .*params, tokens.*did you mean params\?"):
        parse_expression("6*parms*tokens")(TABLE, 2)
    with pytest.raises(SpecError, match="given loss"):  # not known before a run is paid for
        parse_expression("loss")(TABLE | {"loss": np.ones(2)}, 2)
    with pytest.raises(SpecError, match="is -1e\\+06 in row 2; allowed: a positive number in every row"):
        parse_expression("params*(2 - batch/8) - 1e6")(TABLE | {"params": np.array([2e6, 1e6])}, 2)
    with pytest.raises(SpecError, match="is inf in rows 1, 2"):
        parse_expression("params**tokens")(TABLE, 2)
    with pytest.raises(SpecError, match="500 characters; allowed: at most 400"):
        parse_expression("1" * 500)
