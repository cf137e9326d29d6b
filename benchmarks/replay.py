"""The scheduler on recorded runs: what every strategy would have known, for what cost.

    python benchmarks/replay.py [PATH] [--strategy informative,random] [--repeats 10] [--only NAME]
        [--leave-out 0.2]

PATH holds ``{farseer,lr_bsz,data_constrained,moe}_{train,test}.parquet`` of ScaleBench (active-sl, Li et al.
2026, arXiv 2604.22753). Its protocol: candidates are the train runs, asked are the test runs, a budget is a
share of the candidates' summed cost (6 N D; moe: N E), the score is R^2 clipped to [-1, 1], averaged.
Published is the best method of that paper, a mean over up to ten law forms; the ratio is that of what R^2
leaves, (1 - ours) / (1 - published). Regret is that of the predicted rate and batch at lr_bsz's test cell, in
per cent. One configuration for all tables; hours with 10 repeats. Last come the seconds of single decisions.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sweeps.arithmetic import parse_expression
from sweeps.choice import Situation
from sweeps.design import beliefs
from sweeps.ensemble import learn
from sweeps.laws.base import Array
from sweeps.mapping import parse_mapping
from sweeps.prices import Prices
from sweeps.recorded import task_of
from sweeps.replay import Task
from sweeps.replay_score import Score, Spread, Summary, Unanswered, campaign, check, equal, summarise
from sweeps.runs import Spent
from sweeps.strategies import STRATEGIES

MAPPINGS = {
    "farseer": "params=N, tokens=D, loss=loss",
    "lr_bsz": "params=non_embedding_param_size, tokens=data_size, lr=lr, batch_tokens=2048*bsz, loss=lm_loss",
    "data_constrained": "params=params, tokens=tokens, unique_tokens=unique_tokens, loss=loss",
    "moe": "params=dense_parameter_count, experts=num_experts, loss=loss_validation",
}
COSTS = {"moe": "params*experts"}
SHARES = (0.01, 0.05, 0.10)
TUNED = 0.02  # budget of the hyperparameter question
PUBLISHED = {
    "farseer": (0.67, 0.88, 0.93),
    "lr_bsz": (-0.65, 0.00, 0.22),
    "data_constrained": (0.73, 0.85, 0.86),
    "moe": (0.67, 0.80, 0.83),
}
ASKED = {
    "farseer": (0.95, 0.985, 0.99),
    "lr_bsz": (0.80, 0.87, 0.90),
    "data_constrained": (0.95, 0.98, 0.985),
    "moe": (0.85, 0.92, 0.95),
}
OBSERVED, SLOTS = 200, (1, 4, 64)  # runs known at a decision, and runs decided on


def load(path: Path, name: str) -> Task:
    """The task of one of the tables."""
    train, test = (
        {column: frame[column].to_numpy() for column in frame}
        for frame in (pd.read_parquet(path / f"{name}_{part}.parquet") for part in ("train", "test"))
    )
    cost = parse_expression(COSTS.get(name, "6*params*tokens"))
    return task_of(train, parse_mapping(MAPPINGS[name]), cost, test=test)


def play(
    name: str, task: Task, strategies: Sequence[str], repeats: int, seed: int, leave_out: float
) -> list[Score | Unanswered]:
    """Every replay of a table, told as it ends on stderr."""
    shares = sorted({*SHARES, TUNED}) if "lr" in task.given else SHARES
    scores = []
    for one in campaign(task, strategies, shares, repeats, seed, leave_out=leave_out):
        scores.append(one)
        print(f"{name} {one.strategy} {one.share:.0%} repeat {one.repeat}: {one}", file=sys.stderr)
    return scores


def report(name: str, summaries: Sequence[Summary], reference: str) -> None:
    """Prints figures, what was published and asked for, and the compute for equal answers."""
    print(f"\n{name}")
    heads = ("R^2", "worst", "published", "asked", "ratio", "error", "regret", "worst", "in 90 %", "best in")
    print(f"{'':22}" + "".join(f"{head:>10}" for head in (*heads, "runs", "decision", "refit")))
    for one in summaries:
        given = one.share in SHARES and one.r2 is not None
        beside = PUBLISHED[name][SHARES.index(one.share)] if given else None
        asked = ASKED[name][SHARES.index(one.share)] if given and one.strategy == reference else None
        ratio = None if beside is None or one.r2 is None else (1.0 - one.r2.mean) / (1.0 - beside)
        cells = (
            *_both(one.r2, ".3f"),
            _cell(beside, ".2f"),
            _cell(asked, ".3f"),
            _cell(ratio, ".2f"),
            _both(one.error, ".2%")[0],
            *_both(one.regret, ".3f"),
            _cell(one.coverage, ".0%"),
            _cell(one.best_held, ".0%"),
            _cell(one.runs, ".0f"),
            _cell(one.seconds, ".4f"),
            _cell(one.refit, ".2f"),
        )
        print(f"  {one.strategy:13}{one.share:7.0%}" + "".join(f"{cell:>10}" for cell in cells))
    for need in equal(summaries, reference):
        sign = {"least": "more than ", "most": "at most ", None: ""}[need.bound]
        words = f"{sign}{need.times:.2f} times the compute of {reference} at {need.share:.0%}"
        print(f"  equal {need.measure}: {need.strategy} needs {words}")


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _both(spread: Spread | None, form: str) -> tuple[str, str]:
    return ("-", "-") if spread is None else (format(spread.mean, form), format(spread.worst, form))


def decisions(task: Task, strategies: Sequence[str], seed: int) -> None:
    """Prints the seconds of single decisions."""
    rng, n = np.random.default_rng(seed), len(task.flops)
    seen = rng.permutation(n)[: min(OBSERVED, n // 2)]
    problem = task.problem
    known = {name: column[seen] for name, column in problem.x.items()}
    ensemble = learn(problem.models, problem.frame, known, task.loss[seen], rng)
    budget = Spent(np.inf, 0.1 * float(task.flops.sum()), np.inf)
    print(f"\nseconds of a decision: {n:,} candidates, {len(seen)} observations; published method 1.1 to 4.3")
    for strategy in strategies:
        for wanted in SLOTS:
            begun = time.perf_counter()
            at = Situation(
                family=beliefs(problem.models, problem.frame, ensemble),
                frame=problem.frame,
                candidates=problem.x,
                prices=Prices(task.flops, np.zeros(n)),
                targets=task.asked,
                pending=None,
                left=None,
                budget=budget,
                wanted=wanted,
                rng=rng,
            )
            runs = len(list(STRATEGIES[strategy](at)))
            print(f"  {strategy:13}{runs:3d} runs  {time.perf_counter() - begun:8.4f}", flush=True)


def coverage(scores: Sequence[Score | Unanswered], strategy: str) -> None:
    """Prints how many of all replays held the truth of their best row, and of all rows."""
    some = [one for one in scores if isinstance(one, Score) and one.strategy == strategy]
    rows = [one.coverage for one in some if one.coverage is not None]
    best = [one.best_held for one in some if one.best_held is not None]
    if rows:
        print(f"\n{strategy}: 90 % intervals hold {_mean(rows):.1%} of rows", end="")
        print(f" and the best row in {_mean(best):.1%} of {len(best)} replays")


def _mean(values: Sequence[float] | Array) -> float:
    return float(np.mean(values))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--strategy", default="informative,random", help="names with commas")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--leave-out", type=float, default=0.0, help="share hidden in each repeat")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(MAPPINGS), help="tables with commas")
    given = parser.parse_args()
    if given.path is None:
        print("no recorded runs given, nothing to replay; see --help")
        return
    strategies, everything = given.strategy.split(","), []
    for name in given.only.split(","):
        task = load(given.path, name)
        fitting = [one for one in strategies if one in STRATEGIES]
        taking_part = strategies if task.problem.frame.surface.axes else fitting
        check(task, taking_part)
        scores = play(name, task, taking_part, given.repeats, given.seed, given.leave_out)
        report(name, summarise(scores), strategies[0])
        decisions(task, fitting, given.seed)
        everything += scores
    coverage(everything, strategies[0])


if __name__ == "__main__":
    main()
