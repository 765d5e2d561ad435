"""The benchmark of decoding runs, and its ways agree where they must."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("faiss")

ROOT = Path(__file__).parents[2]


def test_the_smoke_preset(tmp_path: Path) -> None:
    output = tmp_path / "decode.json"
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "scripts" / "bench_decode.py"), "--preset", "smoke"),
            *("--repeats", "2", "--queries", "200", "--output", str(output)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(output.read_text())
    assert "environment" in result
    case = result["cases"][0]
    ways = case["ways"]
    assert ways["matmul"]["recall_at_1"] >= 0.99
    assert ways["exact"]["recall_at_1"] >= 0.99
    assert ways["ivf nprobe=64"]["recall_at_1"] >= ways["ivf nprobe=4"]["recall_at_1"]
    assert ways["ivf nprobe=64"]["recall_at_1"] >= 0.97
    assert ways["hnsw efSearch=512"]["recall_at_1"] >= 0.97
    assert {"ivf nprobe=16", "hnsw efSearch=32"} <= set(ways)
    for name, way in ways.items():
        if name == "matmul":
            continue
        assert way["index_mib"] > 0
        for batch in ("batch_1", "batch_64"):
            found = way[batch]
            quotient = found["queries_per_second"] / found["matmul_queries_per_second"]
            assert found["matmul / index"] == pytest.approx(quotient)
        assert name in done.stdout


def test_a_real_table_needs_text() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "bench_decode.py"), "--model", "x"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 2
    assert "--model needs --data" in done.stderr
