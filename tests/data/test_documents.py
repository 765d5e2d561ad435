"""Documents come out of every format as they went in, and bad ones are told by file and place."""

import json
import re
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from headless.data.documents import Documents
from headless.errors import HeadlessError

TEXTS = ["To be, or not to be", "naïve café\r\nsecond line\n", "日本語 🙂", "a \x00 b"]


def write_parquet(path: Path, texts: list[str | None], column: str = "text") -> None:
    """Row groups of two."""
    parquet.write_table(pa.table({column: texts, "n": range(len(texts))}), path, row_group_size=2)


def write_jsonl(path: Path, texts: list[str | None], field: str = "text") -> None:
    """With a blank line at the end, as editors leave it."""
    lines = [json.dumps({"id": i, field: text}) for i, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")


def test_formats_hold_the_same_documents(tmp_path: Path) -> None:
    for i, text in enumerate(TEXTS):
        (tmp_path / f"{i}.txt").write_bytes(text.encode())
    write_jsonl(tmp_path / "a.jsonl", [*TEXTS, None, " \n"])
    write_parquet(tmp_path / "a.parquet", [*TEXTS, None, ""])
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "saved")
    files = [str(tmp_path / f"{i}.txt") for i in range(4)]
    for inputs in ([*files], *([str(tmp_path / n)] for n in ("a.jsonl", "a.parquet", "saved"))):
        documents = Documents(inputs)
        assert list(documents) == TEXTS
        assert list(documents) == TEXTS  # a second pass sees the same


def test_a_datasets_name_is_loaded_by_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "mine"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", TEXTS, "body")
    write_jsonl(folder / "test.jsonl", ["held back"], "body")
    monkeypatch.chdir(tmp_path)
    # No file is called so, hence load_dataset gets it: it finds the folder and needs no hub.
    assert list(Documents(["mine:default"], "body", split="test")) == ["held back"]
    assert list(Documents(["mine:default"], "body")) == TEXTS
    with pytest.raises(HeadlessError, match="mine:default has no field 'text'.*body"):
        list(Documents(["mine:default"]))
    with pytest.raises(HeadlessError, match="datasets cannot load it"):
        list(Documents(["mine:other"], "body"))
    with pytest.raises(HeadlessError, match="datasets cannot load it"):
        list(Documents(["mine:default"], "body", split="dev"))


def test_a_directory_is_read_recursively_sorted_without_hidden_and_other_files(
    tmp_path: Path,
) -> None:
    for name in ("b/z.txt", "a.txt", "b/c/d.txt", ".git/x.txt", "b/.y.txt", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    write_jsonl(tmp_path / "b" / "m.jsonl", ["one", "two"])
    assert list(Documents([str(tmp_path)])) == ["a.txt", "b/c/d.txt", "one", "two", "b/z.txt"]


def test_a_separator_splits_txt_files_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\n\n\nthree")
    write_jsonl(tmp_path / "b.jsonl", ["x\n\ny"])
    assert list(Documents([str(tmp_path)], separator="\n\n")) == ["one", "two", "three", "x\n\ny"]
    with pytest.raises(HeadlessError, match="document_separator is empty"):
        Documents([str(tmp_path)], separator="")


def bad_inputs(directory: Path) -> dict[str, str]:
    """Files that cannot be used, and what must be said of each."""
    (directory / "latin.txt").write_bytes(b"caf\xe9 au lait")
    (directory / "latin.jsonl").write_bytes(b'{"text": "ok"}\n{"text": "caf\xe9"}\n')
    (directory / "field.jsonl").write_text('{"text": "ok"}\n{"body": "no"}\n')
    (directory / "list.jsonl").write_text("[1, 2]\n")
    (directory / "number.jsonl").write_text('{"text": 3}\n')
    (directory / "half.jsonl").write_text('{"text": "ok"}\n{"text": "o\n')
    (directory / "surrogate.jsonl").write_text('{"text": "ab\\ud800"}\n')
    write_parquet(directory / "column.parquet", ["x"], "body")
    write_parquet(directory / "cut.parquet", ["x" * 1000])
    (directory / "cut.parquet").write_bytes((directory / "cut.parquet").read_bytes()[:-20])
    (directory / "empty").mkdir()
    (directory / "a.csv").write_text("text\n")
    return {
        "latin.txt": r"latin\.txt is not UTF-8 at byte 3",
        "latin.jsonl": r"latin\.jsonl is not UTF-8 at byte 28",
        "field.jsonl": r"field\.jsonl:2 has no field 'text' \(it has body\)",
        "list.jsonl": r"list\.jsonl:1 has no field 'text'",
        "number.jsonl": r"number\.jsonl:1: the field 'text' holds int",
        "half.jsonl": r"half\.jsonl:2 is not JSON",
        "surrogate.jsonl": r"surrogate\.jsonl:1: half a surrogate pair at character 2",
        "column.parquet": r"column\.parquet has no field 'text' \(it has body, n\)",
        "cut.parquet": r"cut\.parquet is not a Parquet file",
        "empty": r"empty holds no \.txt, \.jsonl, \.parquet file",
        "a.csv": r"a\.csv is none of",
        "missing.txt": r"there is no .*missing\.txt",
        "missing/deep/path": r"there is no .*missing/deep/path",
    }


def test_bad_inputs_are_told_by_file_and_place(tmp_path: Path) -> None:
    for name, message in bad_inputs(tmp_path).items():
        with pytest.raises(HeadlessError) as caught:
            list(Documents([str(tmp_path / name)]))
        assert re.search(message, str(caught.value)), name
    with pytest.raises(HeadlessError, match="'nobody_has_this' is neither a file nor"):
        list(Documents(["nobody_has_this"]))
