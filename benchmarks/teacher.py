"""Does a law fitted to real trainings find a known exponent? Perceptrons on the data set ``teacher``.

    python benchmarks/teacher.py [--tokens 2e5] [--seeds 3]

A network with w units behind its inputs leaves about (4 w + 1)^-a of the teacher's variance, whatever it
does (docs/data.md); a is 0.5. Widths from 4 to 64 are trained, the rates and seeds of each as one stacked
model, the best rate of each width and seed is a run, and the laws of parameters are fitted to them.
Printed: the exponent with its 90 % interval beside the known one, with and without a floor (there is none:
the teacher has no noise).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from parts.hearing import Ends
from parts.options import options

from sweeps import fit
from sweeps.data import TEACHER
from sweeps.spec import SweepSpec, parse
from workers.job import Job
from workers.train import train

WIDTHS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
RATES = (0.003, 0.01, 0.03)


def spec(tokens: float) -> SweepSpec:
    """What is trained."""
    return parse(
        {
            "name": "teacher",
            "proxy": {"kind": "mlp", "dataset": "teacher"},
            "space": {"width": list(WIDTHS), "depth": 1, "batch": 64, "tokens": tokens, "weight_decay": 0},
            "targets": [{"at": {"width": 512, "depth": 1, "tokens": tokens}}],
            "trainer": {"evaluations": 1, "eval_tokens": 8192},
        }
    )


def losses(asked: SweepSpec, width: int, tokens: float, seeds: int) -> list[float]:
    """Of the best rate of every seed."""
    ends = Ends()
    base = {"width": float(width), "depth": 1.0, "tokens": tokens}
    cells = [(lr, seed) for seed in range(seeds) for lr in RATES]
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            Job(i, 1, asked, TEACHER, base | {"lr": lr, "seed": float(seed)}, f"{folder}/{i}.pt", 1e9, None)
            for i, (lr, seed) in enumerate(cells)
        ]
        train(jobs, ends)
        assert not list(Path(folder).iterdir())
    found = [ends.outcomes[i].loss for i in range(len(cells))]
    groups = [found[i : i + len(RATES)] for i in range(0, len(found), len(RATES))]
    return [min(loss for loss in group if loss is not None) for group in groups]


def main() -> None:
    given = options(__doc__, tokens=2e5, seeds=3)
    torch.set_num_threads(1)
    asked, exponent = spec(given.tokens), float(TEACHER.options["exponent"])
    table: dict[str, list[float]] = {"params": [], "loss": []}
    began = time.perf_counter()
    print(f"{'width':>6}{'loss':>9}{'over (4w+1)^-a':>16}")
    for width in WIDTHS:
        found = losses(asked, width, given.tokens, given.seeds)
        cost = asked.cost(asked.complete({"width": float(width)}))
        table["params"] += [cost.params_total] * len(found)
        table["loss"] += found
        mean = sum(found) / len(found)
        print(f"{width:>6}{mean:>9.4f}{mean * (4 * width + 1) ** exponent:>16.3f}", flush=True)
    print(f"{time.perf_counter() - began:.0f} s; known exponent {exponent:g}")
    for law in ("plain_params", "power_params"):
        study = fit(table, laws=(law,))
        likeliest = max(study.members, key=lambda member: member.weight)
        value, low, high = likeliest.fit.constants["gamma"]
        inside = "inside" if low <= exponent <= high else "outside"
        print(f"{law:14} exponent {value:.4f}  90 % {low:.4f} to {high:.4f}  {inside}")


if __name__ == "__main__":
    main()
