"""Short measured trainings, from which seconds and memory of others are foretold."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import torch

from sweeps.cost import Timing
from sweeps.data import SOURCES, Source
from sweeps.resources import Resources
from sweeps.spec import Config, SweepSpec, parse
from workers import device
from workers.cohort import Cohort
from workers.job import Job
from workers.memory import step_peak

WARM_STEPS = 2
ROUNDS = 5  # in which every shape is timed; the quickest counts, since other work can only slow a step
ALIKE = 1.1  # what the two quickest rounds of a shape may differ by, or it is timed again
MOST_STEPS = 1 << 12  # of one shape in a round
LENGTH = (2 * ROUNDS + 1) * MOST_STEPS  # of runs that are timed, in steps: more than they make
CPU_FLOPS = 5e10  # a second, of the device that ``SHAPES`` are meant for


@dataclass(frozen=True)
class Shape:
    """What is timed: a shape, and how many of it at once."""

    width: int
    depth: int
    batch: int
    members: tuple[int, ...] = (1,)


DATA = {"mlp": "digits", "convnet": "digits", "vit": "digits", "gpt": "stdlib"}  # no data set to be loaded
STACKED = (1, 4, 16)


def _shapes(
    stacked: Sequence[tuple[int, int, int]], alone: Sequence[tuple[int, int, int]]
) -> tuple[Shape, ...]:
    """Widths, depths and batches: of shapes that are timed in stacks too, and of shapes that are not."""
    return (*(Shape(*one, STACKED) for one in stacked), *(Shape(*one) for one in alone))


SHAPES: dict[str, tuple[Shape, ...]] = {
    "mlp": (
        Shape(12, 2, 32, (*STACKED, 64)),
        *_shapes([(64, 3, 32), (160, 2, 64)], [(16, 6, 128), (96, 2, 256), (256, 4, 16), (384, 3, 128)]),
    ),
    # The widest stack has the smallest batch: or parameters stand in for activations in the fit.
    "convnet": _shapes(
        [(4, 1, 16), (6, 2, 16), (8, 1, 8)],
        [(4, 3, 64), (8, 1, 32), (16, 1, 128), (16, 2, 16), (32, 1, 32)],
    ),
    "vit": _shapes([(8, 1, 32), (32, 2, 16)], [(16, 4, 64), (48, 1, 256), (64, 3, 32), (96, 2, 128)]),
    "gpt": _shapes([(8, 1, 8), (32, 1, 4)], [(16, 2, 32), (48, 2, 8), (64, 3, 16), (96, 4, 8)]),
}


def calibrate(resources: Resources, kind: str, seconds: float = 2.0, peaks: bool = True) -> list[Timing]:
    """Trains models of several shapes of a kind for a few steps each, alone and stacked.

    Args:
        resources: of one run.
        kind: of ``SHAPES``.
        seconds: to spend on timed steps, about; building and tracing the models takes as long again.
        peaks: whether memory is measured; not where other threads train: PyTorch's profiler may crash then.

    Returns:
        One timing a shape and number of members; its cost is that of the steps that were timed.
    """
    with held_to(resources) as (own, where):
        spec = make_spec(own, kind, grown(SHAPES[kind], where))
        return measure(spec, grown(SHAPES[kind], where), where, seconds, peaks)


@contextmanager
def held_to(resources: Resources) -> Iterator[tuple[Resources, torch.device]]:
    """What one process of a run has, with the device; the number of threads is put back at the end."""
    threads, one = torch.get_num_threads(), resources.processes  # the others are not timed
    own = replace(resources, cpus=resources.cpus / one, gpus=resources.gpus / one, processes=1)
    try:
        yield own, device.pick(own)
    finally:
        torch.set_num_threads(threads)


def grown(shapes: Sequence[Shape], where: torch.device) -> Sequence[Shape]:
    """The shapes as they are on a CPU; on what multiplies matrices faster, wider and in larger batches.

    FLOPs go with the square of the width times the batch, so both grow with the cube root of the rate.
    """
    rate = device.peak_flops(where.type, "float32", torch.get_num_threads())
    factor = 1 if where.type == "cpu" else max(1, round((rate / CPU_FLOPS) ** (1 / 3)))
    return [Shape(s.width * factor, s.depth, s.batch * factor, s.members) for s in shapes]


def make_spec(resources: Resources, kind: str, shapes: Sequence[Shape]) -> SweepSpec:
    """A specification that holds the shapes."""
    axes = {
        name: sorted({float(getattr(one, name)) for one in shapes}) for name in ("width", "depth", "batch")
    }
    return parse(
        {
            "name": "calibration",
            "proxy": {"kind": kind, "dataset": DATA[kind]},
            "space": {**axes, "tokens": 1e9},
            "targets": [{"at": {"width": max(axes["width"]), "depth": max(axes["depth"]), "tokens": 1e9}}],
            "resources": asdict(resources),
        }
    )


def measure(
    spec: SweepSpec,
    shapes: Sequence[Shape],
    where: torch.device,
    seconds: float,
    peaks: bool = True,
) -> list[Timing]:
    """Times at least one step a round of each, in turn.

    Args:
        where: they are trained.
        seconds: to spend on timed steps, about.
        peaks: whether memory is measured.

    Returns:
        By shape and number of members, in order.
    """
    asked = [(shape, members) for shape in shapes for members in shape.members]
    source = SOURCES[spec.proxy.dataset]
    cohorts = [make(spec, source, shape_config(spec, shape), members) for shape, members in asked]
    found: list[float | None] = []
    for cohort in cohorts:
        for _ in range(WARM_STEPS):
            cohort.advance()
        found.append(step_peak(cohort, where) if peaks else None)
    took = quickest(cohorts, where, seconds)
    devices = spec.resources.gpus or spec.resources.cpus
    return [
        Timing(
            cost=cohort.members[0].cost,
            seconds=float(devices * step * cohort.members[0].steps / members),
            kind=spec.proxy.kind,
            members=members,
            memory=peak,
        )
        for (_, members), cohort, peak, step in zip(asked, cohorts, found, took, strict=True)
    ]


def quickest(cohorts: Sequence[Cohort], where: torch.device, seconds: float) -> list[float]:
    """Seconds of a step of each in its quickest round.

    That round counts where another one comes near it. Of a cohort of which none does, because other work
    disturbed it, further ones are timed, as many again at most.

    Args:
        seconds: to spend, about; every cohort makes at least one step a round.
    """
    share = seconds / ROUNDS / len(cohorts)
    took: list[list[float]] = [[] for _ in cohorts]
    for number in range(2 * ROUNDS):
        for cohort, rounds in zip(cohorts, took, strict=True):
            if number < ROUNDS or _disturbed(rounds):
                rounds.append(_one(cohort, where, share))
    return [min(rounds) for rounds in took]


def _disturbed(rounds: Sequence[float]) -> bool:
    quickest, second, *_ = sorted(rounds)
    return second > ALIKE * quickest


def shape_config(spec: SweepSpec, shape: Shape) -> Config:
    """The shape with as many steps as may be timed."""
    given = {name: float(getattr(shape, name)) for name in ("width", "depth", "batch")}
    config = spec.complete(given | {"tokens": 1.0})
    example = config["resolution"] if spec.source.task == "tokens" else 1.0
    return config | {"tokens": LENGTH * config["batch"] * example}


def make(spec: SweepSpec, source: Source, config: Config, members: int) -> Cohort:
    """Members that differ in their seeds, which nobody listens to."""
    configs = [config | {"seed": float(seed)} for seed in range(members)]
    return Cohort([Job(seed, 0, spec, source, one, "", 0.0, None) for seed, one in enumerate(configs)])


def _one(cohort: Cohort, where: torch.device, seconds: float) -> float:
    """Seconds of a step."""
    device.wait(where)
    began, first = time.perf_counter(), cohort.step
    while True:
        cohort.advance()
        device.wait(where)
        spent = time.perf_counter() - began
        if spent >= seconds or cohort.step - first >= MOST_STEPS:
            return spent / (cohort.step - first)
