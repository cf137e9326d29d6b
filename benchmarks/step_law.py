"""Learning rate and batch of a run larger than all others: our fit beside published rules, in one process.

    python benchmarks/step_law.py [PATH] [--held 4]

PATH holds ``lr_bsz_train.parquet`` and ``lr_bsz_test.parquet`` of ScaleBench (runs of Step Law, Li et al.
2025, arXiv 2503.04715) with the columns lr, bsz (sequences of 2048 tokens), data_size,
non_embedding_param_size and lm_loss. Fitted are the train runs; asked is the test cell. Then the costliest
train cells are held out together and asked in the same way. R^2 is 1 - SSE / SST of the loss over a cell's
runs; regret is the loss at a setting less the cell's best, in per cent, interpolated and of the nearest run.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from sweeps import fit, predict
from sweeps.hyper import RULES, SEQUENCE, Recipe, Runs, fit_step_law, regret
from sweeps.laws.base import Array

PUBLISHED = 0.04  # R^2 of the best of ten laws with all data, Li et al. 2026, arXiv 2604.22753, table 2
REFIT_LEAST = 40  # runs of a cell in the refit of Step Law that is known (lr 1.620e-3, 551 sequences)


def load(path: Path) -> Runs:
    """The runs of a file, batches in tokens."""
    frame = pd.read_parquet(path)
    names = ("non_embedding_param_size", "data_size", "lr", "bsz", "lm_loss")
    params, tokens, lr, batch, loss = (frame[name].to_numpy(float) for name in names)
    return Runs(params, tokens, lr, batch * SEQUENCE, loss)


def ask(train: Runs, cells: list[Runs]) -> list[tuple[Array, Recipe]]:
    """Predicted losses of the runs of each cell, and its predicted setting, by one fit to the train runs."""
    largest = max(cells, key=lambda cell: cell.params[0] * cell.tokens[0])
    target = {"params": largest.params[0], "tokens": largest.tokens[0]}
    study = fit(vars(train), target=target)
    found = []
    for cell in cells:
        columns = {name: column for name, column in vars(cell).items() if name != "loss"}
        loss = np.array([one.loss for one in predict(study, columns)])
        best = study.settings({"params": cell.params[0], "tokens": cell.tokens[0]})
        found.append((loss, Recipe(best["lr"].value, best["batch"].value)))
    return found


def report(cell: Runs, loss: Array, settings: dict[str, Recipe]) -> None:
    """Prints R^2 over a cell's runs and the regret of every setting."""
    r2 = 1.0 - np.sum((loss - cell.loss) ** 2) / np.sum((cell.loss - cell.loss.mean()) ** 2)
    off = 100.0 * float(np.mean(np.log(loss / cell.loss)))
    where = f"N {cell.params[0]:.4g}  D {cell.tokens[0]:.4g}  {len(loss)} runs"
    print(f"{where}  R^2 {r2:.3f}  mean error {off:+.2f} %")
    for name, at in settings.items():
        cost = regret(cell, at.lr, at.batch)
        print(
            f"  {name:14s} lr {at.lr:.3e}  batch {at.batch / SEQUENCE:5.0f} sequences"
            f"  regret {cost.interpolated:.3f} %  nearest run {cost.nearest:.3f} %"
        )


def settings(train: Runs, cell: Runs, ours: Recipe) -> dict[str, Recipe]:
    """What every method would set at a cell."""
    at = float(cell.params[0]), float(cell.tokens[0])
    refit = fit_step_law(train, np.random.default_rng(0), least=REFIT_LEAST, draws=0)
    rules = {name: rule(*at) for name, rule in RULES.items()}
    return {"ours": ours, "step_law refit": refit(*at)} | rules


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--held", type=int, default=4, help="costliest train cells to hold out (default: 4)")
    arguments = parser.parse_args()
    if arguments.path is None:
        print("no recorded runs given, nothing to measure; see --help")
        return
    train, test = (load(arguments.path / f"lr_bsz_{part}.parquet") for part in ("train", "test"))
    begin = time.perf_counter()
    ((loss, ours),) = ask(train, [test])
    print(f"test cell, fitted to {len(train.loss)} runs in {time.perf_counter() - begin:.1f} s")
    print(f"(published R^2 with all data: {PUBLISHED})")
    report(test, loss, settings(train, test, ours))
    law = fit_step_law(train, np.random.default_rng(0), least=REFIT_LEAST)
    spread = law.lr_draws.std(axis=0)[1:], law.batch_draws.std(axis=0)[1:]
    print(f"Step Law refit: {law.points} runs of {law.cells} cells")
    print(f"  lr    {np.exp(law.lr[0]):.4g} N^{law.lr[1]:.4f} D^{law.lr[2]:.4f}  sd {spread[0].round(3)}")
    print(f"  batch {np.exp(law.batch[0]):.4g} D^{law.batch[1]:.4f}  sd {spread[1].round(3)}")
    for one in law.edges:
        print(f"  left out, best run on the edge of {one.axes}: N {one.params:.3g}  D {one.tokens:.3g}")
    cells = sorted(train.cells(), key=lambda cell: float(cell.params[0] * cell.tokens[0]))
    held = cells[len(cells) - arguments.held :] if arguments.held > 0 else []
    if held:
        rest = np.concatenate([np.stack([*vars(cell).values()]) for cell in cells[: -len(held)]], axis=1)
        others = Runs(*rest)
        print(f"\n{len(held)} costliest train cells held out, fitted to {len(others.loss)} runs")
        for cell, (loss, ours) in zip(held, ask(others, held), strict=True):
            report(cell, loss, settings(others, cell, ours))


if __name__ == "__main__":
    main()
