"""Repeated tokens through real, tiny models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from planted import draw_all, text_lab

from headless.analysis.places.repeated import middle_states, repeated
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


def text(length: int, *tokens: int) -> torch.Tensor:
    """In which some tokens are frequent, the first one most."""
    return torch.tensor([t for number, t in enumerate(tokens) for _ in range(9 - number)] * length)[
        None, :length
    ]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "bert"])
def test_every_family(family: str, tmp_path: Path) -> None:
    found = repeated(text_lab(model_of(family), text(40, 3, 4), bos=1))
    assert found is not None
    assert found.arrays["norm"].shape == (3, 40)
    assert found.arrays["cos_last"][:, -1] == pytest.approx(1)
    draw_all(found, tmp_path)


def test_without_position_all_states_are_one() -> None:
    """In a decoder with rotations a repeated token attends to copies of itself only."""
    finding = repeated(text_lab(model_of("llama"), text(40, 3)))
    assert finding is not None
    found = finding.scalars
    assert found["repeated/cos_half_last"] == pytest.approx(1, abs=1e-5)
    assert found["repeated/step_last"] == pytest.approx(0, abs=1e-5)
    assert found["repeated/cos_half_last/null"] < 0.9
    assert [claim.agrees for claim in finding.claims] == [True, None]


def test_states_are_the_mean_over_middle_blocks() -> None:
    model = model_of("gpt2").eval()
    ids = torch.randint(V, (2, 20))
    state_STD, norm_ST = middle_states(model, ids)
    hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
    middle = torch.stack([hidden[i + 1] for i in range(3)]).double()  # blocks 0–2 of 0–3
    torch.testing.assert_close(state_STD, middle.mean(dim=0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm_ST, middle.norm(dim=-1).mean(dim=0), atol=1e-5, rtol=1e-4)


def test_what_does_not_fit() -> None:
    with pytest.raises(HeadlessError, match="15 tokens: 16 or more"):
        repeated(text_lab(model_of("gpt2"), text(15, 3)))
