"""The pipeline's benchmark: every method trains, and what is reported adds up."""

import json
import sys

import pytest

from tests.system.launch import ROOT, run

BENCHMARK = [sys.executable, str(ROOT / "benchmarks" / "pipeline" / "speed.py")]
TINY = ["--rounds", "2", "--steps", "1", "--batch-size", "8", "--microbatches", "2"]


@pytest.mark.parametrize(
    "network",
    [
        ["--network", "mlp", "--depth", "2", "--cut", "1"],
        pytest.param(
            ["--network", "vgg16", "--width", "0.05", "--synthesizer-units", "4"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_throughput_of_all_methods(network: list[str]) -> None:
    result = run([*BENCHMARK, *network, *TINY])
    assert result.code == 0, result.text
    methods = json.loads(result.out)["throughput"]
    baselines = ["single", "torch-1f1b", "single-kept", "torch-1f1b-kept"]
    assert list(methods)[:4] == baselines
    decoupled = {"local", "synthetic", "conditioned", "delayed", "delayed-stashed"}
    late = {"delayed-stashed-predicted", "delayed-stashed-predicted-microbatches"}
    assert decoupled | late < set(methods)
    for name, entry in methods.items():
        assert entry["best_samples_per_s"] >= entry["samples_per_s"] > 0
        if not name.startswith("single"):
            ratio = entry["times_single"]
            assert ratio["lowest"] <= ratio["median"] <= ratio["highest"]
            assert min(entry["cpu_ms_per_step"]) > 0
