"""The formulas of docs/scaling.md agree with what a small model measures, in a small run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_scaling.py"


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this torch has no gloo, and two processes cannot talk to each other",
)
def test_formulas_hold(tmp_path: Path) -> None:
    output = tmp_path / "scaling.json"
    sizes = ("--layers", "2", "--hidden", "32", "--vocab", "600", "--length", "32")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *sizes, "--sequences", "4", "--output", str(output)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(output.read_text())
    checks = {(c["quantity"], c["objective"]): c for c in result["checks"]}
    quantities = {quantity for quantity, _ in checks}
    assert {"bytes sent a step, DDP", "bytes sent a step, FSDP"} <= quantities
    for (quantity, objective), check in checks.items():
        if quantity == "FLOPs of a step":  # a counter counts the masked half of attention too
            assert 0 < check["relative_error"] < 0.2
        elif quantity == "peak bytes of the loss":
            assert abs(check["relative_error"]) < 0.05, objective
        else:
            assert abs(check["relative_error"]) < 1e-9, (quantity, objective)
    # The head that headless models do without: its gradient is not sent.
    sent = {o: c["measured"] for (q, o), c in checks.items() if q == "bytes sent a step, DDP"}
    assert sent["cross-entropy"] - sent["headless, global negatives"] == 4 * 600 * 32
