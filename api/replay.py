"""``scalewise replay``: what every way to choose runs would have known of a recorded table, for what cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from api import render, replay_report
from api.arguments import UsageError
from api.fits import Laws, Map, Own, Seed, Table, named, of_group, own_laws, picture, quantities, usage
from api.tables import Columns, read_table
from api.terminal import Json, console, print_json
from sweeps.arithmetic import parse_expression
from sweeps.mapping import parse_mapping
from sweeps.plot_panels import panels_html, panels_png
from sweeps.recorded import task_of
from sweeps.replay import Task
from sweeps.replay_score import ALLOWED, Score, Unanswered, campaign, check, summarise
from sweeps.tables import group as split
from sweeps.wording import choices

INTERRUPTED = 130  # exit status after Ctrl-C

Scores = list[Score | Unanswered]


def command(
    file: Table,
    map_: Map,
    test: Annotated[Path | None, typer.Option(help="Runs to predict; never bought.")] = None,
    target: Annotated[
        str | None, typer.Option(help="What is asked about instead: params=25e9,tokens=5e11.")
    ] = None,
    cost: Annotated[
        str | None, typer.Option(help="Of a run, over mapped columns: 6*params*tokens; else training FLOPs.")
    ] = None,
    budget: Annotated[
        str, typer.Option(help="Shares of the cost of all runs, with commas.")
    ] = "0.01,0.05,0.10",
    strategy: Annotated[
        str, typer.Option(help=f"Ways to choose, with commas: {', '.join(ALLOWED)}.")
    ] = "informative,random",
    repeats: Annotated[int, typer.Option(help="Replays of each, with other draws.", min=1, max=1000)] = 3,
    leave_out: Annotated[
        float,
        typer.Option(help="Share of the runs that a repeat hides from all strategies.", min=0.0, max=0.9),
    ] = 0.0,
    group: Annotated[str | None, typer.Option(help="Column whose values are replayed apart.")] = None,
    laws: Laws = "auto",
    law: Own = None,
    plot: Annotated[
        list[Path] | None, typer.Option(help="Picture to write, .html or .png; may be repeated.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Lets strategies spend a budget on recorded runs and compares what they then know.

    A run's loss is seen once its cost is paid. Ctrl-C shows what is done so far.

    Example: scalewise replay train.parquet --test test.parquet --map "params=N, tokens=D, loss=loss"
    --cost "6*params*tokens" --budget 0.01,0.05 --strategy informative,random --repeats 10
    """
    with usage():
        mapping, asked = parse_mapping(map_), quantities(target)
        own_laws(law)
        names: str | list[str] = "auto" if laws == "auto" else [name.strip() for name in laws.split(",")]
        price = None if cost is None else parse_expression(cost)
        shares, strategies = _shares(budget), _strategies(strategy)
        plots = [picture(path) for path in plot or []]
        if (test is None) == (asked is None):
            raise UsageError("given neither or both; allowed: --test TABLE, or --target QUANTITIES")
        table, held = read_table(file), None if test is None else read_table(test)
        tasks: dict[str, Task] = {}
        for label, columns, rest in _parts(table, held, group):
            with named(f"{file.name}, {group} {label}" if label else ""):
                tasks[label] = task_of(columns, mapping, price, test=rest, target=asked, laws=names)
                check(tasks[label], strategies)
    found: dict[str, Any] = {}
    complete = True
    for label, task in tasks.items():
        title = file.name + (f", {group} {label}" if label else "")
        replays = partial(campaign, task, strategies, shares, repeats, seed, leave_out=leave_out)
        scores, complete = _play(replays, len(strategies) * len(shares) * repeats, title)
        if not any(isinstance(one, Score) for one in scores):
            if not complete:
                break
            with usage():
                raise UsageError(f"{title}: no replay came to an answer; {_first_reason(scores)}")
        told: dict[str, Any] = {"file": str(file), "group": label or None}
        told |= replay_report.document(task, scores, strategies)
        told |= {
            "cost": {"expression": cost or "flops", "total": float(task.flops.sum())},
            "asked": _asked(task, test, asked),
            "budgets": shares,
            "repeats": repeats,
            "leave_out": leave_out,
            "seed": seed,
            "complete": complete,
        }
        found[label] = told
        _draw(scores, plots, title, label)
        if not json:
            console().print(replay_report.tables(told, title))
        if not complete:
            break
    if json and found:
        print_json(found[""] if group is None else {"group": group, "groups": found})
    if not complete:
        raise typer.Exit(INTERRUPTED)


