"""The sweep specification: one type for YAML, HTTP and the database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sweeps.axis import STRICT, AxisField
from sweeps.bounds import ENUMERATED, SAMPLED, configurations, untied
from sweeps.bounds import problems as out_of_bounds
from sweeps.columns import asked
from sweeps.columns import problems as unreadable
from sweeps.cost import Cost
from sweeps.data import SOURCES, Source
from sweeps.errors import Problem, SpecError
from sweeps.kinds import KINDS
from sweeps.kinds.base import Array, AxisRule, Kind, metrics
from sweeps.laws import LAWS
from sweeps.proxy import Proxy
from sweeps.transfer import RULES as TRANSFERS
from sweeps.wording import booleans, choices, problems, short

Config: TypeAlias = dict[str, float]

MIN_STEPS = 10
OWN_OF_MEMBERS = frozenset({"lr", "weight_decay", "beta2", "init_scale", "seed", "tokens"})  # within a cohort


@dataclass(frozen=True)
class Resources:
    """What one run asks Ray for."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    cpus: Annotated[float, Field(gt=0, le=1024)] = 1.0
    gpus: Annotated[float, Field(ge=0, le=64)] = 0.0


@dataclass(frozen=True)
class Target:
    """The large configuration that is asked about.

    Args:
        at: its shape and tokens; learning rate and batch may be left to the prediction.
        name: to speak of it.
        resources: of the run that verifies it; None takes those of the proxies.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    at: dict[str, float]
    name: str = "target"
    resources: Resources | None = None


@dataclass(frozen=True)
class Metric:
    """The number the laws predict."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: str = "val_loss"
    unit: str | None = None
    direction: Literal["minimize", "maximize"] = "minimize"


@dataclass(frozen=True)
class Budget:
    """Hard limits over all proxies of a sweep; None is no limit. At least ``runs`` is limited.

    Args:
        runs: how many.
        flops: training FLOPs.
        device_seconds: seconds times devices.
        flops_per_run: no single proxy may cost more.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    runs: Annotated[int, Field(ge=1, le=100_000)] = 32
    flops: Annotated[float, Field(gt=0)] | None = None
    device_seconds: Annotated[float, Field(gt=0)] | None = None
    flops_per_run: Annotated[float, Field(gt=0)] | None = None


@dataclass(frozen=True)
class Stop:
    """When the answer is sharp enough.

    Args:
        tolerance: relative half-width of the 90 % interval at every target; None spends the budget.
        patience: a run must be expected to narrow the interval by at least this share of it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    tolerance: Annotated[float, Field(gt=0, lt=1)] | None = None
    patience: Annotated[float, Field(ge=0, lt=1)] = 1e-3


@dataclass(frozen=True)
class Strategy:
    """How runs are chosen.

    Args:
        name: ``informative`` narrows the target's interval most per cost; the others are baselines, see
            ``sweeps.baselines``.
        first_batch: runs before the first fit.
        weights: of what ``informative`` is to make certain: ``loss``, each hyperparameter by its name, and
            ``split`` of the compute between parameters and tokens. Each counts by the regret that its
            uncertainty causes at the target times its weight, which is 1 where not given.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Literal["informative", "random", "grid", "cheapest", "cost_random", "d_optimal", "two_term"] = (
        "informative"
    )
    first_batch: Annotated[int, Field(ge=3, le=1000)] = 10
    weights: dict[str, Annotated[float, Field(ge=0)]] = field(default_factory=dict)


@dataclass(frozen=True)
class Laws:
    """Which laws are fitted, and which count of parameters they read.

    Args:
        names: of ``sweeps.laws.LAWS``, or of laws that the service's settings add (docs/laws.md).
            ``chinchilla`` and ``coupled`` read parameters and tokens; ``power`` reads compute alone, for a
            ladder whose runs differ in one thing.
        count: of N.
        transfer: rule of ``sweeps.transfer.RULES`` for how the optimum of hyperparameters moves with scale;
            ``none`` leaves that to weak priors and the runs.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    names: Annotated[tuple[str, ...], Field(min_length=1)] = ("chinchilla", "coupled", "kaplan")
    count: Literal["total", "body", "active"] = "total"
    transfer: str = "none"


