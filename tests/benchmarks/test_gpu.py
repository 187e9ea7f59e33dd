"""The benchmark for a GPU runs without one, at tiny sizes, through the same code."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_part_of_the_gpu_benchmark_runs_on_a_cpu(tmp_path):
    output = tmp_path / "found.json"
    command = ["bash", "benchmarks/gpu.sh", "--device", "cpu", "--tiny", "--rounds", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--output", str(output)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(output.read_text())
    assert set(found["head"]) >= {"naive", "ours", "fused"}
    assert all(side["seconds"] > 0 for side in found["head"].values())
    layouts = {row["layout"]: row for row in found["layouts"]}
    assert set(layouts) == {"TokenBatch", "PackedBatch", "SharedBatch"}
    assert all(row["used"] == name and row["mfu"] is None for name, row in layouts.items())
    if isinstance(found["trl"], str):
        pytest.skip(f"trl: {found['trl']}")
    [beside] = found["trl"]
    assert beside["ratio_training"] > 0 and beside["ratio_end_to_end"] > 0
    assert beside["ours"]["tokens_per_second"] > 0
