"""How far do a few bad runs move an answer? Predictions of larger runs with and without gross outliers.

    python benchmarks/outliers.py [DATA] [--repeats 3]

DATA as in ``backtests.py``; without it the tables are drawn from published constants. Five runs of every
train table get a loss that is 10 to 40 % too high, too low or either. With DATA, the five points of
``chinchilla.csv`` that the field leaves out are put back as well, beside which stands what leaving out
five ordinary runs does.

Printed for each table: how far predictions move, relative and in half-widths of the 90 % interval; by how
much the interval grows; the mean relative error without and with outliers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from backtests import Array, Pair, Table, compute, recorded, rows, twins

from sweeps import fit, predict

OUTLIERS, LEAST, MOST = 5, 0.1, 0.4  # how many; ln of how much a loss is off
CUTS = (1e20, 1.15e20, 3e20, 1e21)
SIGNS = {"high": (1.0,), "low": (-1.0,), "either": (-1.0, 1.0)}


@dataclass(frozen=True)
class Answer:
    """Predictions of a test set with their 90 % intervals, (n,) each."""

    middle: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Shift:
    """What became of an answer: mean relative move, also in half-widths; growth of the interval; errors."""

    moved: float
    in_widths: float
    wider: float
    before: float
    after: float


def ask(train: Table, test: Table) -> Answer:
    """Fits one table and predicts another."""
    at = {name: column for name, column in test.items() if name != "loss"}
    found = predict(fit(train, target=at), at)
    return Answer(*(np.array([getattr(one, key) for one in found]) for key in ("loss", "low", "high")))


def shift(one: Answer, other: Answer, test: Table) -> Shift:
    """From one answer to the other."""
    move, width = np.abs(other.middle - one.middle), one.high - one.low
    before, after = (float(np.mean(np.abs(a.middle / test["loss"] - 1.0))) for a in (one, other))
    wider = float(np.median(other.high - other.low) / np.median(width))
    return Shift(float(np.mean(move / one.middle)), float(np.mean(2.0 * move / width)), wider, before, after)


def spoiled(train: Table, signs: Sequence[float], rng: np.random.Generator) -> Table:
    """A table with some losses wrong."""
    loss = train["loss"].copy()
    bad = rng.choice(len(loss), OUTLIERS, replace=False)
    loss[bad] *= np.exp(rng.choice(signs, OUTLIERS) * rng.uniform(LEAST, MOST, OUTLIERS))
    return train | {"loss": loss}


def line(name: str, shifts: Sequence[Shift]) -> None:
    """Means over shifts; of growth the geometric one, and the worst."""
    moved, widths, before, after = (
        np.array([getattr(s, key) for s in shifts]) for key in ("moved", "in_widths", "before", "after")
    )
    wider = np.array([s.wider for s in shifts])
    grown = float(np.exp(np.log(wider).mean()))
    print(
        f"{name:34} {len(shifts):>4} {moved.mean():>8.2%} {widths.mean():>11.2f} {widths.max():>6.2f} "
        f"{grown:>7.2f} {wider.max():>6.2f} {before.mean():>8.3%} {after.mean():>8.3%}",
        flush=True,
    )


def raw(path: Path) -> tuple[Table, Array]:
    """Every point of the published figure, and whether the field keeps it."""
    frame = pd.read_csv(path)
    n, c, loss = (frame[name].to_numpy(dtype=float) for name in ("Model Size", "Training FLOP", "loss"))
    return {"params": n, "tokens": c / (6.0 * n), "loss": loss}, loss < np.sort(loss)[-OUTLIERS]


def points(path: Path, rng: np.random.Generator, repeats: int) -> None:
    """The outliers of the published figure, and the same number of ordinary runs."""
    table, kept = raw(path)
    put_back, left_out = [], []
    for cut in CUTS:
        small = 6.0 * compute(table) <= 1.0001 * cut
        test, some = rows(table, ~small & kept), np.flatnonzero(small & kept)
        known = ask(rows(table, some), test)
        put_back.append(shift(known, ask(rows(table, small), test), test))
        for _ in range(repeats):
            fewer = np.sort(rng.choice(some, len(some) - OUTLIERS, replace=False))
            left_out.append(shift(known, ask(rows(table, fewer), test), test))
    line("chinchilla, its outliers put back", put_back)
    line("chinchilla, ordinary runs left out", left_out)


def spoil(name: str, pair: Pair, rng: np.random.Generator, repeats: int) -> None:
    """A table with bad runs of every kind."""
    train, test = pair
    known = ask(train, test)
    every = [signs for signs in SIGNS.values() for _ in range(repeats)]
    line(name, [shift(known, ask(spoiled(train, signs, rng), test), test) for signs in every])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=3, help="of each kind of outliers")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    names = f"{'fits':>4} {'moved':>8} {'half-widths':>11} {'worst':>6} {'wider':>7} {'worst':>6}"
    print(f"{'':34} {names} {'error':>8} {'after':>8}")
    for name, pair in (recorded(given.data) if given.data else twins()).items():
        if name != "lr_bsz":
            spoil(name, pair, rng, given.repeats)
    if given.data:
        points(given.data / "chinchilla.csv", rng, given.repeats)


if __name__ == "__main__":
    main()
