"""The example of a kNN-LM against the formula in float64, over all stored contexts."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from headless.data.stream import open_dataset
from headless.data.tokenizer import load_tokenizer
from headless.downstream.language_model import LanguageModel
from headless.downstream.retrieval.store import build_store, read_windows

pytest.importorskip("faiss")

SPEC = importlib.util.spec_from_file_location(
    "knn_lm", Path(__file__).parents[2] / "examples" / "knn_lm.py"
)
assert SPEC is not None
assert SPEC.loader is not None
EXAMPLE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(EXAMPLE)


@pytest.fixture
def lm(dataset: Path) -> LanguageModel:
    """Random weights, which still tell contexts apart."""
    from transformers import GPT2Config, GPT2LMHeadModel

    data = open_dataset(dataset)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=data.manifest.vocab_size,
        bos_token_id=0,
        eos_token_id=0,
        n_positions=32,
        n_embd=32,
        n_layer=2,
        n_head=2,
    )
    model, tokenizer = GPT2LMHeadModel(config).eval(), load_tokenizer(str(data.tokenizer_path))
    return LanguageModel(model, tokenizer, "causal", "tiny", "own", "tiny", None)


def test_neighbours_help_a_model_that_knows_nothing_by_the_formula(
    lm: LanguageModel, dataset: Path, tmp_path: Path
) -> None:
    store = build_store(lm, dataset, tmp_path / "store", max_tokens=2000)
    found = EXAMPLE.knn_lm(lm, store, dataset, neighbors=40, max_tokens=200)
    stream = open_dataset(dataset).split("validation")
    odd = list(read_windows(lm, stream, 200, 32))[1::2]
    queries_QD = torch.cat([window.hidden_nD for window in odd]).double().numpy()
    targets_Q = torch.cat([window.targets_n for window in odd]).numpy()
    model: torch.nn.Linear = lm.model.get_output_embeddings()  # type: ignore[assignment]
    model_QV = (torch.from_numpy(queries_QD) @ model.weight.detach().double().T).softmax(-1).numpy()
    squared_QN = np.square(queries_QD[:, None] - store.keys_ND[None].astype(float)).sum(-1)
    nats = []
    for q, target in enumerate(targets_Q):
        near = np.argsort(squared_QN[q])[:40]
        votes = np.exp(-squared_QN[q, near] / (found["τ"] * store.manifest.spread))
        knn = votes[store.values_N[near] == target].sum() / votes.sum()
        nats.append(-np.log(found["λ"] * knn + (1 - found["λ"]) * model_QV[q, target]))
    assert found["with neighbours"] == pytest.approx(np.mean(nats), abs=1e-3)
    alone = -np.log(model_QV[np.arange(len(targets_Q)), targets_Q]).mean()
    assert found["model"] == pytest.approx(alone, abs=1e-5)
    assert found["with neighbours"] < found["model"] - 0.5
    assert 0 < found["share of tokens that a neighbour has"] < 1
