"""Repeated tokens through real, tiny models."""

import warnings
from typing import Any

import pytest
import torch

from headless.analysis.repeated import middle_states, repeated_token
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, build_backbone

V = 50


def model_of(family: str) -> Any:
    torch.manual_seed(0)
    return build_backbone(
        BackboneConfig(
            model_type=family, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
            intermediate_size=24, max_position_embeddings=64,
        ),
        V,
    )  # fmt: skip


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "bert"])
def test_every_family(family: str) -> None:
    found = repeated_token(model_of(family), [3, 4], first=1, length=40)
    assert found.arrays["norm"].shape == (3, 40)
    assert found.arrays["cos_last"][:, -1] == pytest.approx(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in found.pictures:
            picture.draw().draw_without_rendering()


def test_without_position_all_states_are_one() -> None:
    """In a decoder with rotations a repeated token attends to copies of itself only."""
    found = repeated_token(model_of("llama"), [3], length=40).scalars
    assert found["repeated/cos_half_last"] == pytest.approx(1, abs=1e-5)
    assert found["repeated/step_last"] == pytest.approx(0, abs=1e-5)
    assert found["repeated/cos_half_last/null"] < 0.9
    claims = repeated_token(model_of("llama"), [3], length=40).claims
    assert [claim.agrees for claim in claims] == [True, None]


def test_states_are_the_mean_over_middle_blocks() -> None:
    model = model_of("gpt2").eval()
    ids = torch.randint(V, (2, 20))
    state_STD, norm_ST = middle_states(model, ids)
    hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
    middle = torch.stack([hidden[i + 1] for i in range(3)]).double()  # blocks 0–2 of 0–3
    torch.testing.assert_close(state_STD, middle.mean(dim=0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm_ST, middle.norm(dim=-1).mean(dim=0), atol=1e-5, rtol=1e-4)


def test_what_does_not_fit() -> None:
    model = model_of("gpt2")
    with pytest.raises(HeadlessError, match="between 16 and 64"):
        repeated_token(model, [3], length=100)
    with pytest.raises(HeadlessError, match="below 50"):
        repeated_token(model, [50], length=20)
    with pytest.raises(HeadlessError, match="name tokens"):
        repeated_token(model, [], length=20)
