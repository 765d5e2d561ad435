"""Records are the same from every kind of file, and damage is told by file and place."""

import bz2
import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from headless.data.records import read_file, read_records
from headless.errors import HeadlessError

ROWS = [{"text": 'say "a"', "label": "x"}, {"text": "naïve", "label": ""}]
TSV = 'text\tlabel\nsay "a"\tx\nnaïve\t\n'.encode()
CSV = '\ufefftext,label\r\n"say ""a""",x\r\n\r\nnaïve,\r\n'.encode()  # as spreadsheets write it


def test_every_kind_of_file_holds_the_same(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    files = {
        "a.csv": CSV,
        "a.tsv": TSV,
        "a.TSV.GZ": gzip.compress(TSV),
        "a.jsonl": lines,
        "a.json": json.dumps(ROWS).encode(),
        "b.json.bz2": bz2.compress(lines),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for name in [*files, "a.parquet"]:
        assert [record.fields for record in read_file(tmp_path / name)] == ROWS, name
    in_directory = list(read_records(str(tmp_path)))
    assert [record.fields for record in in_directory] == ROWS * 4  # of the tables none
    assert in_directory[-1].place == f"{tmp_path / 'b.json.bz2'}:2"
    assert in_directory[0].place == f"{tmp_path / 'a.json'}[0]"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,label\na,b\nc\n", r"a\.csv:3 has 1 columns and the first line 2"),
        ("a.csv", b"text\ncaf\xe9\n", r"a\.csv cannot be read after line .*can't decode byte 0xe9"),
        ("a.csv.gz", b"no archive", r"a\.csv\.gz cannot be unpacked"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": \n', r"a\.jsonl:3 is not JSON"),
        ("a.jsonl", b"{}\n3\n", r"a\.jsonl:2 is no JSON object: write one"),
        ("a.json", b'[{"a": 1}, "b"]', r"a\.json\[1\] is no JSON object"),
        ("a.parquet", b"PAR1", r"a\.parquet is not a Parquet file"),
    ],
)
def test_damage_is_told_by_file_and_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HeadlessError) as caught:
        list(read_file(tmp_path / name))
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)
