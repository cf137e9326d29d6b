"""Mirrors sweeps and runs from the database to MLflow: a parent run for a sweep, a child run for each run.

Everything can be written twice: runs are found again by their tag, points carry their own time and step.
"""

from __future__ import annotations

import logging
import math
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

# MLflow's own patience is minutes, and it reports its use to its makers.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from store.fits import FitHeader
from store.mirror import MirrorRun, MirrorSweep
from sweeps.answers import Prediction
from sweeps.runs import Role, Run, RunState, Sweep, SweepState
from sweeps.spec import SweepSpec, to_dict
from workers.titles import number, title

log = logging.getLogger(__name__)

KEY = "scalewise.key"
BATCH = 1000  # metrics that MLflow takes in one request
SWEEP_STATUS = {SweepState.FINISHED: "FINISHED", SweepState.CANCELLED: "KILLED"}
RUN_STATUS = {
    RunState.QUEUED: "SCHEDULED",
    RunState.RUNNING: "RUNNING",
    RunState.FINISHED: "FINISHED",
    RunState.DIVERGED: "FINISHED",
    RunState.FAILED: "FAILED",
    RunState.CANCELLED: "KILLED",
}


@dataclass(frozen=True)
class Target:
    """An experiment on an MLflow server."""

    client: MlflowClient
    experiment: str


def connect(uri: str, experiment: str) -> Target:
    """Finds the experiment of that name; makes it, or brings it back, where it is missing."""
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return Target(client, str(client.create_experiment(experiment)))
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
    return Target(client, str(found.experiment_id))


def show_sweep(target: Target, item: MirrorSweep, fits: Sequence[FitHeader]) -> str:
    """Writes a sweep's parent run: what it asks, its state, and every fit's prediction.

    Args:
        fits: those not written yet.

    Returns:
        MLflow's id of the run.
    """
    sweep, client = item.sweep, target.client
    key = _key("sweep", sweep.id, sweep.created_at)
    shown = item.mirror_id or _find(target, key)
    if shown is None:
        tags = {KEY: key, "sweep": str(sweep.id)}
        began = _milliseconds(sweep.created_at)
        shown = str(client.create_run(target.experiment, began, tags, sweep.name).info.run_id)
    tags = {"state": sweep.state.value, "spec_hash": sweep.spec_hash}
    if sweep.warnings:
        tags["warnings"] = "\n".join(sweep.warnings)
    if sweep.reason:
        tags["reason"] = sweep.reason
    latest = fits[-1].predictions if fits else {}
    for name, prediction in latest.items():
        tags[f"prediction.{_safe(name)}"] = _in_words(sweep.spec, prediction)
        if prediction.warnings:
            tags[f"warnings.{_safe(name)}"] = "\n".join(one.message for one in prediction.warnings)
    if latest:
        tags[MLFLOW_RUN_NOTE] = _note(sweep, latest)
    if item.mirror_id is None:
        client.log_dict(shown, to_dict(sweep.spec), "spec.json")
        _log(client, shown, [], _sweep_params(sweep.spec), {})
    _log(client, shown, [metric for fit in fits for metric in _fit_metrics(fit)], {}, tags)
    status = SWEEP_STATUS.get(sweep.state)
    if status is None:
        client.update_run(shown, "RUNNING")
    else:
        client.set_terminated(shown, status, _milliseconds(sweep.finished_at or sweep.created_at))
    return shown


def show_run(target: Target, item: MirrorRun, spec: SweepSpec, new: bool = False) -> str:
    """Writes a run: its settings once, its next points, its state, and its end.

    Args:
        new: nobody can have created it in MLflow yet, so that it need not be looked for.

    Returns:
        MLflow's id of the run.
    """
    run, client = item.run, target.client
    key, tags = _key("run", run.id, run.created_at), _run_tags(item)
    shown = item.mirror_id or (None if new else _find(target, key))
    if shown is None:
        own = {KEY: key, MLFLOW_PARENT_RUN_ID: item.parent_id, "role": run.role.value, "run": str(run.id)}
        began = _milliseconds(run.started_at or run.created_at)
        # Tags cost the server a fraction of what they do in a batch.
        made = client.create_run(target.experiment, began, own | _cut(tags), _run_name(spec, run))
        shown, tags = str(made.info.run_id), {}
    params = _run_params(run) if item.mirror_id is None else {}
    metrics = [
        Metric(_safe(point.metric), point.value, int(point.at * 1000), point.step) for point in item.points
    ]
    if run.finished_at is not None and not item.more:
        metrics.append(Metric("device_seconds", run.seconds, _milliseconds(run.finished_at), run.step))
    _log(client, shown, metrics, params, tags)
    status = RUN_STATUS[run.state]
    if run.finished_at is None or item.more:
        client.update_run(shown, "RUNNING" if item.more else status)
    else:
        client.set_terminated(shown, status, _milliseconds(run.finished_at))
        if run.role is Role.TARGET and run.state is RunState.FINISHED and run.loss is not None:
            _log(client, item.parent_id, [_measured(run, run.loss)], {}, {})
    return shown