@dataclass(frozen=True)
class Trainer:
    """How a run is trained.

    Args:
        optimizer: ``adamw`` (betas 0.9, 0.95) or ``sgd`` (momentum 0.9).
        schedule: ``cosine`` to a tenth of the peak, or ``constant`` and a linear decay at the end.
        warmup: share of the steps with a rising rate.
        decay: share of the steps with a falling rate (``constant`` only).
        precision: of matrix products; ``tf32`` and ``bfloat16`` where the device has them.
        evaluations: evaluation points, log-spaced over the steps.
        eval_tokens: held-out tokens (of images and rows: examples) an evaluation reads.
        clip: gradient norm that is clipped to.
        retries: further attempts after a failure.
        execution: ``compiled`` runs the model through torch.compile, with CUDA graphs on a GPU.
        kernels: ``deterministic`` gives the same numbers bit for bit on a GPU too, at its price.
        batch_rule: how the learning rate follows the batch: in proportion (SGD), by the square root (Adam:
            Granziol et al. 2020, arXiv 2006.09092), or not at all.
        base_batch: at which the rate is the one asked for.
        diagnostics: reported at every evaluation: ``sharpness``, the largest eigenvalue of the training
            loss's Hessian, and ``singular_value``, the mean largest singular value of hidden matrices.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    decay: Annotated[float, Field(ge=0, le=1)] = 0.2
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    evaluations: Annotated[int, Field(ge=1, le=1000)] = 8
    eval_tokens: Annotated[int, Field(ge=64)] = 65_536
    clip: Annotated[float, Field(gt=0)] = 1.0
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    execution: Annotated[Literal["plain", "compiled"], Field(exclude_if=lambda given: given == "plain")] = (
        "plain"
    )
    kernels: Annotated[Literal["fast", "deterministic"], Field(exclude_if=lambda given: given == "fast")] = (
        "fast"
    )
    batch_rule: Annotated[
        Literal["none", "linear", "sqrt"], Field(exclude_if=lambda given: given == "none")
    ] = "none"
    base_batch: Annotated[int, Field(ge=1, exclude_if=lambda given: given == 16)] = 16
    diagnostics: Annotated[
        tuple[Literal["sharpness", "singular_value"], ...], Field(exclude_if=lambda given: not given)
    ] = ()


@dataclass(frozen=True)
class SweepSpec:
    """A researcher's question with its space and budget.

    Args:
        space: axis by name. Axes that the kind of proxy knows and that are left out take its defaults.
        targets: the large configurations asked about.
        seed: of every random choice the scheduler makes.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Annotated[str, Field(min_length=1, max_length=200)]
    space: Annotated[dict[str, AxisField], Field(min_length=1)]
    targets: Annotated[tuple[Target, ...], Field(min_length=1, max_length=16)]
    proxy: Proxy = field(default_factory=Proxy)
    metric: Metric = field(default_factory=Metric)
    strategy: Strategy = field(default_factory=Strategy)
    laws: Laws = field(default_factory=Laws)
    budget: Budget = field(default_factory=Budget)
    stop: Stop = field(default_factory=Stop)
    resources: Resources = field(default_factory=Resources)
    trainer: Trainer = field(default_factory=Trainer)
    seed: Annotated[int, Field(ge=0, lt=1 << 53)] = 0

    @property
    def kind(self) -> Kind:
        """The kind of its proxy."""
        return KINDS[self.proxy.kind]

    @property
    def source(self) -> Source:
        """What its proxies learn."""
        return SOURCES[self.proxy.dataset]

    @property
    def axes(self) -> Mapping[str, AxisRule]:
        """What every axis of its proxy may hold."""
        return self.kind.axes(self.source)

    def costs(self, columns: Mapping[str, ArrayLike]) -> dict[str, Array]:
        """The fields of ``Cost`` of complete configurations as columns, each (n,) or a number."""
        return self.kind.cost(columns, self.proxy, self.source)

    def cost(self, config: Mapping[str, float]) -> Cost:
        """Cost of a complete configuration."""
        return Cost(**{name: float(value) for name, value in self.costs(config).items()})

    def resources_of(self, target: str | None) -> Resources:
        """What a proxy (None) or the run that verifies a target asks for."""
        asked = next((one.resources for one in self.targets if one.name == target), None)
        return asked or self.resources

    def complete(self, config: Mapping[str, float]) -> Config:
        """Fills what a configuration leaves out with the only value of its axis, or the kind's default."""
        filled = {name: rule.default for name, rule in self.axes.items()}
        filled |= {name: axis.values[0] for name, axis in self.space.items() if len(axis.values) == 1}
        filled |= dict(config)
        return {name: value for name, value in filled.items() if value is not None}


