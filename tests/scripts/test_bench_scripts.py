"""The benchmark scripts run, agree with themselves, and know a wrong loss from a right one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
# A machine with a GPU may have torch, lightning and transformers and nothing else.
BLOCKED = ("datasets", "wandb", "jsonargparse", "faiss", "accelerate")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def run(script: str, *arguments: str) -> str:
    """A script as a command of its own, without the packages that it must not need."""
    program = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({BLOCKED!r}));"
        f"sys.path.insert(0, {str(SCRIPTS)!r}); sys.argv = {[script, *arguments]!r};"
        f"runpy.run_path({str(SCRIPTS / script)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_objectives_are_measured(tmp_path: Path) -> None:
    output = tmp_path / "objectives.json"
    names = ["cwt", "paper N x N", "cross-entropy", "cross-entropy chunked", "liger"]
    sizes = ["--n", "256", "--d", "32", "--v", "1024", "--repeats", "2"]
    shown = run("bench_objectives.py", *sizes, "--output", str(output), "--implementations", *names)
    result = json.loads(output.read_text())
    (case,) = result["cases"]
    assert case["m"] < 256
    for name in names[:-1]:
        assert result["implementations"][name]["right"]
        assert case["results"][name]["median_ms"] > 0
        assert case["results"][name]["peak_mib"] > 0
        assert name in shown
    assert "skipped" in result["implementations"]["liger"]
    times = {name: case["results"][name]["median_ms"] for name in names[:-1]}
    best = min(times["cross-entropy"], times["cross-entropy chunked"])
    assert case["ratios"]["best_cross_entropy / cwt"] == pytest.approx(best / times["cwt"])
    assert case["ratios"]["paper_eager / cwt"] == pytest.approx(times["paper N x N"] / times["cwt"])
    assert case["limit_ms"]["cwt"] == pytest.approx(
        6e3 * 256 * case["m"] * 32 / (result["matmul_tflops"] * 1e12)
    )
    assert result["compiled"]["graph_breaks"] == 0
    assert result["compiled"]["distinct_sizes"] > 1
    assert result["compiled"]["graphs"] <= 2
    assert result["environment"]["commit"]


def test_training_is_measured_without_the_trainers_dependencies(tmp_path: Path) -> None:
    output = tmp_path / "training.json"
    run(
        "bench_training.py",
        *("--steps", "2", "--batch", "2", "--repeats", "1", "--eager-only"),
        *("--output", str(output)),
    )
    tiny = json.loads(output.read_text())["models"]["tiny"]
    rates = tiny["tokens_per_second"]
    assert set(rates) == {"ContrastiveWeightTying eager", "CrossEntropy eager"}
    assert tiny["ratios"]["headless / own cross-entropy"] == pytest.approx(
        rates["ContrastiveWeightTying eager"] / rates["CrossEntropy eager"]
    )
    assert any("accelerate" in reason for reason in tiny["skipped"].values())
    for rows in tiny["rows"].values():
        assert 0 <= rows[0]["data_wait_share"] < 1


def test_a_wrong_loss_is_called_wrong(scripts: None) -> None:
    import bench_objectives as bench

    x = bench.make_inputs(bench.zipf_labels(300, 500), 16, 500, torch.device("cpu"), torch.float32)

    def without_counts(x: Any) -> torch.Tensor:
        return bench.contrastive_weight_tying_loss(
            x.hidden_ND, x.targets_N, x.table_VD, duplicates="unique"
        )

    assert bench.is_right(bench.errors("cwt", bench.contrastive, x), torch.float32)
    assert not bench.is_right(bench.errors("cwt", without_counts, x), torch.float32)
    half = bench.errors("cwt", lambda x: 0.5 * bench.contrastive(x), x)
    assert half["loss"] == pytest.approx(0.5, rel=1e-4)


def test_labels_repeat_as_text_does(scripts: None) -> None:
    """The numbers of unique targets that were counted in real text (reference: 50k BPE)."""
    import benchmarking
    import numpy as np

    for rows, low, high in ((2048, 750, 950), (8192, 2200, 2850), (32768, 5500, 7800)):
        assert low < len(np.unique(benchmarking.zipf_labels(rows, 50304))) < high


def test_labels_of_a_prepared_dataset(scripts: None, dataset: Path) -> None:
    import benchmarking

    labels = benchmarking.text_labels(dataset, 3000, 320)
    assert labels.shape == (3000,)
    assert labels.max() < 320
    with pytest.raises(SystemExit, match="more than 100"):
        benchmarking.text_labels(dataset, 3000, 100)


def test_peak_memory_counts_what_is_alive_at_once(scripts: None) -> None:
    import benchmarking

    def two_then_one() -> None:
        a, b = torch.ones(2**20), torch.ones(2**20)
        del a, b
        torch.ones(2**20)

    assert benchmarking.peak_bytes(two_then_one, torch.device("cpu")) == pytest.approx(
        2 * 4 * 2**20, rel=0.01
    )


def test_functions_take_turns(scripts: None) -> None:
    import benchmarking

    calls: list[str] = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = benchmarking.interleaved(functions, torch.device("cpu"), repeats=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert [len(values) for values in seconds.values()] == [3, 3]
