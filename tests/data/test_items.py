"""Sequences of item ids: what is read, what is refused, and what is written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from headless.cli.main import main
from headless.data.datamodule import TokenDataModule
from headless.data.prepare import prepare
from headless.data.stream import TokenDataset, open_dataset
from headless.errors import HeadlessError

SEQUENCES = [[(first * 7 + step) % 30 for step in range(1 + first % 5)] for first in range(40)]


def write(path: Path, values: list[Any], name: str = "clicks") -> Path:
    path.write_text("".join(json.dumps({name: value}) + "\n" for value in values))
    return path


def sequences_of(dataset: TokenDataset, split: str) -> list[list[int]]:
    ends = np.append(dataset.documents(split)[1:], len(dataset.split(split)))
    tokens = [part.tolist() for part in np.split(dataset.split(split)[:], ends[:-1])]
    assert all(part[-1] == dataset.manifest.eos_token_id for part in tokens)
    return [part[:-1] for part in tokens]


def test_every_sequence_comes_back_whole_on_one_side(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", SEQUENCES)
    parquet.write_table(
        pa.table({"user": range(40), "clicks": pa.array(SEQUENCES, pa.list_(pa.int32()))}),
        tmp_path / "a.parquet",
    )
    made = prepare(str(lines), tmp_path / "out", item_field="clicks", validation_fraction=0.2)
    dataset = open_dataset(made.path)
    train, held_out = sequences_of(dataset, "train"), sequences_of(dataset, "validation")
    assert sorted(train + held_out) == sorted(SEQUENCES)
    assert 0.2 <= sum(map(len, held_out)) / sum(map(len, SEQUENCES)) < 0.3
    assert not {*map(tuple, train)} & {*map(tuple, held_out)}
    manifest = dataset.manifest
    assert (manifest.vocab_size, manifest.eos_token_id) == (31, 30)
    assert manifest.tokenizer_sha256 is None
    assert not dataset.tokenizer_path.exists()
    assert manifest.anchors is not None
    assert not manifest.anchors["bits_per_byte"]  # of text
    flat = np.concatenate([*train, [30] * len(train)])
    assert dataset.unigram_counts.tolist() == np.bincount(flat.astype(int), minlength=31).tolist()
    with pytest.raises(HeadlessError, match="holds item ids, among which is no mask"):
        TokenDataModule(made.path, sequence_length=8, task="masked")
    again = prepare(
        str(tmp_path / "a.parquet"), tmp_path / "again", item_field="clicks",
        validation_fraction=0.2, num_items=100,
    )  # fmt: skip
    assert sequences_of(again, "train") == train
    assert (again.manifest.vocab_size, again.manifest.eos_token_id) == (101, 100)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["a"], "a.jsonl:2: the field 'clicks' holds 'a': item ids are integers"),
        ([3, -1], "holds -1: item ids are integers from 0"),
        ([3, 1.0], "holds 1.0"),
        ([3, True], "holds True"),
        ([3, 2**32], "holds 4294967296: item ids are integers from 0 to 4294967294"),
        ([], "a.jsonl:2: the field 'clicks' is an empty list"),
        (None, "holds NoneType, not a list"),
        ("1 2", "holds str, not a list"),
        ([3, 10**7], "the largest item id is 10000000 in 4 ids: number the items from 0 on"),
    ],
)
def test_bad_sequences_are_one_line(
    value: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = write(tmp_path / "a.jsonl", [[1, 2], value])
    assert message in complaint(["--item_field", "clicks"], lines, capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--item_field", "clicks", "--num_items", "2"], "holds the item 2, but with --num_items"),
        (["--item_field", "clicks", "--num_items", "0"], "num_items must be from 1"),
        (["--item_field", "clicks", "--tokenizer", "x"], "tokenizer is of text"),
        (["--item_field", "clicks", "--vocab_size", "9"], "vocab_size is of text"),
        (["--item_field", "clicsk"], "has no field 'clicsk' (it has clicks): rename 'clicks'"),
        (["--num_items", "3"], "num_items goes with --item_field"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in complaint(options, write(tmp_path / "a.jsonl", [[1, 2], [0]]), capsys)


def complaint(options: list[str], lines: Path, capsys: pytest.CaptureFixture[str]) -> str:
    out = lines.with_name("out")
    assert main(["prepare", "--input", str(lines), "--output", str(out), *options]) == 2
    assert not out.exists()
    (line,) = [s for s in capsys.readouterr().err.splitlines() if "headless: error:" in s]
    return line
