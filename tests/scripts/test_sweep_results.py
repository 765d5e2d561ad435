"""Tables of a sweep whose arms have different vocabularies."""

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
