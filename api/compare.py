"""``scalewise compare``: two recipes, as two groups of one table or as two tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from numpy.typing import ArrayLike
from rich.console import Group, RenderableType
from rich.text import Text

from api import render
from api.arguments import UsageError, numbers
from api.fits import Laws, Map, Own, Seed, Table, Transfer, own_laws, quantities, usage
from api.tables import Columns, read_table
from api.terminal import Json, console, print_json
from sweeps.compare import Comparison, compare
from sweeps.mapping import parse_mapping
from sweeps.posterior import Quantiles
from sweeps.race import Race
from sweeps.study import fit
from sweeps.tables import group as split
from sweeps.tables import observe


def command(
    file: Table,
    map_: Map,
    other: Annotated[Path | None, typer.Argument(help="A second table, in place of --group.")] = None,
    group: Annotated[str | None, typer.Option(help="Column whose values are the recipes.")] = None,
    between: Annotated[str | None, typer.Option(help="Two of its values, A,B, where it has more.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", "--at", help="Where: params=25e9,tokens=5e11, or flops=1e22 along the path."
        ),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            help="Held fixed as compute grows: params=1e9, tokens_per_param=20; else its best split."
        ),
    ] = None,
    span: Annotated[
        str | None, typer.Option("--range", help="FLOPs between which a crossing is looked for: 1e20,1e25.")
    ] = None,
    hours: Annotated[
        str | None, typer.Option(help="FLOPs an accelerator-hour of each recipe: A=3e17,B=2e17.")
    ] = None,
    tokens_per_hour: Annotated[
        str | None, typer.Option(help="Tokens an accelerator-hour instead; needs --path params=...")
    ] = None,
    laws: Laws = "auto",
    law: Own = None,
    transfer: Transfer = "none",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Compares two recipes: which is better at a target, where their curves cross, what one is worth.

    Example: scalewise compare runs.csv --map "params=N, tokens=D, loss=loss" --group optimizer
    --target params=25e9,tokens=5e11 --hours adamw=3e17,muon=2.8e17
    """
    with usage():
        own_laws(law)
        asked, fixed = quantities(target), quantities(path)
        names = "auto" if laws == "auto" else [name.strip() for name in laws.split(",")]
        mapping = parse_mapping(map_)
        at = None if asked is None or set(asked) == {"flops"} else asked
        about: dict[str, ArrayLike] | None = None if asked is None else {**asked}
        (one, first), (two, second) = _recipes(file, other, group, between)
        labels, rates = (one, two), hours if hours is not None else tokens_per_hour
        studies = (
            fit(observe(first, mapping), laws=names, target=about, seed=seed, transfer=transfer),
            fit(observe(second, mapping), laws=names, target=about, seed=seed, transfer=transfer),
        )
        found = compare(
            studies[0],
            studies[1],
            at,
            asked["flops"] if asked and at is None else None,
            along=fixed,
            span=_span(span),
            hours=_rates(rates, labels),
            per_hour="flops" if hours is not None else "tokens",
            names=labels,
            seed=seed,
        )
    notes = [
        {"recipe": name, "code": one.code, "message": one.message}
        for name, study in zip(labels, studies, strict=True)
        for one in study.warnings
    ]
    if json:
        rule = studies[0].checklist["transfer"]
        print_json({"comparison": found, "fits": notes, "transfer": rule})
        return
    told = [(f"warning {note['code']}", f"{note['recipe']}: {note['message']}") for note in notes]
    console().print(shown(found, told))


def shown(found: Comparison, notes: list[tuple[str, str]] | None = None) -> RenderableType:
    """A comparison for people."""
    at = f"{render.number(found.flops)} FLOPs" if found.at is None else render.at(found.at)
    held = f"along {render.at(found.along)}" if found.along else "each at its compute-optimal split"
    parts: list[RenderableType] = [Text(f"at {at}", "bold"), _losses(found)]
    for race in (found.compute, found.hours):
        if race is not None:
            parts += ["", Text(f"at equal {race.unit}, {held}", "bold"), render.facts(_race(found, race))]
    warnings = [(f"warning {one.code}", one.message) for one in found.warnings] + (notes or [])
    if warnings:
        parts += ["", render.facts((code, Text(words, "yellow")) for code, words in warnings)]
    return Group(*parts)


def _losses(found: Comparison) -> RenderableType:
    made = render.table("", "loss", "90 %", "for a new run", "better", right=("loss", "better"))
    for name in found.recipes:
        mean, new = found.mean.loss[name], found.new.loss[name]
        better = f"{found.mean.better[name]:.1%}, one run {found.new.better[name]:.1%}"
        made.add_row(name, f"{mean.median:.4f}", _ends(mean), _ends(new), better)
    mean, new = found.mean.difference, found.new.difference
    made.add_row("difference", f"{mean.median:+.4f}", _ends(mean), _ends(new), "")
    return made


def _race(found: Comparison, race: Race) -> Iterator[tuple[str, RenderableType]]:
    one, two = found.recipes
    crossing, gain = race.crossing, race.gain
    ends = f"{render.number(crossing.low)} to {render.number(crossing.high)} {race.unit}"
    yield "they cross", f"with probability {crossing.probability:.1%} in {ends}"
    if crossing.at is not None:
        beyond = ", ".join(f"{name} {share:.1%}" for name, share in crossing.above.items())
        yield "", f"at {_three(crossing.at)}; then better beyond: {beyond}"
    for rank in race.ranking:
        chance = ", ".join(f"{name} {share:.1%}" for name, share in rank.better.items())
        yield f"better at {render.number(rank.amount)}", chance
    words = f"1 with {two} is worth {_three(gain.multiple)} with {one}, at {render.number(gain.at)} of {one}"
    if gain.unreached > 0.0:
        words += f"; with probability {gain.unreached:.1%} no amount reaches it"
    yield "multiple", words
    yield "", f"to first order {_three(gain.local)}"


def _three(one: Quantiles) -> str:
    return f"{render.number(one.median)} (90 %: {render.number(one.low)} to {render.number(one.high)})"


def _ends(one: Quantiles) -> str:
    return f"{one.low:.4f} to {one.high:.4f}"


def _recipes(
    file: Path, other: Path | None, group: str | None, between: str | None
) -> tuple[tuple[str, Columns], tuple[str, Columns]]:
    """The names and tables of two recipes."""
    if (other is None) == (group is None):
        raise UsageError("given neither or both; allowed: a second table, or --group COLUMN")
    table = read_table(file)
    if group is None:
        assert other is not None
        names = (file.name, other.name) if file.name != other.name else (str(file), str(other))
        return (names[0], table), (names[1], read_table(other))
    parts = split(table, group)
    chosen = [*parts] if between is None else [name.strip() for name in between.split(",")]
    if len(chosen) != 2 or not set(chosen) <= set(parts) or chosen[0] == chosen[1]:
        given = f"{group} with the values {', '.join([*parts][:20])}" if between is None else between
        raise UsageError(f"given {given}; allowed: two of {', '.join([*parts][:20])}, as --between A,B")
    return (chosen[0], parts[chosen[0]]), (chosen[1], parts[chosen[1]])


def _rates(text: str | None, names: tuple[str, str]) -> tuple[float, float] | None:
    if text is None:
        return None
    given = numbers([part.strip() for part in text.split(",")])
    if set(given) != set(names):
        raise UsageError(f"given {text}; allowed: a throughput each, {names[0]}=3e17,{names[1]}=2e17")
    return given[names[0]], given[names[1]]


def _span(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"given --range {text}; allowed: two numbers, such as 1e20,1e25") from None
    return low, high
