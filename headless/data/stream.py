"""The format of a prepared dataset on disk: this module alone knows it.

manifest.json            what the rest is, with a checksum of every file
train.bin validation.bin tokens, little-endian; each document ends with EOS
*.documents.npy          where each document begins: int64
unigram_counts.npy       occurrences of each token in the training split: int64 [V]
tokenizer/               a Hugging Face fast tokenizer; none of sequences of item ids
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headless.errors import HeadlessError
from headless.files import sha256_of, write_json

if TYPE_CHECKING:  # torch takes a second to import, and preparing a text needs none of it
    from torch import Tensor

FORMAT = 1
SPLITS = ("train", "validation")
MANIFEST = "manifest.json"
COUNTS = "unigram_counts.npy"
TOKENIZER = "tokenizer"
REMEDY = "prepare it again with headless prepare … --overwrite true"


def tokens_file(split: str) -> str:
    return f"{split}.bin"


def documents_file(split: str) -> str:
    return f"{split}.documents.npy"


def token_dtype(vocab_size: int) -> np.dtype:
    """The narrowest unsigned type, little-endian on every machine."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def caution(inexact_share: float | None) -> str | None:
    """A warning beside bits per byte of text that its tokens do not give back."""
    if not inexact_share:
        return None
    return (
        f"{inexact_share:.1%} of the text's bytes are in documents that the tokenizer "
        "does not give back (case, accents, blanks or unknown signs are lost): bits per byte "
        "counts what no model was asked for, so compare it with no other tokenizer's"
    )


@dataclass(frozen=True)
class Manifest:
    """What a prepared dataset is; on disk stands a checksum of all these values besides."""

    format: int
    vocab_size: int
    eos_token_id: int
    dtype: str  #: of the tokens
    tokenizer_sha256: str | None  #: None of sequences of item ids, which are no text
    seed: int
    validation_fraction: float
    #: of "train" and "validation" the numbers of documents, tokens and bytes of text
    splits: dict[str, dict[str, int]]
    sources: list[str]
    files: dict[str, dict[str, Any]]  #: of each file's relative path its sha256 and bytes
    #: of the text's bytes, in documents that their tokens do not give back: bits per byte of such
    #: text counts bytes that the model never had to predict. None, as the next, in what an earlier
    #: version made.
    inexact_share: float | None = None
    #: how much lay beside the text and was not read, by its reason
    left_out: dict[str, int] | None = None
    #: what trivial models score on the validation split; see `headless.data.anchors`
    anchors: dict[str, Any] | None = None

    def bytes_per_token(self, split: str) -> float:
        """Bytes of UTF-8 text a token stands for; each document's EOS stands for none."""
        return self.splits[split]["bytes"] / self.splits[split]["tokens"]

    @property
    def caution(self) -> str | None:
        """The warning beside its bits per byte, if there must be one."""
        return caution(self.inexact_share)

    def write(self, directory: Path) -> None:
        """To be written last, for it says that the rest is complete."""
        values = asdict(self)
        write_json(directory / MANIFEST, {**values, "sha256": _digest(values)}, sort_keys=True)

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Read it: of this version, and as it was written."""
        path = directory / MANIFEST
        if not path.is_file():
            raise HeadlessError(
                f"{directory} is not a prepared dataset (no {MANIFEST}): make one with "
                f"headless prepare --input TEXT --output {directory}"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise HeadlessError(
                    f"{path} is of format {values['format']}, this version reads {FORMAT}: {REMEDY}"
                )
            if values.pop("sha256", None) != _digest(values):
                raise ValueError("its values do not fit its checksum: an edit or an early version")
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise HeadlessError(f"{path} is damaged ({error}): {REMEDY}") from error


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class TokenStream:
    """The tokens of a split, mapped into memory: only what is read is loaded."""

    def __init__(self, path: Path, dtype: str | np.dtype) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)

    @cached_property
    def tokens(self) -> np.ndarray:
        """All tokens, unsigned [n]; mapped at first use, again in each worker process."""
        return np.memmap(self.path, self.dtype, mode="r") if len(self) else np.zeros(0, self.dtype)

    def __len__(self) -> int:
        return self.path.stat().st_size // self.dtype.itemsize

    def __getitem__(self, piece: slice) -> np.ndarray:
        """A copy of some tokens, int64."""
        return self.tokens[piece].astype(np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenStream, (self.path, self.dtype)  # the map is made where it is read


@dataclass(frozen=True)
class TokenDataset:
    """A prepared dataset."""

    path: Path
    manifest: Manifest

    def split(self, name: str) -> TokenStream:
        """The tokens of "train" or "validation"."""
        return TokenStream(self.path / tokens_file(name), self.manifest.dtype)

    def documents(self, name: str) -> np.ndarray:
        """Where each document of a split begins: int64."""
        return np.load(self.path / documents_file(name), mmap_mode="r")

    @property
    def unigram_counts(self) -> "Tensor":
        """Occurrences of each token in the training split: long [V]."""
        import torch

        return torch.from_numpy(np.load(self.path / COUNTS))

    @property
    def tokenizer_path(self) -> Path:
        return self.path / TOKENIZER


def open_dataset(path: Path | str, verify: Literal["full", "size"] = "full") -> TokenDataset:
    """Open what `headless prepare` wrote; refuses another version, and missing or damaged files.

    Args:
        verify: "full" compares every file's checksum (a second or two a gigabyte), "size" its size.
    """
    directory = Path(path)
    manifest = Manifest.read(directory)
    for name, expected in manifest.files.items():
        _check_file(directory / name, expected, verify)
    return TokenDataset(directory, manifest)


def _check_file(file: Path, expected: dict[str, Any], verify: str) -> None:
    if not file.is_file():
        raise HeadlessError(f"{file} is missing: {REMEDY}")
    if file.stat().st_size != expected["bytes"]:
        raise HeadlessError(
            f"{file} is damaged ({file.stat().st_size} bytes instead of {expected['bytes']}): "
            f"{REMEDY}"
        )
    if verify == "full" and sha256_of(file) != expected["sha256"]:
        raise HeadlessError(f"{file} is damaged (its checksum does not fit): {REMEDY}")