def _run_tags(item: MirrorRun) -> dict[str, str]:
    """What of a run may change, and why it was chosen."""
    run = item.run
    tags = {"state": run.state.value, "attempt": str(run.attempt), "sweep": str(run.sweep_id)}
    tags["diverged"] = str(run.state is RunState.DIVERGED).lower()
    if item.reason:
        tags["why"] = item.reason
    tags |= {f"expected.{_safe(name)}": f"{value:.4g}" for name, value in item.expected.items()}
    tags |= {f"scalewise.{name}": _in_a_word(value) for name, value in item.provenance.items()}
    if run.reason:
        tags["reason"] = run.reason
    if run.branch is not None:
        tags |= {"branch.run": str(run.branch.run_id), "branch.step": str(run.branch.step)}
    return tags


def is_gone(error: Exception) -> bool:
    """Whether it says that somebody deleted the run in MLflow."""
    if not isinstance(error, MlflowException):
        return False
    return error.error_code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in str(error)


def show_picture(target: Target, shown: str, image: bytes, page: str) -> None:
    """Writes the picture of the law, as an image and as a page to explore."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "law.png"
        path.write_bytes(image)
        target.client.log_artifact(shown, str(path))
    target.client.log_text(shown, page, "law.html")


def _log(
    client: MlflowClient, shown: str, metrics: Sequence[Metric], params: dict[str, str], tags: dict[str, str]
) -> None:
    """Writes everything in as few requests as MLflow allows."""
    first = [Param(key, value) for key, value in params.items()]
    also = [RunTag(key, value) for key, value in _cut(tags).items()]
    client.log_batch(shown, metrics[:BATCH], first, also)
    for start in range(BATCH, len(metrics), BATCH):
        client.log_batch(shown, metrics[start : start + BATCH])


def _cut(tags: dict[str, str]) -> dict[str, str]:
    """Tags as long as MLflow takes them."""
    return {key: value[:5000] for key, value in tags.items()}


def _find(target: Target, key: str) -> str | None:
    """A run that was created before a crash kept us from noting its id."""
    found = target.client.search_runs([target.experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _key(noun: str, number: int, created_at: datetime) -> str:
    """Tells the runs of several databases apart that share an MLflow server."""
    return f"{noun}-{number}-{created_at.isoformat()}"


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _safe(name: str) -> str:
    """A name without what MLflow refuses."""
    return re.sub(r"[^\w\- /]", "_", name)[:200]


def _in_a_word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _run_name(spec: SweepSpec, run: Run) -> str:
    name = title(spec, run.config)
    return f"target {name}" if run.role is Role.TARGET else name


def _run_params(run: Run) -> dict[str, str]:
    counts = {
        name: getattr(run.cost, name) for name in ("params_total", "params_body", "params_active", "flops")
    }
    return {_safe(name): f"{value:.10g}" for name, value in (run.config | counts).items()}


def _sweep_params(spec: SweepSpec) -> dict[str, str]:
    budget = {
        "budget.runs": spec.budget.runs,
        "budget.flops": spec.budget.flops,
        "budget.device_seconds": spec.budget.device_seconds,
    }
    params = {name: f"{value:g}" for name, value in budget.items() if value is not None}
    params |= {"strategy": spec.strategy.name, "laws": ", ".join(spec.laws.names), "proxy": spec.proxy.kind}
    params |= {"dataset": spec.proxy.dataset, "metric": f"{spec.metric.name} ({spec.metric.unit})"}
    for asked in spec.targets:
        params[f"target.{_safe(asked.name)}"] = " ".join(f"{k}={number(v)}" for k, v in asked.at.items())
    return params


def _fit_metrics(fit: FitHeader) -> list[Metric]:
    """Each fit's predictions; the step is the number of observations it rests on."""
    at, step = _milliseconds(fit.created_at), fit.n_observations
    return [
        Metric(f"{_safe(name)}/{part}", value, at, step)
        for name, prediction in fit.predictions.items()
        for part, value in (
            ("predicted", prediction.loss),
            ("low", prediction.low),
            ("high", prediction.high),
            ("half_width", prediction.relative),
        )
        if math.isfinite(value)
    ]


def _measured(run: Run, loss: float) -> Metric:
    ended = run.finished_at or run.created_at
    return Metric(f"{_safe(run.target or 'target')}/measured", loss, _milliseconds(ended), run.step)


def _in_words(spec: SweepSpec, prediction: Prediction) -> str:
    return f"{prediction.loss:.4f} [{prediction.low:.4f}, {prediction.high:.4f}] {spec.metric.unit}"


def _note(sweep: Sweep, predictions: dict[str, Prediction]) -> str:
    """The description that MLflow shows on the parent run's page."""
    lines = [f"{sweep.spec.metric.name} with its 90 % interval:", ""]
    for name, prediction in predictions.items():
        at = " ".join(f"{axis}={number(value)}" for axis, value in prediction.at.items())
        lines.append(
            f"- **{name}**: {_in_words(sweep.spec, prediction)}, {prediction.extrapolation:.0f} times the "
            f"compute of the largest run; {at}"
        )
        lines += [f"  - {one.message}" for one in prediction.warnings]
    return "\n".join(lines)
