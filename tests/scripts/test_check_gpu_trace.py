"""The record of what a step asks of a GPU: how it is estimated, held, and what stands in it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ROW = "pythia-70m, CWT"
FIGURES = {
    "waits": 0,
    "launches": 350.0,
    "triton_gb": 18.0,
    "peak_mib": 4900.0,
    "attention": "flash, causal",
    "graphs": 1,
    "graph_breaks": 0,
}
ARITHMETIC = {
    "tokens": 32768,
    "matrix_tflop": 6.0,
    "attention_tflop": 1.8,
    "model_tflop": 7.0,
    "weights": 75_000_000,
}


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import check_gpu_trace

    return check_gpu_trace


def test_an_estimate_by_hand(check: Any) -> None:
    found = check.estimate(FIGURES, ARITHMETIC)
    # 6 / 600, 18 / 3000, 1.8 / 360, 75e6 * 40 / 3e12, 350 * 2e-6 seconds
    assert found["step_ms"] == pytest.approx(10 + 6 + 5 + 1 + 0.7)
    assert found["mfu"] == pytest.approx(7 / 989.4 / 0.0227)
    masked = check.estimate({**FIGURES, "attention": "memory-efficient", "waits": 2}, ARITHMETIC)
    assert masked["step_ms"] == pytest.approx(10 + 6 + 15 + 1 + 0.7 + 2)


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A stub's folder whose `gpu-trace` answers with what lies in now.json."""
    program = tmp_path / "gpu-trace"
    program.write_text(
        f"#!{sys.executable}\nimport shutil, sys\n"
        "assert sys.argv[1:3] == ['run', '--'] and sys.argv[3].endswith('gpu_trace.py')\n"
        f"shutil.copy({str(tmp_path / 'now.json')!r}, sys.argv[-1])\n"
    )
    program.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("now", "worse"),
    [
        ({}, None),
        ({"waits": 1}, "waits 0 -> 1"),
        ({"graphs": 2}, "graphs 1 -> 2"),
        ({"peak_mib": 5040.0, "triton_gb": 12.0, "launches": 400.0}, None),
        ({"peak_mib": 5060.0}, "peak_mib 4900 -> 5060"),
        ({"triton_gb": 19.0}, "triton_gb 18 -> 19"),
        ({"attention": "memory-efficient"}, "attention flash, causal -> memory-efficient"),
    ],
)
def test_a_figure_is_held(
    check: Any, environment: Path, monkeypatch: pytest.MonkeyPatch, now: dict, worse: str | None
) -> None:
    record = environment / "record.json"
    words = ["check_gpu_trace.py", str(environment), "--rows", ROW, "--output", str(record)]

    def run(figures: dict[str, Any], *more: str) -> Any:
        told = {"figures": figures, "arithmetic": ARITHMETIC, "environment": {}}
        (environment / "now.json").write_text(json.dumps(told))
        monkeypatch.setattr(sys, "argv", [*words, *more])
        with pytest.raises(SystemExit) as stop:
            check.main()
        return stop.value.code

    assert run(FIGURES) == 0
    written = record.read_text()
    told = run(FIGURES | now, "--check")
    assert told == (f"worse than recorded:\n{ROW}: {worse}" if worse else 0)
    assert record.read_text() == written


def test_a_kernel_is_known_by_its_name(check: Any) -> None:
    import gpu_trace

    traits = "Flash_fwd_kernel_traitsILi64ELi128ELi128ELi4ELb0ELb0EN7cutlass10bfloat16_tE"
    traits += "19Flash_kernel_traitsILi64ELi128ELi128ELi4ES3_EE"
    flash = f"K _ZN13pytorch_flash16flash_fwd_kernelI23{traits}Lb0ELb%dELb0ELb0ELb1EEEvNS_"
    names = {
        flash % 1: "flash, causal",
        flash % 0: "flash, all pairs",
        "K fmha_cutlassF_bf16_aligned_64x128_rf_sm80": "memory-efficient",
        "G GemmEx 512 512 512": "none",
    }
    assert {name: gpu_trace.attention({name: 6.0}) for name in names} == names


def test_what_is_recorded(check: Any) -> None:
    """No step waits, three families attend causally, and M is no reason for a second graph."""
    record = json.loads(check.RECORD.read_text())
    assert record["rates"] == check.RATES
    assert set(record["rows"]) == set(check.ROWS)
    for row, (_, objective) in check.ROWS.items():
        found = record["rows"][row]
        assert found["estimate"] == pytest.approx(
            check.estimate(found["figures"], found["arithmetic"])
        )
        if objective != "hugging-face":
            figures = found["figures"]
            assert (figures["waits"], figures["graphs"], figures["graph_breaks"]) == (0, 1, 0)
            assert figures["attention"] == "flash, causal"
