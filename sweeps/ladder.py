"""Fixed ladders, for those who want one: their rungs, their cost, and what they are expected to tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sweeps.answers import SHAPE_WEIGHT
from sweeps.axis import STRICT, Axis
from sweeps.bounds import problems, untied
from sweeps.checks import least_steps
from sweeps.cost import SecondsModel
from sweeps.errors import Problem, SpecError
from sweeps.laws.base import Array
from sweeps.prospects import Outlook, cheapest_plan, outlook
from sweeps.scaling import SIZE
from sweeps.space import Table, cover, tabulate, tabulate_configs
from sweeps.spec import Config, SweepSpec
from sweeps.surface import surface
from sweeps.wording import problems as in_words

MULTIPLES = (0.5, 1.0, 2.0, 4.0)  # of the space's middle tokens a parameter, where none are given
PROFILES = 3  # of equal compute, where none are given
STEP = 2.0  # between the sizes of a profile
LEAST_SIZES = 3  # of a profile
MAX_RUNGS = 1000

Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Ladder:
    """A ladder as it is asked for.

    Args:
        kind: ``sizes`` at one number of tokens a parameter; ``multiples`` of it at every size; ``isoflop``
            profiles, sizes at equal compute (Hoffmann et al. 2022, approach 2); ``l_shape``, the smallest
            model at all tokens and all models at the least tokens (arXiv 2608.07222), with every setting of
            the hyperparameters where both are smallest.
        sizes: models, spaced evenly in ln N over the shapes of the space; of each profile.
        tokens_per_param: D / N; by default that in the middle of the space, and ``MULTIPLES`` of it.
        computes: FLOPs of the profiles; by default three, spaced evenly within those of the space.
        at: hyperparameters of the rungs; an axis that is left out is at its middle.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["sizes", "multiples", "isoflop", "l_shape"] = "sizes"
    sizes: Annotated[int, Field(ge=2, le=64)] = 5
    tokens_per_param: Annotated[tuple[Positive, ...], Field(max_length=16)] = ()
    computes: Annotated[tuple[Positive, ...], Field(max_length=16)] = ()
    at: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rung:
    """One run of a ladder.

    Args:
        config: value of every axis.
        params: N by the count that the sweep's laws read.
        tokens: D, really seen.
        flops, seconds, memory: its cost; seconds None without a calibration.
    """

    config: Config
    params: float
    tokens: float
    flops: float
    seconds: float | None
    memory: float


@dataclass(frozen=True)
class Informative:
    """The runs that the strategy ``informative`` would choose for intervals as narrow as a ladder's.

    Args:
        runs, flops, seconds: of its plan.
        ratio: of its FLOPs to the ladder's.
    """

    runs: int
    flops: float
    seconds: float | None
    ratio: float


@dataclass(frozen=True)
class LadderPlan:
    """What a ladder costs and is expected to tell.

    Args:
        kind: of the ladder.
        rungs: its runs, cheapest first.
        flops, seconds: of all of them; seconds None without a calibration.
        memory: peak bytes of the largest.
        half_width_before, half_width_after: of the 90 % interval at each target, relative, by the laws'
            priors alone and after the ladder.
        informative: plan for the same intervals; None where four times the ladder's compute does not do.
        warnings: what is allowed but probably not meant.
    """

    kind: str
    rungs: tuple[Rung, ...]
    flops: float
    seconds: float | None
    memory: float
    half_width_before: dict[str, float]
    half_width_after: dict[str, float]
    informative: Informative | None
    warnings: tuple[str, ...]


def read_ladder(given: Mapping[str, Any]) -> Ladder:
    """Reads what is asked of a ladder.

    Raises:
        SpecError: with one problem per field that is wrong.
    """
    try:
        return TypeAdapter(Ladder).validate_python(dict(given))
    except ValidationError as error:
        found = in_words(error.errors(include_url=False), Ladder)
        raise SpecError([replace(one, field=f"ladder.{one.field}") for one in found]) from None


def plan_ladder(spec: SweepSpec, ladder: Ladder, seconds: SecondsModel | None = None) -> LadderPlan:
    """Plans a ladder over the shapes of a sweep's space; nothing is started.

    Args:
        seconds: learned from a calibration or from finished runs.

    Raises:
        SpecError: the space has no such ladder.
    """
    _check(spec, ladder)
    configs = {tuple(config.items()): config for config in KIND[ladder.kind](spec, ladder)}
    if len(configs) > MAX_RUNGS:
        allowed = f"at most {MAX_RUNGS}; use fewer values of the hyperparameters"
        raise SpecError([Problem("ladder", f"{len(configs)} rungs", allowed)])
    table = tabulate_configs(spec, list(configs.values()))
    table = table.take(np.argsort(table["flops"], kind="stable"))
    _check_rungs(spec, ladder, table)
    took = None if seconds is None else seconds.of(table.columns)
    before, after = outlook(spec, None), outlook(spec, table)
    return LadderPlan(
        kind=ladder.kind,
        rungs=tuple(_rung(spec, table, row, took) for row in range(len(table))),
        flops=float(table["flops"].sum()),
        seconds=None if took is None else float(took.sum()),
        memory=float(table["memory"].max()),
        half_width_before=before.half_widths,
        half_width_after=after.half_widths,
        informative=_informative(spec, after, float(table["flops"].sum()), seconds),
        warnings=tuple(_warnings(spec, table, seconds)),
    )


