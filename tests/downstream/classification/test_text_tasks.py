"""The table of tasks and what is read for them."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas import DataFrame

from headless.downstream.classification.data import read_task, split
from headless.downstream.classification.tasks import TASKS, TextTask, find_task
from headless.downstream.options import Source
from headless.errors import HeadlessError

ROWS = [
    {"text": f'the "{word}" number {i}', "label": word} for i in range(20) for word in ("a", "b")
]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file in the format that its suffix says."""
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".tsv":
        lines = [list(rows[0]), *([str(v) for v in row.values()] for row in rows)]
        path.write_text("".join("\t".join(line) + "\n" for line in lines))
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def test_every_glue_task_and_what_fits_of_superglue() -> None:
    glue = {name for name, task in TASKS.items() if task.dataset == "nyu-mll/glue"}
    assert glue == {"cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"}
    assert {"boolq", "cb", "wic", "superglue-rte", "xnli"} <= set(TASKS)
    assert TASKS["stsb"].regression
    assert not TASKS["stsb"].classes
    assert find_task("xnli:de").config == "de"  # type: ignore[union-attr]
    assert find_task("my_own/data") is None


def test_a_task_that_fits_no_classifier_says_why() -> None:
    with pytest.raises(HeadlessError, match=r"copa .*multiple choice.*left out are copa, multirc"):
        find_task("copa")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_examples(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"data{suffix}", ROWS)
    found = read_task(TextTask("t"), Source(str(path)))
    reference = read_task(TextTask("t"), Source(str(write_rows(tmp_path / "other.jsonl", ROWS))))
    for name, part in found.splits.items():
        assert part.equals(reference.splits[name])
    assert replace(found, splits={}) == replace(reference, splits={})
    assert set(found.splits) == set(reference.splits)
    assert found.classes == ("a", "b")
    texts = [text for part in found.splits.values() for text in part["text"].tolist()]
    assert sorted(texts) == sorted(row["text"] for row in ROWS)
    for name, count in {"train": 16, "validation": 2, "test": 2}.items():
        assert found.splits[name]["label"].tolist().count("a") == count


@given(
    sizes=st.lists(st.integers(1, 6), min_size=4, max_size=40),
    classes=st.integers(1, 3),
    seed=st.integers(0, 5),
)
def test_a_split_is_a_partition_that_keeps_groups_whole(
    sizes: list[int], classes: int, seed: int
) -> None:
    groups = [str(i) for i, size in enumerate(sizes) for _ in range(size)]
    texts = [str(i) for i in range(len(groups))]
    labels = [str(int(g) % classes) for g in groups]
    examples = DataFrame({"text": texts, "label": labels, "group": groups})
    cut = split(examples, 0.2, 0.2, seed, stratify=True)
    assert sorted(t for part in cut.values() for t in part["text"].tolist()) == sorted(texts)
    seen = [set(part["group"].tolist()) for part in cut.values()]
    assert not (seen[0] & seen[1])
    assert not (seen[0] & seen[2])
    assert not (seen[1] & seen[2])
    assert set(examples["label"].tolist()) == set(cut["train"]["label"].tolist())
    for name, part in split(examples, 0.2, 0.2, seed, stratify=True).items():
        assert part.equals(cut[name])


def test_equal_texts_stay_together(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "twice.jsonl", [*ROWS, *ROWS])
    parts = read_task(TextTask("t"), Source(str(path), split_seed=3)).splits
    texts = [set(part["text"].tolist()) for part in parts.values()]
    assert not (texts[0] & texts[1])
    assert not (texts[0] & texts[2])
    assert not (texts[1] & texts[2])


def test_glue_as_its_dataset_is_stored(tmp_path: Path) -> None:
    """Class numbers with names, and a test split whose labels are secret."""
    import datasets

    features = datasets.Features(
        sentence=datasets.Value("string"),
        label=datasets.ClassLabel(names=["unacceptable", "acceptable"]),
        idx=datasets.Value("int32"),
    )

    def part(labels: list[int]) -> Any:
        columns = {
            "sentence": [f"sentence {i}" for i in range(len(labels))],
            "label": labels,
            "idx": list(range(len(labels))),
        }
        return datasets.Dataset.from_dict(columns, features=features)

    datasets.DatasetDict(
        train=part([0, 1, 1, -1]), validation=part([1, 0]), test=part([-1, -1])
    ).save_to_disk(tmp_path / "cola")
    found = read_task(TASKS["cola"], Source(str(tmp_path / "cola")))
    assert found.classes == ("unacceptable", "acceptable")
    assert found.splits["train"]["label"].tolist() == ["unacceptable", "acceptable", "acceptable"]
    assert found.splits["validation"]["label"].tolist() == ["acceptable", "unacceptable"]
    assert found.reported == "validation"
    assert any("no labelled test split" in note for note in found.notes)
    assert any("1 of 4 in train" in note for note in found.notes)
    own = read_task(TextTask("own", text_column="sentence"), Source(str(tmp_path / "cola")))
    assert own.splits["train"]["label"].tolist() == found.splits["train"]["label"].tolist()


def test_wic_says_the_word_and_mnli_has_two_validation_splits(tmp_path: Path) -> None:
    import datasets

    wic = {"word": ["bank"] * 2, "sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1]}
    part = datasets.Dataset.from_dict(wic)
    datasets.DatasetDict(train=part, validation=part).save_to_disk(tmp_path / "wic")
    found = read_task(TASKS["wic"], Source(str(tmp_path / "wic")))
    assert found.splits["train"]["text"].tolist() == ["bank: a", "bank: b"]
    assert found.splits["train"]["pair"].tolist() == ["c", "d"]
    assert found.splits["train"]["label"].tolist() == ["False", "True"]
    mnli = {"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": [0, 2]}
    part = datasets.Dataset.from_dict(mnli)
    datasets.DatasetDict(
        train=part, validation_matched=part, validation_mismatched=part
    ).save_to_disk(tmp_path / "mnli")
    assert set(read_task(TASKS["mnli"], Source(str(tmp_path / "mnli"))).splits) == {
        "train",
        "validation",
        "also",
    }


def test_regression_reads_numbers(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "label": i / 2} for i in range(30)]
    path = write_rows(tmp_path / "data.csv", rows)
    found = read_task(TextTask("t", regression=True), Source(str(path)))
    assert found.classes == ()
    assert sorted(x for p in found.splits.values() for x in p["label"].tolist()) == [
        i / 2 for i in range(30)
    ]


def test_numbers_as_classes_are_in_their_order(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "label": i % 11} for i in range(110)]
    path = write_rows(tmp_path / "data.parquet", rows)
    found = read_task(TextTask("t"), Source(str(path)))
    assert found.classes == tuple(map(str, range(11)))
