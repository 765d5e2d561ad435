"""Documents come out of every format as they went in, and bad ones are told by file and place."""

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from headless.data.documents import Documents
from headless.data.text_files import describe
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
    read = ["README.md", "a.txt", "b/c/d.txt", "one", "two", "b/z.txt"]
    assert list(Documents([str(tmp_path)])) == read


def zstd(raw: bytes) -> bytes:
    """As `zstd` writes it."""
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(raw)
    return out.getvalue().to_pybytes()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_files_are_read(tmp_path: Path, suffix: str) -> None:
    pack = PACKERS[suffix]
    lines = "\n".join(json.dumps({"text": text}) for text in TEXTS[1:]).encode()
    (tmp_path / f"a.txt{suffix}").write_bytes(pack(TEXTS[0].encode()))
    (tmp_path / f"b.jsonl{suffix}").write_bytes(pack(lines))
    assert list(Documents([str(tmp_path)])) == TEXTS
    assert Documents([str(tmp_path)]).left_out() == []
    whole = pack(b"".join(b"%d of many\n" % i for i in range(5000)))
    (tmp_path / f"a.txt{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HeadlessError, match=rf"a\.txt\{suffix} cannot be unpacked"):
        list(Documents([str(tmp_path)]))


def test_names_in_capitals_json_and_linked_directories_are_read(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for path in (root / "a", other):
        path.mkdir(parents=True)
    (root / "a/1.TXT").write_text("capitals")
    (root / "b.json").write_text(json.dumps([{"text": "x"}, {"text": "y"}]))
    (root / "c.json").write_text('{"text": "one"}\n{"text": "a line"}\n')
    (root / "d.json").write_text('{\n  "text": "alone"\n}')
    (other / "in.txt").write_text("elsewhere")
    (root / "e").symlink_to(other)
    read = ["capitals", "x", "y", "one", "a line", "alone", "elsewhere"]
    assert list(Documents([str(root)])) == read
    (other / "back").symlink_to(root)
    (root / "f").symlink_to(root / "a")
    (root / "g").symlink_to(tmp_path)
    assert list(Documents([str(root)])) == read  # each once, and no way round for ever
    reasons = {path.name: reason for path, reason in Documents([str(root)]).left_out()}
    assert list(reasons) == ["back", "f", "g"]


def test_what_is_left_out_is_named_with_its_reason(tmp_path: Path) -> None:
    for name in ("a.txt", "b.png", "c.PNG", "LICENSE", ".hidden.txt", "t.parquet.gz"):
        (tmp_path / name).write_text("x")
    (tmp_path / "settings.json").write_text('{"width": 3}')
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    documents = Documents([str(tmp_path)])
    assert list(documents) == ["x"]
    reasons = {path.name: reason for path, reason in documents.left_out()}
    assert reasons == {
        "b.png": ".png",
        "c.PNG": ".png",
        "LICENSE": "no suffix",
        ".hidden.txt": "hidden",
        "t.parquet.gz": ".gz",
        "settings.json": ".json without a field 'text'",
        "gone.txt": "link to nothing",
    }
    said = describe(documents.left_out())
    assert said.startswith("7 left out (.png: 2, ")
    assert said.endswith("b.png, …")


def test_a_separator_splits_txt_files_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\n\n\nthree")
    write_jsonl(tmp_path / "b.jsonl", ["x\n\ny"])
    assert list(Documents([str(tmp_path)], separator="\n\n")) == ["one", "two", "three", "x\n\ny"]
    with pytest.raises(HeadlessError, match="document_separator is empty"):
        Documents([str(tmp_path)], separator="")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("blank", ["", "  ", "\t"])
def test_a_blank_line_separates_whatever_ends_lines_and_stands_on_it(
    tmp_path: Path, end: str, blank: str
) -> None:
    texts = [f"one {end}two", f"  three{end}four  ", "five"]  # none of this is lost
    (tmp_path / "a.txt").write_bytes(f"{end}{blank}{end}".join(texts).encode())
    assert list(Documents([str(tmp_path)], separator="\n\n")) == texts
    (tmp_path / "a.txt").write_bytes(f"{end}---{end}".join(texts).encode())
    assert list(Documents([str(tmp_path)], separator="\n---\n")) == texts


def test_a_separator_that_is_nowhere_is_told(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("one\ntwo\n")
    with pytest.raises(HeadlessError, match=r"'\\n---\\n' is in none of the 2 text files"):
        list(Documents([str(tmp_path)], separator="\n---\n"))
    (tmp_path / "b.txt").write_text("one\n---\ntwo\n")
    assert len(list(Documents([str(tmp_path)], separator="\n---\n"))) == 3


def bad_inputs(directory: Path) -> dict[str, str]:
    """Files that cannot be used, and what must be said of each."""
    (directory / "latin.txt").write_bytes(b"caf\xe9 au lait")
    (directory / "latin.jsonl").write_bytes(b'{"text": "ok"}\n{"text": "caf\xe9"}\n')
    (directory / "field.jsonl").write_text('{"text": "ok"}\n{"body": "no"}\n')
    (directory / "list.jsonl").write_text("[1, 2]\n")
    (directory / "number.jsonl").write_text('{"text": 3}\n')
    (directory / "half.jsonl").write_text('{"text": "ok"}\n{"text": "o\n')
    (directory / "broken.json").write_text('[{"text": "ok"},\n {"text": ]')
    (directory / "deep.json").write_text("[" * 100_000)
    (directory / "fields.json").write_text('[{"text": "ok"}, {"body": "no"}]')
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
        "list.jsonl": r"list\.jsonl:1 is no JSON object: write one",
        "number.jsonl": r"number\.jsonl:1: the field 'text' holds int",
        "half.jsonl": r"half\.jsonl:2 is not JSON",
        "broken.json": r"broken\.json is not JSON: .* line 2",
        "deep.json": r"deep\.json is nested too deeply",
        "fields.json": r"fields\.json\[1\] has no field 'text'",
        "surrogate.jsonl": r"surrogate\.jsonl:1: half a surrogate pair at character 2",
        "column.parquet": r"column\.parquet has no field 'text' \(it has body, n\)",
        "cut.parquet": r"cut\.parquet is not a Parquet file",
        "empty": r"empty holds no \.txt, \.md, \.jsonl, \.json, \.parquet file",
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
