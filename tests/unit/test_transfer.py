"""Rules that carry hyperparameters over scales: their powers, and the priors they make."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from synthetic import SPACE, World, observe, spec

from sweeps.answers import optimum
from sweeps.ensemble import fit_ensemble
from sweeps.errors import FitError, SpecError
from sweeps.hyper import Recipe, deepseek, step_law
from sweeps.spec import warnings
from sweeps.study import fit
from sweeps.surface import Surface, surface, surface_over
from sweeps.transfer import RULES, slopes, transfer

MUP = {"transfer": "mup"}


def priors(bowl: Surface, axis: str) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the slopes of an axis, as the fit has them."""
    start = f"{axis}* by "
    found = [one for one in bowl.parameters if one.name.startswith(start)]
    return {one.name.removeprefix(start): (one.mean, one.sd) for one in found}


def table(rows: int = 40, slope: float = -0.35) -> dict[str, np.ndarray]:
    """Runs whose best rate is a power of their size."""
    rng = np.random.default_rng(0)
    params, tokens = 10 ** rng.uniform(5.0, 6.5, rows), 10 ** rng.uniform(6.5, 8.0, rows)
    lr = 1e-2 * 2.0 ** rng.integers(-3, 3, rows)
    off = np.log(lr / (8e-3 * (params / 1e6) ** slope))
    loss = (1.5 + 20.0 * params**-0.3 + 50.0 * tokens**-0.3) * np.exp(
        0.02 * off**2 + 0.003 * rng.standard_normal(rows)
    )
    return {"params": params, "tokens": tokens, "lr": lr, "loss": loss}


def test_settings_are_multiplied_by_powers() -> None:
    assert transfer("lr", 0.01, {"width": 4.0}) == pytest.approx(0.0025)
    assert transfer("lr", 0.01, {"batch": 4.0}) == pytest.approx(0.02)
    assert transfer("weight_decay", 0.1, {"width": 4.0}) == pytest.approx(0.2)
    assert transfer("weight_decay", 0.1, {"batch": 2.0, "tokens": 4.0}) == pytest.approx(0.05)


def test_top_singular_value_is_kept_over_widths() -> None:
    """sqrt(lr / weight decay) width^0.75 is constant (arXiv 2510.15262)."""
    lr, decay = transfer("lr", 1.0, {"width": 16.0}), transfer("weight_decay", 1.0, {"width": 16.0})
    assert np.sqrt(lr / decay) * 16.0**0.75 == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "rule"), [("step_law", step_law), ("deepseek", deepseek)])
def test_published_rules_have_the_slopes_of_their_formulas(
    name: str, rule: Callable[[float, float], Recipe]
) -> None:
    base = rule(1e9, 2e10)
    for axis in ("lr", "batch"):
        for column, more in (("params", rule(1e10, 2e10)), ("tokens", rule(1e9, 2e11))):
            slope = float(np.log10(getattr(more, axis) / getattr(base, axis)))
            (mean,) = (mean for c, mean, _ in slopes(name, axis) if c == column)
            assert mean == pytest.approx(slope, abs=1e-3)


def test_slopes_in_width_become_slopes_in_parameters() -> None:
    weak, deep = priors(surface(spec()), "lr"), priors(surface(spec(laws=MUP)), "lr")
    assert weak == {"params": (-0.4, 0.3), "tokens": (0.1, 0.3)}
    assert deep == {"params": pytest.approx((-1 / 3, 0.4 / 3)), "tokens": weak["tokens"]}
    flat = priors(surface(spec(space=SPACE | {"depth": 2}, laws=MUP)), "lr")
    assert flat["params"] == pytest.approx((-1 / 2, 0.4 / 2))


