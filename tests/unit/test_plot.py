"""The picture is drawn from what the answer says."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import World, observe, spec

from sweeps.ensemble import fit_ensemble
from sweeps.plot import Picture, html, picture, png


@pytest.fixture(scope="module")
def drawn() -> Picture:
    asked, world = spec(laws={"names": ["chinchilla"]}), World()
    runs = observe(asked, world, 20, seed=1)
    ensemble = fit_ensemble(asked, runs, np.random.default_rng(0))
    return picture(asked, ensemble, runs, {"big": 2.2}, [(10, 0.1), (20, 0.03)])


def test_picture_has_runs_law_target_and_verification(drawn: Picture) -> None:
    assert len(drawn.runs) == 20
    assert drawn.law is not None and np.all(drawn.law.low < drawn.law.high)
    assert drawn.law.flops[-1] > drawn.targets["big"].flops
    assert drawn.lr is not None and np.all(drawn.lr.low < drawn.lr.high)
    assert drawn.measured == {"big": 2.2}


def test_png_is_a_png(drawn: Picture) -> None:
    assert png(drawn).startswith(b"\x89PNG")


def test_html_stands_alone_and_names_the_target(drawn: Picture) -> None:
    page = html(drawn)
    assert "big measured" in page and "training FLOPs" in page
    assert 'src="http' not in page
