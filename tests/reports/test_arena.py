"""What makes a comparison believed: pairs, anchors, loss by frequency, steps to equal loss."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from synthetic_runs import edit_config, edit_json, write_run, write_runs

from headless.errors import HeadlessError
from headless.reports.compare import Comparison, compare
from headless.reports.curves import deciles, learning_curves
from headless.reports.fairness import remarks, unfair
from headless.reports.groups import read_groups
from headless.reports.headline import DECILES, decile_differences, decile_table, headline
from headless.reports.statistics import difference

ANCHORS = {"uniform": 8.32, "unigram": 6.7, "bigram": 3.6}


def with_curve(run: Path, nll: list[float], seconds: float = 1.0) -> Path:
    """Validations at 100, 200, 400 ... tokens."""
    points = [
        {"progress/tokens": 100 * 2**i, "progress/seconds": seconds * 100 * 2**i, "val/nll": value}
        for i, value in enumerate(nll)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in points))
    last = {"val/nll": nll[-1]}
    edit_json(run / "summary.json", last=last, tokens=points[-1]["progress/tokens"], seconds=1.0)
    return run


def add_last(run: Path, **values: float) -> None:
    summary = json.loads((run / "summary.json").read_text())
    edit_json(run / "summary.json", last=summary["last"] | values)


def numbers_of(comparison: Comparison) -> dict[str, Any]:
    return json.loads(json.dumps(comparison.as_json(), allow_nan=False))


@pytest.mark.parametrize("n", [2, 3, 7])
def test_a_paired_difference_is_scipy_s(n: int) -> None:
    x, y = np.random.default_rng(n).normal(4, 0.1, (2, n))
    found = difference(dict(enumerate(x, 3)) | {99: 1.0}, dict(enumerate(y, 3)) | {98: 2.0})
    assert found is not None
    test = stats.ttest_rel(x, y)
    low, high = test.confidence_interval(0.95)
    assert found.n == n
    assert found.p == pytest.approx(test.pvalue)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
        (low, high)
    )
    assert found.by_seed == pytest.approx(dict(enumerate(x - y, 3)))


def test_only_without_a_common_seed_it_is_welch_s() -> None:
    x, y = {1: 4.0, 2: 4.3, 3: 4.1}, {4: 4.5, 5: 4.9}
    found = difference(x, y)
    test = stats.ttest_ind([*x.values()], [*y.values()], equal_var=False)
    assert found is not None
    assert (found.p, found.by_seed, found.n) == (pytest.approx(test.pvalue), {}, 2)
    one = difference(x, {3: 5.0, 4: 4.5, 5: 4.9})
    assert one is not None
    assert (one.mean, one.half_width, one.p, one.n) == (pytest.approx(-0.9), None, None, 1)
    unseeded = difference({-1: 1.0, -2: 2.0}, {-1: 1.5, -2: 2.0})  # no seed: no pair
    assert unseeded is not None
    assert unseeded.by_seed == {}


def test_the_difference_is_written_with_its_pairs(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs")
    found = numbers_of(compare(runs))["groups"][1]["relative_to_baseline"]["val/nll"]
    nll = [json.loads((run / "summary.json").read_text())["last"]["val/nll"] for run in runs]
    test = stats.ttest_rel(nll[3:], nll[:3])
    assert found["p"] == pytest.approx(test.pvalue)
    assert found["n"] == 3
    assert found["by_seed"] == pytest.approx({str(s): nll[2 + s] - nll[s - 1] for s in (1, 2, 3)})


def test_a_run_that_beats_no_simple_model_is_said(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    assert numbers_of(compare(runs))["anchors"] == {}
    for run in runs:
        edit_json(run / "summary.json", anchors=ANCHORS)
    with_curve(runs[0], [5.0, 5.5, 6.9])
    comparison = compare(runs)
    flags = [w for w in comparison.warnings if "cross_entropy-1" in w]
    assert flags == [
        "Not better than the unigram model of the text: cross_entropy-1.",
        "Best at the first validation, and never again: cross_entropy-1.",
    ]
    numbers = numbers_of(comparison)
    assert numbers["anchors"] == ANCHORS
    over = numbers["groups"][0]["metrics"]["over/unigram"]
    assert over["mean"] == pytest.approx(6.9 - 6.7)
    edit_json(runs[0] / "summary.json", anchors=ANCHORS | {"bigram": 3.7})
    assert set(numbers_of(compare(runs))["anchors"]) == {"uniform", "unigram"}


def test_anchors_are_lines_with_names(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    for run in runs:
        edit_json(run / "summary.json", anchors=ANCHORS)
    panels = learning_curves(read_groups(runs)).axes
    assert {text.get_text() for text in panels[0].texts} == {
        "bigram 3.60",
        "unigram 6.70",  # brought into view
    }
    assert [line.get_ydata()[0] for line in panels[1].lines if line.get_linestyle() == ":"] == [
        *ANCHORS.values()
    ]
    page = compare(runs, output=tmp_path / "out").report.read_text()
    assert "<small>6.700</small>" in page


def test_loss_by_frequency(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1, 2))
    assert decile_table(read_groups(runs)) is None
    values = np.random.default_rng(0).normal(4, 1, (4, 10))
    for run, row in zip(runs, values, strict=True):
        add_last(run, **dict(zip(DECILES, row.tolist(), strict=True)))
    groups = read_groups(runs)
    columns, rows = decile_table(groups).cells()
    assert [column.name for column in columns[1:]] == list("0123456789")
    assert rows[1][4].text == f"{values[2:, 3].mean():.3f}"
    _, (row,) = decile_differences(groups, groups[0])
    tests = stats.ttest_rel(values[2:], values[:2])
    changes = (values[2:] - values[:2]).mean(0)
    assert [c.text for c in row[1:]] == [f"{c:+.3f}".replace("-", "−") for c in changes]
    assert [cell.strong for cell in row[1:]] == (tests.pvalue < 0.05).tolist()
    _, gaps = deciles(groups, groups[0]).axes
    thick = [line for line in gaps.lines if line.get_linewidth() == 1.6]
    np.testing.assert_allclose(thick[1].get_ydata(), changes)
    page = compare(runs, output=tmp_path / "out").report.read_text()
    assert "Loss by frequency" in page


def test_steps_to_equal_loss_by_hand(tmp_path: Path) -> None:
    """Half-way between 100 and 200 tokens, in the logarithm, are 100·√2."""
    base = with_curve(write_run(tmp_path, "cross_entropy"), [6.0, 5.0, 4.0, 4.5, 3.0])
    arm = with_curve(write_run(tmp_path, "headless"), [5.5, 4.5, 4.0, 4.0, 3.5], seconds=0.5)
    _, found = [group["equal_loss"] for group in numbers_of(compare([base, arm]))["groups"]]
    # 6.0 is above the arm's first validation, 4.5 no news, 3.0 never reached
    assert [(one["baseline_tokens"], one["baseline_nll"]) for one in found] == [(200, 5), (400, 4)]
    ratios = [one["tokens_ratio"]["mean"] for one in found]
    assert ratios == pytest.approx([100 * math.sqrt(2) / 200, 1.0])
    assert [one["seconds_ratio"]["mean"] for one in found] == pytest.approx(
        [ratio / 2 for ratio in ratios]
    )


def test_equal_loss_is_paired_and_of_itself_one(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1, 2))
    base, other = (group["equal_loss"] for group in numbers_of(compare(runs))["groups"])
    assert [one["tokens_ratio"]["mean"] for one in base] == pytest.approx([1.0] * len(base))
    assert {one["tokens_ratio"]["n"] for one in other} == {2}
    assert all(one["tokens_ratio"]["mean"] < 1 for one in other)


def test_tuned_rates_are_a_note(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    edit_config(runs[1], "model.optimizer.lr", 0.5)
    assert any("`model.optimizer.lr`: 0.002, 0.5" in words for words in unfair(read_groups(runs)))
    for run in runs:
        edit_config(run, "run.tags", ["tuned"])
    groups = read_groups(runs)
    assert unfair(groups) == []
    assert any("own learning rates" in w and "0.002, 0.5" in w for w in remarks(groups))
    edit_config(runs[1], "model.optimizer.weight_decay", 0.5)
    assert any("weight_decay" in words for words in unfair(read_groups(runs)))


def test_rows_and_targets_of_a_loss(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    edit_config(runs[0], "data.task", "masked")
    edit_config(runs[0], "data.mask_probability", 0.25)
    edit_config(runs[1], "model.compile", True)
    add_last(runs[1], **{"train/unique_targets": 1024.0})
    vanilla, cwt = headline(read_groups(runs)).cells()[1]
    assert [cell.text for cell in vanilla[3:5]] == ["1,024", "–"]
    assert [cell.text for cell in cwt[3:5]] == ["4,096", "25.0"]
    assert cwt[0].detail == "gpt_neox 4 x 192, 1 run, compiled, 32-true"


def test_an_arm_can_be_named_by_its_tag(tmp_path: Path) -> None:
    """As a sweep names them, where the settings that differ are too many for a label."""
    runs = [
        write_run(tmp_path, "headless", seed, name=f"{a}{seed}") for a in "xy" for seed in (1, 2)
    ]
    for run in runs:
        arm = "muon" if run.name.startswith("y") else "adamw"
        edit_config(run, "run.tags", [arm, "final"])
        for key in ("lr", "eps", "weight_decay") if arm == "muon" else ():
            edit_config(run, f"model.optimizer.{key}", 0.5)
    comparison = compare(runs, baseline="muon")
    assert [g.label for g in comparison.groups] == ["headless (CWT), adamw", "headless (CWT), muon"]
    assert comparison.baseline is comparison.groups[1]
    with pytest.raises(HeadlessError, match="in several recipes"):
        compare(runs, baseline="final")
