"""Which directories a comparison takes: runs, fine-tunings, folders of them; and the baseline."""

import json
from pathlib import Path

import pytest
from synthetic_runs import edit_config, write_run, write_runs
from test_finetunings import write_finetuning

from headless.errors import HeadlessError
from headless.reports.compare import compare
from headless.reports.fairness import unfair
from headless.reports.groups import read_groups
from headless.reports.headline import baseline_of
from headless.reports.places import find_places

pytestmark = pytest.mark.usefixtures("without_figures")


def test_a_folder_stands_for_what_lies_in_it(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    runs = [write_run(root / "demo", "headless", name=f"seed-{i}") for i in (10, 2)]
    runs.append(write_run(root, "cross_entropy", name="vanilla"))
    tuned = write_finetuning(root / "tuned")
    aside = write_run(root, "headless", name="vanilla.old-1")
    begun = write_run(root, "headless", name="begun")
    for name in ("metrics.jsonl", "summary.json"):
        (begun / name).unlink()
    write_run(root, "headless", name=".vanilla.partial-ab12")
    write_run(root / "demo.old-2", "headless", name="seed-10")
    places = find_places([root])
    assert places.runs == [runs[1], runs[0], runs[2]]  # 2 before 10
    assert places.finetunings == [tuned]
    assert [sentence.split()[0] for sentence in places.left_out] == [
        str(begun),
        str(root / "demo.old-2/seed-10"),
        str(aside),
    ]
    comparison = compare([root], output=tmp_path / "out")
    assert len(comparison.groups) == 2
    numbers = json.loads((tmp_path / "out/compare.json").read_text())
    assert numbers["left_out"] == places.left_out
    assert "Left out" in (tmp_path / "out/report.html").read_text()


def test_what_was_moved_aside_is_taken_when_it_is_named(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "headless", name=name) for name in ("a", "a.old-1")]
    assert find_places(runs).runs == runs
    (group,) = read_groups(runs)
    assert [run.name for run in group.runs] == ["a", "a.old-1"]
    assert any("Moved aside" in warning and "a.old-1" in warning for warning in unfair([group]))


def test_a_folder_and_a_run_in_it_count_once(tmp_path: Path) -> None:
    run = write_run(tmp_path, "headless")
    (tmp_path / "link").symlink_to(run)
    assert find_places([run, tmp_path]).runs == [run]


def test_results_of_others_are_no_fine_tuning(tmp_path: Path) -> None:
    """The name is a common one."""
    run = write_run(tmp_path, "headless")
    (tmp_path / "harness").mkdir()
    for place in (run, tmp_path / "harness"):
        (place / "results.json").write_text('{"lambada": {"acc": 0.5}}')
    places = find_places([tmp_path])
    assert (places.runs, places.finetunings, places.left_out) == ([run], [], [])
    assert find_places([run]).runs == [run]


def test_a_folder_without_runs(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    with pytest.raises(HeadlessError, match="not a run directory"):
        find_places([tmp_path])
    write_run(tmp_path, "headless", name="a.old-1")
    with pytest.raises(HeadlessError, match="nothing to compare: .*moved aside"):
        find_places([tmp_path])


def test_one_name_in_two_places_makes_two_labels(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / root, "headless", name="same") for root in ("a", "b")]
    for key in ("lr", "weight_decay", "eps"):
        edit_config(runs[1], f"model.optimizer.{key}", 0.5)
    labels = [group.label for group in read_groups(runs)]
    assert labels == ["headless (CWT), same (a/same)", "headless (CWT), same (b/same)"]


def test_the_baseline_can_be_named(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs")
    for name in ("headless-2", "headless (CWT)", str(runs[4])):
        comparison = compare(runs, output=tmp_path / "out", overwrite=True, baseline=name)
        numbers = json.loads((tmp_path / "out/compare.json").read_text())
        assert comparison.baseline is comparison.groups[1]
        assert numbers["baseline"] == "headless (CWT)"
        assert numbers["groups"][1]["relative_to_baseline"]["val/nll"]["difference"] == 0
        html = (tmp_path / "out/report.html").read_text()
        assert "Against the baseline, headless (CWT)." in html
        assert "--baseline" in html.split("headless compare")[-1]
    assert (
        compare(runs, output=tmp_path / "out", overwrite=True).baseline is not comparison.groups[1]
    )


def test_an_unknown_or_an_ambiguous_baseline(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    with pytest.raises(HeadlessError, match="'vanilla'; there are 'cross-entropy.*headless-1"):
        compare(runs, output=tmp_path / "out", baseline="vanilla")
    assert not (tmp_path / "out").exists()
    twice = [write_run(tmp_path / root, "headless", name="same") for root in ("a", "b")]
    edit_config(twice[1], "model.optimizer.lr", 0.5)
    with pytest.raises(HeadlessError, match="is in several recipes"):
        baseline_of(read_groups(twice), "same")
