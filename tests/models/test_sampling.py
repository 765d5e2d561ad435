"""Sampling with the cache against sampling without one, and what each option does."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from headless.errors import HeadlessError
from headless.models.sampling import LOOKS, sample_tokens

V, D, POSITIONS = 50, 16, 24
SIZES = {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": V}
FAMILIES = {
    "gpt2": {"n_positions": POSITIONS},
    "gpt_neox": {"intermediate_size": 32, "max_position_embeddings": POSITIONS},
    "llama": {"intermediate_size": 32, "max_position_embeddings": POSITIONS},
    "gemma3_text": {
        **{"max_position_embeddings": POSITIONS, "sliding_window": 6, "head_dim": 8},
        "num_key_value_heads": 2,
    },
}


@pytest.fixture(params=FAMILIES)
def backbone(request: pytest.FixtureRequest) -> nn.Module:
    config = AutoConfig.for_model(
        request.param, **SIZES, **FAMILIES[request.param], initializer_range=0.5
    )
    return AutoModel.from_config(config).eval()


@pytest.fixture
def head() -> nn.Module:
    return nn.Linear(D, V)


def test_greedy_is_that_of_a_pass_over_the_whole_text(backbone, head) -> None:
    prompts_BT = torch.randint(0, V, (3, 4))
    tokens_BT = prompts_BT
    with torch.no_grad():
        for _ in range(10):
            hidden_BTD = backbone(input_ids=tokens_BT, use_cache=False).last_hidden_state
            likeliest_B = head(hidden_BTD)[:, -1].argmax(dim=-1)
            tokens_BT = torch.cat([tokens_BT, likeliest_B[:, None]], dim=1)
    ours = sample_tokens(backbone, head, prompts_BT, 10, temperature=0)
    assert torch.equal(ours, tokens_BT)
    assert len(ours[:, 4:].unique()) > 3  # not one token again and again
    assert torch.equal(sample_tokens(backbone, head, prompts_BT, 10, top_k=1), tokens_BT)
    assert torch.equal(sample_tokens(backbone, head, prompts_BT, 10, top_p=1e-6), tokens_BT)


class Fixed(nn.Module):
    """A head with the same probabilities whatever it is given."""

    def __init__(self, probabilities: list[float]) -> None:
        super().__init__()
        self.logits_V = torch.tensor(probabilities).log()

    def forward(self, hidden_BD: torch.Tensor) -> torch.Tensor:
        return self.logits_V.expand(len(hidden_BD), -1)


@pytest.fixture
def llama() -> nn.Module:
    config = AutoConfig.for_model("llama", **SIZES, **FAMILIES["llama"])
    return AutoModel.from_config(config).eval()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0.5}, [0.6849, 0.2466, 0.0616, 0.0068]),  # squares, to a sum of one
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_k": 99}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 0.79}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.81}, [0.5263, 0.3158, 0.1579, 0]),
        ({"top_p": 1.0}, [0.5, 0.3, 0.15, 0.05]),
    ],
)
def test_frequencies(llama, options, expected) -> None:
    """Of 20,000 draws: five standard errors are at most 0.018."""
    prompts = torch.zeros(20_000, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(1)
    head = Fixed([0.5, 0.3, 0.15, 0.05])
    drawn = sample_tokens(llama, head, prompts, 1, generator=generator, **options)[:, 1]
    frequencies = torch.bincount(drawn, minlength=4) / len(drawn)
    torch.testing.assert_close(frequencies, torch.tensor(expected), atol=0.018, rtol=0)
    assert ((frequencies > 0) == (torch.tensor(expected) > 0)).all()


def test_its_own_random_numbers(llama, head) -> None:
    prompt = torch.ones(2, 3, dtype=torch.long)
    before = torch.get_rng_state()
    draws = [
        sample_tokens(llama, head, prompt, 8, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_stops_at_the_end_of_a_document(llama) -> None:
    """Each sequence at its own; the rest is filled up."""
    prompts = torch.zeros(64, 1, dtype=torch.long)
    head = Fixed([0.5, 0.5])
    generator = torch.Generator().manual_seed(0)
    tokens = sample_tokens(llama, head, prompts, 20, generator=generator, eos_token_id=1)
    new = tokens[:, 1:]
    assert new.shape[1] < 20
    for row in new.tolist():
        assert row.index(1) >= 0
        assert set(row[row.index(1) :]) == {1}


@pytest.mark.parametrize("limit", [3, 16, 20])
def test_what_is_drawn_does_not_depend_on_when_it_is_looked_at(llama, limit, monkeypatch) -> None:
    """On a GPU, which a look waits for, every 16 tokens; the surplus is taken off."""
    prompts, head = torch.zeros(2, 1, dtype=torch.long), Fixed([0.8, 0.2])

    def draw() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return sample_tokens(llama, head, prompts, limit, generator=generator, eos_token_id=1)

    expected = draw()
    assert expected.shape[1] - 1 < limit or limit == 3
    monkeypatch.setitem(LOOKS, "cpu", 16)
    assert torch.equal(draw(), expected)


def test_positions_are_a_limit(backbone, head) -> None:
    full = torch.zeros(1, POSITIONS, dtype=torch.long)
    with pytest.raises(HeadlessError, match=f"{POSITIONS} tokens, the model {POSITIONS} positions"):
        sample_tokens(backbone, head, full, 1)
    assert sample_tokens(backbone, head, full[:, :-2], 10, temperature=0).shape[1] == POSITIONS


def test_an_empty_prompt(llama, head) -> None:
    with pytest.raises(HeadlessError, match="empty"):
        sample_tokens(llama, head, torch.zeros(1, 0, dtype=torch.long), 1)
