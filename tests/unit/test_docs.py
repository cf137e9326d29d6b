"""The documents say what the code does: the catalogue of laws, a law of one's own, the warnings, proxies."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps import allocation
from sweeps.data import GLYPHS, SOURCES, STDLIB
from sweeps.kinds import BUILT_IN
from sweeps.laws import (
    LAWS,
    asymptotes,
    critical_batch,
    experts,
    modules,
    overtraining,
    pools,
    power,
    precision,
    pruning,
    regimes,
    repetition,
    saturation,
    shape,
    sigmoid,
    streams,
    vocabulary,
)
from sweeps.laws.base import Law
from sweeps.proxy import Proxy
from sweeps.shapes import STRATEGIES
from sweeps.space import candidates
from sweeps.spec import parse

ROOT = Path(__file__).resolve().parents[2]
LAWS_PAGE, WARNINGS_PAGE = ROOT / "docs" / "laws.md", ROOT / "docs" / "warnings.md"
PROXIES_PAGE = ROOT / "docs" / "proxies.md"
CATALOGUE, CLOSED = (
    re.compile(rf"(<!-- {name}:.*?-->\n)(.*?)(<!-- end of the {name} -->)", re.DOTALL)
    for name in ("catalogue", "closed forms")
)
FORMS: tuple[Callable[..., Any], ...] = (
    allocation.additive_optimum, allocation.additive_cheapest, allocation.power_multiple, power.reached_at,
    critical_batch.critical_batch, critical_batch.least_steps, critical_batch.least_examples,
    critical_batch.hyperbola, critical_batch.allocation, overtraining.best_ratio, overtraining.cheapest,
    repetition.best_split, asymptotes.without_limit, asymptotes.tokens_for, asymptotes.data_efficiency,
    pools.mixed, pruning.pool_for, experts.dense_params, modules.best_modules, modules.least_params,
    shape.best_width, vocabulary.best_vocab_params, streams.worth, streams.streams_for,
    precision.critical_tokens, precision.worth, precision.cheapest_bits, precision.after_training,
    saturation.compute_for, saturation.log_linear, sigmoid.midpoint, regimes.label,
)  # fmt: skip


def shipped() -> list[Law]:
    """The laws of the package, without what other tests register."""
    return [law for law in LAWS.values() if not law.source.startswith("our notes")]


def catalogue() -> str:
    """The table of laws."""
    lines = ["", "| name | formula | reads | source |", "|---|---|---|---|"]
    for law in shipped():
        of = "" if law.measures == "loss" else f" (a law of the {law.measures})"
        formula, source = (text.replace("|", r"\|") for text in (law.formula, law.source))
        lines.append(f"| `{law.name}` | {formula}{of} | {', '.join(law.columns)} | {source} |")
    return "\n".join([*lines, "", ""])


def closed_forms() -> str:
    """The table of functions of a law's constants."""
    lines = ["", "| function | of | tells |", "|---|---|---|"]
    for form in FORMS:
        told = " ".join((inspect.getdoc(form) or "").split("\n\n")[0].split()).replace("``", "`")
        given = ", ".join(inspect.signature(form).parameters)
        lines.append(f"| `{form.__name__}({given})` | `{form.__module__}` | {told} |")
    return "\n".join([*lines, "", ""])


