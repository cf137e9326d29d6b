"""``scalewise allocate``: what to train for compute or a loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any

import typer
from numpy.typing import ArrayLike
from rich.console import Group, RenderableType
from rich.text import Text

from api import render
from api.arguments import UsageError
from api.fits import Laws, Map, Own, Seed, Table, Transfer, own_laws, usage
from api.tables import read_table
from api.terminal import Json, show_found
from sweeps.allocate import Plan, Reach, Worth, allocate, cheapest, gain_worth
from sweeps.mapping import parse_mapping
from sweeps.posterior import Quantiles
from sweeps.study import Study, fit
from sweeps.tables import Warning, observe


@dataclass(frozen=True)
class Answer:
    """What is told: plans for compute, or the compute for a loss, or the worth of gains."""

    file: str
    rows: int
    laws: dict[str, float]
    transfer: str
    plans: list[Plan]
    reach: Reach | None
    gains: list[Worth]
    warnings: tuple[Warning, ...]
    served: float
    unique_tokens: float | None


def command(
    file: Table,
    map_: Map,
    flops: Annotated[list[float] | None, typer.Option(help="Compute to spend; may be repeated.")] = None,
    loss: Annotated[float | None, typer.Option(help="A loss to reach with the least compute.")] = None,
    gain: Annotated[
        float | None, typer.Option(help="A drop of the loss: how many times --flops it is worth.")
    ] = None,
    served: Annotated[
        float, typer.Option(help="Tokens the model will process once trained; the compute pays for them too.")
    ] = 0.0,
    unique_tokens: Annotated[
        float | None, typer.Option(help="Unique tokens there are; needs laws of repeated data.")
    ] = None,
    laws: Laws = "auto",
    law: Own = None,
    transfer: Transfer = "none",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Tells what to train: parameters and tokens for compute or for a loss, what a lower loss is worth.

    Example: scalewise allocate runs.csv --map "params=N, tokens=D, loss=loss" --flops 1e22 --flops 1e23
    --served 2e12
    """
    with usage():
        own_laws(law)
        amounts = flops or []
        if bool(amounts) == (loss is not None) or (gain is not None and not amounts):
            raise UsageError("allowed: --flops C, --loss L, or --gain dL --flops C; give one of these")
        if wrong := [amount for amount in amounts if not 0.0 < amount < float("inf")]:
            raise UsageError(f"given --flops {wrong[0]:g}; allowed: a number above 0")
        observed = observe(read_table(file), parse_mapping(map_))
        names = "auto" if laws == "auto" else [name.strip() for name in laws.split(",")]
        given: dict[str, Any] = {"served": served, "unique_tokens": unique_tokens}

        def study(top: float | None) -> Study:
            """The laws are asked to hold at the most compute that is asked about."""
            target: dict[str, ArrayLike] | None = None if top is None else {"flops": top}
            return fit(observed, laws=names, target=target, seed=seed, transfer=transfer)

        made = study(max(amounts, default=None))
        reach = None if loss is None else cheapest(made, loss, **given)
        if loss is not None and reach is not None and 1.0 < reach.extrapolation < float("inf"):
            made = study(reach.extrapolation * made.ensemble.largest_flops)
            reach = cheapest(made, loss, **given)
        plans = [allocate(made, amount, **given) for amount in amounts if gain is None]
        gains = [gain_worth(made, amount, gain, **given) for amount in amounts if gain is not None]
    weights = dict(sorted(made.ensemble.laws.items(), key=lambda item: -item[1]))
    found = Answer(
        str(file),
        len(observed),
        weights,
        made.checklist["transfer"],
        plans,
        reach,
        gains,
        made.warnings,
        **given,
    )
    show_found(found, json, lambda: _shown(found))


def _shown(found: Answer) -> RenderableType:
    """An answer for people."""
    rows: list[tuple[str, RenderableType]] = [("table", f"{found.file}: {found.rows:,} runs")]
    rows.append(("laws", ", ".join(f"{name} {weight:.1%}" for name, weight in found.laws.items())))
    if found.served:
        rows.append(("served", f"{_number(found.served)} tokens, which the compute pays for too"))
    if found.unique_tokens is not None:
        rows.append(("unique", f"{_number(found.unique_tokens)} tokens, which repeat beyond"))
    parts: list[RenderableType] = [render.facts(rows), ""]
    if found.plans:
        parts.append(_plans(found.plans, found.served > 0.0))
    if found.reach is not None:
        parts.append(render.facts(_reach(found.reach)))
    parts += [render.facts(_worth(one)) for one in found.gains]
    answers: list[Plan | Reach | Worth] = [*found.plans, *found.gains]
    answers += [found.reach] if found.reach is not None else []
    lost = max(one.undecided for one in answers)
    if lost > 0.0:
        parts.append(Text(f"{lost:.1%} of the draws find no best split and are left out", "yellow"))
    told = [(f"at {_number(one.flops)} FLOPs: ", w) for one in found.plans for w in one.warnings]
    told += [("", w) for w in (*(found.reach.warnings if found.reach else ()), *found.warnings)]
    if told:
        notes = ((f"warning {w.code}", Text(f"{where}{w.message}", "yellow")) for where, w in told)
        parts += ["", render.facts(notes)]
    return Group(*parts)


def _plans(plans: list[Plan], served: bool) -> RenderableType:
    names = ("FLOPs", *(("to train",) if served else ()), "parameters", "90 %", "tokens", "90 % ")
    made = render.table(*names, "loss", "mean", "a new run", right=(*names, "loss"))
    for one in plans:
        amounts = (one.flops, one.training) if served else (one.flops,)
        sizes = (text for size in (one.params, one.tokens) for text in (_number(size.median), _ends(size)))
        ends = (f"{of.low:.4f} to {of.high:.4f}" for of in (one.loss, one.new))
        made.add_row(*map(_number, amounts), *sizes, f"{one.loss.median:.4f}", *ends)
    return made


def _reach(one: Reach) -> Iterator[tuple[str, RenderableType]]:
    yield "loss", f"{one.loss:.4f}, the mean over seeds"
    for name, size in (("FLOPs", one.flops), ("parameters", one.params), ("tokens", one.tokens)):
        yield name, f"{_number(size.median)} (90 %: {_ends(size)})"
    yield "out of reach", f"with probability {one.unreached:.1%} no compute is enough"


def _worth(one: Worth) -> Iterator[tuple[str, RenderableType]]:
    yield "gain", f"{one.gain:g} of loss at {_number(one.flops)} FLOPs"
    yield "is worth", f"{_number(one.multiple.median)} times the compute (90 %: {_ends(one.multiple)})"
    yield "out of reach", f"with probability {one.unreached:.1%} no compute is enough"


def _ends(one: Quantiles) -> str:
    return f"{_number(one.low)} to {_number(one.high)}"


def _number(value: float) -> str:
    return render.number(value) if isfinite(value) else "out of reach"
