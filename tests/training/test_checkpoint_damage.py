"""A checkpoint is read as it was written, or not at all."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from headless.errors import HeadlessError
from headless.training.checkpoint_io import AtomicCheckpointIO, read_checkpoint

CONTENT = {
    "state_dict": {"weight": torch.linspace(-1, 1, 35).view(7, 5), "steps": torch.arange(9)},
    "half": torch.ones(4, dtype=torch.bfloat16),
    "plain": [1, 2.5, "three", None, {"four": True}],
}


def same(a: Any, b: Any) -> bool:
    """Bit for bit, types too."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def write(path: Path) -> Path:
    """A small checkpoint."""
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    return path


def test_no_flipped_bit_changes_a_value(tmp_path: Path) -> None:
    """In every region of the file: it is found, or what is read is what was written."""
    path = write(tmp_path / "last.ckpt")
    raw, found = path.read_bytes(), 0
    assert same(CONTENT, read_checkpoint(path))
    for place in range(0, len(raw), 7):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            assert same(CONTENT, read_checkpoint(path)), place
        except HeadlessError:
            found += 1
    assert found > 0.3 * len(raw) / 7  # the rest is padding, most of a file so small


@pytest.mark.parametrize("tensor", ["weight", "steps"])
def test_a_flipped_bit_of_a_tensor_is_found(tmp_path: Path, tensor: str) -> None:
    path = write(tmp_path / "last.ckpt")
    raw = bytearray(path.read_bytes())
    values = CONTENT["state_dict"][tensor].numpy().tobytes()
    raw[raw.index(values) + len(values) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(HeadlessError, match=r"last\.ckpt is damaged .*--run\.overwrite true"):
        read_checkpoint(path)


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "last.ckpt")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(HeadlessError, match="is damaged or no checkpoint"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(CONTENT["plain"]))
    with pytest.raises(HeadlessError, match="is damaged or no checkpoint"):
        read_checkpoint(path)
    torch.save({"path": tmp_path}, path)
    with pytest.raises(HeadlessError, match="pickled objects"):
        read_checkpoint(path)
