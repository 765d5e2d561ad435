"""The page and the numbers of a comparison, from run directories on the disk."""

import json
import math
import re
import resource
import statistics
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from synthetic_runs import edit_config, edit_json, write_run, write_runs

from headless.errors import HeadlessError
from headless.pages.page import Cell
from headless.reports.compare import Comparison, compare
from headless.reports.fairness import unfair
from headless.reports.groups import read_groups
from headless.reports.headline import headline, relative
from headless.reports.plots import mean_curve, thin
from headless.reports.tables import Table
from headless.reports.terminal import show
from headless.runs.run import Run


def run_compare(runs: list[Path], output: Path) -> tuple[Comparison, dict[str, Any], str]:
    comparison = compare(runs, output=output)
    numbers = json.loads((output / "compare.json").read_text())
    return comparison, numbers, (output / "report.html").read_text()


def last_nll(run: Path) -> float:
    """Read without the code under test."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [v["val/nll"] for v in map(json.loads, lines) if "val/nll" in v][-1]


def cells(table: Table | tuple[list[Any], list[list[Any]]]) -> list[dict[str, Cell]]:
    columns, rows = table.cells() if isinstance(table, Table) else table
    named = [dict(zip((c.name for c in columns), row, strict=True)) for row in rows]
    return [
        {name: cell if isinstance(cell, Cell) else Cell(cell) for name, cell in row.items()}
        for row in named
    ]


def test_seeds_are_grouped_and_averaged(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs")
    mixed = [runs[i] for i in (3, 0, 4, 1, 5, 2)]
    _, numbers, _ = run_compare(mixed, tmp_path / "out")
    first, second = numbers["groups"]
    assert [run["name"] for run in first["runs"]] == ["headless-1", "headless-2", "headless-3"]
    assert [run["seed"] for run in second["runs"]] == [1, 2, 3]
    values = [last_nll(run) for run in runs[:3]]
    found = second["metrics"]["val/nll"]
    assert found["values"] == values
    assert found["mean"] == pytest.approx(statistics.mean(values))
    # 4.30265: Student's t for 95 % and two degrees of freedom
    half = 4.30265 * statistics.stdev(values) / math.sqrt(3)
    assert found["half_width"] == pytest.approx(half, rel=1e-5)
    assert found["n"] == 3


def test_the_page_s_table_says_the_same(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs")
    rows = cells(headline(read_groups(runs)))
    nll = [last_nll(run) for run in runs[3:]]
    assert rows[1]["nll"].text == f"{statistics.mean(nll):.3f}"
    half = 4.30265 * statistics.stdev(nll) / math.sqrt(3)
    assert rows[1]["nll"].detail == f"± {half:.3f}"
    assert rows[1]["nll"].strong
    assert not rows[0]["nll"].strong
    assert rows[0]["bare head"].text == "–"
    assert rows[0]["objective"].text == "cross-entropy (untied)"
    assert rows[0]["objective"].detail == "gpt_neox 4 x 192, 3 runs, 32-true"
    assert rows[0]["N"].text == "4,096"  # 32 sequences of 128 tokens
    assert rows[0]["tokens"].text == "1.64M"
    assert rows[0]["tokens"].detail == ""  # the same in every run: no interval


def test_differences_from_the_baseline_are_paired(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs")
    rows = cells(relative(read_groups(runs[3:] + runs[:3])))
    assert rows[1]["objective"].detail == "baseline"  # cross-entropy, though it came second
    gaps = [last_nll(a) - last_nll(b) for a, b in zip(runs[3:], runs[:3], strict=True)]
    expected = f"{statistics.mean(gaps):.3f}".replace("-", "−")
    assert rows[0]["Δ nll"].text == expected
    half = 4.30265 * statistics.stdev(gaps) / math.sqrt(3)
    paired = stats.ttest_rel(*([last_nll(run) for run in side] for side in (runs[3:], runs[:3])))
    p = "p < 0.001" if paired.pvalue < 0.001 else f"p = {paired.pvalue:.2g}"
    assert rows[0]["Δ nll"].detail == f"± {half:.3f} {p}"
    assert (rows[0]["over"].text, rows[1]["over"].text) == ("3 pairs", "–")
    assert rows[1]["Δ nll"].text == "0"


def test_budget_to_reach_the_baseline_by_hand(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path, kind) for kind in ("cross_entropy", "headless"))
    for run, curve in ((a, [5, 4, 3]), (b, [4, 3.5, 2.5, 2.4])):
        points = [
            {"progress/tokens": 100 * i, "progress/seconds": 10.0 * i, "val/nll": nll}
            for i, nll in enumerate(curve, start=1)
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in points))
    _, numbers, _ = run_compare([a, b], tmp_path / "out")
    shares = [g["relative_to_baseline"] for g in numbers["groups"]]
    # from 3.5 at 200 tokens to 2.5 at 300: 3 at 250, of the baseline's 300
    assert shares[1]["share_of_tokens_to_reach_baseline_nll"]["value"] == pytest.approx(250 / 300)
    assert shares[0]["share_of_tokens_to_reach_baseline_nll"]["value"] == 1
    assert shares[1]["share_of_seconds_to_reach_baseline_nll"]["value"] == pytest.approx(25 / 30)


@pytest.mark.parametrize(
    ("key", "value", "groups"),
    [
        ("model.objective.init_args.temperature", 0.5, 2),
        ("model.optimizer.lr", 1e-4, 2),
        ("data.path", "data/other", 2),
        ("data.path", "elsewhere/data/demo", 1),
        ("run.group", "another", 1),
        ("data.num_workers", 4, 1),
        ("trainer.default_root_dir", "elsewhere", 1),
    ],
)
def test_what_makes_a_recipe(tmp_path: Path, key: str, value: object, groups: int) -> None:
    runs = [write_run(tmp_path, "headless", seed) for seed in (1, 2)]
    edit_config(runs[1], key, value)
    assert len(read_groups(runs)) == groups


def test_another_tokenizer_is_another_group(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "headless", seed) for seed in (1, 2)]
    edit_json(runs[1] / "summary.json", tokenizer_sha256="cd" * 32)
    groups = read_groups(runs)
    assert len(groups) == 2
    assert any("different tokenizers" in w and "bits per byte" in w for w in unfair(groups))
    rows = cells(relative(groups))
    assert rows[1]["Δ nll"].text == "–"
    assert rows[1]["Δ bits/byte"].text != "–"


def test_a_third_recipe_is_named_by_what_it_changed(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "headless", 1), write_run(tmp_path, "headless", 1, name="cool")]
    edit_config(runs[1], "model.objective.init_args.temperature", 0.5)
    groups = read_groups(runs)
    assert [group.label for group in groups] == [
        "headless (CWT), temperature=1.0",
        "headless (CWT), temperature=0.5",
    ]
    _, numbers, html = run_compare(runs, tmp_path / "out")
    key = "model.objective.init_args.temperature"
    assert numbers["differing_settings"] == {key: ["1.0", "0.5"]}
    assert "model.<wbr>objective.<wbr>init_args.<wbr>temperature" in html


def test_a_fair_comparison_has_no_warning(tmp_path: Path) -> None:
    comparison, numbers, html = run_compare(write_runs(tmp_path / "runs"), tmp_path / "out")
    assert comparison.warnings == numbers["warnings"] == []
    assert 'class="warning"' not in html


@pytest.mark.parametrize(
    ("file", "change", "warning"),
    [
        ("summary.json", {"finished": False}, "Not finished: headless-1"),
        ("summary.json", {"seed": 7}, "same seeds"),
        ("environment.json", {"gpus": ["NVIDIA H200"]}, "different hardware"),
        ("environment.json", {"commit": "f" * 40}, "different versions of the code"),
    ],
)
def test_warnings(tmp_path: Path, file: str, change: dict[str, Any], warning: str) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    edit_json(runs[1] / file, **change)
    found = unfair(read_groups(runs))
    assert [warning in text for text in found] == [True]


@pytest.mark.parametrize(
    ("key", "value", "warning"),
    [
        ("data.path", "data/other", "different data (demo, other)"),
        ("data.sequence_length", 256, "sequence lengths"),
        ("model.backbone.hidden_size", 64, "backbones"),
        ("model.optimizer.lr", 0.5, "optimizer"),
    ],
)
def test_warnings_from_configs(tmp_path: Path, key: str, value: object, warning: str) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    edit_config(runs[1], key, value)
    found = unfair(read_groups(runs))
    assert [warning in text for text in found] == [True]


def test_another_budget_is_named_and_nothing_is_best(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "cross_entropy"), write_run(tmp_path, "headless", steps=300)]
    groups = read_groups(runs)
    assert any("different numbers of tokens (1.23M to 1.64M)" in w for w in unfair(groups))
    _, rows = headline(groups).cells()
    assert not any(cell.strong for row in rows for cell in row)


def test_repeated_seeds_are_no_evidence(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "headless", 1, name=name) for name in ("a", "b")]
    assert any("share a seed" in w for w in unfair(read_groups(runs)))


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    """A config and nothing else, beside one without validation and a half-written last line."""
    empty = write_run(tmp_path, "headless", name="empty", finished=False)
    for name in ("metrics.jsonl", "samples.jsonl", "environment.json"):
        (empty / name).unlink()
    young = write_run(tmp_path, "cross_entropy", name="young", steps=40, finished=False)
    with open(young / "metrics.jsonl", "a") as file:
        file.write('{"progress/step": 45, "progr')
    comparison, numbers, html = run_compare([empty, young], tmp_path / "out")
    assert "Not finished: empty, young" in comparison.warnings[0]
    assert comparison.warnings[0] in html
    assert "tokens" not in numbers["groups"][0]["metrics"]
    assert numbers["groups"][1]["metrics"]["tokens"]["mean"] == 40 * 4096
    assert "Table 1." in html
    run_compare([empty], tmp_path / "alone")


def test_seeds_that_were_never_validated_at_one_time_have_no_mean_curve(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, "cross_entropy", 1),
        write_run(tmp_path, "cross_entropy", 2, steps=100),
        write_run(tmp_path, "headless", 1),
    ]
    points = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    late = [p for p in points if "val/nll" not in p or p["progress/step"] > 150]
    (runs[0] / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in late))
    _, numbers, _ = run_compare(runs, tmp_path / "out")
    losses = numbers["groups"][1]["equal_loss"]
    assert losses
    assert not any("baseline_nll" in one for one in losses)


def test_a_run_that_is_still_training_is_compared_from_its_first_validation_on(
    tmp_path: Path,
) -> None:
    """Beside a finished one, and anew while it goes on: with the summary that it has by then."""
    done = write_run(tmp_path, "cross_entropy", name="done")
    going = write_run(tmp_path, "headless", name="going", steps=50, finished=False)
    lines = (going / "metrics.jsonl").read_text()
    nll = [last_nll(going)]
    for steps in (50, 100):
        if steps == 100:
            whole = write_run(tmp_path / "later", "headless", steps=100)
            lines = (whole / "metrics.jsonl").read_text()
            summary = json.loads((whole / "summary.json").read_text())
            (going / "summary.json").write_text(json.dumps(summary | {"finished": False}))
            nll.append(last_nll(whole))
        (going / "metrics.jsonl").write_text(lines + '{"progress/step": 9, "train/lo')
        comparison = compare([done, going], output=tmp_path / "out", overwrite=True)
        numbers = json.loads((tmp_path / "out/compare.json").read_text())
        young = numbers["groups"][1]
        assert young["metrics"]["val/nll"]["values"] == nll[-1:]
        assert young["metrics"]["tokens"]["mean"] == steps * 4096
        assert young["runs"] == [{"name": "going", "seed": 1, "finished": False}]
        assert any("Not finished: going." in warning for warning in comparison.warnings)
        assert (tmp_path / "out/report.html").read_text().count("<svg") == 2 + (steps > 50)
    assert nll[0] > nll[1]


def test_a_notebook_sees_the_numbers_without_a_file(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs")
    comparison = compare([str(runs[0]), Run(runs[3]), *runs[4:]], baseline="cross_entropy-1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    assert comparison.report is None
    frame = comparison.frame()
    assert frame.index.tolist() == ["cross-entropy (untied)", "headless (CWT)"]
    nll = [last_nll(run) for run in runs[3:]]
    row = frame.loc["headless (CWT)"]
    assert row["val/nll"] == pytest.approx(statistics.mean(nll))
    half = 4.30265 * statistics.stdev(nll) / math.sqrt(3)
    assert row["± val/nll"] == pytest.approx(half, rel=1e-5)
    assert math.isnan(frame["± val/nll"].iloc[0])  # a single run
    html = comparison._repr_html_()
    assert f'<td class="right"><span>{last_nll(runs[0]):.3f}</span></td>' in html
    assert "The groups do not have the same seeds." in html
    assert "<body" not in html
    assert comparison.save(tmp_path / "out") == tmp_path / "out/report.html"
    assert "Against the baseline, cross-entropy" in (tmp_path / "out/report.html").read_text()


def test_a_value_that_is_not_finite_is_not_replaced_by_an_older_one(tmp_path: Path) -> None:
    run = write_run(tmp_path, "headless")
    point = {"progress/tokens": 10**9, "progress/seconds": 1e3, "val/nll": None}
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(point) + "\n")
    _, numbers, _ = run_compare([run], tmp_path / "out")
    assert "val/nll" not in numbers["groups"][0]["metrics"]


def test_memory_of_different_devices_is_not_divided(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    edit_json(runs[1] / "summary.json", memory_kind="gpu")
    groups = read_groups(runs)
    assert cells(relative(groups))[1]["memory"].text == "–"
    assert cells(headline(groups))[1]["memory"].detail == "gpu"


def test_a_gpus_memory_is_its_own_whatever_an_early_summary_says(tmp_path: Path) -> None:
    run = write_run(tmp_path, "headless")
    assert Run(run).memory_kind == "host"
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"progress/tokens": 10**9, "memory/peak_gib": 1.5}) + "\n")
    assert Run(run).memory_kind == "gpu"


def test_the_page_needs_nothing_else_and_has_no_id_twice(tmp_path: Path) -> None:
    _, _, html = run_compare(write_runs(tmp_path / "runs"), tmp_path / "out")
    assert "http" not in html
    assert not re.findall(r"\ssrc=|@import|<script|<link", html)
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids)) > 6
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html)
    assert {a or b for a, b in references} <= set(ids)
    assert html.count("<svg") == 3


def test_the_mean_step_is_of_the_whole_run(tmp_path: Path) -> None:
    run = write_run(tmp_path, "headless")
    edit_json(run / "summary.json", seconds=1000.0, tokens_per_second=None)
    (group,) = read_groups([run])
    assert group.values("step_ms") == [1000 * 1000.0 / 400]  # not the last logged window
    assert group.values("tokens_per_second") == [400 * 4096 / 1000.0]


def test_names_and_samples_are_escaped(tmp_path: Path) -> None:
    run = write_run(tmp_path, "headless")
    hostile = '<script>alert("x")</script>'
    edit_json(run / "summary.json", objective=hostile, name=hostile)
    (run / "samples.jsonl").write_text(json.dumps({"prompt": hostile, "text": hostile}) + "\n")
    _, _, html = run_compare([run], tmp_path / "out")
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 4


def test_the_last_sample_of_each_prompt_is_shown(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    for run in runs:
        samples = [
            {"progress/tokens": 10, "prompt": "P ", "text": f"early {run.name}"},
            {"progress/tokens": 20, "prompt": "P ", "text": f"late {run.name}"},
        ]
        (run / "samples.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))
    _, _, html = run_compare(runs, tmp_path / "out")
    assert "early headless-1" not in html
    assert '<span class="lead">P </span>late cross_entropy-1' in html
    assert '<span class="lead">P </span>late headless-1' in html


def test_the_same_runs_make_the_same_bytes(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    pages = []
    for _ in range(2):
        compare(runs, output=tmp_path / "out", overwrite=True)
        pages.append((tmp_path / "out/report.html").read_bytes())
    assert pages[0] == pages[1]


def test_a_report_is_replaced_only_when_asked(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    output = tmp_path / "out"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    compare(runs, output=output)
    (output / "report.html").write_text("old")
    with pytest.raises(HeadlessError, match="--overwrite true"):
        compare(runs, output=output)
    assert (output / "report.html").read_text() == "old"
    compare(runs, output=output, overwrite=True)
    assert (output / "report.html").read_text() != "old"
    assert (output / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl", "config.yaml"])
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path, "headless")
    (run / name).write_text('{"broken: \n')
    with pytest.raises(HeadlessError, match="damaged"):
        compare([run], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_arguments(tmp_path: Path) -> None:
    run = write_run(tmp_path, "headless")
    with pytest.raises(HeadlessError, match="name the runs"):
        compare([], output=tmp_path / "out")
    with pytest.raises(HeadlessError, match="named twice"):
        compare([run, tmp_path / "." / run.name], output=tmp_path / "out")
    with pytest.raises(HeadlessError, match="not a run directory"):
        compare([run / "checkpoints"], output=tmp_path / "out")
    with pytest.raises(HeadlessError, match="is a file"):
        compare([run], output=run / "config.yaml")


def test_mean_curve_by_hand() -> None:
    import numpy as np

    one = (np.array([0.0, 2.0, 4.0]), np.array([0.0, 2.0, 4.0]))
    other = (np.array([1.0, 3.0]), np.array([3.0, 5.0]))
    x, y = mean_curve([one, other])
    assert x.tolist() == [1, 2, 3]
    assert y.tolist() == [2, 3, 4]


def test_thinning_keeps_the_area_and_the_order() -> None:
    import numpy as np

    x = np.arange(1.0, 5001.0)
    thin_x, thin_y = thin((x, 3 * x), 100)
    assert len(thin_x) <= 100
    assert (np.diff(thin_x) > 0).all()
    assert thin_y == pytest.approx(3 * thin_x)
    assert thin_x[0] == 1
    assert thin_x[-1] > 4700


def test_memory_of_training_and_of_validation_stand_apart(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    old = cells(headline(read_groups(runs)))
    assert "memory, validation" not in old[0]
    for run in runs:
        edit_json(run / "summary.json", peak_validation_memory_gib=7.5, startup_seconds=31.0)
    groups = read_groups(runs)
    columns, _ = headline(groups).cells()
    units = {column.name: column.unit for column in columns}
    assert units["memory"] == "GiB, host"
    assert units["memory, validation"] == "GiB, host"
    rows = cells(headline(groups))
    assert (rows[0]["memory"].text, rows[0]["memory, validation"].text) == ("2.91", "7.50")
    assert rows[0]["start-up"].text == "31"
    assert unfair(groups) == []


def test_bits_per_byte_of_a_text_that_is_not_given_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    edit_json(runs[1] / "summary.json", inexact_share=0.125)
    comparison, numbers, html = run_compare(runs, tmp_path / "out")
    assert [group["inexact_share"] for group in numbers["groups"]] == [0.0, 0.125]
    note = "headless (CWT): 12 %. What it drops is not predicted"
    show(comparison)
    terminal = capsys.readouterr().out
    assert note in html
    assert note in " ".join(terminal.split())
    edit_json(runs[1] / "summary.json", tokenizer_sha256="cd" * 32)
    groups = read_groups(runs)
    (warning,) = [w for w in unfair(groups) if "different tokenizers" in w]
    assert "Compare bits per byte" not in warning
    assert "cannot be compared" in warning
    assert cells(relative(groups))[1]["Δ bits/byte"].text == "–"
    compare(runs, output=tmp_path / "out", overwrite=True)
    numbers = json.loads((tmp_path / "out/compare.json").read_text())
    found = numbers["groups"][1]["relative_to_baseline"]
    assert not any(key.startswith("val/") for key in found)  # no more than the page says
    assert found["share_of_tokens_to_reach_baseline_nll"] == {"value": None}
    assert "peak_memory_gib" in found


def test_bold_says_more_than_chance(tmp_path: Path) -> None:
    """25 s against 34 ± 77 s is no difference; nor is one of a seed each, or of other machines."""
    runs = write_runs(tmp_path / "runs")
    for run, seconds in zip(runs, (10.0, 20.0, 72.0, 24.0, 25.0, 26.0), strict=True):
        edit_json(run / "summary.json", seconds=seconds)
        (run / "metrics.jsonl").write_text(
            "".join(
                json.dumps({k: v for k, v in json.loads(line).items() if k != "progress/seconds"})
                + "\n"
                for line in (run / "metrics.jsonl").read_text().splitlines()
            )
        )
    rows = cells(headline(read_groups(runs)))
    assert [(row["time"].text, row["time"].detail) for row in rows] == [
        ("34", "± 83"),
        ("25", "± 2"),
    ]
    assert not any(row["time"].strong for row in rows)
    assert rows[1]["nll"].strong
    assert not any(row["nll"].strong for row in cells(headline(read_groups(runs[::3]))))
    assert rows[1]["memory"].strong
    for run in runs[:3]:
        edit_json(run / "environment.json", cpu="Another")
    rows = cells(headline(read_groups(runs)))
    assert (rows[1]["memory"].strong, rows[1]["nll"].strong) == (False, True)


def test_effective_rank_stands_beside_what_its_sample_can_show(tmp_path: Path) -> None:
    """What the runs say of their sample: the config knows no default, nor how short a text is."""
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    assert headline(read_groups(runs)).quantities[-1].unit == "of 192"
    edit_config(runs[0], "geometry.num_sequences", 64)
    for run in runs:
        with open(run / "metrics.jsonl", "a") as file:
            values = {"geometry/states": 254.0, "geometry/effective_rank/null": 167.72}
            file.write(json.dumps({"progress/step": 400, **values}) + "\n")
    assert headline(read_groups(runs)).quantities[-1].unit == "of 192, noise 168"


def test_scores_and_cost_are_two_tables(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    for run in runs:
        edit_json(run / "summary.json", peak_validation_memory_gib=7.5, startup_seconds=31.0)
    _, _, html = run_compare(runs, tmp_path / "out")
    scores, cost = html.split("What it cost.")
    assert "perplexity<" in scores
    assert "start-up<" not in scores
    assert "start-up<" in cost.partition("</table>")[0]
    assert "nll<" not in cost.partition("</table>")[0]


def test_a_full_disk_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """A limit on the size of files stands for it: the numbers fit, the page does not."""
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=re.escape("report.html")):
            compare(runs, output=tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "out").iterdir()) == []
    compare(runs, output=tmp_path / "out")
    (tmp_path / "out" / "report.html").unlink()  # killed between two renames
    compare(runs, output=tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["compare.json", "report.html"]


@pytest.mark.parametrize("name", ["report.html", "compare.json"])
def test_what_another_wrote_is_never_replaced(tmp_path: Path, name: str) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    (tmp_path / name).write_text('{"mine": 1}')
    for overwrite in (False, True):
        with pytest.raises(HeadlessError, match="that this command did not make"):
            compare(runs, output=tmp_path, overwrite=overwrite)
    assert (tmp_path / name).read_text() == '{"mine": 1}'


def test_a_finished_run_whose_metrics_lost_their_end_keeps_its_last_values(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "headless")
    before = Run(run).last
    whole = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(whole[: len(whole) // 2])
    after = Run(run).last
    summary = json.loads((run / "summary.json").read_text())["last"]
    assert {key: after[key] for key in summary} == {key: before[key] for key in summary}


def test_a_run_that_changed_on_its_way_is_said(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "runs", "headless", seed) for seed in (1, 2)]
    (runs[0] / "config.until-step-10.yaml").write_text((runs[0] / "config.yaml").read_text())
    comparison, _, _ = run_compare(runs, tmp_path / "report")
    assert [w for w in comparison.warnings if "headless-1 (config.until-step-10.yaml)" in w]
