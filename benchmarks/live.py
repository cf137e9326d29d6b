"""How much less does `informative` spend than `random` for the same interval? The demo's sweep, trained.

    python benchmarks/live.py [--preset gpt_stdlib] [--seeds 0,1,2] [--verify] [--out FILE] [OVERRIDE ...]

Each sweep runs on a service of its own in a temporary folder, as ``scalewise demo`` does it, with the same
budget for both strategies and the seed for every random choice. Afterwards its stored fits are read: half
the width of the 90 % interval at the first target, relative, against the FLOPs of all runs that had ended
by then or that the fit rests on. Printed for each seed: the half-width of the first fit, when so much of
what ``random`` spent in all was spent, and of the last fit; then the FLOPs that ``informative`` took to the
half-width ``random`` had at its end, over all that ``random`` spent: when it was there first, and since
when it never left again. ``--verify`` trains the target too and tells the error of the prediction.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

import conf
from api.client import Client
from api.demo import DemoError, free_ports, planned, served, verified
from sweeps.runs import TERMINAL, Role, Run, RunState, Sweep, SweepState

STRATEGIES = ("informative", "random")
SHARES = (0.25, 0.5, 0.75)  # of the FLOPs of random, at which both are compared
SHOWN_SECONDS = 15.0  # between lines of progress
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """A sweep, afterwards.

    Args:
        runs, flops: it has spent.
        seconds: it took from submission to its end.
        path: FLOPs and relative half-width at each fit, in the order of the fits.
        error: of the last prediction, relative to the measured target; None without.
        inside: whether its interval held that; None without.
    """

    strategy: str
    seed: int
    runs: int
    flops: float
    seconds: float
    path: list[tuple[float, float]]
    error: float | None = None
    inside: bool | None = None


def sweep(preset: str, overrides: Sequence[str], strategy: str, seed: int, verify: bool) -> Outcome:
    """Runs one sweep from the start of its service to the end."""
    spec = conf.sweep(preset, *overrides, f"strategy.name={strategy}", f"seed={seed}")
    console, words = Console(quiet=True), f"{strategy}, seed {seed}"
    with tempfile.TemporaryDirectory(prefix="scalewise-live-", ignore_cleanup_errors=True) as folder:
        tell(f"{words}: starting a service")
        with served(Path(folder), free_ports(), console) as (_, client):
            planned(client, spec)  # the first runs are chosen with the seconds that this machine takes
            begun = time.monotonic()
            done = follow(client, client.submit(spec), words)
            seconds = time.monotonic() - begun
            found = Outcome(
                strategy, seed, int(done.spent.runs), done.spent.flops, seconds, path(client, done)
            )
            if not verify:
                return found
            tell(f"{words}: training the target")
            best = client.optimum(done.id, {}).prediction
            _, measured = verified(client, done, console)
            error, inside = best.loss / measured - 1.0, best.low <= measured <= best.high
            return Outcome(**(vars(found) | {"error": error, "inside": inside}))


def follow(client: Client, one: Sweep, words: str) -> Sweep:
    """Waits for the end of a sweep and says now and then how far it is.

    Raises:
        DemoError: it was cancelled.
    """
    shown, target = time.monotonic(), one.spec.targets[0].name
    while one.state not in (SweepState.FINISHED, SweepState.CANCELLED):
        time.sleep(LOOK_SECONDS)
        one = client.sweep(one.id)
        if time.monotonic() - shown >= SHOWN_SECONDS:
            shown, fits = time.monotonic(), client.fits(one.id)
            half = f"+-{fits[-1].predictions[target].relative:.1%}" if fits else "no fit yet"
            ended = sum(one.counts[state] for state in TERMINAL)
            tell(f"{words}: {ended} of {one.spec.budget.runs} runs, {one.spent.flops:.3g} FLOPs, {half}")
    if one.state != SweepState.FINISHED:
        raise DemoError(f"the sweep is {one.state}: {one.reason}")
    return one


def path(client: Client, one: Sweep) -> list[tuple[float, float]]:
    """FLOPs and relative half-width at every fit of a sweep that is over."""
    target, runs = one.spec.targets[0].name, client.runs(one.id, role=Role.PROXY)
    found = []
    for fit in client.fits(one.id):
        prediction = fit.predictions[target]
        known = {*prediction.runs}
        spent = [
            used(run)
            for run in runs
            if run.id in known or (run.finished_at is not None and run.finished_at <= fit.created_at)
        ]
        found.append((sum(spent), prediction.relative))
    return found


def used(run: Run) -> float:
    """FLOPs of a run that is over; of one that did not finish, for what it had trained."""
    share = 1.0 if run.state == RunState.FINISHED else min(1.0, run.tokens / run.cost.tokens_seen)
    return run.cost.flops * share


def at(outcome: Outcome, flops: float) -> float:
    """Half-width of the last fit by the time so much was spent, NaN before the first."""
    return next((half for spent, half in reversed(outcome.path) if spent <= flops), math.nan)


def needed(outcome: Outcome, half: float) -> tuple[float, float]:
    """FLOPs spent when a half-width was reached first, and when for good; infinite where it never was."""
    first = next((spent for spent, one in outcome.path if one <= half), math.inf)
    lasting = math.inf
    for spent, one in reversed(outcome.path):
        if one > half:
            break
        lasting = spent
    return first, lasting


def show(outcome: Outcome, whole: float) -> None:
    """One row: a sweep, with its half-widths at shares of some FLOPs."""
    steps = [outcome.path[0][1], *(at(outcome, share * whole) for share in SHARES), outcome.path[-1][1]]
    halves = "".join(f"{'-' if math.isnan(half) else f'{half:.2%}':>9}" for half in steps)
    error = ""
    if outcome.error is not None:
        error = f"  {outcome.error:+.2%} {'inside' if outcome.inside else 'OUTSIDE'}"
    print(
        f"{outcome.seed:>4} {outcome.strategy:12}{outcome.runs:>5}{outcome.flops:>10.3g}"
        f"{outcome.seconds:>7.0f} s{halves}{error}",
        flush=True,
    )


def spread(name: str, shares: Sequence[float]) -> None:
    """One row: what informative took over what random took, for each seed and in the mean."""
    reached = [share for share in shares if math.isfinite(share)]
    each = "".join(f"{f'{share:.2f}' if math.isfinite(share) else 'never':>8}" for share in shares)
    words = f"reached by {len(reached)} of {len(shares)}"
    if len(reached) == len(shares):
        words = f"mean {np.mean(shares):.2f}, {min(shares):.2f} to {max(shares):.2f}"
        if len(shares) > 1:
            words += f", standard deviation {np.std(shares, ddof=1):.2f}"
    print(f"{name:10}{each}   {words}")


def tell(line: str) -> None:
    """A line of progress, apart from the tables."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="of the preset, such as budget.runs=40")
    parser.add_argument("--preset", default="gpt_stdlib")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--verify", action="store_true", help="train the target of every sweep too")
    parser.add_argument("--out", type=Path, help="file for every sweep's figures, as JSON")
    given = parser.parse_args()
    steps = "".join(f"{words:>9}" for words in ("first", *(f"{share:.0%}" for share in SHARES), "last"))
    error = "  error" if given.verify else ""
    print(f"seed {'strategy':12}{'runs':>5}{'FLOPs':>10}{'time':>9}{steps}{error}", flush=True)
    found: list[Outcome] = []
    shares = []
    for seed in map(int, given.seeds.split(",")):
        ours, random = (sweep(given.preset, given.overrides, name, seed, given.verify) for name in STRATEGIES)
        found += [ours, random]
        for one in (ours, random):
            show(one, random.flops)
        shares.append([flops / random.flops for flops in needed(ours, random.path[-1][1])])
        if given.out:
            given.out.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")
    print("\nFLOPs of informative to the last half-width of random, over all FLOPs of random (asked: 0.50)")
    for name, row in zip(("first", "for good"), zip(*shares, strict=True), strict=True):
        spread(name, row)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
