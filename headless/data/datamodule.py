"""The data module: a prepared dataset as batches of any length, in an order that can be resumed."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from headless.data.blocks import BatchIndex, BlockDataset, BlockSampler
from headless.data.collate import CausalCollator
from headless.data.stream import open_dataset


class ResumableLoader(DataLoader):
    """A loader whose sampler begins where the run stopped.

    Lightning takes a loader with these two methods for one that may stop inside an epoch. The
    position itself travels with the module (`batches_seen`): a loader counts what it fetched ahead.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing: see the class."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: see the class."""


class TokenDataModule(LightningDataModule):
    """Batches for pre-training from a directory that `headless prepare` wrote.

    The order of the training blocks is a function of (seed, epoch) alone; batch k of a rank is a
    function of that order, k, the rank and their number.

    Args:
        path: the prepared dataset.
        sequence_length: tokens of a training sequence; any length, without preparing again.
        batch_size: sequences of a micro-batch on one device.
        val_batch_size: sequences of a validation batch on one device; None: as in training.
        seed: seed of the order; linked to seed_everything.
        num_workers: processes that make batches; 0 makes them in the training process.
        verify: "full" compares every file's checksum before it is used, "size" only its size.

    Raises:
        HeadlessError: no dataset, a damaged one, or too few tokens for one sequence.
    """

    def __init__(
        self,
        path: Path,
        sequence_length: int = 1024,
        batch_size: int = 8,
        val_batch_size: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        verify: Literal["full", "size"] = "full",
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size or batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.dataset = open_dataset(self.path, verify=verify)
        self.manifest = self.dataset.manifest
        self.collator = CausalCollator(self.manifest.vocab_size)
        self._blocks = {
            split: BlockDataset(
                self.dataset.split(split),
                sequence_length,
                self.manifest.eos_token_id,
                partial=split == "validation",
            )
            for split in ("train", "validation")
        }
        self._tokenizer: Any = None

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.manifest.vocab_size

    @property
    def eos_token_id(self) -> int:
        """The token after each document."""
        return self.manifest.eos_token_id

    @property
    def unigram_counts(self) -> Tensor:
        """How often each token occurs in the training split: long [V]."""
        return self.dataset.unigram_counts

    @property
    def bytes_per_token(self) -> float:
        """Bytes of validation text a token stands for, on average."""
        return self.manifest.bytes_per_token("validation")

    @property
    def tokenizer_sha256(self) -> str:
        """Which tokenizer made these tokens."""
        return self.manifest.tokenizer_sha256

    @property
    def dataset_sha256(self) -> str:
        """Which tokens these are: a digest of the checksums of all files."""
        files = json.dumps(self.manifest.files, sort_keys=True)
        return hashlib.sha256(files.encode()).hexdigest()

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer of the dataset, loaded at first use."""
        if self._tokenizer is None:
            from transformers import PreTrainedTokenizerFast

            self._tokenizer = PreTrainedTokenizerFast.from_pretrained(self.dataset.tokenizer_path)
        return self._tokenizer

    def probe_batch(self, num_sequences: int) -> dict[str, Any]:
        """The first sequences of the validation split: the same ones whenever it is asked."""
        blocks = self._blocks["validation"]
        indices = list(range(min(num_sequences, len(blocks))))
        return self.collator(blocks.__getitems__(BatchIndex(0, indices, [])))

    def train_dataloader(self) -> DataLoader:
        """Shuffled blocks, from the batch after the last one that the module has seen."""
        trainer = self.trainer
        assert trainer is not None
        sampler = BlockSampler(
            len(self._blocks["train"]),
            self.batch_size,
            seed=self.seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            batches_seen=lambda: getattr(trainer.lightning_module, "batches_seen", 0),
            negatives=getattr(trainer.lightning_module, "negatives", "microbatch"),
            accumulate=trainer.accumulate_grad_batches,
        )
        return self._loader("train", sampler)

    def val_dataloader(self) -> DataLoader:
        """Every token of the validation split but the first, in order."""
        trainer = self.trainer
        assert trainer is not None
        sampler = BlockSampler(
            len(self._blocks["validation"]),
            self.val_batch_size,
            shuffle=False,
            drop_last=False,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        return self._loader("validation", sampler)

    def _loader(self, split: str, sampler: BlockSampler) -> DataLoader:
        return ResumableLoader(
            self._blocks[split],  # type: ignore[arg-type] # has what a loader asks for
            batch_sampler=sampler,  # type: ignore[arg-type] # what it yields, the dataset reads
            collate_fn=self.collator,  # type: ignore[arg-type] # a batch comes whole
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # A generator of its own: the loader must not draw from the global one.
            generator=torch.Generator().manual_seed(self.seed),
        )
