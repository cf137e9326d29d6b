"""The documents say what the code does: the catalogue of laws, a law of one's own, the warnings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from sweeps.laws import LAWS
from sweeps.laws.base import Law

ROOT = Path(__file__).resolve().parents[2]
LAWS_PAGE, WARNINGS_PAGE = ROOT / "docs" / "laws.md", ROOT / "docs" / "warnings.md"
CATALOGUE = re.compile(r"(<!-- catalogue:.*?-->\n)(.*?)(<!-- end of the catalogue -->)", re.DOTALL)


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


def test_a_law_of_ones_own_takes_twenty_lines() -> None:
    lines = [line for line in snippet().splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 20


def test_every_warning_is_explained() -> None:
    told = re.findall(r"^\| `([^`]+)` \| \S.* \| \S.* \|$", WARNINGS_PAGE.read_text(), re.MULTILINE)
    assert len(told) == len(set(told))
    assert codes("curve") <= set(told) <= codes()


if __name__ == "__main__":
    LAWS_PAGE.write_text(CATALOGUE.sub(lambda m: m[1] + catalogue() + m[3], LAWS_PAGE.read_text()))
