"""The benchmark for a GPU runs, all of it, where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.jsonl"
    command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    (line,) = out.read_text().splitlines()
    found = json.loads(line)
    assert found["tiny"] is True and found["ran"]["torch"]
    assert set(found["parts"]) == {"stack", "sharing", "share", "steps", "pays", "data"}
    rows = [row for part in found["parts"].values() for row in part]
    assert [row["error"] for row in rows if "error" in row] == []
    assert all(row["runs_per_hour"] > 0 for row in found["parts"]["stack"])
    assert [row["processes"] for row in found["parts"]["sharing"]] == [2]
    assert all(row["ratio"] > 0 and row["foretold"] > 0 for row in found["parts"]["sharing"])
    assert all(row["share"] > 0 for row in found["parts"]["share"])
    assert found["parts"]["data"][0]["glyphs_per_second"] > 0
    assert "ratio_of_steps" in done.stdout


def test_without_a_gpu_it_says_so() -> None:
    command = [sys.executable, "benchmarks/gpu.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "sees no GPU here; --tiny runs on a CPU" in done.stdout
