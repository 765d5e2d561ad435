"""The benchmark of decoding runs, and its ways agree where they must."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("faiss")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The script with arguments, in this process."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = importlib.import_module("bench_decode")

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["bench_decode.py", *arguments])
        script.main()

    return run


def test_the_smoke_preset(bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "decode.json"
    options = ("--repeats", "2", "--queries", "200", "--output", str(output))
    bench("--preset", "smoke", *options)
    printed = capsys.readouterr().out
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
        assert name in printed


def test_a_real_table_needs_text(bench, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        bench("--model", "x")
    assert end.value.code == 2
    assert "--model needs --data" in capsys.readouterr().err