_ADAPTER: TypeAdapter[SweepSpec] = TypeAdapter(SweepSpec)


def parse(given: Mapping[str, Any] | SweepSpec, *, stored: bool = False) -> SweepSpec:
    """Reads and checks a specification.

    Args:
        given: a mapping as YAML or JSON give it.
        stored: it was accepted before; laws that are registered no more are then let through.

    Returns:
        The canonical specification: axes expanded and sorted, laws in their order without repeats, the
        metric's unit filled in, weights of 1 left out.

    Raises:
        SpecError: with one problem per field that is wrong.
    """
    raw: Any = to_dict(given) if isinstance(given, SweepSpec) else given
    if not isinstance(raw, Mapping):
        allowed = "keys with values: name, space, targets, budget and others"
        raise SpecError([Problem("spec", short(raw), allowed)])
    _refuse(booleans(raw))
    try:
        spec = _ADAPTER.validate_python(raw)
    except ValidationError as error:
        raise SpecError(problems(error.errors(include_url=False), SweepSpec)) from None
    _refuse(problem for problem in _check(spec) if not (stored and problem.field == "laws.names"))
    spec = _canonical(spec)
    _refuse(_check_budget(spec))
    return spec


def to_dict(spec: SweepSpec) -> dict[str, Any]:
    """The specification as JSON has it; ``parse`` gives it back."""
    return _ADAPTER.dump_python(spec, mode="json")  # type: ignore[no-any-return]


