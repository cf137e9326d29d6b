"""Data sets of the settings: what an entry may say, and where they are loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import conf
import sweeps.data
from api.app import create_app
from sweeps.data import SOURCES, STDLIB, TEACHER, DataError, Source, load, read, register
from workers.__main__ import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"
OWT = {"reader": "tokens", "path": "/data/owt", "vocabulary": 50257}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    known = set(SOURCES)
    yield
    for name in set(SOURCES) - known:
        del sweeps.data._BY_NAME[name]


def test_an_entry_is_a_source() -> None:
    assert read("owt", OWT) == Source(
        "owt", "tokens", "tokens", 50257, "nats/token", options={"path": "/data/owt", "bits": 16}
    )
    cells = read("cells", {"reader": "npz", "path": "c.npz", "classes": 7, "channels": 3, "resolution": 32})
    assert (cells.task, cells.outputs, cells.unit, cells.inputs(32)) == ("classes", 7, "nats/image", 3072)
    rows = read("rows", {"reader": "npz", "path": "r.npz", "outputs": 2, "features": 9})
    assert (rows.task, rows.outputs, rows.unit, rows.inputs(1), rows.guessing) == (
        "values", 2, "squared error", 9, 1.0
    )  # fmt: skip
    assert read("big", OWT | {"vocabulary": 100_000}).options["bits"] == 32
    assert read("imdb", {"reader": "huggingface", "path": "imdb", "text": "text"}).outputs == 256
    assert read("teacher", {"reader": "teacher"}) == TEACHER


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (None, "data.own: given None; allowed: keys with values, reader among them"),
        ({"path": "x"}, "data.own.reader: given nothing; allowed: one of tokens, npz"),
        (OWT | {"reader": "token"}, "given 'token'; allowed: .*did you mean tokens"),
        (OWT | {"vocab": 9}, "data.own.vocab: given unknown key 'vocab'; .*did you mean vocabulary"),
        (OWT | {"vocabulary": 1}, "data.own.vocabulary: given 1; allowed: at least 2"),
        (OWT | {"vocabulary": True}, "data.own.vocabulary: given True; allowed: a number or text"),
        (OWT | {"bits": 8}, "data.own.bits: given 8"),
        (OWT | {"path": ""}, "data.own.path: given ''; allowed: some text"),
        ({"reader": "npz", "path": "x", "features": 3}, "data.own.classes: given nothing; allowed: either"),
        ({"reader": "npz", "path": "x", "classes": 3}, "data.own.features: given nothing; allowed: either"),
        ({"reader": "images", "path": "x", "classes": 3, "channels": 2}, "data.own.channels: given 2"),
        ({"reader": "huggingface", "path": "x"}, "data.own.text: given nothing; allowed: the column"),
        ({"reader": "huggingface", "path": "x", "image": "img"}, "data.own.classes: given nothing"),
        ({"reader": "teacher", "exponent": 0}, "data.own.exponent: given 0; allowed: a number above 0"),
    ],
)
def test_a_wrong_entry_names_its_key(entry: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read("own", entry)


def test_a_name_is_taken_once() -> None:
    (owt,) = load({"owt": OWT})
    assert SOURCES["owt"] is owt
    assert register(read("owt", dict(OWT))) == owt
    with pytest.raises(DataError, match="given 'owt'; allowed: a name of its own"):
        load({"owt": OWT | {"path": "/elsewhere"}})
    with pytest.raises(DataError, match="'stdlib'"):
        load({STDLIB.name: OWT})
    with pytest.raises(DataError, match=r"data: given '\.\./x'; allowed: a name of letters"):
        load({"../x": OWT})


def test_settings_name_data_sets() -> None:
    assert conf.load()["data"] == {}
    given = "data.owt={reader:tokens,path:/data/owt,vocabulary:50257}"
    assert conf.load(given)["data"] == {"owt": OWT}
    assert conf.load(given, "data.owt.vocabulary=9")["data"]["owt"]["vocabulary"] == 9
    assert conf.load("data={a:{reader:teacher}}")["data"] == {"a": {"reader": "teacher"}}
    with pytest.raises(ValueError, match="data sets by name"):
        conf.load("data=3")


def test_the_service_loads_them(tmp_path: Path) -> None:
    create_app(conf.load("data.t2={reader:teacher,features:32}"))
    assert SOURCES["t2"].features == 32
    with pytest.raises(ValueError, match=re.escape("data.t3.reader: given 'teach'")):
        create_app(conf.load("data.t3={reader:teach}"))
    assert main(["data.t3={reader:teach}", f"home={tmp_path}"]) == 2


def test_the_documented_entries_can_be_read() -> None:
    (block,) = re.findall(r"```yaml\n(data:\n.*?)```", PAGE.read_text(), re.DOTALL)
    entries = yaml.safe_load(block)["data"]
    assert {source.reader for source in load(entries)} == set(sweeps.data.ENTRIES)
    for reader, kind in sweeps.data.ENTRIES.items():
        (section,) = re.findall(rf"\n## `{reader}`\n(.*?)(?=\n## |\Z)", PAGE.read_text(), re.DOTALL)
        told = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
        assert told | {"reader", "unit"} == set(kind.__dataclass_fields__), reader


def test_the_documented_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(import torch\n.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(example, "docs/data.md", "exec"), {})
    assert capsys.readouterr().out == "torch.Size([4, 16, 1, 24, 24]) torch.Size([4, 16])\n"