def snippet() -> str:
    """The law of one's own that the documentation shows."""
    found = re.search(r"```python\n(# mylaws\.py\n.*?)```", LAWS_PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def codes(*without: str) -> set[str]:
    """Every code of a warning in the code, but for some modules; what is filled in is a star."""
    found = set()
    for path in [*(ROOT / "sweeps").rglob("*.py"), *(ROOT / "api").rglob("*.py")]:
        if any(word in str(path.relative_to(ROOT)) for word in without):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            given: list[ast.expr] = []
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Warning":
                given = [*node.args[:1], *(key.value for key in node.keywords if key.arg == "code")]
            elif isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                given = [
                    value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "code"
                ]
            for one in given:
                if isinstance(one, ast.Constant):
                    found.add(str(one.value))
                elif isinstance(one, ast.JoinedStr):
                    parts = (
                        str(part.value) if isinstance(part, ast.Constant) else "*" for part in one.values
                    )
                    found.add("".join(parts))
    return found


def test_the_catalogue_is_the_code() -> None:
    found = CATALOGUE.search(LAWS_PAGE.read_text())
    assert found is not None
    assert found[2] == catalogue(), "run python tests/unit/test_docs.py"


def test_the_closed_forms_are_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    found = CLOSED.search(LAWS_PAGE.read_text())
    assert found is not None
    assert found[2] == closed_forms(), "run python tests/unit/test_docs.py"
    (example,) = re.findall(r"```python\n(from sweeps import fit\n.*?)```", LAWS_PAGE.read_text(), re.DOTALL)
    exec(compile(example, "docs/laws.md", "exec"), {})
    assert re.fullmatch(r"\d+ tokens a parameter\n", capsys.readouterr().out)


def test_a_law_of_ones_own_takes_twenty_lines() -> None:
    lines = [line for line in snippet().splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 20


def test_the_example_of_sharing_is_one() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "devices.md").read_text(), re.DOTALL)
    at = {"width": 8, "depth": 1, "tokens": 100_000}
    given = {"name": "example", "space": at, "targets": [{"at": at}]}
    assert parse(given | yaml.safe_load(example)).resources.sharing == "measured"


def test_the_examples_of_the_parametrisation_print_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "parametrisation.md").read_text()
    examples = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    for code, printed in examples:
        exec(compile(code, "docs/parametrisation.md", "exec"), {})
        assert capsys.readouterr().out == printed


def test_every_warning_is_explained() -> None:
    told = re.findall(r"^\| `([^`]+)` \| \S.* \| \S.* \|$", WARNINGS_PAGE.read_text(), re.MULTILINE)
    assert len(told) == len(set(told))
    assert codes("curve") <= set(told) <= codes()


def test_specifications_of_proxies_are_accepted() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", PROXIES_PAGE.read_text(), re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        spec = parse({"name": "example"} | yaml.safe_load(example))
        assert len(candidates(spec)) >= spec.strategy.first_batch


def test_the_example_of_costs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PROXIES_PAGE.read_text(), re.DOTALL)
    exec(compile(example, "docs/proxies.md", "exec"), {})
    assert re.fullmatch(r"\d+ parameters, \S+ FLOPs a sample\n", capsys.readouterr().out)


def test_every_axis_and_kind_is_told() -> None:
    text = PROXIES_PAGE.read_text()
    told = set(re.findall(r"`(\w+)`", text))
    axes = {
        name
        for kind in BUILT_IN.values()
        for source in map(SOURCES.get, kind.datasets)
        if source
        for name in kind.axes(source)
    }
    assert axes | {*BUILT_IN} | {*STRATEGIES} <= told


@pytest.mark.parametrize("kind", BUILT_IN)
def test_the_formulas_of_counts_are_the_code(kind: str) -> None:
    """Each formula of the table, read as Python: ``2 w^2`` is ``2*w**2``."""
    (row,) = re.findall(
        rf"^\| `{kind}`.* \| (`.*`) \| (`.*`) a \w+ \|$", PROXIES_PAGE.read_text(), re.MULTILINE
    )
    told = [re.sub(r"(?<=[\w)])\s*(?=[(])|(?<=[\w)]) (?=\w)", "*", text.replace("^", "**"))
            for text in re.findall(r"`(.*?)`", ", ".join(row))]  # fmt: skip
    source = STDLIB if kind == "gpt" else GLYPHS
    names = {"w": 24.0, "d": 3.0, "r": 32.0, "p": 4.0, "T": 64.0, "C": source.channels, "O": source.outputs}
    shape = {"width": 24.0, "depth": 3.0, "resolution": 32.0, "patch": 4.0, "group_width": 0.0}
    cost = BUILT_IN[kind].cost(shape | {"batch": 2.0, "tokens": 1e5}, Proxy(kind), source)
    counted = [cost[f"params_{name}"] for name in ("embedding", "body", "head")]
    counted.append(cost["flops"] / cost["tokens_seen"] / 3.0)
    assert [eval(text, {}, names) for text in told] == pytest.approx([float(one) for one in counted])


if __name__ == "__main__":
    text = CATALOGUE.sub(lambda m: m[1] + catalogue() + m[3], LAWS_PAGE.read_text())
    LAWS_PAGE.write_text(CLOSED.sub(lambda m: m[1] + closed_forms() + m[3], text))
