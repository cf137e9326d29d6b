"""Seconds and peak memory of shapes that were not calibrated, predicted and measured.

    python benchmarks/cost_model.py [--kinds mlp convnet vit gpt] [--seconds 8]

Calibrated and other shapes are timed in the same rounds, so that the machine is in the same state for both.
Asked for: seconds within 25 %, memory within 15 %. Under each kind stands what leaving timings out
tells of the error, and which stacks would be made.
"""

from __future__ import annotations

import argparse

import torch

from sweeps.cost import Timing, fit_seconds
from sweeps.peak import Room, fit_memory, fit_stacked_memory
from sweeps.resources import Resources
from sweeps.stacks import learn_stacks
from workers import device
from workers.calibrate import SHAPES, Shape, grown, make_spec, measure

OTHERS = {
    "mlp": (
        Shape(12, 4, 32, (1, 16)), Shape(32, 2, 64, (1, 8)), Shape(48, 5, 16), Shape(128, 3, 64),
        Shape(192, 5, 32), Shape(512, 2, 64),
    ),
    "convnet": (
        Shape(4, 2, 32, (1, 8)), Shape(8, 2, 64), Shape(12, 1, 32), Shape(24, 1, 64), Shape(32, 2, 16),
    ),
    "vit": (
        Shape(8, 2, 64, (1, 8)), Shape(24, 2, 64), Shape(32, 4, 32), Shape(64, 1, 128), Shape(128, 2, 32),
    ),
    "gpt": (
        Shape(8, 2, 16, (1, 8)), Shape(24, 1, 16), Shape(32, 3, 8), Shape(64, 2, 32), Shape(128, 3, 8),
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", default=[*SHAPES], choices=[*SHAPES])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--gpus", type=float, default=0.0)
    given = parser.parse_args()
    resources = Resources(gpus=given.gpus)
    where = device.pick(resources)
    print(f"{device.name(where)}, {torch.get_num_threads()} thread")
    head = ("kind", "width", "depth", "batch", "members", "params", "ms/step", "s ratio", "MB", "B ratio")
    print("".join(f"{name:>9}" for name in head))
    for kind in given.kinds:
        compare(resources, kind, where, given.seconds)


def compare(resources: Resources, kind: str, where: torch.device, seconds: float) -> None:
    """Prints a line for every shape that was not calibrated."""
    known, new = grown(SHAPES[kind], where), grown(OTHERS[kind], where)
    shapes = [*known, *new]
    spec = make_spec(resources, kind, shapes)
    found = measure(spec, shapes, where, seconds)
    split = sum(len(shape.members) for shape in known)
    calibration, others = found[:split], found[split:]
    names = [(shape, members) for shape in new for members in shape.members]
    by_themselves = [one for one in calibration if one.members == 1]
    alone = fit_memory(by_themselves)
    stacked = fit_stacked_memory(alone, by_themselves, [one for one in calibration if one.members > 1])
    worst = {"s": 1.0, "B": 1.0}
    for (shape, members), one in zip(names, others, strict=True):
        like = [other for other in calibration if (other.members > 1) == (members > 1)]
        model = fit_seconds(like)
        assert model is not None and one.memory is not None
        took = model(one.cost, members) / one.seconds
        held = (stacked if members > 1 else alone)(one.cost, members) / one.memory
        told = (shape.width, shape.depth, shape.batch, members, int(one.cost.params_total))
        step = 1e3 * one.seconds / one.cost.steps * members
        line = f"{kind:>9}" + "".join(f"{value:9}" for value in told)
        print(f"{line}{step:9.3f}{took:9.2f}{one.memory / 1e6:9.2f}{held:9.2f}", flush=True)
        for name, ratio in (("s", took), ("B", held)):
            worst[name] = max(worst[name], ratio, 1.0 / ratio)
    print(f"  worst ratios: seconds {worst['s']:.2f}, memory {worst['B']:.2f}{summary(calibration, kind)}")


def summary(calibration: list[Timing], kind: str) -> str:
    """What the calibration says of itself."""
    stacks = learn_stacks([Timing(**{**vars(one), "device": "here"}) for one in calibration], kind, "here")
    assert stacks is not None
    sizes = {
        int(t.cost.params_total): stacks.pack(t.cost, Room(1e9)).members
        for t in calibration
        if t.members == 1
    }
    told = ", ".join(f"{params}: {size}" for params, size in sorted(sizes.items()))
    return f"; error told {stacks.alone.error:.2f}, of stacks {stacks.together.error:.2f}; stacks {told}"


if __name__ == "__main__":
    main()