def spec_hash(spec: SweepSpec) -> str:
    """Hash of the canonical specification, the same on every machine."""
    text = json.dumps(to_dict(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def warnings(spec: SweepSpec) -> list[str]:
    """What is allowed but probably not meant."""
    found = []
    for target in spec.targets:
        shared = [name for name in target.at if name in spec.space]
        inside = [min(spec.space[n].values) <= target.at[n] <= max(spec.space[n].values) for n in shared]
        if shared and all(inside):
            found.append(
                f"targets.{target.name}: lies inside the space on every axis; "
                "its loss could be measured instead of predicted"
            )
    if (size := configurations(spec.space)) > ENUMERATED:
        found.append(
            f"space: its {size:.3g} configurations are too many to compare (at most {ENUMERATED:,}); runs "
            f"are chosen among {SAMPLED:,} of them, drawn evenly by seed {spec.seed}, and its corners"
        )
    if spec.budget.runs < spec.strategy.first_batch:
        found.append(
            f"budget.runs: {spec.budget.runs} runs are fewer than strategy.first_batch "
            f"({spec.strategy.first_batch}); all are chosen before the first result is seen"
        )
    if spec.laws.transfer == "mup" and spec.trainer.optimizer == "sgd":
        found.append("laws.transfer: mup is a rule for AdamW; with sgd its slopes do not hold, take none")
    if spec.laws.transfer == "mup" and "mup" in spec.space and 1.0 in spec.space["mup"].values:
        found.append(
            "laws.transfer: mup expects the best rate to fall with the width, which runs with mup = 1 "
            "already see to; take none"
        )
    return found


def _refuse(found: Iterator[Problem]) -> None:
    every = list(found)
    if every:
        raise SpecError(every)


def _check(spec: SweepSpec) -> Iterator[Problem]:
    """Everything that types alone do not say."""
    kind = KINDS.get(spec.proxy.kind)
    if kind is None:
        yield Problem("proxy.kind", repr(spec.proxy.kind), choices(spec.proxy.kind, [*KINDS]))
        return
    if spec.proxy.dataset not in kind.datasets:
        allowed = choices(spec.proxy.dataset, kind.datasets)
        yield Problem("proxy.dataset", repr(spec.proxy.dataset), allowed)
        return
    if spec.proxy.heads is not None and not kind.attention:
        yield Problem("proxy.heads", str(spec.proxy.heads), f"null, since {spec.proxy.kind} has no attention")
    for name in spec.laws.names:
        if name not in LAWS:
            yield Problem("laws.names", repr(name), choices(name, tuple(LAWS), "any of"))
    known = [name for name in spec.laws.names if name in LAWS]
    yield from unreadable(known, spec.axes, spec.space, [target.at for target in spec.targets])
    yield from _of_weights(spec)
    units = metrics(spec.source)
    if spec.metric.name not in units:
        yield Problem("metric.name", repr(spec.metric.name), choices(spec.metric.name, [*units]))
    elif spec.metric.unit not in (None, units[spec.metric.name]):
        yield Problem("metric.unit", repr(spec.metric.unit), units[spec.metric.name])
    if spec.metric.direction != "minimize":
        allowed = f"minimize, since {spec.metric.name} is the better the lower it is"
        yield Problem("metric.direction", "'maximize'", allowed)
    if spec.trainer.schedule == "constant" and spec.trainer.warmup + spec.trainer.decay > 1:
        shares = f"{spec.trainer.warmup:g} warm-up and {spec.trainer.decay:g} decay"
        yield Problem("trainer.decay", shares, "shares of the steps that sum to at most 1")
    if spec.laws.transfer not in TRANSFERS:
        allowed = choices(spec.laws.transfer, [*TRANSFERS])
        yield Problem("laws.transfer", repr(spec.laws.transfer), allowed)
    targets = [(target.name, target.at) for target in spec.targets]
    yield from out_of_bounds(spec.axes, spec.space, targets)
    yield from untied(kind, spec.proxy, spec.axes, spec.space, targets)


def _of_weights(spec: SweepSpec) -> Iterator[Problem]:
    weights, parts = spec.strategy.weights, asked(spec.laws.names, spec.space)
    for name in weights:
        if name not in parts:
            yield Problem(f"strategy.weights.{name}", f"unknown name {name!r}", choices(name, parts))
    if all(weights.get(part) == 0.0 for part in parts):
        yield Problem("strategy.weights", short(weights), f"one above 0, of {', '.join(parts)}")


def _canonical(spec: SweepSpec) -> SweepSpec:
    rules = spec.axes
    space = {
        name: replace(
            axis,
            values=tuple(sorted({float(value) + 0.0 for value in axis.values})),  # no -0.0
            kind="listed" if rules[name].integer else axis.kind,
        )
        for name, axis in sorted(spec.space.items())
    }
    targets = tuple(
        replace(target, at={name: float(value) + 0.0 for name, value in sorted(target.at.items())})
        for target in spec.targets
    )
    weights = {name: weight for name, weight in sorted(spec.strategy.weights.items()) if weight != 1.0}
    return replace(
        spec,
        space=space,
        targets=targets,
        strategy=replace(spec.strategy, weights=weights),
        metric=replace(spec.metric, unit=metrics(spec.source)[spec.metric.name]),
        laws=replace(spec.laws, names=tuple(dict.fromkeys(sorted(spec.laws.names, key=_place)))),
    )


def _place(law: str) -> int:
    """Where a law stands in the catalogue; after it where it is not registered any more."""
    return [*LAWS, law].index(law)


def _check_budget(spec: SweepSpec) -> Iterator[Problem]:
    """The budget must pay for the cheapest run that has enough steps to train at all."""
    columns = {name: np.array([value]) for name, value in spec.complete({}).items()}
    columns |= {name: np.array(axis.values[:1]) for name, axis in spec.space.items()}
    columns["tokens"] = np.array(spec.space["tokens"].values)[:, None]
    if "batch" in spec.space:
        columns["batch"] = np.array(spec.space["batch"].values)
    cost = spec.costs(columns)
    if not np.min(cost[f"params_{spec.laws.count}"]) > 0:
        allowed = f"total, since the smallest {spec.proxy.kind} has none but the input layer and the head"
        yield Problem("laws.count", repr(spec.laws.count), allowed)
    trainable = cost["flops"][cost["steps"] >= MIN_STEPS]
    if not trainable.size:
        needed = MIN_STEPS * (cost["tokens_seen"] / cost["steps"]).min()
        allowed = f"at least {needed:g}, which is {MIN_STEPS} steps of the smallest batch"
        yield Problem("space.tokens", f"{columns['tokens'].max():g}", allowed)
        return
    for name in ("flops", "flops_per_run"):
        limit = getattr(spec.budget, name)
        if limit is not None and limit < trainable.min():
            allowed = f"at least {trainable.min():.3g}, the cost of the cheapest run"
            yield Problem(f"budget.{name}", f"{limit:g}", allowed)
