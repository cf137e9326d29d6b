"""Tables of runs from files: CSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sweeps.errors import Problem
from sweeps.mapping import TableError
from sweeps.wording import short

Columns = dict[str, NDArray[Any]]

MAX_BYTES = 2 << 30
DELIMITERS = ",;\t|"
SAMPLE = 65_536  # characters that a delimiter is guessed from


def read_table(path: Path) -> Columns:
    """The columns of a file by name, gaps as None or NaN.

    The ending says what it is: ``.csv``, ``.tsv`` and ``.txt`` (comma, semicolon, tab or bar), ``.parquet``,
    ``.jsonl`` and ``.ndjson``, or ``.json`` (a list of objects, or one object a line).

    Raises:
        TableError: there is no such file, it is none of these, or it holds no rows.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise _wrong(path, f"a file that ends with {', '.join(READERS)}")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise _wrong(
                path, f"at most {MAX_BYTES >> 30} GiB; keep the last point of each run", f"{size:,} bytes"
            )
        frame = reader(path) if size else pd.DataFrame()
    except OSError as error:
        raise _wrong(path, "a file that can be read", error.strerror or str(error)) from None
    except (ValueError, csv.Error) as error:  # all that pandas and pyarrow say of a broken file
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _wrong(path, f"a {path.suffix.lower().lstrip('.')} file", first) from None
    if not len(frame) or not len(frame.columns):
        raise _wrong(path, "a table with a header and rows", "no rows")
    names = [str(name).strip() for name in frame.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _wrong(path, "a name of its own for every column", f"{', '.join(twice)} more than once")
    return {name: _plain(frame.iloc[:, place]) for place, name in enumerate(names)}


def _csv(path: Path) -> pd.DataFrame:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = file.read(SAMPLE)
    line = header.splitlines()[0] if header.splitlines() else ""
    delimiter = max(DELIMITERS, key=line.count)  # names hold spaces, so csv.Sniffer would guess wrong
    names = next(csv.reader([line], delimiter=delimiter), [])
    frame = pd.read_csv(path, sep=delimiter, encoding="utf-8-sig", skipinitialspace=True, index_col=False)
    if len(names) == len(frame.columns):  # as they are written: pandas renames one that stands twice
        frame.columns = pd.Index(names)
    return frame


def _parquet(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path).reset_index(drop=True)


def _json(path: Path) -> pd.DataFrame:
    text = path.read_text(encoding="utf-8-sig").strip()
    rows = (
        json.loads(text)
        if text.startswith("[")
        else [json.loads(line) for line in text.splitlines() if line.strip()]
    )
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{short(row)} in row {number} is no object of names with values")
    return pd.DataFrame(rows)


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _csv,
    ".parquet": _parquet,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
}


def _plain(column: pd.Series) -> NDArray[Any]:
    """A column without the types of pandas."""
    known = isinstance(column.dtype, np.dtype)
    plain: NDArray[Any] = (column if known else column.astype(object).where(column.notna(), None)).to_numpy()
    return plain


def _wrong(path: Path, allowed: str, given: str | None = None) -> TableError:
    return TableError([Problem("file", f"{path}" + (f": {given}" if given else ""), allowed)])
