"""Fine-tunings in a comparison: a section of their own, and what the free head is worth."""

import json
from pathlib import Path

import pytest
import yaml
from synthetic_runs import edit_config, write_run

from headless.reports.compare import compare
from headless.reports.lm_heads import CURVE
from headless.reports.plots import reached_at
from headless.runs.run import Run

FREE, BARE = 4.2, 5.8


def write_tuning(root: Path, start: str, seed: int, nll: list[float], every: int = 10) -> Path:
    """A fine-tuning of a headless run, validated at the beginning and every few steps."""
    path = write_run(root, "cross_entropy", seed)
    name = f"tuned-{start}-{seed}"
    path = path.rename(root / name)
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["run"]["name"] = name
    config["model"] |= {"init_from": f"runs/headless-{seed}", "init_head": start}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    points = [
        {
            "val/nll": value,
            "progress/step": i * every,
            "progress/tokens": i * every * 1000,
            "progress/seconds": float(i),
            "progress/flops": float(i),
        }
        for i, value in enumerate(nll)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in points))
    summary = json.loads((path / "summary.json").read_text())
    summary |= {"name": name, "steps": 10 * (len(nll) - 1), "last": {"val/nll": nll[-1]}}
    summary["begins_from"] = "headless (CWT)"
    (path / "summary.json").write_text(json.dumps(summary))
    return path


@pytest.fixture
def tuned(tmp_path: Path) -> list[Path]:
    found = []
    for seed in (1, 2):
        found.append(write_tuning(tmp_path, "source", seed, [FREE, 4.15, 4.1]))
        found.append(write_tuning(tmp_path, "embedding", seed, [BARE, 4.6, 4.0 + 0.1 * seed]))
    return found


def test_steps_to_reach_a_level(tmp_path: Path) -> None:
    curve = CURVE(Run(write_tuning(tmp_path, "embedding", 1, [5.0, 4.0, 4.5, 3.0])))
    assert curve is not None
    assert reached_at(curve, 4.5) == pytest.approx(5.0)
    assert reached_at(curve, 5.0) == 0.0
    assert reached_at(curve, 3.5) == pytest.approx(20 + 10 * 2 / 3)
    assert reached_at(curve, 2.0) is None


def test_they_have_a_section_of_their_own(tmp_path: Path, tuned: list[Path]) -> None:
    scratch = [write_run(tmp_path, kind, 1) for kind in ("cross_entropy", "headless")]
    comparison = compare([*scratch, *tuned], output=tmp_path / "out")
    assert [group.label for group in comparison.groups] == [
        "cross-entropy (untied)",
        "headless (CWT)",
    ]
    page = comparison.report.read_text()
    assert "From a pre-trained model to a softmax head" in page
    numbers = json.loads((tmp_path / "out/compare.json").read_text())
    assert len(numbers["groups"]) == 2
    by_start = {entry["init_head"]: entry for entry in numbers["fine_tuned"]}
    assert by_start["source"]["nll_before"] == [FREE, FREE]
    embedding = by_start["embedding"]
    assert embedding["free_head_nll"] == pytest.approx(FREE)
    # 4.6 at 10, then 4.1 or 4.2 at 20
    assert embedding["steps_to_reach_free_head"] == pytest.approx([18.0, 20.0])
    assert [run["seed"] for run in embedding["runs"]] == [1, 2]  # seeds of one recipe
    assert "head from the embeddings" in page


def test_what_is_unfair_between_them_is_said(tmp_path: Path, tuned: list[Path]) -> None:
    scratch = [write_run(tmp_path, "headless", seed) for seed in (1, 2)]
    assert compare([*scratch, *tuned], output=tmp_path / "out").warnings == []
    edit_config(tuned[0], "trainer.gradient_clip_val", 5.0)
    warnings = compare([*scratch, *tuned], output=tmp_path / "out", overwrite=True).warnings
    (found,) = [words for words in warnings if "gradient_clip_val" in words]
    assert found.startswith("Fine-tuned LM heads: ")


def test_alone_they_are_compared_like_others(tmp_path: Path, tuned: list[Path]) -> None:
    comparison = compare(tuned, output=tmp_path / "out")
    assert len(comparison.groups) == 2
    assert comparison.warnings == []  # what they began from is what is compared
    assert not comparison.tuned
    assert "to a softmax head" not in comparison.report.read_text()


def test_one_that_never_gets_there(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, "headless", 3),
        write_tuning(tmp_path, "source", 1, [FREE, 4.3]),
        write_tuning(tmp_path, "embedding", 1, [BARE, 4.9]),
    ]
    page = compare(runs, output=tmp_path / "out").report.read_text()
    assert "1 not there in 10 steps" in page


def test_a_tuning_that_has_just_begun(tmp_path: Path) -> None:
    free = write_tuning(tmp_path, "source", 1, [FREE, 4.1])
    young = write_tuning(tmp_path, "embedding", 1, [BARE])
    (young / "metrics.jsonl").write_text("")
    (young / "summary.json").unlink()
    found = compare([write_run(tmp_path, "headless", 1), free, young], output=tmp_path / "out")
    assert "tuned-embedding-1" in (tmp_path / "out/report.html").read_text()
    assert len(found.tuned) == 2
