"""``scalewise ladder``: a fixed ladder, its cost, and what the informative plan would cost instead."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from api import render
from api.arguments import UsageError, numbers, read_settings, read_spec
from api.terminal import Json, client, show_found
from sweeps.ladder import KIND, LadderPlan, plan_ladder, read_ladder
from sweeps.spec import SweepSpec, parse

Source = Annotated[
    str | None, typer.Argument(help="A preset of conf/sweep, or a .yaml or .json file; else --spec.")
]
Overrides = Annotated[list[str] | None, typer.Argument(help="Changes to it, such as budget.flops=1e13.")]


def command(
    context: typer.Context,
    source: Source = None,
    overrides: Overrides = None,
    spec: Annotated[
        str | None,
        typer.Option(help="A preset or file that is planned here, without a service; seconds stay unknown."),
    ] = None,
    kind: Annotated[
        str, typer.Option(help="sizes, multiples (sizes x tokens a parameter), isoflop or l_shape.")
    ] = "sizes",
    sizes: Annotated[int, typer.Option(help="Models, evenly in ln N; of each profile.", min=2, max=64)] = 5,
    tokens_per_param: Annotated[
        str | None, typer.Option(help="Tokens a parameter: 20, or for multiples 5,10,20,40.")
    ] = None,
    computes: Annotated[str | None, typer.Option(help="FLOPs of the profiles: 1e12,1e13.")] = None,
    at: Annotated[
        str | None, typer.Option(help="Hyperparameters of the rungs: lr=3e-3,batch=16; else the middle.")
    ] = None,
    json: Json = False,
) -> None:
    """Plans a fixed ladder over the space of a sweep; nothing is started.

    Beside it stands what the informative plan would cost for the same expected interval.

    The service knows how long its runs took; --spec needs none.

    Example: scalewise ladder gpt_stdlib --kind multiples --tokens-per-param 5,10,20
    """
    if kind not in KIND:
        raise UsageError(f"given --kind {kind}; allowed: {', '.join(KIND)}")
    read_settings()
    changes = [*([source] if spec and source else []), *(overrides or [])]
    if not (where := spec or source):
        raise UsageError("given no sweep; allowed: a preset or file, or one after --spec")
    given = read_spec(where, changes)
    asked: dict[str, Any] = {
        "kind": kind,
        "sizes": sizes,
        "tokens_per_param": _list("--tokens-per-param", tokens_per_param),
        "computes": _list("--computes", computes),
        "at": numbers([part.strip() for part in at.split(",")]) if at else {},
    }
    found = plan_ladder(parse(given), read_ladder(asked)) if spec else client(context).ladder(given, asked)
    show_found(found, json, lambda: _shown(parse(given), found))


def _list(option: str, text: str | None) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise UsageError(f"given {option} {text}; allowed: numbers with commas between, 5,10,20") from None


def _shown(spec: SweepSpec, found: LadderPlan) -> RenderableType:
    varied = [name for name in found.rungs[0].config if len({one.config[name] for one in found.rungs}) > 1]
    names = [name for name in varied if name != "tokens"]
    columns = (*names, "parameters", "tokens", "FLOPs", "time", "memory")
    made = render.table(*columns, right=columns)
    for one in found.rungs:
        made.add_row(
            *(render.number(one.config[name]) for name in names),
            render.number(one.params),
            render.number(one.tokens),
            render.number(one.flops),
            render.duration(one.seconds),
            render.size(one.memory),
        )
    rows: list[tuple[str, RenderableType]] = [
        ("ladder", f"{found.kind}, {len(found.rungs)} runs"),
        ("FLOPs", render.number(found.flops)),
        ("time", render.duration(found.seconds)),
        ("memory", f"{render.size(found.memory)} for the largest run"),
    ]
    for target in spec.targets:
        before, after = (of[target.name] for of in (found.half_width_before, found.half_width_after))
        rows.append((f"target {target.name}", f"+-{after:.1%} expected after it, +-{before:.0%} before"))
    rows.append(("informative", _beside(found)))
    rows += [("warning", Text(text, "yellow")) for text in found.warnings]
    return Group(made, "", render.facts(rows))


def _beside(found: LadderPlan) -> str:
    other = found.informative
    if other is None:
        return "no plan for such intervals within four times the ladder's FLOPs"
    words = f"{other.runs} runs, {render.number(other.flops)} FLOPs for the same intervals"
    if other.seconds is not None:
        words += f", {render.duration(other.seconds)}"
    return f"{words}: {other.ratio:.2g} times the ladder's"
