"""Tables of a sweep whose arms have different vocabularies."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "sweep_results.py"))


def test_bits_a_byte_within_each_vocabulary() -> None:
    bits = {"ce-4k": 1.5, "cwt-4k": 1.4, "ce-64k": 1.3, "cwt-64k": 1.25}
    common: dict[str, Any] = {"parameters": 10, "tuned": {}, "notes": [], "seconds_per_step": 1.0}
    arms = {}
    for name, value in bits.items():
        by_seed = {
            "bits_per_byte_by_seed": {"1": value, "2": value + 0.01},
            "nll_by_seed": {"1": 9},
        }
        arms[name] = common | {"budgets": {"equal_tokens": {"steps": 5, "tokens": 9} | by_seed}}
    config = {"within": "vocabulary", "vary": {"vocabulary": {"4k": {}, "64k": {}}}}
    sweep = {"arms": arms, "baseline": "ce-4k", "config": config}
    rows = {row["arm"]: row for row in SCRIPT["read_rows"](sweep, "equal_tokens", "bits_per_byte")}
    assert [row["block"] for row in rows.values()] == ["4k", "4k", "64k", "64k"]
    assert rows["cwt-64k"]["difference"].mean == pytest.approx(-0.05)
    assert rows["ce-64k"]["difference"] is None
    found = SCRIPT["table"]([*rows.values()], SCRIPT["UNITS"]["bits_per_byte"])
    assert "| cwt-64k | 0.000 M |  | 5 | 2 | 1.255" in found


def test_scores_against_vocabulary_and_deciles(tmp_path: Path) -> None:
    for seed, shift in ((1, 0.0), (2, 0.5)):
        run = tmp_path / f"final/cwt-4k-{seed}"
        run.mkdir(parents=True)
        last = {f"val/nll_decile_{k}": k + shift for k in range(10)}
        (run / "summary.json").write_text(json.dumps({"last": last}))
    rows: list[dict[str, Any]] = [
        {
            "arm": f"{kind}-{block}",
            "block": block,
            "kind": kind,
            "parameters_baseline": 10,
            "nll": SCRIPT["estimate"]([score, score + 0.01]),
            "runs": [f"final/{kind}-{block}-{seed}" for seed in (1, 2)],
        }
        for kind, block, score in (
            ("cwt", "4k", 1.5),
            ("cwt", "64k", 1.4),
            ("ce", "64k_super", 1.3),
        )
    ]
    found = SCRIPT["add_deciles"](rows, tmp_path)
    assert found[0]["nll_deciles"] == pytest.approx([k + 0.25 for k in range(10)])
    assert found[1]["nll_deciles"] == []
    table = SCRIPT["table_of_deciles"](found)
    assert "| cwt-4k | 0.250 | 1.250 |" in table
    assert "cwt-64k" not in table
    figure = tmp_path / "figure.svg"
    SCRIPT["draw_scores"]({"equal_tokens": rows, "equal_seconds": rows}, figure, "bits a byte")
    drawn = figure.read_text()
    assert all(
        text in drawn for text in ("equal tokens", "equal seconds", "cwt", "ce super", "64k")
    )
