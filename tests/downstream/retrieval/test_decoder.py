"""An index in the place of the head: the same text as the model itself writes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import gpt_neox
from torch import nn

from headless.downstream.generate import Sampling, continue_prompt
from headless.downstream.retrieval.decoder import FaissHead, check_linear, continue_with_index
from headless.errors import HeadlessError

pytest.importorskip("faiss")

PROMPTS = ["the king", "a crown sees", "", "fair Ophelia loves the storm. my lord"]


@pytest.mark.parametrize("bias", [True, False])
def test_search_gives_the_largest_logits(bias: bool) -> None:
    linear = nn.Linear(24, 700, bias=bias)
    hidden_BD = torch.randn(5, 24)
    scores_Bk, ids_Bk = FaissHead.from_linear(linear, k=9).search(hidden_BD)
    wanted = linear.double()(hidden_BD.double()).topk(9)
    assert torch.equal(ids_Bk, wanted.indices)
    torch.testing.assert_close(scores_Bk.double(), wanted.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_is_that_of_generate(dataset: Path, bias: bool, prompt: str) -> None:
    lm = gpt_neox(dataset, bias=bias)
    head = FaissHead.from_linear(lm.model.get_output_embeddings(), k=3)
    sampling = Sampling(max_new_tokens=15, temperature=0)
    assert continue_with_index(lm, head, prompt, sampling) == continue_prompt(lm, prompt, sampling)


def test_greedy_ids_are_those_of_generate_for_many_models(dataset: Path) -> None:
    for seed in range(5):
        lm = gpt_neox(dataset, seed=seed)
        ids_1T = torch.tensor([[5, 80 + seed, 17]])
        model: Any = lm.model
        wanted = model.generate(ids_1T, max_new_tokens=20, do_sample=False)
        end = lm.tokenizer.eos_token_id
        head = FaissHead.from_linear(model.get_output_embeddings(), k=1)
        found = head.decode(lm, ids_1T, 20, temperature=0, eos_token_id=end)
        assert torch.equal(found, wanted)


def test_drawing_follows_the_model_among_the_k(dataset: Path) -> None:
    """Frequencies of the first new token against softmax over the k largest logits."""
    lm = gpt_neox(dataset)
    ids_1T = torch.tensor([[5, 80, 17]])
    logits_V = lm.model(input_ids=ids_1T).logits[0, -1].double()
    head = FaissHead.from_linear(lm.model.get_output_embeddings(), k=4)
    best = logits_V.topk(4)
    wanted_4 = (best.values / 2.0).softmax(0)
    generator = torch.Generator().manual_seed(0)
    draws = 600
    drawn = torch.zeros(len(logits_V))
    for _ in range(draws):
        ids = head.decode(lm, ids_1T, 1, temperature=2.0, generator=generator)
        drawn[ids[0, -1]] += 1 / draws
    assert drawn[best.indices].sum() == pytest.approx(1.0)
    error_4 = (wanted_4 * (1 - wanted_4) / draws).sqrt()
    assert ((drawn[best.indices] - wanted_4).abs() < 4 * error_4).all()


def test_it_streams_and_stops(dataset: Path) -> None:
    lm = gpt_neox(dataset)
    head = FaissHead.from_linear(lm.model.get_output_embeddings())
    ids_1T = torch.tensor([[5, 80, 17]])
    seen: list[int] = []
    out = head.decode(
        lm, ids_1T, 10, temperature=0, on_token=lambda token_1: seen.append(int(token_1))
    )
    assert out[0, 3:].tolist() == seen
    assert len(seen) == 10
    stopped = head.decode(lm, ids_1T, 10, temperature=0, eos_token_id=seen[4])
    assert stopped[0, 3:].tolist() == seen[: seen.index(seen[4]) + 1]
    full = head.decode(lm, ids_1T, 1000, temperature=0)
    assert full.shape[1] == 32  # the model's positions
    same = Sampling(8, 1.0, 5, 0.9, seed=3)
    one, two = (continue_with_index(lm, head, "the king", same) for _ in range(2))
    assert one == two


def test_an_approximate_index_mostly_agrees(dataset: Path) -> None:
    linear = nn.Linear(16, 3000)
    hidden_BD = torch.randn(100, 16)
    best_B = linear(hidden_BD).argmax(-1)
    for kind in ("ivf", "hnsw", "ivfpq"):
        _, ids_Bk = FaissHead.from_linear(linear, kind, k=4).search(hidden_BD)
        assert (ids_Bk[:, 0] == best_B).float().mean() >= 0.9


def test_heads_that_are_more_than_a_matrix_are_refused(dataset: Path) -> None:
    lm = gpt_neox(dataset)
    check_linear(lm)
    model: Any = lm.model
    model.get_output_embeddings().register_forward_hook(lambda m, i, out: 30 * (out / 30).tanh())
    with pytest.raises(HeadlessError, match="more than a matrix and a bias"):
        check_linear(lm)
    with pytest.raises(HeadlessError, match="not a matrix"):
        FaissHead.from_linear(nn.Sequential(nn.Linear(4, 9)))
    with pytest.raises(HeadlessError, match="masked model"):
        check_linear(replace(lm, task="masked"))
    with pytest.raises(HeadlessError, match="k must be at least 1"):
        FaissHead.from_linear(nn.Linear(4, 9), k=0)
