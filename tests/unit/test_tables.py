"""Tables of runs: files, the mapping, what is derived, and what is refused or warned of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.tables import read_table
from sweeps.mapping import Term, format_mapping, parse_mapping, parse_term
from sweeps.tables import MAX_ROWS, TableError, Warning, group, observe, read

N = np.array([1e7, 1e7, 1e8, 1e8, 1e9, 1e9])
D = np.array([2e8, 4e8, 2e9, 4e9, 2e10, 4e10])
LOSS = 1.7 + 400 * N**-0.34 + 410 * D**-0.28
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)


def warned(notes: tuple[Warning, ...]) -> dict[str, str]:
    """Messages by code."""
    return {note.code: note.message for note in notes}


def refused(columns: dict[str, Any], mapping: str | None = None, **more: Any) -> str:
    """What is said of a table that cannot be used."""
    with pytest.raises(TableError) as caught:
        observe(columns, mapping, **more)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("D", Term("D")),
        ("Model Size", Term("Model Size")),
        ("1e9*D", Term("D", 1e9)),
        ("D * 1e9", Term("D", 1e9)),
        ("2048*bsz", Term("bsz", 2048.0)),
        ("2 * bsz * 1024", Term("bsz", 2048.0)),
        ("train/loss (nats)", Term("train/loss (nats)")),
        ('"a=b, *c"', Term("a=b, *c")),
        ("'it''s'", Term("it's")),
        ("3*'4'", Term("4", 3.0)),
        ("7", Term("7")),
    ],
)
def test_a_column_with_its_factor(text: str, term: Term) -> None:
    assert parse_term(text) == term
    assert parse_mapping(f"x = {text}, y=z") == {"x": term, "y": Term("z")}
    assert parse_term(str(term)) == term


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda name: name != "batch_tokens"),
        st.builds(Term, NAMES, st.floats(1e-30, 1e30)),
        min_size=1,
        max_size=5,
    )
)
def test_a_mapping_survives_being_written_down(mapping: dict[str, Term]) -> None:
    assert parse_mapping(format_mapping(mapping)) == mapping


@pytest.mark.parametrize(
    "text", ["", "params", "params=", "=N", "a b=N", "a=b=c", "a=b*c", "a=0*b", "a=1e999*b"]
)
def test_a_mapping_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(TableError, match="allowed: quantity=column"):
        parse_mapping(text)


def test_every_part_of_a_mapping_that_is_wrong_is_named() -> None:
    with pytest.raises(TableError) as caught:
        parse_mapping("params=N, params=M, tokens, loss=L")
    assert [problem.given for problem in caught.value.problems] == ["params twice", "'tokens'"]


@given(st.floats(1e-12, 1e12), st.booleans())
def test_a_factor_is_a_unit(factor: float, left: bool) -> None:
    term = f"{factor!r}*D" if left else f"D*{factor!r}"
    found = observe({"N": N, "D": D / factor, "L": LOSS}, f"params=N, tokens={term}, loss=L")
    np.testing.assert_allclose(found.columns["tokens"], D, rtol=1e-12)
    assert not found.notes


def test_what_is_missing_is_derived() -> None:
    table = {"N": N, "D": D, "C": 6 * N * D, "B": np.full(6, 5e5) * [1, 2, 1, 2, 1, 2], "L": LOSS}
    full = observe(table, "params=N, tokens=D, flops=C, batch_tokens=B, loss=L")
    assert full.derived == {"steps": "tokens / batch"}
    assert full.mapping == "params=N, tokens=D, flops=C, batch=B, loss=L"
    for left_out, how in (
        ("params", "flops / (6 tokens)"),
        ("tokens", "flops / (6 params)"),
        ("flops", "6 params tokens"),
    ):
        mapping = parse_mapping("params=N, tokens=D, flops=C, batch=B, loss=L")
        del mapping[left_out]
        found = observe(table, mapping)
        assert found.derived == {left_out: how, "steps": "tokens / batch"}
        for name, column in full.columns.items():
            np.testing.assert_allclose(found.columns[name], column, rtol=1e-12)
    steps = observe(
        {"N": N, "S": D / table["B"], "B": table["B"], "L": LOSS}, "params=N, steps=S, batch=B, loss=L"
    )
    assert list(steps.derived) == ["tokens", "flops"]
    experts = observe(
        {"N": 8 * N, "A": N, "C": 6 * N * D, "L": LOSS}, "params=N, active_params=A, flops=C, loss=L"
    )
    assert experts.derived == {"tokens": "flops / (6 active_params)"}
    np.testing.assert_allclose(experts.columns["tokens"], D)
    assert observe({"N": N, "L": LOSS}, "params=N, loss=L").derived == {}


def test_columns_may_be_quantities_already() -> None:
    found = observe({"params": N, "batch_tokens": D / 1e3, "steps": np.full(6, 1e3), "loss": LOSS})
    np.testing.assert_allclose(found.columns["tokens"], D)


def test_a_column_that_is_not_there_is_named_with_what_there_is() -> None:
    table = {"Model Size": N, "Training FLOP": D, "loss": LOSS}
    said = refused(table, "params=Model size, flops=Training FLOP, loss=los")
    assert (
        "map.params: given 'Model size'; allowed: a column of the table: Model Size, Training FLOP, loss"
        in said
    )
    assert "(did you mean Model Size?)" in said
    assert "(did you mean loss?)" in said
    assert "allowed: a mapping with loss=COLUMN" in refused(table, "params=Model Size")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 2, None, 4, 5], "1 missing or NaN in row 3"),
        ([1, 2, np.nan, 4, np.inf], "1 missing or NaN and 1 infinite in rows 3, 5"),
        (["1", "2", "", "4", "5"], "1 missing or NaN in row 3"),
        ([1, "x", 3, True, 5], "'x' in rows 2, 4"),
        (["1", "two", "3", "4", "5"], "'two' in row 2"),
        ([[1], [2], [3], [4], [5, 6]], "[1] in rows 1, 2, 3, 4, 5"),
        ([1, 2, 0, 4, -5], "0 in rows 3, 5"),
        ([1, 2, -3, 4, 5], "-3 in row 3"),
        ([-1] * 5, "-1 in rows 1, 2, 3, 4, 5"),
    ],
)
@pytest.mark.parametrize("name", ["loss", "params", "own"])
def test_values_that_are_no_numbers_above_0_are_counted(values: list[Any], said: str, name: str) -> None:
    column = np.array(values, dtype=object)
    table = {"loss": [5, 4, 3, 2, 1], "params": [1, 2, 3, 4, 5], "own": [1, 2, 3, 4, 5]} | {name: column}
    assert f"{name}={name}: given {said}; allowed: " in refused(table)


def test_numbers_as_text_are_numbers() -> None:
    assert (
        observe({"params": ["1e7", " 2e7", "3e7", "4e7"], "loss": ["4", "3", "2", "1"]}).columns["params"][1]
        == 2e7
    )


def test_a_quantity_keeps_to_its_range() -> None:
    table = {"loss": [4, 3, 2, 1], "kept": [0.5, 0.6, 60, 1], "experts": [0.5, 1, 2, 3]}
    said = refused(table)
    assert "kept=kept: given 60 in row 3; allowed: share of the data kept: 1e-06 to 1" in said
    assert "experts=experts: given 0.5 in row 1; allowed: experts a layer: from 1" in said
    huge = {"params": np.full(4, 1e200) * [1, 2, 3, 4], "tokens": np.full(4, 1e200), "loss": [4, 3, 2, 1]}
    assert "flops (6 params tokens): given inf in rows" in refused(huge)


def test_too_few_and_too_many_rows_are_refused() -> None:
    assert "table: given 3 rows; allowed: at least 4" in refused({"params": N[:3], "loss": LOSS[:3]})
    assert "table: given 0 rows" in refused({"params": [], "loss": []})
    assert "table: given 0 rows; allowed: at least 1" in refused({"params": [], "loss": []}, to_fit=False)
    assert len(observe({"params": N[:1], "loss": LOSS[:1]}, to_fit=False)) == 1
    many = np.arange(1.0, 1e6 + 1)
    said = refused({"params": many, "loss": many})
    assert f"given 1,000,000 rows; allowed: at most {MAX_ROWS:,}; keep one row a run" in said
    assert "one row in 10" in said
    assert "columns of one length" in refused({"params": N, "loss": LOSS[:4]})
    assert "columns of one length" in refused({"params": N, "loss": np.ones((6, 2))})


def test_constant_columns() -> None:
    found = observe({"params": np.full(6, 1e8), "tokens": D, "loss": LOSS})
    assert "params is 1e+08 in every row: laws of it cannot be fitted" in warned(found.notes)["constant"]
    assert "loss=loss: given 2 in every row" in refused({"params": N, "loss": np.full(6, 2.0)})
    held = observe({"params": np.full(6, 1e8), "tokens": D, "loss": np.full(6, 2.0)}, to_fit=False)
    assert not held.notes[1:]
    assert "constant" not in warned(held.notes)


@pytest.mark.parametrize(
    ("n", "d", "advice"),
    [
        (1.0, 1e9, ["map tokens=1e9*D"]),
        (1.0, 1e6, ["map tokens=1e6*D"]),
        (1e9, 1.0, ["map params=1e9*N"]),
        (1e6, 1.0, ["map params=1e6*N"]),
        (1e9, 1e9, ["map params=1e9*N", "map tokens=1e9*D"]),
        (1e6, 1e9, ["map params=1e6*N", "map tokens=1e9*D"]),
        (1.0, 1.0, []),
    ],
)
def test_units_that_do_not_fit_are_guessed(n: float, d: float, advice: list[str]) -> None:
    found = observe({"N": N / n, "D": D / d, "L": LOSS}, "params=N, tokens=D, loss=L")
    said = [note.message for note in found.notes if note.code == "units"]
    assert len(said) == len(advice)
    for message, words in zip(said, advice, strict=True):
        assert words in message


def test_units_that_are_mixed_are_noticed() -> None:
    mixed = observe({"params": N, "tokens": np.where(np.arange(6) == 4, D / 1e9, D), "loss": LOSS})
    assert "row 5 look as if in another unit" in warned(mixed.notes)["units"]
    wrong = observe({"params": N, "tokens": D, "flops": 6e-9 * N * D, "loss": LOSS})
    assert "flops is 1e-09 times 6 params tokens" in warned(wrong.notes)["units"]


def test_rows_that_are_there_twice() -> None:
    table = {
        "params": [*N, N[0], N[1]],
        "tokens": [*D, D[0], D[1]],
        "loss": [*LOSS, LOSS[0], 3.0],
        "seed": [1] * 8,
    }
    found = warned(observe(table, "params=params, tokens=tokens, loss=loss").notes)
    assert "count twice: row 7;" in found["duplicates"]
    assert "8 rows of 6 configurations" in found["replicates"]
    assert "not mapped (seed)" in found["replicates"]
    assert not observe({"params": N, "tokens": D, "loss": LOSS}).notes


def test_a_name_that_is_nearly_a_quantity() -> None:
    found = observe({"parms": N, "loss": LOSS})
    assert "did you mean params?" in warned(found.notes)["unknown_quantity"]
    assert not observe({"dropout": np.linspace(0.1, 0.5, 6), "loss": LOSS}).notes


def test_groups() -> None:
    table = {"N": N, "recipe": ["b", "b", "a", "b", "a", "a"], "k": [1.0, 1.0, 2.0, 2.0, 2.0, 3.0]}
    found = group(table, "recipe")
    assert list(found) == ["b", "a"]
    np.testing.assert_array_equal(found["a"]["N"], N[[2, 4, 5]])
    assert list(group(table, "k")) == ["1.0", "2.0", "3.0"]
    with pytest.raises(TableError, match="did you mean recipe"):
        group(table, "recipes")
    with pytest.raises(TableError, match="recipe empty in row 2"):
        group({"recipe": ["a", None]}, "recipe")
    with pytest.raises(TableError, match="1,000 values; allowed: a column with at most 200"):
        group({"recipe": np.arange(1000)}, "recipe")


def test_columns_that_no_law_reads_may_be_zero() -> None:
    table = read({"loss": [1, 2], "seed": [0, 1]}, parse_mapping("loss=loss, seed=seed"), free=["seed"])
    assert table["seed"].tolist() == [0.0, 1.0]


def frame() -> pd.DataFrame:
    """A table with a gap, text and names that hold spaces."""
    return pd.DataFrame({"Model Size": N, "D": D, "loss": LOSS, "who": [*"abcde", None]})


@pytest.mark.parametrize(
    "name", ["a.csv", "b.tsv", "c.txt", "d.parquet", "e.jsonl", "f.json", "g.CSV", "h.ndjson"]
)
def test_files_of_every_kind(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    kind = path.suffix.lower()
    if kind == ".parquet":
        frame().to_parquet(path)
    elif kind == ".json":
        path.write_text(frame().to_json(orient="records"))
    elif kind in (".jsonl", ".ndjson"):
        path.write_text(frame().to_json(orient="records", lines=True))
    else:
        frame().to_csv(path, index=False, sep={".csv": ",", ".tsv": "\t", ".txt": ";"}[kind])
    table = read_table(path)
    assert list(table) == ["Model Size", "D", "loss", "who"]
    found = observe(table, "params=Model Size, tokens=D, loss=loss")
    np.testing.assert_allclose(found.columns["loss"], LOSS, rtol=1e-9)
    assert list(table["who"][:5]) == [*"abcde"]
    assert table["who"][5] is None or table["who"][5] != table["who"][5]


def test_a_csv_with_spaces_a_mark_and_one_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffN, loss\n1, 2\n3, 4\n".encode())
    assert {name: column.tolist() for name, column in read_table(path).items()} == {
        "N": [1, 3],
        "loss": [2, 4],
    }
    path.write_text("loss\n1\n2\n")
    assert read_table(path)["loss"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", None, "No such file"),
        ("a.xlsx", b"x", "allowed: a file that ends with .csv, .tsv, .txt, .parquet"),
        ("a.csv", b"", "no rows; allowed: a table with a header and rows"),
        ("a.csv", b"N,loss\n", "no rows"),
        ("a.csv", b"N,N,loss\n1,2,3\n", "N more than once"),
        ("a.csv", b"N,loss\n1,2\n1,2,3,4\n", "line 3"),
        ("a.csv", b"\xff\xfe\x00N\n", "allowed: a csv file"),
        ("a.parquet", b"not parquet", "allowed: a parquet file"),
        ("a.parquet", b"", "no rows"),
        ("a.jsonl", b"{}{}\n", "allowed: a jsonl file"),
        ("a.jsonl", b"[1, 2]\n", "is no object"),
        ("a.json", b"[]", "no rows"),
        ("a.jsonl", b"{}\n{}\n", "no rows"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TableError) as caught:
        read_table(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(TableError, match="a file that can be read"):
        read_table(tmp_path / "a.csv")


def test_gaps_in_json_lines_are_gaps(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"params": n, "loss": float(loss)} for n, loss in zip(N, LOSS, strict=True)]
    del rows[2]["loss"]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert "loss=loss: given 1 missing or NaN in row 3" in refused(read_table(path))
