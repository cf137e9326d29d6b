"""Horizons of constant-rate trunks as observations that ``sweeps.fit`` takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweeps.curves.forecast import Horizons
from sweeps.curves.schedule import refuse
from sweeps.tables import Observed, Warning, observe


@dataclass(frozen=True)
class Trunk:
    """A trunk read as many runs.

    Args:
        params: of its model, counted as the laws shall read them.
        horizons: from ``horizons``.
    """

    params: float
    horizons: Horizons


def effective(found: Horizons) -> float:
    """How many independent runs would tell the level as well as these, which err together: 1' R^-1 1, with
    R the correlation of their errors; between 1 and how many there are."""
    sd = np.sqrt(np.diag(found.covariance))
    correlation = found.covariance / np.outer(sd, sd) + 1e-9 * np.eye(len(sd))
    one = np.ones(len(sd))
    return float(np.clip(one @ np.linalg.solve(correlation, one), 1.0, len(sd)))


def observed_from_horizons(trunks: Sequence[Trunk]) -> Observed:
    """A table of params, tokens and loss with a row for every horizon of every trunk; FLOPs follow as 6 N D.

    Rows of one trunk err together and ``sweeps.fit`` takes rows as independent: take lengths a factor of
    about 1.5 apart. A note says how much the rows are worth.

    Raises:
        FitError: no trunk, or two of one size and length.
        TableError: a column that cannot be used.
    """
    if not trunks:
        raise refuse("trunks", "none", "at least one")
    params = np.concatenate([np.full(len(one.horizons.steps), float(one.params)) for one in trunks])
    tokens = np.concatenate([one.horizons.tokens for one in trunks])
    loss = np.concatenate([one.horizons.loss for one in trunks])
    rows = len(np.unique(np.stack([params, tokens]), axis=1).T)
    if rows < len(loss):
        raise refuse("trunks", f"{len(loss)} rows of {rows} sizes and lengths", "one of each size and length")
    found = observe({"params": params, "tokens": tokens, "loss": loss})
    worth = sum(effective(one.horizons) for one in trunks)
    words = f"{len(loss)} horizons of {len(trunks)} trunk{'s' * (len(trunks) != 1)} err together: they tell "
    note = Warning("horizons_err_together", words + f"about as much as {worth:.1f} runs of their own")
    return replace(found, notes=(*found.notes, note))
