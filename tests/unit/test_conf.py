from __future__ import annotations

import threading
from pathlib import Path

import pytest

import conf
from sweeps.space import candidates
from sweeps.spec import parse, to_dict, warnings

VARIABLES = ("HOME", "DATABASE_URL", "TOKEN", "URL", "HOST", "PORT")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*(f"SCALEWISE_{name}" for name in VARIABLES), "RAY_ADDRESS", "MLFLOW_TRACKING_URI"]:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("preset", conf.presets())
def test_every_preset_parses_and_has_runs_to_choose_from(preset: str) -> None:
    spec = parse(conf.sweep(preset))
    assert parse(to_dict(spec)) == spec
    assert warnings(spec) == []
    assert len(candidates(spec)) >= spec.budget.runs >= spec.strategy.first_batch


@pytest.mark.parametrize("preset", conf.presets())
def test_the_target_of_every_preset_lies_beyond_its_runs(preset: str) -> None:
    spec = parse(conf.sweep(preset))
    largest = candidates(spec)["flops"].max()
    for target in spec.targets:
        assert spec.cost(spec.complete(target.at)).flops > largest


def test_the_demo_target_costs_at_least_eight_times_the_largest_run() -> None:
    spec = parse(conf.sweep("gpt_stdlib"))
    target = spec.cost(spec.complete(spec.targets[0].at)).flops
    assert target >= 8 * candidates(spec)["flops"].max()


def test_settings_of_the_embedded_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = conf.load()
    assert settings["home"] == str(tmp_path / ".scalewise")
    assert settings["store"]["url"] == f"sqlite:///{tmp_path}/.scalewise/scalewise.db"
    assert settings["cluster"]["address"] is None
    assert settings["cluster"]["checkpoints"] == f"{tmp_path}/.scalewise/checkpoints"
    assert settings["tracking"] == {"uri": "http://127.0.0.1:5000", "experiment": "scalewise"}
    assert settings["api"]["token"] is None
    assert settings["api"]["port"] == 8000
    assert list(tmp_path.iterdir()) == []


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+psycopg://user:pass@db:5432/scalewise"
    monkeypatch.setenv("SCALEWISE_HOME", "/data")
    monkeypatch.setenv("SCALEWISE_DATABASE_URL", url)
    monkeypatch.setenv("SCALEWISE_TOKEN", "0123")
    monkeypatch.setenv("SCALEWISE_PORT", "8123")
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    settings = conf.load("cluster=ray")
    assert settings["home"] == "/data"
    assert settings["store"]["url"] == url
    assert conf.load("store=postgres")["store"]["url"] == url
    assert settings["api"] == {
        "host": "127.0.0.1",
        "port": 8123,
        "token": "0123",
        "url": "http://127.0.0.1:8123",
    }
    assert settings["cluster"]["address"] == "head:6379"
    assert conf.load()["cluster"]["address"] is None
    assert settings["tracking"]["uri"] == "http://mlflow:5000"


def test_overrides_of_settings() -> None:
    settings = conf.load("tracking=none", "home=/data", "api.port=9000", "cluster.slots=3")
    assert settings["tracking"]["uri"] is None
    assert settings["store"]["url"] == "sqlite:////data/scalewise.db"
    assert settings["api"]["url"] == "http://127.0.0.1:9000"
    assert settings["cluster"]["slots"] == 3
    assert conf.load("trainers=[mylab]")["trainers"] == conf.load("trainers=mylab")["trainers"] == ["mylab"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("api.prt=1", ["'api.prt=1'", "api.port"]),
        ("api.port=http", ["'http'", "a number"]),
        ("api.port=[1]", ["a number"]),
        ("store=mysql", ["'store=mysql'", "postgres, sqlite"]),
        ("store=postgres", ["store.url", "SCALEWISE_DATABASE_URL"]),
        ("cluster=ray", ["cluster.address", "RAY_ADDRESS"]),
        ("api.port", ["'api.port'", "key=value"]),
        ("~api.port", ["'~api.port'", "settings are"]),
        ("api.port=1,2", ["several values", "key=[a,b]"]),
        ("trainers=[mylab:train]", ["mylab:train", "a list of modules"]),
    ],
)
def test_a_bad_setting_is_named(override: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        conf.load(override)
    for word in words:
        assert word in str(caught.value)


def test_overrides_of_a_sweep_replace_and_add() -> None:
    given = conf.sweep(
        "gpt_tiny",
        "budget.runs=12",
        "budget.flops=1e15",
        "space.lr=[1e-3,3e-3]",
        "space.tokens={from:1e4,to:2e4,steps:2}",
        "space.weight_decay=0.2",
        "targets.0.at.width=64",
        "~space.batch",
        "laws.names=[power]",
        "name='two words'",
    )
    spec = parse(given)
    assert spec.budget.runs == 12
    assert spec.budget.flops == 1e15
    assert spec.space["lr"].values == (1e-3, 3e-3)
    assert spec.space["tokens"].values == (1e4, 2e4)
    assert spec.space["weight_decay"].values == (0.2,)
    assert "batch" not in spec.space
    assert spec.targets[0].at["width"] == 64
    assert spec.laws.names == ("power",)
    assert spec.name == "two words"
    assert conf.sweep("gpt_tiny", "proxy=gpt") == conf.sweep("gpt_tiny")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gpt_huge"], ["'gpt_huge'", "gpt_stdlib, gpt_tiny"]),
        (["gpt_tiny", "proxy=bert"], ["'proxy=bert'", "one of convnet, gpt, mlp, vit"]),
        (["gpt_tiny", "budget.runs"], ["'budget.runs'", "key=value"]),
        (["gpt_tiny", "targets.1.at.width=8"], ["'1'", "0 to 0"]),
        (["gpt_tiny", "targets.at=8"], ["'at'", "0 to 0"]),
        (["gpt_tiny", "seed.x=8"], ["seed is 0", "'x'"]),
        (["gpt_tiny", "seed.x.y=8"], ["'x'", "nothing below it"]),
        (["gpt_tiny", "~space.beta2"], ["'beta2'", "width, depth"]),
    ],
)
def test_a_bad_override_of_a_sweep_is_named(arguments: list[str], words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        conf.sweep(*arguments)
    for word in words:
        assert word in str(caught.value)


def test_an_override_the_specification_does_not_know_reaches_its_check() -> None:
    assert conf.sweep("gpt_tiny", "budget.rns=3")["budget"]["rns"] == 3


def test_threads_may_compose_at_once() -> None:
    found: list[int] = []

    def compose(runs: int) -> None:
        found.append(conf.sweep("gpt_tiny", f"budget.runs={runs}")["budget"]["runs"])
        conf.load()

    threads = [threading.Thread(target=compose, args=(runs,)) for runs in range(5, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(5, 11))