def _rung(spec: SweepSpec, table: Table, row: int, seconds: Array | None) -> Rung:
    return Rung(
        config=table.config(row),
        params=float(table[_count(spec)][row]),
        tokens=float(table["tokens_seen"][row]),
        flops=float(table["flops"][row]),
        seconds=None if seconds is None else float(seconds[row]),
        memory=float(table["memory"][row]),
    )


def _informative(
    spec: SweepSpec, wanted: Outlook, flops: float, seconds: SecondsModel | None
) -> Informative | None:
    found = cheapest_plan(spec, wanted, flops)
    if found is None:
        return None
    total = float(found["flops"].sum())
    took = None if seconds is None else float(seconds.of(found.columns).sum())
    return Informative(len(found), total, took, total / flops)


# -- kinds --------------------------------------------------------------------------------------------------


def _of_sizes(spec: SweepSpec, ladder: Ladder) -> Iterator[Config]:
    ratios = ladder.tokens_per_param or (_ratio(spec),)
    if len(ratios) > 1:
        given = ", ".join(f"{ratio:g}" for ratio in ratios)
        raise SpecError([Problem("ladder.tokens_per_param", given, "one number; kind multiples takes more")])
    yield from _at_ratios(spec, ladder, ratios)


def _of_multiples(spec: SweepSpec, ladder: Ladder) -> Iterator[Config]:
    ratios = ladder.tokens_per_param or tuple(part * _ratio(spec) for part in MULTIPLES)
    yield from _at_ratios(spec, ladder, ratios)


def _at_ratios(spec: SweepSpec, ladder: Ladder, ratios: Sequence[float]) -> Iterator[Config]:
    for shape, params in _sizes(spec, ladder):
        for ratio in ratios:
            yield shape | {"tokens": float(round(ratio * params))}


def _of_profiles(spec: SweepSpec, ladder: Ladder) -> Iterator[Config]:
    shapes, ratio = (
        _shapes(spec, ladder),
        ladder.tokens_per_param[0] if ladder.tokens_per_param else _ratio(spec),
    )
    per_token = shapes["flops"] / shapes["tokens_seen"]
    spread = STEP ** (np.arange(ladder.sizes) - (ladder.sizes - 1) / 2)
    for compute in ladder.computes or _computes(spec):
        middle = np.sqrt(compute / (6.0 * ratio))
        rows = np.unique([_nearest(spec, shapes, size) for size in middle * spread])
        if len(rows) < min(LEAST_SIZES, ladder.sizes):
            params = shapes[_count(spec)]
            allowed = (
                f"FLOPs whose profile has {LEAST_SIZES} sizes of the space: about "
                f"{6 * ratio * params.min() ** 2:.2g} to {6 * ratio * params.max() ** 2:.2g}"
            )
            raise SpecError([Problem("ladder.computes", f"{compute:g}", allowed)])
        for row in rows:
            yield shapes.config(row) | {"tokens": float(round(compute / per_token[row]))}


def _of_boundary(spec: SweepSpec, ladder: Ladder) -> Iterator[Config]:
    sizes, every = [shape for shape, _ in _sizes(spec, ladder)], np.array(spec.space["tokens"].values)
    if len(every) < 2:
        raise SpecError([Problem("space.tokens", f"{every[0]:g}", "two values or more for an L-shape")])
    wanted = np.geomspace(every[0], every[-1], min(ladder.sizes, len(every)))
    tokens = np.unique([every[np.argmin(np.abs(np.log(every / one)))] for one in wanted])
    yield from (sizes[0] | {"tokens": float(one)} for one in tokens)
    yield from (shape | {"tokens": float(tokens[0])} for shape in sizes)
    axes = [axis.name for axis in surface(spec).axes if axis.name not in ladder.at]
    grid = np.meshgrid(*(spec.space[name].values for name in axes), indexing="ij")
    for values in zip(*(column.ravel().tolist() for column in grid), strict=True):
        yield sizes[0] | {"tokens": float(tokens[0])} | dict(zip(axes, values, strict=True))


KIND = {"sizes": _of_sizes, "multiples": _of_multiples, "isoflop": _of_profiles, "l_shape": _of_boundary}


# -- shapes -------------------------------------------------------------------------------------------------


def _count(spec: SweepSpec) -> str:
    return f"params_{spec.laws.count}"


def _ratio(spec: SweepSpec) -> float:
    """Tokens a parameter in the middle of the space."""
    table = cover(spec)
    return float(f"{np.median(table['tokens_seen'] / table[_count(spec)]):.3g}")


def _computes(spec: SweepSpec) -> list[float]:
    flops = cover(spec)["flops"]
    return [float(one) for one in np.geomspace(flops.min(), flops.max(), PROFILES + 2)[1:-1]]


