"""A training step on a GPU, without one: it does not wait for it, nor mix it with the host.

The CPU build of torch is told by a stub (fake_cuda.cpp) that it has a CUDA device; FakeTensorMode
then computes shapes, types and devices of a real step there, and no values.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import headless.objectives
from headless.models.presets import PRESETS

HERE = Path(__file__).parent
CWT, CE = "ContrastiveWeightTying", "CrossEntropy"
FORMS: dict[str, list[Any]] = {
    "count": [CWT, {}],
    "mask": [CWT, {"duplicates": "mask"}],
    "unique": [CWT, {"duplicates": "unique", "tied": False, "negatives": "global"}],
    "logq, sampled": [CWT, {"duplicates": "logq", "num_sampled": 64, "learn_temperature": True}],
    "count, sampled": [CWT, {"num_sampled": 64, "stop_gradient": True}],
    "cosine": [CWT, {"normalize": True, "temperature": 0.1}],
    "fused": [CWT, {"implementation": "fused", "duplicates": "mask", "learn_temperature": True}],
    "the paper's": [CWT, {"implementation": "reference"}],
    "cross-entropy": [CE, {"z_loss": 1e-4, "label_smoothing": 0.1, "mu_centering": True}],
    "in chunks": [CE, {"chunk_size": 700, "unigram_bias": "initial", "softcap": 15.0}],
    "tied": [CE, {"tied": True, "unigram_bias": "fixed", "temperature": 0.5, "chunk_size": 700}],
    "both": ["Combined", {"cross_entropy": [CE, {}], "contrastive": [CWT, {}]}],
}
MASKED = [CE, {"transform": "mlm"}]


def case(
    objective: list[Any], family: str = "gpt_neox", does: str = "steps", **other: Any
) -> dict[str, Any]:
    usual = {"optimizer": "AdamW", "table": "dense", "extra": {}}
    usual |= {"switch_at": None, "is_switched": False}
    return {"objective": objective, "family": family, "does": does, **usual, **other}


EAGER = {
    **{name: case(form) for name, form in FORMS.items()},
    "before a switch": case(FORMS["count"], switch_at=0.5),
    "after a switch": case(FORMS["count"], switch_at=0.5, is_switched=True),
    **{
        family: case(FORMS["count"], family, optimizer="Muon")
        for family in (
            *("gpt2", "gpt_neox", "llama", "qwen3", "olmo2", "smollm3", "nanochat", "phi"),
            *("gemma3_text", "modernbert-decoder"),
        )
    },
    "a table by row": case(FORMS["count"], table="lazy"),
    "two tables by row": case(FORMS["unique"], "llama", table="rowwise", optimizer="Muon"),
    "a window": case(FORMS["count"], "gemma3_text", extra={"sliding_window": 16}),
    **{f"{name}, masked": case(form, "bert") for name, form in FORMS.items()},
    **{name: case(MASKED, name, optimizer="Muon") for name in ("bert", "distilbert", "modernbert")},
}
COMPILED = {
    "a table by row, compiled": case(FORMS["count"], does="compiled steps", table="lazy"),
    **{
        f"{name}, compiled": case(FORMS[name], does="compiled steps")
        for name in ("count", "fused", "logq, sampled", "in chunks", "both")
    },
}
SAMPLING = {"sampling": case(FORMS["count"], does="sampling")}


def test_every_objective_and_family_has_a_case() -> None:
    classes = {k: v for k, v in vars(headless.objectives).items() if isinstance(v, type)}
    base = classes.pop("Objective")
    known = {name for name, value in classes.items() if issubclass(value, base)}
    assert {form[0] for form in FORMS.values()} == known
    families = {preset["model_type"] for preset in PRESETS.values()}
    assert families <= {one["family"] for one in EAGER.values()}


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What all cases gave, in one process of their own: the stub comes before torch."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++, to build the stub of a CUDA device")
    if torch.version.cuda or sys.platform != "linux":
        pytest.skip("needs torch's CPU build on Linux: another one asks its own driver")
    directory, installed = tmp_path_factory.mktemp("fake-cuda"), Path(torch.__file__).parent
    stub, cases, output = (directory / name for name in ("stub.so", "cases.json", "found.json"))
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-std=c++20", f"-I{installed / 'include'}"]
        + [str(HERE / "fake_cuda.cpp"), "-o", str(stub), f"-L{installed / 'lib'}"]
        + ["-ltorch_cpu", "-lc10", f"-Wl,-rpath,{installed / 'lib'}"],
        check=True,
    )
    cases.write_text(json.dumps(EAGER | COMPILED | SAMPLING))
    subprocess.run(
        [sys.executable, str(HERE / "fake_cuda_worker.py"), str(stub), str(cases), str(output)],
        check=True,
        env=os.environ | {"PYTHONPATH": str(HERE.parents[1])},
        timeout=400,
    )
    return json.loads(output.read_text())


@pytest.mark.parametrize("name", EAGER)
def test_a_step_waits_for_nothing_and_stays_on_the_device(found, name: str) -> None:
    """A training step with its optimizer, and a validation step."""
    assert found[name]["faults"] == []
    assert found[name]["operators"] > 500


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_it_is_one_graph_for_tables_of_any_length(found, name: str) -> None:
    assert found[name]["faults"] == []
    assert len(set(found[name]["tables"])) == 2
    assert found[name]["graphs"] == 1


def test_sampling_waits_seldom(found) -> None:
    """After 16 tokens, and at the end."""
    waits = [fault for fault in found["sampling"]["faults"] if "waits" in fault]
    assert len(waits) == 2