def test_weight_decay_follows_what_varies_and_a_linear_axis_nothing() -> None:
    varied = {"weight_decay": [0.01, 0.1], "lr": [1e-3, 1e-2], "batch": [8.0, 32.0]}
    found = priors(surface_over(varied, "mup"), "weight_decay")
    assert {name: mean for name, (mean, _) in found.items()} == {
        "params": pytest.approx(1 / 6), "batch": 1.0, "tokens": -1.0
    }  # fmt: skip
    del varied["batch"]
    assert set(priors(surface_over(varied, "mup"), "weight_decay")) == {"params", "tokens"}
    assert priors(surface_over(varied | {"weight_decay": [0.0, 0.1]}, "mup"), "weight_decay") == {}
    assert priors(surface_over(varied), "weight_decay") == {}


def test_every_rule_is_narrower_than_the_weak_priors() -> None:
    varied = {"lr": [1e-3, 1e-2], "batch": [8.0, 32.0]}
    for axis in varied:
        weak = priors(surface_over(varied), axis)
        for rule in RULES:
            assert all(sd <= weak[c][1] for c, (_, sd) in priors(surface_over(varied, rule), axis).items())
    assert all(one.source for rule in RULES.values() for axis in rule.values() for one in axis)


def test_the_gradient_of_a_bowl_with_a_batch_that_weight_decay_follows() -> None:
    varied = {"weight_decay": [0.01, 0.1], "lr": [1e-3, 1e-2], "batch": [8.0, 32.0]}
    bowl, rng = surface_over(varied, "mup"), np.random.default_rng(0)
    theta = np.array([p.mean + p.sd * rng.standard_normal() for p in bowl.parameters])
    x = {name: rng.normal(0.0, 1.5, 6) for name in ("params", "tokens", *varied)}
    step = 1e-6 * np.eye(len(theta))
    numeric = [(bowl.evaluate(theta + e, x)[0] - bowl.evaluate(theta - e, x)[0]) / 2e-6 for e in step]
    np.testing.assert_allclose(bowl.evaluate(theta, x)[1], np.stack(numeric, axis=-1), atol=1e-6)


def test_sweeps_with_few_runs_know_their_rate_better_under_a_rule_that_holds() -> None:
    """Single intervals may be wider, as laws then weigh otherwise: it is their mean that narrows."""
    narrower, world = [], World()
    for seed in range(4):
        widths = {}
        for rule in ("none", "mup"):
            asked = spec(laws={"transfer": rule})
            fitted = fit_ensemble(asked, observe(asked, world, 16, seed=seed), np.random.default_rng(0))
            lr = optimum(asked, fitted, asked.targets[0].at).settings["lr"]
            assert lr.low < world.best(asked, asked.targets[0].at)[0] < lr.high
            widths[rule] = np.log(lr.high / lr.low)
        narrower.append(np.log(widths["mup"] / widths["none"]))
    assert np.mean(narrower) < np.log(0.95)


def test_runs_overrule_a_rule_that_does_not_hold() -> None:
    study = fit(table(160), laws="chinchilla", transfer="step_law")
    at = {"params": 1e7, "tokens": 1e9}
    assert study.settings(at)["lr"].value == pytest.approx(8e-3 * 10**-0.35, rel=0.3)


def test_a_fit_tells_its_rule_and_refuses_another() -> None:
    told = fit(table(), laws="chinchilla", transfer="mup").checklist["transfer"]
    assert told.startswith("mup: muP, Adam") and "2203.03466" in told
    assert fit(table(), laws="chinchilla").checklist["transfer"] == "none: weak priors"
    with pytest.raises(FitError, match=r"given transfer 'muq'; allowed: one of none, mup, .*mean mup"):
        fit(table(), transfer="muq")
    (told,) = warnings(spec(laws=MUP, trainer={"optimizer": "sgd"}))
    assert told.startswith("laws.transfer: mup is a rule for AdamW")
    assert not warnings(spec(laws=MUP))
    with pytest.raises(SpecError) as caught:
        spec(laws={"transfer": "muq"})
    (problem,) = caught.value.problems
    assert (problem.field, problem.given) == ("laws.transfer", "'muq'")
    assert problem.allowed == "one of none, mup, step_law, deepseek (did you mean mup?)"
