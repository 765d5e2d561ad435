"""A store of contexts on disk: a model's hidden states, and which token followed each.

manifest.json    whose hidden states, of which text, how many: written last
keys.npy         last hidden states, float16 [N, D]
values.npy       the token that followed each, int32 [N]
*.faiss          indexes of the keys, made when they are first needed

Row n is the state that predicted token n + 1 of the split, so that the values are the text itself.
Text is read in windows that overlap by half: every token but the stream's first is predicted once,
from at least half a window of what stands before it (where the stream has it).

Shapes: N rows, D hidden size, V vocabulary; B windows of T tokens, n positions that each adds.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from headless.data.stream import TokenDataset, TokenStream, open_dataset, tokens_file
from headless.data.tokenizer import load_tokenizer, same_ids
from headless.downstream.evaluation.likelihood import Progress, rolling_rows
from headless.downstream.language_model import LanguageModel
from headless.downstream.retrieval.indexes import Kind, VectorIndex, automatic_kind
from headless.downstream.tokenizers import longest_input
from headless.errors import HeadlessError
from headless.files import new_directory, refuse_to_lose, write_text

FORMAT = 1
MANIFEST, KEYS, VALUES = "manifest.json", "keys.npy", "values.npy"
PLACE: Any = {
    "option": "--store",
    "is_ours": lambda path: (path / MANIFEST).is_file() and (path / KEYS).is_file(),
    "kind": "store",
}
LONGEST = 1024  # tokens of a window, where the model has more positions
BATCH_TOKENS = 2048  # of windows at a time


class Window(NamedTuple):
    """What one window adds, on the CPU."""

    hidden_nD: Tensor  # float32
    targets_n: Tensor  # long: the token that follows each position


def window_length(lm: LanguageModel, context_length: int | None = None) -> int:
    """Tokens of a window; None: what the model can read, at most `LONGEST`."""
    length = longest_input(lm.model, lm.tokenizer, context_length, name="context_length")
    return min(length, LONGEST) if context_length is None else length


def open_for(lm: LanguageModel, path: Any, split: str) -> tuple[TokenDataset, TokenStream]:
    """A prepared dataset that a causal model can read."""
    if lm.task != "causal":
        raise HeadlessError(
            f"{lm.name} is a masked model: contexts with a next token need a causal one"
        )
    dataset = open_dataset(path)
    if not same_ids(load_tokenizer(str(dataset.tokenizer_path)), lm.tokenizer):
        raise HeadlessError(
            f"{path} was prepared with another tokenizer than that of {lm.name}: prepare it with "
            f"--tokenizer {lm.directory / 'tokenizer' if lm.directory else lm.place}"
        )
    stream = dataset.split(split)
    if len(stream) < 2:
        raise HeadlessError(f"the {split} split of {path} has no token to predict")
    return dataset, stream


def read_windows(
    lm: LanguageModel, stream: TokenStream, num_tokens: int, length: int
) -> Iterator[Window]:
    """The first `num_tokens` predictions of a longer stream, in windows of `length` tokens."""
    rows = rolling_rows(stream[: num_tokens + 1], length, max(1, length // 2))
    while batch := list(islice(rows, max(1, BATCH_TOKENS // length))):
        # Filled up behind, where a causal model does not look.
        ids_BT = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(row.input_ids) for row in batch], True, lm.tokenizer.pad_token_id
        )
        for hidden_TD, row in zip(lm.last_states(ids_BT, with_logits=False)[0], batch, strict=True):
            hidden_nD = hidden_TD[row.positions[0] : row.positions[-1] + 1].float().cpu()
            yield Window(hidden_nD, torch.from_numpy(row.targets))


@dataclass(frozen=True)
class StoreManifest:
    """What a store holds."""

    format: int
    metric: str  #: of the distances between keys: "l2", squared as in Khandelwal et al.
    model: str  #: its name, for people
    model_sha256: str  #: see `fingerprint`
    rows: int
    hidden_size: int
    spread: float  #: mean squared distance of a key from the mean key: where distances are alike
    context_length: int  #: tokens of a window
    dataset: str  #: where the text was, for people
    dataset_sha256: str  #: of the split's tokens
    split: str


class HiddenStore:
    """A store that `open_store` checked, or `build_store` made."""

    def __init__(self, path: Path, manifest: StoreManifest) -> None:
        self.path = path
        self.manifest = manifest
        self.keys_ND: np.ndarray = np.load(path / KEYS, mmap_mode="r")
        self.values_N: np.ndarray = np.load(path / VALUES, mmap_mode="r")

    def index(self, kind: Kind | None = None) -> VectorIndex:
        """An index of the keys: a saved one, else a new one, which is saved.

        An exact one (the default for few rows) is 4·N·D bytes in memory, and no file.
        """
        kind = kind or automatic_kind(len(self.keys_ND))
        file = None if kind == "exact" else self.path / f"{kind}.faiss"
        return VectorIndex(self.keys_ND, kind, "l2", file)

    def window(self, row: int, before: int, after: int) -> tuple[list[int], int, list[int]]:
        """Tokens before a row's value, the value, and those after it."""
        values = self.values_N[max(0, row - before) : row + 1 + after].astype(int).tolist()
        middle = min(row, before)
        return values[:middle], values[middle], values[middle + 1 :]


