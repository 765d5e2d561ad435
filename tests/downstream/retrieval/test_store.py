"""Stores of hidden states: what they hold, whose they are, and that none is ever half."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import gpt_neox

from headless.data.stream import open_dataset
from headless.downstream.retrieval.store import (
    build_store,
    fingerprint,
    open_store,
    read_windows,
    window_length,
)
from headless.errors import HeadlessError

LENGTH = 32  # the tiny model's positions
KINDS: list[Any] = [None, "hnsw", "hnsw"]


@torch.no_grad()
def one_by_one(lm, tokens: list[int], position: int) -> torch.Tensor:
    """Hidden state after tokens[: position + 1], in a window of their own."""
    first_end = min(LENGTH, len(tokens) - 1)
    end = position + 1 if position < first_end else None
    if end is None:  # the window that adds this position
        steps = -(-(position + 1 - first_end) // (LENGTH // 2))
        end = min(first_end + steps * (LENGTH // 2), len(tokens) - 1)
        begin = end - LENGTH
    else:
        begin = 0
    ids = torch.tensor([tokens[begin : position + 1]])
    return lm.model.base_model(input_ids=ids).last_hidden_state[0, -1]


@pytest.mark.parametrize("num_tokens", [5, 32, 33, 48, 49, 130])
def test_windows_predict_every_token_once(dataset: Path, num_tokens: int) -> None:
    lm = gpt_neox(dataset)
    stream = open_dataset(dataset).split("train")
    windows = list(read_windows(lm, stream, num_tokens, LENGTH))
    tokens = stream[: num_tokens + 1].tolist()
    assert torch.cat([w.targets_n for w in windows]).tolist() == tokens[1:]
    hidden_ND = torch.cat([w.hidden_nD for w in windows])
    for position in {0, 4, num_tokens // 2, num_tokens - 1}:
        hidden_D = one_by_one(lm, tokens, position)
        torch.testing.assert_close(hidden_ND[position], hidden_D, atol=1e-4, rtol=1e-4)


def test_a_store_holds_the_text_and_its_states(dataset: Path, tmp_path: Path) -> None:
    lm = gpt_neox(dataset)
    seen: list[tuple[int, int]] = []
    made = build_store(
        lm, dataset, tmp_path / "store", max_tokens=200, progress=lambda *at: seen.append(at)
    )
    store = open_store(tmp_path / "store", lm)
    assert store.manifest == made.manifest
    assert seen[-1] == (200, 200)
    tokens = open_dataset(dataset).split("train")[:201]
    np.testing.assert_array_equal(store.values_N, tokens[1:])
    assert store.keys_ND.dtype == np.float16
    assert isinstance(store.keys_ND, np.memmap)
    stream = open_dataset(dataset).split("train")
    windows = read_windows(lm, stream, 200, LENGTH)
    hidden_ND = torch.cat([w.hidden_nD for w in windows]).numpy()
    np.testing.assert_allclose(store.keys_ND, hidden_ND, rtol=1e-3, atol=1e-3)
    spread = np.square(hidden_ND.astype(np.float64) - hidden_ND.mean(0)).sum(1).mean()
    assert store.manifest.spread == pytest.approx(spread, rel=1e-5)
    assert store.window(50, 3, 2) == (
        tokens[48:51].tolist(), int(tokens[51]), tokens[52:54].tolist()
    )  # fmt: skip
    assert store.window(0, 3, 2)[:2] == ([], int(tokens[1]))
    # A stored state's nearest context is itself, exactly and by a saved graph.
    for kind in KINDS:
        _, ids = store.index(kind).search(hidden_ND[:20], 1)
        assert ids[:, 0].tolist() == list(range(20))
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == [
        *("hnsw.faiss", "keys.npy", "manifest.json", "values.npy")
    ]


def test_it_belongs_to_one_model_under_any_head(dataset: Path, tmp_path: Path) -> None:
    lm, other = gpt_neox(dataset), gpt_neox(dataset, seed=1)
    build_store(lm, dataset, tmp_path / "store", max_tokens=50)
    with pytest.raises(HeadlessError, match="hidden states of other weights"):
        open_store(tmp_path / "store", other)
    bare = gpt_neox(dataset, bias=False)
    assert fingerprint(bare) == fingerprint(lm) != fingerprint(other)
    open_store(tmp_path / "store", bare)
    with torch.no_grad():
        next(lm.model.base_model.parameters())[0, 0] += 1e-6
    assert fingerprint(bare) != fingerprint(lm)


def test_nothing_is_overwritten_unasked(dataset: Path, tmp_path: Path) -> None:
    lm, place = gpt_neox(dataset), tmp_path / "store"
    build_store(lm, dataset, place, max_tokens=50)
    with pytest.raises(HeadlessError, match="exists: give another --store"):
        build_store(lm, dataset, place, max_tokens=60)
    assert open_store(place, lm).manifest.rows == 50
    build_store(lm, dataset, place, max_tokens=60, overwrite=True)
    assert open_store(place, lm).manifest.rows == 60
    assert open_store(tmp_path / "store.old-1", lm).manifest.rows == 50
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("{}")
    with pytest.raises(HeadlessError, match="is no store, so it stays"):
        build_store(lm, dataset, tmp_path / "mine", overwrite=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_leaves_nothing(dataset: Path, tmp_path: Path, error: type) -> None:
    lm, place = gpt_neox(dataset), tmp_path / "store"

    def interrupt(done: int, total: int) -> None:
        if done > 100:
            raise error

    with pytest.raises(error):
        build_store(lm, dataset, place, max_tokens=400, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    build_store(lm, dataset, place, max_tokens=50)
    with pytest.raises(error):
        build_store(lm, dataset, place, max_tokens=400, progress=interrupt, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert open_store(place, lm).manifest.rows == 50


def test_what_a_killed_build_left_is_removed(dataset: Path, tmp_path: Path) -> None:
    left = tmp_path / ".store.partial-999999999"
    left.mkdir()
    (left / "keys.npy").write_bytes(b"half")
    build_store(gpt_neox(dataset), dataset, tmp_path / "store", max_tokens=50)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_damage_and_misuse_are_one_line(dataset: Path, text_files: Path, tmp_path: Path) -> None:
    from headless.data.prepare import prepare

    lm, place = gpt_neox(dataset), tmp_path / "store"
    with pytest.raises(HeadlessError, match="is not a store"):
        open_store(place, lm)
    build_store(lm, dataset, place, max_tokens=50)
    keys = (place / "keys.npy").read_bytes()
    (place / "keys.npy").write_bytes(keys[:-10])
    with pytest.raises(HeadlessError, match="damaged"):
        open_store(place, lm)
    (place / "keys.npy").write_bytes(keys)
    manifest = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps({**manifest, "rows": 49}))
    with pytest.raises(HeadlessError, match="damaged"):
        open_store(place, lm)
    (place / "manifest.json").write_text("{")
    with pytest.raises(HeadlessError, match="damaged"):
        open_store(place, lm)
    prepare([str(text_files)], tmp_path / "other", vocab_size=300, validation_fraction=0.1)
    with pytest.raises(HeadlessError, match="another tokenizer"):
        build_store(lm, tmp_path / "other", tmp_path / "new")
    with pytest.raises(HeadlessError, match="masked model"):
        build_store(replace(lm, task="masked"), dataset, tmp_path / "new")
    with pytest.raises(HeadlessError, match="more than the 32 positions"):
        window_length(lm, 33)
    with torch.no_grad():
        lm.model.base_model.final_layer_norm.bias.fill_(1e6)
    with pytest.raises(HeadlessError, match="too large for float16"):
        build_store(lm, dataset, tmp_path / "new")
    assert not (tmp_path / "new").exists()
