"""An index in the place of the head: the same text as the model itself writes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import gpt_neox
from torch import nn

from headless.downstream.retrieval.decoder import FaissHead, check_linear, index_as_head
from headless.downstream.retrieval.indexes import Kind
from headless.errors import HeadlessError

pytest.importorskip("faiss")

PROMPTS = ["the king", "a crown sees", "", "fair Ophelia loves the storm. my lord"]


@pytest.mark.parametrize("bias", [True, False])
def test_search_gives_the_largest_logits(bias: bool) -> None:
    linear = nn.Linear(24, 700, bias=bias)
    hidden_BD = torch.randn(5, 24)
    scores_Bk, ids_Bk = FaissHead(linear, k=9).search(hidden_BD)
    wanted = linear.double()(hidden_BD.double()).topk(9)
    assert torch.equal(ids_Bk, wanted.indices)
    torch.testing.assert_close(scores_Bk.double(), wanted.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_is_that_of_generate(dataset: Path, bias: bool, prompt: str) -> None:
    lm = gpt_neox(dataset, bias=bias)
    wanted = lm.generate(prompt, 15, temperature=0)
    with index_as_head(lm, k=3):
        assert lm.generate(prompt, 15, temperature=0) == wanted


def test_greedy_ids_are_those_of_generate_for_many_models(dataset: Path) -> None:
    for seed in range(5):
        lm = gpt_neox(dataset, seed=seed)
        ids_1T = torch.tensor([[5, 80 + seed, 17]])
        model: Any = lm.model
        wanted = model.generate(ids_1T, max_new_tokens=20, do_sample=False)
        with index_as_head(lm, k=1):
            assert torch.equal(model.generate(ids_1T, max_new_tokens=20, do_sample=False), wanted)


def test_drawing_follows_the_model_among_the_k(dataset: Path) -> None:
    """Frequencies of the first new token against softmax over the k largest logits."""
    lm = gpt_neox(dataset)
    ids_1T = torch.tensor([[5, 80, 17]])
    logits_V = lm.model(input_ids=ids_1T).logits[0, -1].double()
    model: Any = lm.model
    best = logits_V.topk(4)
    wanted_4 = (best.values / 2.0).softmax(0)
    draws = 600
    options = {"max_new_tokens": 1, "do_sample": True, "temperature": 2.0, "top_k": 0}
    with index_as_head(lm, k=4), torch.random.fork_rng():
        torch.manual_seed(0)
        ids_BT = model.generate(ids_1T.repeat(draws, 1), **options)
    drawn = torch.bincount(ids_BT[:, -1], minlength=len(logits_V)) / draws
    assert drawn[best.indices].sum() == pytest.approx(1.0)
    error_4 = (wanted_4 * (1 - wanted_4) / draws).sqrt()
    assert ((drawn[best.indices] - wanted_4).abs() < 4 * error_4).all()


def test_it_streams_draws_the_same_again_and_is_put_back(dataset: Path) -> None:
    class Seen:
        def __init__(self) -> None:
            self.ids: list[int] = []

        def put(self, ids: torch.Tensor) -> None:
            self.ids += ids.flatten().tolist()

        def end(self) -> None:
            self.ids.append(-1)

    lm, seen, full = gpt_neox(dataset), Seen(), Seen()
    own = lm.model.get_output_embeddings()
    sampling: Any = {
        "max_new_tokens": 8, "temperature": 1.0, "top_k": 5, "top_p": 0.9, "seed": 3
    }  # fmt: skip
    with index_as_head(lm, k=5):
        one = lm.generate("the king", **sampling, streamer=seen)
        two = lm.generate("the king", **sampling)
        lm.generate("the king", max_new_tokens=1000, temperature=0, streamer=full)
    assert one == two == lm.generate("the king", **sampling)  # the same draws as the model's own
    prompt = len(lm.tokenizer.encode("the king"))
    assert lm.tokenizer.decode(seen.ids[prompt:-1], skip_special_tokens=True) == one
    assert seen.ids[-1] == -1
    assert len(full.ids[:-1]) <= 32  # the model's positions
    assert lm.model.get_output_embeddings() is own


def test_an_approximate_index_mostly_agrees(dataset: Path) -> None:
    linear = nn.Linear(16, 3000)
    hidden_BD = torch.randn(100, 16)
    best_B = linear(hidden_BD).argmax(-1)
    kinds: list[Kind] = ["ivf", "hnsw"]
    for kind in kinds:
        _, ids_Bk = FaissHead(linear, kind, k=4).search(hidden_BD)
        assert (ids_Bk[:, 0] == best_B).float().mean() >= 0.9


def test_heads_that_are_more_than_a_matrix_are_refused(dataset: Path) -> None:
    lm = gpt_neox(dataset)
    check_linear(lm)
    model: Any = lm.model
    model.get_output_embeddings().register_forward_hook(lambda m, i, out: 30 * (out / 30).tanh())
    with pytest.raises(HeadlessError, match="more than a matrix and a bias"):
        check_linear(lm)
    with pytest.raises(HeadlessError, match="not a matrix"):
        FaissHead(nn.Sequential(nn.Linear(4, 9)))
    with pytest.raises(HeadlessError, match="masked model"):
        check_linear(replace(lm, task="masked"))
    with pytest.raises(HeadlessError, match="k must be at least 1"):
        FaissHead(nn.Linear(4, 9), k=0)
