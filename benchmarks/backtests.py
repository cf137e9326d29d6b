"""Do the intervals hold? The larger runs of every table and of every law's surface, from the smaller ones.

    python benchmarks/backtests.py [DATA] [--seeds 3] [--only NAME]

DATA holds ``chinchilla.csv`` (Model Size, Training FLOP, loss) and the folder ``scalebench`` of active-sl
(arXiv 2604.22753) with ``{farseer,data_constrained,moe,lr_bsz}_{train,test}.parquet``. Without it the
tables are drawn from published constants (moe: plausible ones) with noise. A table is cut by compute or by
size, or has a test set of its own; of lr_bsz the best run of each cell (N, D) is kept. A surface has
constants drawn from the law's prior at 0.7 of its standard deviations, 60 runs over some decades with
0.5 % noise, of which the smaller 60 % are fitted by that law alone.

Printed for each: runs fitted, targets, mean relative error, share of targets in the 90 % interval for a new
run, its half-width; then the same in sum.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from chinchilla_fit import PUBLISHED, load, twin
from numpy.typing import ArrayLike, NDArray

from sweeps import fit, predict
from sweeps.errors import FitError
from sweeps.laws import LAWS
from sweeps.laws.base import Law, own
from sweeps.laws.quantities import quantity

Array = NDArray[np.float64]
Table = dict[str, Array]
Pair = tuple[Table, Table]
RUNS, SHARE, NOISE, WIDE = 60, 0.6, 0.005, 0.7
FARSEER = {
    "a1": -1.665630816, "b1": 3.133347198805445, "alpha": 0.0458999999999619,
    "a2": 230.73437075885855, "b2": -1.544209554, "beta": -0.1729,
    "a3": -0.062465473, "b3": 0.1284880679442551, "gamma": 0.13,
}  # fmt: skip
REPEATED = {
    "E": 1.86914, "A": 520.828, "B": 1487.69, "alpha": 0.3526596, "beta": 0.3526596,
    "R_D": 15.387756, "R_N": 5.309743,
}  # fmt: skip
ROUTED = {"a": -0.08, "b": -0.12, "c": 0.004, "d": 2.5, "E_start": 2.0, "E_max": 400.0}  # of nobody's runs
NAMES = {
    "farseer": {"N": "params", "D": "tokens"},
    "moe": {"dense_parameter_count": "params", "num_experts": "experts", "loss_validation": "loss"},
    "lr_bsz": {"non_embedding_param_size": "params", "data_size": "tokens", "lm_loss": "loss"},
    "data_constrained": {},
}
READ = ("params", "tokens", "unique_tokens", "experts", "loss")


@dataclass(frozen=True)
class Backtest:
    """Runs to fit and runs to predict.

    Args:
        name: of the table or law, and the cut.
        laws: to fit.
    """

    name: str
    train: Table
    test: Table
    laws: str | Sequence[str]


@dataclass(frozen=True)
class Score:
    """How the targets of a backtest were predicted.

    Args:
        error: relative, (n,).
        inside: whether the interval holds the run, (n,).
        half: half the interval's width over the prediction, (n,).
        seconds: it took.
    """

    error: Array
    inside: NDArray[np.bool_]
    half: Array
    seconds: float


def rows(table: Table, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Table:
    """Some rows of a table."""
    return {name: column[keep] for name, column in table.items()}


def join(pair: Pair) -> Table:
    """Train and test in one table."""
    return {name: np.concatenate([part[name] for part in pair]) for name in pair[0]}


def compute(table: Table) -> Array:
    """What a run took, up to a factor."""
    return table["params"] * table.get("tokens", np.ones_like(table["params"]))


def recorded(data: Path) -> dict[str, Pair]:
    """Train and test of every table."""
    found = {}
    for name, names in NAMES.items():
        pair = []
        for part in ("train", "test"):
            frame = pd.read_parquet(data / "scalebench" / f"{name}_{part}.parquet").rename(columns=names)
            pair.append({key: frame[key].to_numpy(dtype=float) for key in READ if key in frame})
        found[name] = (pair[0], pair[1])
    n, d, loss = load(data / "chinchilla.csv")
    whole = {"params": n, "tokens": d, "loss": loss}
    found["chinchilla"] = split(whole, 6.0 * compute(whole) <= 1.0001e20)
    return found


def twins(seed: int = 0) -> dict[str, Pair]:
    """The same tables, drawn from published constants with noise."""
    rng = np.random.default_rng(seed)

    def drawn(law: str, constants: Mapping[str, float], columns: Table, noise: float) -> Table:
        loss = LAWS[law].at(constants, columns)
        return columns | {"loss": loss * np.exp(noise * rng.standard_normal(len(loss)))}

    def mesh(one: str, first: ArrayLike, other: str, second: ArrayLike) -> Table:
        a, b = np.meshgrid(np.asarray(first, dtype=float), np.asarray(second, dtype=float))
        return {one: a.ravel(), other: b.ravel()}

    small = mesh("params", np.geomspace(1e8, 6.4e9, 20), "tokens", np.geomspace(1e9, 5e11, 20))
    large = {"params": np.geomspace(2.3e9, 2.5e10, 7), "tokens": np.geomspace(1.3e11, 4.5e11, 7)}
    found = {"farseer": tuple(drawn("farseer", FARSEER, part, 0.002) for part in (small, large))}
    cells = mesh("params", np.geomspace(6e7, 1.1e9, 5), "tokens", np.geomspace(2e9, 1e11, 6))
    whole = drawn("chinchilla", PUBLISHED, cells, 0.003)
    found["lr_bsz"] = split(whole, compute(whole) < 1e20)
    params, unique = np.exp(rng.uniform(np.log([[7e6], [1e8]]), np.log([[9e9], [1.7e11]]), (2, 182)))
    tokens = unique * rng.choice([1.0, 1.0, 2.0, 4.0, 10.0, 40.0], 182)
    whole = drawn("repetition", REPEATED, {"params": params, "tokens": tokens, "unique_tokens": unique}, 0.01)
    found["data_constrained"] = split(whole, compute(whole) <= np.sort(compute(whole))[160])
    sizes = np.array([1.65e7, 2.73e7, 5.74e7, 1.32e8, 3.68e8, 1.31e9])
    cells = mesh("params", np.repeat(sizes, 3), "experts", 2.0 ** np.arange(10))
    whole = drawn("experts_routed", ROUTED, cells, 0.004)
    found["moe"] = split(whole, whole["params"] < 1e9)
    n, d, loss = twin()
    whole = {"params": n, "tokens": d, "loss": loss}
    found["chinchilla"] = split(whole, 6.0 * compute(whole) <= 1.0001e20)
    return {name: (pair[0], pair[1]) for name, pair in found.items()}


def split(table: Table, small: NDArray[np.bool_]) -> Pair:
    """Rows to fit and the rest."""
    return rows(table, small), rows(table, ~small)


def best_of_cells(table: Table) -> Table:
    """The lowest loss at every (N, D) with at least 20 runs; a table of one run a cell stays."""
    frame = pd.DataFrame({name: table[name] for name in ("params", "tokens", "loss")})
    cells = frame.groupby(["params", "tokens"]).loss.agg(["min", "size"]).reset_index()
    cells = cells[cells["size"] >= min(20, cells["size"].max())]
    return {
        "params": cells["params"].to_numpy(dtype=float),
        "tokens": cells["tokens"].to_numpy(dtype=float),
        "loss": cells["min"].to_numpy(dtype=float),
    }


def of_tables(tables: Mapping[str, Pair], seed: int = 0) -> Iterator[Backtest]:
    """Every cut of every table."""
    rng = np.random.default_rng(seed)

    def by_compute(name: str, table: Table, shares: Sequence[float]) -> Iterator[Backtest]:
        size = compute(table)
        for share in shares:
            small = size <= np.quantile(size, share)
            yield Backtest(f"{name}, C <= {share:.0%}", *split(table, small), "auto")

    def few(name: str, table: Table, runs: int) -> Iterator[Backtest]:
        for k in range(3):
            some = rng.choice(len(table["loss"]), runs, replace=False)
            yield from by_compute(f"{name}, {runs} runs #{k}", rows(table, some), (0.75,))

    train, test = tables["farseer"]
    yield Backtest("farseer, train to test", train, test, "auto")
    yield Backtest("farseer, N < 3.8e9", *split(train, train["params"] < 3.8e9), "auto")
    yield from by_compute("farseer", train, (0.9, 0.7, 0.5))
    yield from few("farseer", train, 40)
    whole = join(tables["chinchilla"])
    for cut in (1e20, 3e20, 1e21):
        small = 6.0 * compute(whole) <= 1.0001 * cut
        yield Backtest(f"chinchilla, C <= {cut:.0e}", *split(whole, small), "auto")
    yield from few("chinchilla", whole, 50)
    train, test = tables["data_constrained"]
    yield Backtest("repeated, train to test", train, test, "auto")
    yield from by_compute("repeated", train, (0.85, 0.7, 0.5))
    once = train["tokens"] <= 1.01 * train["unique_tokens"]
    fresh = {name: train[name][once] for name in ("params", "tokens", "loss")}
    yield from by_compute("repeated, once", fresh, (0.85, 0.7, 0.5))
    train, test = tables["moe"]
    yield Backtest("moe, train to test", train, test, "auto")
    for top in (3e8, 1e8):
        yield Backtest(f"moe, N < {top:.0e}", *split(train, train["params"] < top), "auto")
    yield from by_compute("lr_bsz best", best_of_cells(join(tables["lr_bsz"])), (0.85, 0.7, 0.5))


CHOICES: Mapping[str, Sequence[float]] = {
    "experts": [1, 2, 4, 8, 16, 32, 64],
    "granularity": [1, 2, 4, 8, 16],
    "streams": [1, 2, 4, 8],
    "members": [1, 2, 3, 4, 5, 6, 7, 8],
    "bits": [2, 3, 4, 6, 8, 12, 16],
    "exponent_bits": [1, 2, 3, 4, 5],
    "mantissa_bits": [1, 2, 3, 5, 7, 10],
    "block": [16, 32, 64, 128, 256, 512, 1024],
    "kept": [0.1, 0.2, 0.4, 0.6, 0.8, 1.0],
    "depth": [4, 8, 12, 16, 24, 32],
    "width": [256, 512, 768, 1024, 1536, 2048],
}
RANGES = {
    "tokens": (1e9, 1e11),
    "unique_tokens": (1e9, 1e11),
    "steps": (3e3, 3e5),
    "batch": (3e4, 3e6),
    "flops": (1e17, 1e21),
    "x": (1e3, 1e7),
}
SIZES = (1e7, 3e9)  # of everything else


def columns(law: Law, rng: np.random.Generator) -> Table:
    """What a law reads over some decades, and the compute of each run."""

    def spread(low: float, high: float) -> Array:
        return np.exp(rng.uniform(np.log(low), np.log(high), RUNS))

    found: Table = {}
    for name in law.columns:
        if name in CHOICES:
            found[name] = rng.choice(np.array(CHOICES[name], dtype=float), RUNS)
        else:
            found[name] = spread(*RANGES.get(name, SIZES))
    if {"width", "depth", "params"} <= set(found):
        found["params"] = 12.0 * found["width"] ** 2 * found["depth"]
    if "vocab_params" in found:
        found["vocab_params"] = found["params"] * spread(0.02, 0.5)
    if "unique_tokens" in found:
        found["tokens"] = found["unique_tokens"] * 2.0 ** rng.integers(0, 6, RUNS)
    if "loss_in" in found:
        flops = spread(*RANGES["flops"])
        return {"loss_in": 1.8 + 300.0 * flops**-0.13, "flops": flops}
    if "flops" in found:
        return found
    if "width" in found:
        size = 12.0 * found["width"] ** 2 * found["depth"]
    elif "encoder_params" in found:
        size = found["encoder_params"] + found["decoder_params"]
    else:
        size = found.get("params", np.ones(RUNS))
    seen = found["tokens"] if "tokens" in found else found.get("steps", np.ones(RUNS))
    other = found.get("members", np.ones(RUNS)) * found.get("x", 1.0) * found.get("compute", 1.0)
    return found | {"flops": 6.0 * size * seen * other}


def of_law(law: Law, seed: int) -> Backtest | None:
    """A surface of a law; None where no draw of its constants gives finite losses."""
    rng = np.random.default_rng([seed, *law.name.encode()])
    mean, sd = (np.array([getattr(one, key) for one in law.parameters]) for key in ("mean", "sd"))
    for _ in range(20):
        table = columns(law, rng)
        order = np.argsort(table["flops"], kind="stable")
        table = rows(table, order)
        small = np.arange(RUNS) < round(SHARE * RUNS)
        x: Table = {}
        for name in law.columns:
            like = quantity(name).like
            centre = np.log(table[like if like in table else name][small])
            log = np.log(table[name])
            x |= {own(name): log, name: log - (centre.mean() if quantity(name).centred else 0.0)}
        theta = mean + WIDE * sd * rng.standard_normal(len(mean))
        with np.errstate(all="ignore"):
            value = law.evaluate(theta, x)[0]
        if np.all(np.isfinite(value)) and np.ptp(value[small]) > 2.0 * NOISE and np.ptp(value) < 5.0:
            loss = 3.0 * np.exp(value + NOISE * rng.standard_normal(RUNS))
            return Backtest(f"{law.name} #{seed}", *split(table | {"loss": loss}, small), [law.name])
    return None


def score(one: Backtest) -> Score:
    """Fits the smaller runs and predicts the larger."""
    begin = time.perf_counter()
    at = {name: column for name, column in one.test.items() if name != "loss"}
    study = fit(one.train, laws=one.laws, target=at)
    found = predict(study, at)
    taken, loss = time.perf_counter() - begin, one.test["loss"]
    middle, low, high = (np.array([getattr(f, key) for f in found]) for key in ("loss", "low", "high"))
    inside = (loss >= low) & (loss <= high)
    return Score(np.abs(middle / loss - 1.0), inside, 0.5 * (high - low) / middle, taken)


def line(name: str, fitted: object, scores: Sequence[Score]) -> None:
    """One row of the table; several scores are pooled over their targets."""
    error, half = (np.concatenate([getattr(s, key) for s in scores]) for key in ("error", "half"))
    inside, seconds = np.concatenate([s.inside for s in scores]), sum(s.seconds for s in scores)
    print(
        f"{name:34} {fitted!s:>7} {len(error):>7} {error.mean():>8.2%} {inside.mean():>8.0%} "
        f"{np.median(half):>10.2%} {seconds:>7.1f}",
        flush=True,
    )


def total(name: str, groups: Mapping[str, Sequence[Score]]) -> None:
    """Coverage over targets and over backtests, in sum and apart."""
    print(f"\n{name:34} {'backtests':>9} {'targets':>8} {'coverage over targets':>22} {'over backtests':>15}")
    for label, scores in groups.items():
        if scores:
            inside = np.concatenate([s.inside for s in scores])
            each = np.mean([s.inside.mean() for s in scores])
            print(f"{label:34} {len(scores):>9} {len(inside):>8} {inside.mean():>22.1%} {each:>15.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=3, help="surfaces of each law")
    parser.add_argument("--only", default="", help="backtests whose name has this")
    given = parser.parse_args()
    begin = time.perf_counter()
    names = f"{'runs':>7} {'targets':>7} {'error':>8} {'covered':>8} {'half-width':>10} {'seconds':>7}"
    kind = "recorded tables" if given.data else "twins of tables"
    print(f"{kind:34} {names}")
    groups: dict[str, list[Score]] = {}
    tables: list[Score] = []
    for cut in of_tables(recorded(given.data) if given.data else twins()):
        if given.only in cut.name:
            found = score(cut)
            line(cut.name, len(cut.train["loss"]), [found])
            tables.append(found)
            groups.setdefault(cut.name.partition(",")[0], []).append(found)
    print(f"\n{f'surfaces of laws, {given.seeds} each':34} {names}")
    surfaces: list[Score] = []
    skipped = []
    for name, law in LAWS.items():
        if given.only not in name:
            continue
        try:
            drawn = [one for seed in range(given.seeds) if (one := of_law(law, seed)) is not None]
            scores = [score(one) for one in drawn]
        except FitError as error:
            skipped.append(f"{name}: {error}")
            continue
        if not scores:
            skipped.append(f"{name}: no draw of its constants gave finite losses")
            continue
        line(name, len(drawn[0].train["loss"]), scores)
        surfaces += scores
    for words in skipped:
        print(f"not fitted: {words}")
    both = {**groups, kind: tables, "surfaces": surfaces, "all": tables + surfaces}
    total("90 % intervals for new runs", both)
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
