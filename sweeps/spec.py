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

from sweeps import checks, scaling
from sweeps.axis import STRICT, AxisField
from sweeps.bounds import ENUMERATED, SAMPLED, configurations
from sweeps.cost import Cost
from sweeps.data import SOURCES, Source
from sweeps.errors import Problem, SpecError
from sweeps.kinds import KINDS
from sweeps.kinds.base import SHAPE, Array, AxisRule, Kind, metrics
from sweeps.kinds.own import ANY, Own
from sweeps.laws import LAWS
from sweeps.proxy import Proxy
from sweeps.resources import Resources
from sweeps.trainer import Trainer
from sweeps.wording import booleans, problems, short

Config: TypeAlias = dict[str, float]

REGISTERED = ("laws.names", "proxy.entry")  # what the settings allow may have changed since
OWN_OF_MEMBERS = frozenset({"lr", "weight_decay", "beta2", "init_scale", "seed", "tokens"})  # within a cohort


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
    def batch_power(self) -> float:
        """Of the batch that rates go with; a trainer of one's own takes them as they are."""
        return 0.0 if self.proxy.kind == "own" else self.trainer.batch_power

    def rates(self, columns: Mapping[str, ArrayLike]) -> Array:
        """The peak learning rates of trainings, by columns ``lr`` and ``batch``, each (n,) or a number."""
        lr = np.asarray(columns["lr"], dtype=float)
        return lr if self.proxy.kind == "own" else self.trainer.rates(lr, columns["batch"])

    @property
    def kind(self) -> Kind:
        """The kind of its proxy."""
        return KINDS[self.proxy.kind]

    @property
    def source(self) -> Source:
        """What its proxies learn."""
        if self.proxy.kind == "own":
            return Source("own", "own", "values", 1, self.metric.unit or "loss")
        return SOURCES[self.proxy.dataset]

    @property
    def metrics(self) -> Mapping[str, str]:
        """What a run reports that a law may predict, with units."""
        if self.proxy.kind == "own":
            return {self.metric.name: self.source.unit}
        return metrics(self.source)

    @property
    def axes(self) -> Mapping[str, AxisRule]:
        """What every axis may hold, without those that the proxy's scaling sets by size."""
        rules = self.kind.axes(self.source)
        if isinstance(self.kind, Own):
            own = {name: axis for name, axis in self.space.items() if name not in rules}
            rules = {**rules, **{n: SHAPE.get(n, replace(ANY, default=a.values[0])) for n, a in own.items()}}
        if not self.proxy.scaling:
            return rules
        return {scaling.SIZE: scaling.SIZES} | {n: r for n, r in rules.items() if n not in self.derived}

    @property
    def derived(self) -> tuple[str, ...]:
        """The axes that the proxy's scaling sets by size."""
        return scaling.derived(self.proxy.scaling or {}) if self.proxy.scaling else ()

    def derive(self, columns: Mapping[str, ArrayLike]) -> dict[str, Array]:
        """What the proxy's scaling sets for columns that hold sizes, each (n,)."""
        if not self.proxy.scaling or scaling.SIZE not in columns:
            return {}
        return scaling.derive(self.proxy, self.kind, self.source, columns)

    def costs(self, columns: Mapping[str, ArrayLike]) -> dict[str, Array]:
        """The fields of ``Cost`` of complete configurations as columns, each (n,) or a number."""
        return self.kind.cost(columns, self.proxy, self.source)

    def cost(self, config: Mapping[str, float]) -> Cost:
        """Cost of a complete configuration."""
        return Cost(**{name: float(value) for name, value in self.costs(config).items()})

    def resources_of(self, target: str | None) -> Resources:
        """What a proxy (None) or the run that verifies a target asks for, with its number of processes."""
        asked = next((one.resources for one in self.targets if one.name == target), None) or self.resources
        if self.proxy.kind == "own":  # starts its own
            return asked
        return replace(asked, processes=max(asked.processes, int(asked.gpus)))

    def complete(self, config: Mapping[str, float]) -> Config:
        """Fills what a configuration leaves out with the only value of its axis, the kind's default, or what
        its size sets."""
        filled = {name: rule.default for name, rule in self.axes.items()}
        filled |= {name: axis.values[0] for name, axis in self.space.items() if len(axis.values) == 1}
        filled |= dict(config)
        known = {name: value for name, value in filled.items() if value is not None}
        return known | {name: float(column[0]) for name, column in self.derive(known).items()}


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
    _refuse(problem for problem in checks.problems(spec) if not (stored and problem.field in REGISTERED))
    spec = _canonical(spec)
    _refuse(checks.unaffordable(spec))
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
    return [*found, *checks.kept_apart(spec)]


def _refuse(found: Iterator[Problem]) -> None:
    every = list(found)
    if every:
        raise SpecError(every)


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
    proxy = spec.proxy
    if proxy.scaling:
        proxy = replace(proxy, scaling=dict(scaling.canonical(proxy.scaling)))
    return replace(
        spec,
        proxy=proxy,
        space=space,
        targets=targets,
        strategy=replace(spec.strategy, weights=weights),
        metric=replace(spec.metric, unit=spec.metrics[spec.metric.name]),
        laws=replace(spec.laws, names=tuple(dict.fromkeys(sorted(spec.laws.names, key=_place)))),
    )


def _place(law: str) -> int:
    """Where a law stands in the catalogue; after it where it is not registered any more."""
    return [*LAWS, law].index(law)
