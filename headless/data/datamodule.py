"""The data module: a prepared dataset as batches of any length, in an order that can be resumed."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from headless.data.blocks import BlockDataset, BlockSampler
from headless.data.collate import CausalCollator, Collator
from headless.data.masking import MaskedCollator
from headless.data.stream import open_dataset
from headless.data.tokenizer import load_tokenizer, special_ids, validation_bytes
from headless.errors import HeadlessError

Task = Literal["causal", "masked"]


class ResumableLoader(DataLoader):
    """Lightning takes a loader with these two methods for one that may stop inside an epoch. The
    position travels with the module (`batches_seen`): a loader counts what it fetched ahead.
    """

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class TokenDataModule(LightningDataModule):
    """Batches for pre-training from a directory that `headless prepare` wrote.

    The order of the training blocks is a function of (seed, epoch) alone; batch k of a rank is a
    function of that order, k, the rank and their number. So are the masks of a masked model: of
    the seed, the epoch and the block; in validation of the block alone, the same for every run.

    Args:
        path: the prepared dataset.
        task: "causal" predicts the next token (GPT), "masked" replaced ones (BERT); the dataset
            needs a mask token then (headless prepare --mask_token).
        sequence_length: tokens of a training sequence; any length, without preparing again.
        batch_size: sequences of a micro-batch on one device.
        val_batch_size: sequences of a validation batch on one device, at most all; None: as in
            training.
        seed: seed of the order; linked to seed_everything.
        num_workers: processes that make batches; 0 makes them in the training process.
        verify: "full" compares every file's checksum before it is used, "size" only its size.
        mask_probability: masked models only: share of a sequence's positions that is predicted.
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
        task: Task = "causal",
        mask_probability: float = 0.15,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("val_batch_size", val_batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value is not None and value < least:
                raise HeadlessError(f"data.{name} must be at least {least}, got {value}")
        self.path = Path(path)
        self.task = task
        self.mask_probability = mask_probability
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size or batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.dataset = open_dataset(self.path, verify=verify)
        self.manifest = manifest = self.dataset.manifest
        self.vocab_size, self.eos_token_id = manifest.vocab_size, manifest.eos_token_id
        self.tokenizer_sha256 = manifest.tokenizer_sha256
        self.inexact_share = manifest.inexact_share
        self._tokenizer: Any = None
        self.collator = self._make_collator(seed)
        self.val_collator = self._make_collator(0)
        self._blocks = {
            split: BlockDataset(
                self.dataset.split(split),
                sequence_length,
                self.manifest.eos_token_id,
                partial=split == "validation",
                lookahead=self.collator.lookahead,
            )
            for split in ("train", "validation")
        }

    def _make_collator(self, seed: int) -> Collator:
        if self.task == "causal":
            return CausalCollator(self.vocab_size)
        if not 0.0 < self.mask_probability <= 1.0:
            raise HeadlessError(
                f"data.mask_probability must be in (0, 1], got {self.mask_probability}"
            )
        if self.tokenizer_sha256 is None:
            raise HeadlessError(
                f"{self.path} holds item ids, among which is no mask: they are predicted one after "
                "the other, with data.task causal and a causal backbone"
            )
        if self.mask_token_id is None:
            raise HeadlessError(
                f"the tokenizer of {self.path} has no mask token, and a masked model needs one: "
                'prepare the text again with headless prepare … --mask_token "[MASK]"'
            )
        return MaskedCollator(
            self.vocab_size,
            self.mask_token_id,
            self._ordinary_ids,
            mask_probability=self.mask_probability,
            seed=seed,
        )

    @property
    def _ordinary_ids(self) -> np.ndarray:
        ids = set(self.tokenizer.get_vocab().values())
        return np.array(sorted(ids - special_ids(self.tokenizer) - {self.eos_token_id}))

    @property
    def unigram_counts(self) -> Tensor:
        """How often each token is a target in training, long [V]; special tokens of masked models
        are none."""
        counts = self.dataset.unigram_counts
        if self.task == "causal":
            return counts
        ordinary = torch.from_numpy(self._ordinary_ids)
        return torch.zeros_like(counts).index_copy(0, ordinary, counts[ordinary])

    @property
    def anchors(self) -> dict[str, float] | None:
        """Nats a token of trivial models on the validation split; None of masked models, whose
        targets are others, and of data that an earlier version prepared."""
        found = self.manifest.anchors if self.task == "causal" else None
        return found and found["nll"]

    @property
    def mask_token_id(self) -> int | None:
        """What stands in the place of a masked token; None without such a token."""
        return None if self.tokenizer is None else self.tokenizer.mask_token_id

    @property
    def dataset_sha256(self) -> str:
        """Which tokens these are: a digest of the checksums of all files."""
        files = json.dumps(self.manifest.files, sort_keys=True)
        return hashlib.sha256(files.encode()).hexdigest()

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer of the dataset, loaded at first use; None of item ids."""
        if self._tokenizer is None and self.tokenizer_sha256 is not None:
            self._tokenizer = load_tokenizer(str(self.dataset.tokenizer_path))
        return self._tokenizer

    def train_dataloader(self) -> DataLoader:
        """Shuffled blocks, from the batch after the last one that the module has seen."""
        assert self.trainer is not None
        module = self.trainer.lightning_module
        self.collator.with_table = bool(getattr(module, "tables_by_row", ()))
        return self._loader("train", self.train_sampler(self.trainer))

    def train_sampler(self, trainer: Any) -> BlockSampler:
        """Which blocks a trainer's process reads, and in which order."""
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
        limit = getattr(trainer, "limit_train_batches", 1.0)
        taken = int(limit if isinstance(limit, int) else limit * len(sampler))
        cut = 0 < taken < len(sampler) and taken % sampler.accumulate
        if cut and sampler.negatives != "microbatch":
            raise HeadlessError(
                f"trainer.limit_train_batches gives epochs of {taken} micro-batches, which are no "
                f"steps of {sampler.accumulate}, and negatives {sampler.negatives} need to know "
                "the steps: make it a multiple of trainer.accumulate_grad_batches"
            )
        return sampler

    def val_dataloader(self) -> DataLoader:
        """The whole validation split, in order."""
        trainer, blocks = self.trainer, len(self._blocks["validation"])
        assert trainer is not None
        if (
            self.task == "causal"
            and self.val_collator.bytes_V is None
            and self.tokenizer is not None
        ):
            self.val_collator.bytes_V = validation_bytes(self.dataset, self.tokenizer)
        sampler = BlockSampler(
            blocks,
            min(self.val_batch_size, -(-blocks // trainer.world_size)),
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
            collate_fn=self.collator if split == "train" else self.val_collator,  # type: ignore[arg-type] # a batch comes whole
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # A generator of its own: the loader must not draw from the global one.
            generator=torch.Generator().manual_seed(self.seed),
        )
