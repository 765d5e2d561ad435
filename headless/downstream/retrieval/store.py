"""A store of contexts on disk: what a model's hidden state was, and which token came next.

manifest.json    whose hidden states, of which text, how many: written last
keys.npy         last hidden states, float16 [N, D]
values.npy       the token that followed each, int32 [N]
*.faiss          indexes of the keys, made when they are first needed

The rows are consecutive: row n is the state that predicted token n + 1 of the split, so that the
values are the text itself.

Shapes: N rows, D hidden size.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headless.data.stream import tokens_file
from headless.downstream.loading import LanguageModel
from headless.downstream.retrieval.indexes import Progress, VectorIndex, automatic_kind
from headless.downstream.retrieval.library import Device, Kind
from headless.downstream.retrieval.windows import open_for, read_windows, window_length
from headless.errors import HeadlessError
from headless.files import new_directory, refuse_to_lose, write_text

FORMAT = 1
MANIFEST, KEYS, VALUES = "manifest.json", "keys.npy", "values.npy"
METRIC = "l2"  # squared distances, as in Khandelwal et al.
PLACE: Any = {
    "option": "--store",
    "is_ours": lambda path: (path / MANIFEST).is_file() and (path / KEYS).is_file(),
    "kind": "store",
}


@dataclass(frozen=True)
class StoreManifest:
    """What a store holds.

    Args:
        format: of the directory.
        metric: of the distances between keys.
        model: the name of the model, for people.
        model_sha256: of its backbone's weights; see `fingerprint`.
        rows: N.
        hidden_size: D.
        spread: mean squared distance of a key from the mean key: the unit of temperatures.
        context_length: tokens of a window.
        dataset: where the text was, for people.
        dataset_sha256: of the split's tokens.
        split: of the dataset.
    """

    format: int
    metric: str
    model: str
    model_sha256: str
    rows: int
    hidden_size: int
    spread: float
    context_length: int
    dataset: str
    dataset_sha256: str
    split: str


class HiddenStore:
    """An open store; `open_store` checks it.

    Args:
        path: the directory.
        manifest: what it holds.
    """

    def __init__(self, path: Path, manifest: StoreManifest) -> None:
        self.path = path
        self.manifest = manifest
        self.keys_ND: np.ndarray = np.load(path / KEYS, mmap_mode="r")
        self.values_N: np.ndarray = np.load(path / VALUES, mmap_mode="r")

    def index(
        self,
        kind: Kind | None = None,
        *,
        nprobe: int | None = None,
        ef: int | None = None,
        device: Device = "auto",
        progress: Progress = lambda done, total: None,
    ) -> VectorIndex:
        """An index of the keys: the saved one, else a new one, which is saved.

        An exact index is a copy of the keys in memory, 4·N·D bytes, and no file.

        Args:
            kind: see `VectorIndex`; None: `automatic_kind`.
            nprobe: see `VectorIndex.tune`.
            ef: see `VectorIndex.tune`.
            device: see `VectorIndex.build`.
            progress: of a new one.

        Raises:
            HeadlessError: see `VectorIndex.build` and `VectorIndex.load`.
        """
        kind = kind or automatic_kind(len(self.keys_ND))
        options: dict[str, Any] = {"nprobe": nprobe, "ef": ef, "device": device}
        path = self.path / f"{kind}.faiss"
        if path.is_file():
            return VectorIndex.load(path, self.keys_ND, kind, "l2", **options)
        index = VectorIndex.build(self.keys_ND, kind, "l2", progress=progress, **options)
        if kind != "exact":
            index.save(path)
        return index

    def window(self, row: int, before: int, after: int) -> tuple[list[int], int, list[int]]:
        """Tokens before a row's value, the value, and those after it."""
        values = self.values_N[max(0, row - before) : row + 1 + after].astype(int).tolist()
        middle = min(row, before)
        return values[:middle], values[middle], values[middle + 1 :]


def fingerprint(lm: LanguageModel) -> str:
    """Sha256 of a model's backbone: hidden states are the same under every head."""
    import torch

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
    """Make a store from a prepared dataset; a few windows at a time are in memory.

    Args:
        lm: a causal model.
        data: the dataset, of the model's tokenizer.
        path: the directory to make.
        split: of the dataset.
        max_tokens: only the first so many.
        context_length: tokens of a window; what the model can read, at most 1,024, by default.
        overwrite: move an existing store aside to `<name>.old-<n>`.
        progress: gets rows that are done and rows in all.

    Raises:
        HeadlessError: `path` exists, the dataset does not fit, or states that float16 cannot hold.
    """
    path = Path(path)
    check_place(path, overwrite)
    if max_tokens is not None and max_tokens < 1:
        raise HeadlessError(f"max_tokens must be at least 1, got {max_tokens}")
    dataset, stream = open_for(lm, data, split)
    length = window_length(lm, context_length)
    rows = min(len(stream) - 1, max_tokens or len(stream))
    config: Any = lm.model.config
    size = config.hidden_size
    total_D, squares, done = np.zeros(size), 0.0, 0
    with new_directory(path, overwrite=overwrite, **PLACE) as partial:
        with (
            _npy(partial / KEYS, np.dtype("<f2"), (rows, size)) as keys,
            _npy(partial / VALUES, np.dtype("<i4"), (rows,)) as values,
        ):
            for window in read_windows(lm, stream, rows, length, scored=False):
                hidden_nD = window.hidden_nD.numpy()
                with np.errstate(over="ignore"):  # it is looked at in the next line
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
        manifest = StoreManifest(
            format=FORMAT,
            metric=METRIC,
            model=lm.name,
            model_sha256=fingerprint(lm),
            rows=rows,
            hidden_size=size,
            spread=squares / rows - float(np.square(total_D / rows).sum()),
            context_length=length,
            dataset=str(data),
            dataset_sha256=dataset.manifest.files[tokens_file(split)]["sha256"],
            split=split,
        )
        write_text(partial / MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")
    return HiddenStore(path, manifest)


def open_store(path: Path | str, lm: LanguageModel) -> HiddenStore:
    """A store of this model's hidden states.

    Raises:
        HeadlessError: no store, a damaged one, one of another version or of another model.
    """
    path = Path(path)
    if not (path / MANIFEST).is_file():
        raise HeadlessError(
            f"{path} is not a store (no {MANIFEST}): make one with headless neighbors --model … "
            f"--store {path} --build_store DATA"
        )
    try:
        manifest = StoreManifest(**json.loads((path / MANIFEST).read_text(encoding="utf-8")))
        store = HiddenStore(path, manifest)
        if store.keys_ND.shape != (manifest.rows, manifest.hidden_size):
            raise ValueError(f"{KEYS} has the shape {store.keys_ND.shape}")
        if store.values_N.shape != (manifest.rows,):
            raise ValueError(f"{VALUES} has the shape {store.values_N.shape}")
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


def check_place(path: Path, overwrite: bool) -> None:
    """Refuse to make a store where something is.

    Raises:
        HeadlessError: `path` exists and may not be moved aside, or is no store.
    """
    refuse_to_lose(path, overwrite=overwrite, **PLACE)


@contextmanager
def _npy(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> Iterator[Any]:
    """A .npy file to append its rows to: a full disk is an error here, under a map a signal."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield file
        file.flush()
        os.fsync(file.fileno())
