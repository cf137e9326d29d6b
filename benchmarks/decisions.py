"""Seconds of one decision by ``informative`` in large spaces, for a run and for a batch of 64.

    python benchmarks/decisions.py [--rounds 3]

Three spaces of about 15 thousand, a million and 500 million configurations, 24 finished runs of a synthetic
world. The fit is not counted. Beside it stands the time the published method takes for a pick among 2,702
recorded candidates (1.1 to 4.3 s, arXiv 2604.22753; see benchmarks/replay.py for ours there).
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit"))

from parts.options import options
from test_large_spaces import BILLIONS, MILLION, SPACE, look, spec

from sweeps.bounds import configurations
from sweeps.model import frame
from sweeps.scheduler import decide, step

PUBLISHED = 1.1  # seconds of a pick, the least seen


def main() -> None:
    rounds = options(__doc__, rounds=3).rounds
    print(
        f"{'configurations':>15} {'wanted':>7} {'runs':>5} {'first':>7} {'later':>7} {'published/later':>16}"
    )
    for space in (SPACE, MILLION, BILLIONS):
        asked = spec(space, stop={"patience": 0.0}, budget={"runs": 64, "flops": 1e15})
        at = look(asked)
        ensemble, centred = step(replace(at, slots=0), np.random.default_rng(0)).ensemble, frame(asked)
        for wanted in (1, 64):
            took, found = [], []
            for _ in range(rounds):
                begun = time.perf_counter()
                found, _ = decide(at, ensemble, centred, wanted, np.random.default_rng(0))
                took.append(time.perf_counter() - begun)
            later = float(np.median(took[1:] or took))
            place = f"{configurations(asked.space):15.3g} {wanted:7} {len(found):5}"
            print(f"{place} {took[0]:6.2f}s {later:6.2f}s {PUBLISHED / later:16.2f}", flush=True)


if __name__ == "__main__":
    main()