def _play(
    replays: Callable[..., Iterator[Score | Unanswered]], total: int, title: str
) -> tuple[Scores, bool]:
    """The replays that were made, and whether these are all."""
    scores: Scores = []

    with _progress() as tell:

        def during(strategy: str, share: float, repeat: int, runs: int, spent: float) -> None:
            words = f"{title}: {strategy} at {100 * share:.3g}%, repeat {repeat + 1}: {runs} runs"
            tell(f"{words}, {spent:.0%} spent ({len(scores)} of {total} done)", False)

        try:
            for one in replays(tell=during):
                scores.append(one)
                answer = (
                    f"{one.runs} runs, {one.spent:.3%} of the cost" if isinstance(one, Score) else one.reason
                )
                where = f"{one.strategy} at {100 * one.share:.3g}%, repeat {one.repeat + 1}"
                tell(f"{title}: {where}: {answer} ({len(scores)} of {total})", True)
        except KeyboardInterrupt:
            typer.echo(f"stopped after {len(scores)} of {total} replays", err=True)
            return scores, False
    return scores, True


def _first_reason(scores: Scores) -> str:
    return next(one.reason for one in scores if isinstance(one, Unanswered))


@contextmanager
def _progress() -> Iterator[Callable[[str, bool], None]]:
    """A way to tell how far things are: a line that changes on a terminal, one for each end elsewhere."""
    out = Console(stderr=True, highlight=False)
    if not out.is_terminal:
        yield lambda words, is_end: typer.echo(words, err=True) if is_end else None
        return
    with out.status("") as status:
        yield lambda words, _: status.update(Text(words))


def _parts(
    table: Columns, held: Columns | None, group: str | None
) -> Iterator[tuple[str, Columns, Columns | None]]:
    """Each group with its test; one without a name where there are no groups."""
    if group is None:
        yield "", table, held
        return
    parts, tests = split(table, group), None if held is None else split(held, group)
    if tests is not None and (odd := sorted(set(parts) ^ set(tests))):
        both = ", ".join([name for name in parts if name in tests][:20]) or "none"
        raise UsageError(f"{group} {', '.join(odd[:20])} in one of the tables alone; in both: {both}")
    for label, columns in parts.items():
        yield label, columns, None if tests is None else tests[label]


def _shares(text: str) -> list[float]:
    found = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = 0.0
        if not 0.0 < value <= 1.0:
            raise UsageError(
                f"given --budget {part.strip()}; allowed: shares above 0 and at most 1, 0.01,0.05"
            )
        found.append(value)
    return sorted(set(found))


def _strategies(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in ALLOWED:
            raise UsageError(f"given --strategy {name}; allowed: {choices(name, ALLOWED)}")
    return names


def _asked(task: Task, test: Path | None, target: dict[str, float] | None) -> dict[str, Any]:
    rows = len(task.asked["flops"])
    words = f"{rows:,} rows of {test.name}" if test is not None else render.at(target or {})
    return {"test": None if test is None else str(test), "target": target, "rows": rows, "words": words}


def _draw(scores: Scores, plots: Sequence[Path], title: str, label: str) -> None:
    panels = replay_report.panels(summarise(scores))
    for path in plots if panels else ():
        x = "budget (% of the cost of all runs)"
        is_png = path.suffix.lower() == ".png"
        content = panels_png(panels, title, x) if is_png else panels_html(panels, title, x).encode()
        of_group(path, label).write_bytes(content)