def _shapes(spec: SweepSpec, ladder: Ladder) -> Table:
    """Every width and depth of the space, or every size, the other axes at their middle."""
    base = spec.complete({name: axis.values[len(axis.values) // 2] for name, axis in spec.space.items()})
    shape = [SIZE] if spec.proxy.scaling else ["width", "depth"]
    grid = np.meshgrid(*(spec.space[name].values for name in shape))
    given = {name: float(value) for name, value in ladder.at.items()}
    return tabulate(spec, base | given | {n: c.ravel() for n, c in zip(shape, grid, strict=True)})


def _nearest(spec: SweepSpec, shapes: Table, params: float) -> int:
    """The shape nearest to a size, among alike ones that most like the first target."""
    target = spec.complete(spec.targets[0].at)
    apart = np.abs(np.log(shapes["width"] / shapes["depth"] * target["depth"] / target["width"]))
    return int(np.argmin(np.abs(np.log(shapes[_count(spec)] / params)) + SHAPE_WEIGHT * apart))


def _sizes(spec: SweepSpec, ladder: Ladder) -> Iterator[tuple[Config, float]]:
    """The ladder's models with their N, smallest first."""
    shapes, count = _shapes(spec, ladder), _count(spec)
    wanted = np.geomspace(shapes[count].min(), shapes[count].max(), ladder.sizes)
    rows = np.unique([_nearest(spec, shapes, size) for size in wanted])
    if len(rows) < ladder.sizes:
        allowed = f"at most {len(rows)}, which the shapes of the space give"
        raise SpecError([Problem("ladder.sizes", str(ladder.sizes), allowed)])
    for row in rows[np.argsort(shapes[count][rows], kind="stable")]:
        yield shapes.config(row), float(shapes[count][row])


# -- checks -------------------------------------------------------------------------------------------------


def _check(spec: SweepSpec, ladder: Ladder) -> None:
    found = []
    if "tokens" in spec.derived:
        allowed = "tokens as an axis; a ladder chooses them itself"
        found.append(Problem("proxy.scaling.tokens", "an expression", allowed))
    for name in ("width", "depth", "tokens", SIZE):
        if name in ladder.at:
            allowed = "hyperparameters; a ladder chooses shapes and tokens itself"
            found.append(Problem(f"ladder.at.{name}", f"{ladder.at[name]:g}", allowed))
    fixed = {name: Axis((float(value),)) for name, value in ladder.at.items()}
    space = dict(spec.space) | fixed
    wrong = [*problems(spec.axes, space, [])]
    if not spec.proxy.scaling:
        wrong += untied(spec.kind, spec.proxy, spec.axes, space, [])
    for problem in wrong:
        found.append(Problem(problem.field.replace("space.", "ladder.at."), problem.given, problem.allowed))
    if ladder.computes and ladder.kind != "isoflop":
        found.append(Problem("ladder.computes", "FLOPs", f"none for the kind {ladder.kind}; use isoflop"))
    if ladder.tokens_per_param and ladder.kind == "l_shape":
        allowed = "none for an L-shape; its tokens are those of space.tokens"
        found.append(Problem("ladder.tokens_per_param", "tokens a parameter", allowed))
    if found:
        raise SpecError(found)


def _check_rungs(spec: SweepSpec, ladder: Ladder, table: Table) -> None:
    least = least_steps(spec.trainer)
    short = np.flatnonzero(table["steps"] < least)
    most = spec.axes["tokens"].upper
    long = np.flatnonzero(table["tokens"] > most)
    for rows, rule in (
        (short, f"rungs of at least {least} steps"),
        (long, f"rungs of at most {most:g} tokens"),
    ):
        if len(rows):
            one = table.config(int(rows[0]))
            given = f"width {one['width']:g}, depth {one['depth']:g} on {one['tokens']:g} tokens"
            what = {"isoflop": "computes", "l_shape": "kind"}.get(ladder.kind, "tokens_per_param")
            raise SpecError([Problem(f"ladder.{what}", given, f"{rule}; change it, or batch and resolution")])


def _warnings(spec: SweepSpec, table: Table, seconds: SecondsModel | None) -> Iterator[str]:
    budget, flops = spec.budget, table["flops"]
    if len(table) > budget.runs:
        yield f"budget.runs: {len(table)} rungs are more than the {budget.runs} runs of the budget"
    if budget.flops is not None and flops.sum() > budget.flops:
        yield f"budget.flops: the ladder takes {flops.sum():.3g} FLOPs, more than {budget.flops:.3g}"
    if budget.flops_per_run is not None and flops.max() > budget.flops_per_run:
        yield f"budget.flops_per_run: the dearest rung takes {flops.max():.3g} FLOPs"
    ratios = np.unique(np.round(np.log(table["tokens_seen"] / table[_count(spec)]), 1))
    if len(ratios) < 2:
        yield "every rung has the same tokens a parameter: no law can tell parameters from tokens by them"
    if seconds is None:
        yield "seconds are unknown until an orchestrator has calibrated a device"
