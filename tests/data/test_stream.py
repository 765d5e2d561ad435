"""The format on disk: what is written can be checked by hand, and damage is found."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from headless.data.datamodule import TokenDataModule
from headless.data.documents import Documents
from headless.data.stream import Manifest, TokenStream, _digest, open_dataset, token_dtype
from headless.errors import HeadlessError


def test_streams_hold_the_documents_and_the_rest_agrees_with_them(
    dataset: Path, text_files: Path
) -> None:
    opened = open_dataset(dataset)
    manifest = opened.manifest
    tokenizer = PreTrainedTokenizerFast.from_pretrained(opened.tokenizer_path)
    texts = {"train": [], "validation": []}
    for split, decoded in texts.items():
        stream = opened.split(split)
        tokens = np.fromfile(dataset / f"{split}.bin", dtype="<u2")
        assert np.array_equal(stream[:], tokens)
        assert stream[:].dtype == np.int64
        assert len(stream) == len(tokens) == manifest.splits[split]["tokens"]
        begins = opened.documents(split)
        assert begins[0] == 0
        assert len(begins) == manifest.splits[split]["documents"]
        for begin, end in zip(begins, [*begins[1:], len(tokens)], strict=True):
            assert tokens[end - 1] == manifest.eos_token_id
            assert manifest.eos_token_id not in tokens[begin : end - 1]
            decoded.append(tokenizer.decode(tokens[begin : end - 1]))
        num_bytes = sum(len(text.encode()) for text in decoded)
        assert manifest.splits[split]["bytes"] == num_bytes
        assert manifest.bytes_per_token(split) == num_bytes / len(tokens)
    counts = np.bincount(opened.split("train")[:], minlength=manifest.vocab_size)
    assert opened.unigram_counts.tolist() == counts.tolist()
    documents = list(Documents([str(text_files)]))
    assert not set(texts["train"]) & set(texts["validation"])
    for decoded in texts.values():  # each in the order of the input
        assert decoded == [text for text in documents if text in decoded]
    assert sorted(texts["train"] + texts["validation"]) == sorted(documents)


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    assert token_dtype(65_536) == np.dtype("<u2")
    assert token_dtype(65_537) == np.dtype("<u4")
    np.array([1, 70_000], dtype="<u4").tofile(tmp_path / "train.bin")
    assert TokenStream(tmp_path / "train.bin", "<u4")[:].tolist() == [1, 70_000]
    (tmp_path / "train.bin").write_bytes(b"")
    assert len(TokenStream(tmp_path / "train.bin", "<u4")[:]) == 0


def flip(path: Path) -> None:
    """One bit in the middle."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def cut(path: Path) -> None:
    """The last byte is missing."""
    path.write_bytes(path.read_bytes()[:-1])


FILES = ["train.bin", "validation.documents.npy", "unigram_counts.npy", "tokenizer/tokenizer.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "message"),
    [(flip, "its checksum does not fit"), (cut, "bytes instead of"), (Path.unlink, "is missing")],
)
def test_damage_is_found_and_named(
    dataset: Path, tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    copy = shutil.copytree(dataset, tmp_path / "copy")
    damage(copy / name)
    with pytest.raises(HeadlessError, match=message) as caught:
        open_dataset(copy)
    assert name in str(caught.value)
    assert "prepare it again" in str(caught.value)
    if damage is flip:
        open_dataset(copy, verify="size")  # as documented: only sizes


def test_what_is_no_dataset_is_told(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadlessError, match="is not a prepared dataset .*headless prepare"):
        open_dataset(tmp_path)
    values = json.loads((dataset / "manifest.json").read_text())
    del values["sha256"]
    assert Manifest(**values) == Manifest.read(dataset)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**values, "format": 2}))
    with pytest.raises(HeadlessError, match="is of format 2, this version reads 1"):
        open_dataset(tmp_path)
    del values["splits"]
    for damaged in ("{", "[]", json.dumps(values), '{"format": 1, "other": 2}'):
        path.write_text(damaged)
        with pytest.raises(HeadlessError, match=r"manifest\.json is damaged .*prepare it again"):
            open_dataset(tmp_path)


def edited(dataset: Path, directory: Path, change: Callable[[dict], object]) -> Path:
    """A copy whose manifest was changed."""
    shutil.copytree(dataset, directory)
    path = directory / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    return directory


CHANGES: dict[str, Callable[[dict], object]] = {
    "a number": lambda m: m["splits"]["validation"].update(bytes=10),
    "a file": lambda m: m.update(files={}),
    "a type": lambda m: m.update(splits=None),
    "the checksum": lambda m: m.pop("sha256"),  # the first version wrote none
}


@pytest.mark.parametrize("verify", ["full", "size"])
@pytest.mark.parametrize("change", CHANGES)
def test_an_edited_manifest_is_found(
    dataset: Path, tmp_path: Path, change: str, verify: Literal["full", "size"]
) -> None:
    copy = edited(dataset, tmp_path / "copy", CHANGES[change])
    with pytest.raises(HeadlessError, match=r"manifest\.json is damaged .*checksum.*prepare it"):
        open_dataset(copy, verify=verify)


def test_data_of_an_earlier_version_lacks_what_it_did_not_know(
    dataset: Path, tmp_path: Path
) -> None:
    def earlier(m: dict) -> None:
        del m["inexact_share"], m["anchors"], m["sha256"]
        m["sha256"] = _digest(m)

    copy = edited(dataset, tmp_path / "copy", earlier)
    assert open_dataset(copy).manifest.inexact_share is None
    assert TokenDataModule(copy, sequence_length=16).anchors is None
