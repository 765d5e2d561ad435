"""Checkpoints that are written whole, once, and never twice in memory."""

import errno
import resource
import tracemalloc
from pathlib import Path

import pytest
import torch

from headless.training.checkpoint_io import AtomicCheckpointIO

CHECKPOINT = {"weights": torch.arange(2_000_000, dtype=torch.float32), "step": 3}


def test_a_checkpoint_is_not_held_in_memory_a_second_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "last.ckpt"
    tracemalloc.start()
    try:
        AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 4
    loaded = torch.load(path, weights_only=True, mmap=True)
    assert torch.equal(loaded["weights"], CHECKPOINT["weights"])
    assert loaded["step"] == 3


def test_a_disk_that_fills_up_is_named_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"old": torch.zeros(3)}, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match="last.ckpt") as caught:
            AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
