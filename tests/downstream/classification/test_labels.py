"""Labels that nobody may know are neither learnt nor scored, however they are written."""

import json
from pathlib import Path
from typing import Any

import pytest

from headless.downstream.classification.data import LabelledText, read_task, sha256
from headless.downstream.classification.tasks import TASKS, TextTask
from headless.downstream.options import Source
from headless.errors import HeadlessError

OWN = TextTask("own")


def write(path: Path, labels: list[Any], column: str = "text") -> Path:
    """A file with a text for each label."""
    rows = [{column: f"{path.stem} {i}", "label": label} for i, label in enumerate(labels)]
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        blank = ["" if row["label"] is None else row["label"] for row in rows]
        lines = [f"{row[column]},{label}\n" for row, label in zip(rows, blank, strict=True)]
        path.write_text(f"{column},label\n" + "".join(lines))
    return path


def read(
    directory: Path,
    train: list[Any],
    test: list[Any],
    *,
    suffix: str = ".jsonl",
    task: TextTask = OWN,
    **more: str | None,
) -> LabelledText:
    train_file = write(directory / f"train{suffix}", train, task.text_column)
    test_file = write(directory / f"test{suffix}", test, task.text_column)
    source = Source(str(train_file), test=test_file, **more)  # type: ignore[arg-type]
    return read_task(task, source)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize(
    ("known", "hidden", "unlabelled"),
    [
        ([0, 1], [-1, -1, -1], "-1"),
        ([0.0, 1.0], [-1.0, -1.0], "-1"),
        (["pos", "neg"], ["-1", "-1"], "-1"),
        (["pos", "neg"], ["?", "?"], "?"),
        (["pos", "neg"], [None, None], "none"),
        (["pos", "neg"], ["", " "], None),
    ],
)
def test_a_test_split_of_hidden_labels_has_no_score(
    known: list[Any], hidden: list[Any], unlabelled: Any, suffix: str, tmp_path: Path
) -> None:
    found = read(tmp_path, known * 20, hidden, suffix=suffix, unlabelled=unlabelled)
    assert "test" not in found.splits
    assert found.reported == "validation"
    assert len(found.classes) == 2
    assert found.unlabelled == {"test": len(hidden)}
    assert f"none of the {len(hidden)} examples of test has a label: it has no score" in found.notes


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_glue_file_with_hidden_labels_is_not_scored_as_its_last_class(
    suffix: str, tmp_path: Path
) -> None:
    found = read(tmp_path, [0, 1] * 20, [-1] * 20, suffix=suffix, task=TASKS["sst2"])
    assert found.classes == ("negative", "positive")
    assert found.unlabelled == {"test": 20}
    assert found.reported == "validation"


def test_only_labelled_rows_of_a_split_are_scored_or_learnt(tmp_path: Path) -> None:
    train = [0, 1] * 20 + [-1] * 3
    found = read(tmp_path, train, [0, -1, 1, 1, None], task=TASKS["sst2"])
    assert found.splits["test"]["label"].tolist() == ["negative", "positive", "positive"]
    assert [text[-1] for text in found.splits["test"]["text"].tolist()] == ["0", "2", "3"]
    assert found.unlabelled == {"train": 3, "test": 2}
    notes = "\n".join(found.notes)
    assert "2 of 5 in test have no label and are left out: the other 3 are scored" in notes
    assert "3 of 43 in train have no label and are left out: the other 40 are learnt" in notes


def test_the_digest_is_of_texts_and_labels(tmp_path: Path) -> None:
    """As many examples of each class are not the same examples."""
    found = [read(tmp_path, [0, 1] * 20, test) for test in ([0, 1], [1, 0], [0, 1])]
    digests = [sha256(text.splits["test"]) for text in found]
    assert digests[0] == digests[2] != digests[1]
    assert digests[0] != sha256(found[0].splits["train"])


@pytest.mark.parametrize("hidden", [-1, "-1", None, "", float("nan")])
def test_a_training_split_without_labels_is_refused(hidden: Any, tmp_path: Path) -> None:
    with pytest.raises(HeadlessError, match="no labelled example to train on"):
        read(tmp_path, [hidden] * 9, [0, 1], task=TASKS["sst2"])


@pytest.mark.parametrize("wrong", [2, -2, "7", 0.5, "good"])
@pytest.mark.parametrize("where", ["train", "test"])
def test_a_label_out_of_range_is_refused(wrong: Any, where: str, tmp_path: Path) -> None:
    train, test = [0, 1] * 20, [0, 1]
    (train if where == "train" else test).append(wrong)
    with pytest.raises(
        HeadlessError, match=rf"{where}.jsonl, row \d+: the label .* is none of negative"
    ):
        read(tmp_path, train, test, task=TASKS["sst2"])


@pytest.mark.parametrize(
    ("train", "classes"), [([-1, 1], ("-1", "1")), ([-2, -1, 0, 1], ("-2", "-1", "0", "1"))]
)
def test_minus_one_is_a_class_where_the_others_say_so(
    train: list[Any], classes: tuple[str, ...], tmp_path: Path
) -> None:
    found = read(tmp_path, train * 20, [*train, 1])
    assert found.classes == classes
    assert len(found.splits["test"]) == len(train) + 1


@pytest.mark.parametrize(
    ("train", "test"),
    [([-1, 0, 1], [-1, 0, 1]), ([0, 1], [-1]), (["a", "b"], ["a", "-1"]), ([-1, 0, 1, 2], [0])],
)
def test_minus_one_that_may_be_a_class_is_asked_about(
    train: list[Any], test: list[Any], tmp_path: Path
) -> None:
    with pytest.raises(HeadlessError, match=r"the label -1.*--unlabelled=-1.*--unlabelled none"):
        read(tmp_path, train * 20, test)
    found = read(tmp_path, train * 20, test, unlabelled="-1")
    assert "-1" not in found.classes
    assert sum(found.unlabelled.values()) == 20 * train.count(-1) + len(
        [label for label in test if str(label) == "-1"]
    )
    if -1 in train:
        assert read(tmp_path, train * 20, test, unlabelled="none").classes[0] == "-1"


def test_a_number_of_minus_one_is_asked_about_where_no_other_is_negative(tmp_path: Path) -> None:
    task = TextTask("numbers", regression=True)
    scale = [0.0, 2.5, 5.0] * 10
    for train, test in ((scale, [-1, 3]), ([*scale, -1], [3.0])):
        with pytest.raises(HeadlessError, match=r"the label -1: .*--unlabelled=-1"):
            read(tmp_path, train, test, task=task)
        found = read(tmp_path, train, test, task=task, unlabelled="-1")
        assert found.splits["test"]["label"].tolist() == [3.0]
        assert sum(found.unlabelled.values()) == 1
    signed = [-2.0, -1.0, 3.0] * 10
    found = read(tmp_path, signed, [-1, 3, None], task=task)
    assert found.splits["test"]["label"].tolist() == [-1.0, 3.0]


def test_class_names_that_are_numbers_keep_their_places(tmp_path: Path) -> None:
    """Stars from 1 to 3, stored as the numbers 0 to 2."""
    import datasets

    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["1", "2", "3"])
    )
    columns = {"text": [f"t {i}" for i in range(30)], "label": [0, 1, 2] * 10}
    part = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(train=part, validation=part).save_to_disk(tmp_path / "stars")
    test = write(tmp_path / "test.jsonl", [2, -1, 0])
    found = read_task(OWN, Source(str(tmp_path / "stars"), test=test))
    assert found.splits["train"]["label"].tolist()[:3] == ["1", "2", "3"]
    assert found.splits["test"]["label"].tolist() == ["3", "1"]
