"""The data module: batches no larger than the text, and numbers that make sense."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from headless.data.datamodule import TokenDataModule
from headless.errors import HeadlessError


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_validation_batch_is_never_larger_than_the_text(dataset: Path, ranks: int) -> None:
    data = TokenDataModule(dataset, sequence_length=16, batch_size=4, val_batch_size=100_000)
    blocks = len(data._blocks["validation"])
    read = 0
    for rank in range(ranks):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=ranks)  # type: ignore[assignment]
        (batch,) = data.val_dataloader()
        assert len(batch["input_ids"]) == -(-blocks // ranks)
        read += int((batch["targets"] != -100).any(dim=1).sum())
    assert read == blocks


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("val_batch_size", 0), ("num_workers", -1)]
)
def test_numbers_out_of_range_are_told(dataset: Path, name: str, value: int) -> None:
    with pytest.raises(HeadlessError, match=f"data.{name} must be at least {value + 1}"):
        TokenDataModule(dataset, sequence_length=16, **{name: value})
