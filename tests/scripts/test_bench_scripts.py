"""The benchmark scripts run, agree with themselves, and know a wrong loss from a right one."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
# A machine with a GPU may have torch, lightning and transformers and nothing else.
BLOCKED = ("datasets", "wandb", "jsonargparse", "faiss", "accelerate")
HIDDEN = """import importlib.metadata, sys
sys.modules.update(dict.fromkeys({0!r}))
known = importlib.metadata.version
def version(name):
    if name in {0!r}:
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)
importlib.metadata.version = version
"""


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.fixture
def blocker(tmp_path: Path) -> Path:
    """A directory that hides packages from a Python that has it on its path."""
    directory = tmp_path / "blocker"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(HIDDEN.format(BLOCKED))
    return directory


def run(blocker: Path, script: str, *arguments: str) -> str:
    """A script as a command of its own, without the packages that it must not need."""
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{blocker}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", sorted(path.stem for path in SCRIPTS.glob("*.py")))
def test_a_script_names_what_the_library_has(scripts: None, name: str) -> None:
    importlib.import_module(name)


def test_the_blocker_blocks(blocker: Path) -> None:
    for name in BLOCKED:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            env=os.environ | {"PYTHONPATH": str(blocker)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "ModuleNotFoundError" in done.stderr


def test_objectives_are_measured(blocker: Path, tmp_path: Path) -> None:
    output = tmp_path / "objectives.json"
    names = ["cwt", "paper N x N", "paper N x N, authors' form", "cross-entropy"]
    names += ["cross-entropy chunked", "liger"]
    sizes = ["--n", "256", "--d", "32", "--v", "1024", "--repeats", "2"]
    shown = run(
        blocker,
        "bench_objectives.py",
        *sizes,
        *("--output", str(output), "--implementations", *names),
    )
    result = json.loads(output.read_text())
    (case,) = result["cases"]
    assert case["m"] < 256
    assert case["m_padded"] == 512
    for name in names[:-1]:
        assert result["implementations"][name]["right"]
        assert max(result["implementations"][name]["errors"].values()) < 1e-4
        measured = case["results"][name]
        assert 0 < measured["min_ms"] <= measured["median_ms"] <= measured["max_ms"]
        assert measured["peak_mib"] > 0
        assert name in shown
    assert "ModuleNotFoundError" in result["implementations"]["liger"]["skipped"]
    times = {name: case["results"][name]["median_ms"] for name in names[:-1]}
    best = min(times["cross-entropy"], times["cross-entropy chunked"])
    eager = min(times["paper N x N"], times["paper N x N, authors' form"])
    assert case["ratios"]["best_cross_entropy / cwt"] == pytest.approx(best / times["cwt"])
    assert case["ratios"]["paper_eager / cwt"] == pytest.approx(eager / times["cwt"])
    rate = result["matmul_tflops"] * 1e12
    assert case["limit_ms"]["cwt"] == pytest.approx(6e3 * 256 * case["m"] * 32 / rate)
    assert case["ratios"]["cwt / limit"] == pytest.approx(times["cwt"] / case["limit_ms"]["cwt"])
    compiled = result["compiled"]
    assert compiled["graph_breaks"] == 0
    assert len(set(compiled["sizes"])) > 3
    assert compiled["recompilations"] == 0
    assert case["labels"].startswith("Zipf")
    assert "profiler" in result["memory"]
    assert result["environment"]["packages"]["torch"]


def test_training_is_measured_without_the_trainers_dependencies(
    blocker: Path, tmp_path: Path, dataset: Path
) -> None:
    output = tmp_path / "training.json"
    run(
        blocker,
        "bench_training.py",
        *("--steps", "2", "--batch", "2", "--length", "32", "--repeats", "1", "--eager-only"),
        *("--data", str(dataset), "--output", str(output)),
    )
    result = json.loads(output.read_text())
    tiny = result["models"]["tiny"]
    rates = tiny["tokens_per_second"]
    assert set(rates) == {"ContrastiveWeightTying eager", "CrossEntropy eager"}
    assert tiny["ratios"]["headless / own cross-entropy"] == pytest.approx(
        rates["ContrastiveWeightTying eager"] / rates["CrossEntropy eager"]
    )
    assert "accelerate" in tiny["skipped"]["Hugging Face Trainer eager"]
    for (row,) in tiny["rows"].values():
        assert 0 <= row["data_wait_share"] < 1
        assert row["tokens_per_second"] == pytest.approx(2 * 32 * 1e3 / row["step_ms"])
        assert row["mfu"] is None
    assert result["preset"]["data"] == str(dataset)
    assert result["environment"]["packages"]["torch"]


def test_a_wrong_loss_is_called_wrong(scripts: None) -> None:
    import loss_implementations as losses
    from benchmarking import zipf_labels

    x = losses.make_inputs(zipf_labels(300, 500), 16, 500, torch.device("cpu"), torch.float32)
    wanted = losses.exact_step("cwt", x)

    def errors(loss: Callable[[Any], torch.Tensor]) -> dict[str, float]:
        return losses.errors(losses.step(loss, x), wanted)

    def without_counts(x: Any) -> torch.Tensor:
        return losses.contrastive_weight_tying_loss(
            x.hidden_ND, x.targets_N, x.table_VD, duplicates="unique"
        )

    for right in (losses.contrastive, losses.paper, losses.paper_literal):
        assert losses.is_right(errors(right), torch.float32)
    for wrong in (
        without_counts,
        lambda x: 0.5 * losses.contrastive(x),
        lambda x: torch.nan * losses.contrastive(x),
        lambda x: losses.contrastive(x._replace(table_VD=1.01 * x.table_VD)),
    ):
        assert not losses.is_right(errors(wrong), torch.float32)
    assert errors(lambda x: 0.5 * losses.contrastive(x))["loss"] == pytest.approx(0.5, rel=1e-4)


def test_a_wrong_implementation_is_not_timed(
    scripts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench_objectives as bench
    from loss_implementations import IMPLEMENTATIONS, Implementation, contrastive

    def missing(x: Any) -> torch.Tensor:
        raise ImportError("no such package")

    wrong = Implementation("cwt", lambda x: 2.0 * contrastive(x))
    monkeypatch.setitem(IMPLEMENTATIONS, "wrong", wrong)
    monkeypatch.setitem(IMPLEMENTATIONS, "missing", Implementation("cwt", missing))
    found = bench.usable(torch.device("cpu"), torch.float32, ["cwt", "wrong", "missing"])
    assert [found[name].get("right") for name in found] == [True, False, None]
    assert found["missing"]["skipped"] == "ImportError: no such package"


def test_what_does_not_fit_is_not_tried(scripts: None) -> None:
    import bench_objectives as bench

    cpu = torch.device("cpu")
    assert bench.fits("cwt", 64, 32, 128, cpu)
    assert not bench.fits("paper N x N", 10**7, 10**5, 10**5, cpu)
    assert bench.fits("cross-entropy chunked", 4096, 512, 512, cpu)


def test_labels_repeat_as_text_does(scripts: None) -> None:
    """The numbers of unique targets that were counted in real text (reference: 50k BPE)."""
    import benchmarking
    import numpy as np

    measured = ((2048, 800, 900), (8192, 2300, 2800), (32768, 5600, 7700), (131072, 16000, 18000))
    for vocab_size in (50304, 262144):
        for rows, low, high in measured:
            labels = benchmarking.zipf_labels(rows, vocab_size)
            assert low <= len(np.unique(labels)) <= high
            assert labels.max() < vocab_size


def test_whatever_prepares_is_measured(
    scripts: None, text_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYON_NUM_THREADS", "2")
    bench = importlib.import_module("bench_prepare")
    result = bench.compare([str(text_files)], None, 300, repeats=2, whole_repeats=1)
    times = result["processor_seconds"]
    assert {name: len(values) for name, values in times.items()} == {
        **dict.fromkeys(["encode_batch_fast", "disk, read", "disk, write"], 2),
        **dict.fromkeys(["prepare", "prepare without gigatoken"], 1),
        **{name: 2 for name in times if name.startswith(("gigatoken", "tiktoken"))},
    }
    slow, fast = times["prepare without gigatoken"][0], times["prepare"][0]
    assert result["processor_ratio_prepare"] == pytest.approx(slow / fast, abs=0.01)
    assert result["documents"] == 12


def test_labels_of_a_prepared_dataset(scripts: None, dataset: Path) -> None:
    import benchmarking

    labels, source = benchmarking.make_labels(dataset, 3000, 320)
    assert labels.shape == (3000,)
    assert labels.max() < 320
    assert source == f"{dataset}, 320 token ids"
    labels, source = benchmarking.make_labels(dataset, 10**6, 100)
    assert len(labels) == 10**6
    assert labels.max() < 100
    assert source.endswith("folded into 100, text repeated")


def test_kernels_are_known_by_their_names(scripts: None) -> None:
    import benchmarking

    kinds = {
        "nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNN": "matmul",
        "void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16>": "matmul",
        "triton_tem_fused_mm_4": "matmul",
        "aten::addmm": "matmul",
        "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128>>": "attention",
        "triton_red_fused__log_softmax_add_mul_7": "loss",
        "cpp_fused__log_softmax_backward_data__scaled_dot_product_flash_attention_2": "loss",
        "triton_poi_fused_gelu_view_3": "other",
        "void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>": "optimizer",
    }
    assert {name: benchmarking.kernel_class(name) for name in kinds} == kinds


def test_a_gpu_sleeps_while_the_host_launches(
    scripts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import benchmarking

    done: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.record = lambda: done.append("record")
            self.synchronize = lambda: done.append("wait")
            self.elapsed_time = lambda end: 2.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append("wait"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: done.append("sleep"), raising=False)
    took = benchmarking.seconds_of(lambda: done.append("call"), torch.device("cuda"))
    assert took == 2e-3
    assert done == ["wait", "sleep", "record", "call", "record", "wait"]


def test_no_row_begins_after_the_deadline(scripts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench_training
    from benchmarking import Deadline

    loops: Any = SimpleNamespace(device=torch.device("cuda"), hugging_face=print)
    bench = bench_training.Bench("tiny", loops)
    monkeypatch.setattr(bench, "measure", lambda row: {"tokens_per_second": 2.0})
    late = bench.run(2, (True, False), Deadline(0))
    assert not late["rows"]
    assert set(late["skipped"].values()) == {"no time was left"}
    found = bench.run(2, (True, False), Deadline(None), with_theirs=False)
    assert {name: len(rows) for name, rows in found["rows"].items()} == {
        "ContrastiveWeightTying compiled": 2,
        "CrossEntropy compiled": 2,
        "ContrastiveWeightTying eager": 1,
        "CrossEntropy eager": 1,
    }


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


def test_optimizers_are_measured(blocker: Path, tmp_path: Path) -> None:
    output = tmp_path / "optimizers.json"
    options = ("--models", "ladder", "--repeats", "2", "--output", str(output))
    assert "ladder" in run(blocker, "bench_optimizers.py", *options)
    found = json.loads(output.read_text())["models"]["ladder"]
    ours, theirs = "Muon, maps of a shape together", "Muon, torch's"
    assert set(found["step_ms"]) == {"AdamW", ours, theirs} == set(found["peak_beyond_mib"])
    assert found["torch's / together"] == found["step_ms"][theirs] / found["step_ms"][ours]
    assert found["largest_difference_of_a_weight"] < 1e-6  # after five steps of 1e-6