def fingerprint(lm: LanguageModel) -> str:
    """Sha256 of a model's backbone: hidden states are the same under every head."""
    digest = hashlib.sha256()
    for name, tensor in sorted(lm.model.base_model.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(plain.shape)} {plain.dtype}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def build_store(
    lm: LanguageModel,
    data: Path | str,
    path: Path,
    *,
    split: str = "train",
    max_tokens: int | None = None,
    context_length: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> HiddenStore:
    """Make a store from the first `max_tokens` of a dataset of the causal model's tokenizer.

    An existing store is moved aside with `overwrite`. `context_length`: see `window_length`.
    """
    refuse_to_lose(path, overwrite=overwrite, **PLACE)
    dataset, stream = open_for(lm, data, split)
    rows = min(len(stream) - 1, max_tokens or len(stream))
    config: Any = lm.model.config
    manifest = StoreManifest(
        format=FORMAT,
        metric="l2",
        model=lm.name,
        model_sha256=fingerprint(lm),
        rows=rows,
        hidden_size=config.hidden_size,
        spread=float("nan"),
        context_length=window_length(lm, context_length),
        dataset=str(data),
        dataset_sha256=dataset.manifest.files[tokens_file(split)]["sha256"],
        split=split,
    )
    with new_directory(path, overwrite=overwrite, **PLACE) as directory:
        spread = _write_rows(lm, stream, manifest, directory, progress)
        manifest = replace(manifest, spread=spread)
        write_text(directory / MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")
    return HiddenStore(path, manifest)


def _write_rows(
    lm: LanguageModel, stream: TokenStream, manifest: StoreManifest, path: Path, progress: Progress
) -> float:
    """Write keys and values; returns the spread of the keys."""
    rows, size = manifest.rows, manifest.hidden_size
    total_D, squares, done = np.zeros(size), 0.0, 0
    with (
        _npy(path / KEYS, "<f2", (rows, size)) as keys,
        _npy(path / VALUES, "<i4", (rows,)) as values,
    ):
        for window in read_windows(lm, stream, rows, manifest.context_length):
            hidden_nD = window.hidden_nD.numpy()
            with np.errstate(over="ignore"):  # the next lines refuse it
                keys_nD = hidden_nD.astype("<f2")
            if not np.isfinite(keys_nD).all():
                raise HeadlessError(
                    f"hidden states of {lm.name} are not finite, or too large for float16"
                )
            keys.write(keys_nD.tobytes())
            values.write(window.targets_n.numpy().astype("<i4").tobytes())
            total_D += hidden_nD.sum(axis=0, dtype=np.float64)
            squares += float(np.square(hidden_nD, dtype=np.float64).sum())
            done += len(hidden_nD)
            progress(done, rows)
    return squares / rows - float(np.square(total_D / rows).sum())


def open_store(path: Path | str, lm: LanguageModel) -> HiddenStore:
    """A store of this model's hidden states."""
    path = Path(path)
    if not (path / MANIFEST).is_file():
        raise HeadlessError(
            f"{path} is not a store (no {MANIFEST}): make one with headless neighbors --model … "
            f"--store {path} --build_store DATA"
        )
    try:
        manifest = StoreManifest(**json.loads((path / MANIFEST).read_text(encoding="utf-8")))
        store = HiddenStore(path, manifest)
        shapes = (store.keys_ND.shape, store.values_N.shape)
        if shapes != ((manifest.rows, manifest.hidden_size), (manifest.rows,)):
            raise ValueError(f"{KEYS} and {VALUES} have the shapes {shapes[0]} and {shapes[1]}")
    except (ValueError, TypeError, OSError) as error:
        raise HeadlessError(
            f"the store {path} is damaged or of another version ({error}): build it again with "
            "--overwrite true"
        ) from error
    if manifest.model_sha256 != fingerprint(lm):
        raise HeadlessError(
            f"{path} holds hidden states of other weights (of {manifest.model!r}), which say "
            f"nothing about those of {lm.name}: build a store for it"
        )
    return store


@contextmanager
def _npy(path: Path, dtype: str, shape: tuple[int, ...]) -> Iterator[Any]:
    """A .npy file to append rows to: a full disk is an error here, and a signal under a map."""
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield file
        file.flush()
        os.fsync(file.fileno())
