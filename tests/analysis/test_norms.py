"""Norms by layer and position, the initial token, and attention that sinks into it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from planted import claim, draw_all, gaussian, states_lab, stream

from headless.analysis.shape import norms as room
from headless.analysis.shape.norms import norms, sink_strength, token_norms
from headless.analysis.states.capture import middle_blocks
from headless.models.backbone import BackboneConfig, build_backbone

V, D = 41, 16


def model_of(family: str) -> Any:
    config = BackboneConfig(
        model_type=family,
        hidden_size=D,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
    )
    return build_backbone(config, V).eval()


def test_a_massive_first_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It arises at block 1 and falls at the last one; others grow by 1.3 a block."""
    states = [gaussian(seed=i) * 1.3**i for i in range(6)]
    for x, size in zip(states, (1, 200, 200, 200, 200, 20), strict=True):
        x[:, 0] = size * gaussian(60, 1, 32)[:, 0] / 32**0.5
    alone = torch.linspace(150, 250, 10, dtype=torch.float64).expand(6, -1)
    monkeypatch.setattr(room, "token_norms", lambda model, tokens, blocks: alone[blocks])
    monkeypatch.setattr(room, "sink_strength", lambda model, rows: torch.linspace(0, 0.9, 6))
    added = [x - y for x, y in zip(states, [torch.zeros_like(states[0]), *states], strict=False)]
    points = stream(states) | stream(added, "mlp") | stream([0.1 * x for x in added], "attn")
    lab = states_lab(
        points,
        {"embedding": torch.zeros(10, 2)},
        is_causal=True,
        sequences=torch.zeros(4, 9),
        config={"model_type": "gpt2"},
    )
    finding = norms(lab)
    assert finding.scalars["norms/sink/05"] == pytest.approx(0.9)
    assert finding.scalars["norms/alone/massive_share"] == 1.0
    for block, x in enumerate(states):
        key = f"norms/post/{block:02d}"
        assert finding.scalars[f"{key}/rest"] == pytest.approx(float(x[:, 1:].norm(dim=-1).mean()))
        assert finding.scalars[f"{key}/first"] == pytest.approx(float(x[:, 0].norm(dim=-1).mean()))
    assert finding.scalars["norms/first_over_rest"] > 10
    assert finding.scalars["norms/growth"] == pytest.approx(1.3, abs=0.01)
    profile = torch.stack([states[b].norm(dim=-1).mean(0) for b in middle_blocks(range(6))]).mean(0)
    torch.testing.assert_close(torch.from_numpy(finding.arrays["by_position"]), profile)
    for part in ("far larger norm", "arises in the MLP", "falls before", "exponentially", "most"):
        assert claim(finding, part), part
    by_attention = stream(states) | stream(added, "attn") | stream([0.1 * x for x in added], "mlp")
    assert claim(norms(states_lab(by_attention), nulls=False), "arises in the MLP") is False
    draw_all(finding, tmp_path)


def test_growth_by_an_amount_is_not_exponential() -> None:
    """The correlation of block and log norm is 0.95 and 0.99 here."""
    for sizes in (torch.arange(1, 13), 5 + torch.arange(12)):
        states = [gaussian(20, 9, seed=i) * float(size) for i, size in enumerate(sizes)]
        assert claim(norms(states_lab(stream(states)), nulls=False), "exponentially") is False
    states = [gaussian(20, 9, seed=i) * 1.1**i for i in range(12)]
    assert claim(norms(states_lab(stream(states)), nulls=False), "exponentially") is True
    assert claim(norms(states_lab(stream(states[:4])), nulls=False), "exponentially") is None


def test_an_ordinary_first_position() -> None:
    finding = norms(states_lab(stream([gaussian(seed=i) for i in range(4)])), nulls=False)
    assert finding.scalars["norms/first_over_rest"] == pytest.approx(1, abs=0.1)
    assert not claim(finding, "far larger norm")
    assert claim(finding, "arises in the MLP") is None


def test_middle_blocks() -> None:
    assert middle_blocks(range(12)) == list(range(2, 9))  # as the paper's for GPT-2
    for depth in range(1, 100):
        found = middle_blocks(range(depth))
        assert found
        assert set(found) <= set(range(depth))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "bert"])
def test_single_tokens(family: str) -> None:
    model = model_of(family)
    tokens = torch.arange(V)
    found = token_norms(model, tokens, range(3))
    with torch.no_grad():
        hidden = model(input_ids=tokens[:, None], output_hidden_states=True).hidden_states
    assert found.shape == (3, V)
    for block in range(2):  # the library's last one is after the final norm
        wanted = hidden[block + 1][:, 0].double().norm(dim=-1)
        torch.testing.assert_close(found[block], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "bert"])
def test_attention_to_the_first_position(family: str) -> None:
    """With queries and keys of zero attention is even: 1/(t + 1), or 1/T without a causal mask."""
    from headless.analysis.states.families import block_matrices

    model = model_of(family)
    before = model.config._attn_implementation
    with torch.no_grad():
        for matrix in block_matrices(model):
            if matrix.role == "q":
                matrix.weight.zero_()
        for name, parameter in model.named_parameters():
            if name.endswith(("c_attn.bias", "query_key_value.bias", "query.bias")):
                parameter.zero_()
        if family == "gpt_neox":  # its matrices by role are copies
            for layer in model.layers:
                layer.attention.query_key_value.weight.zero_()
    ids = torch.randint(0, V, (5, 9))
    found = sink_strength(model, [ids[:2], ids[2:]])
    even = 1 / 9 if family == "bert" else sum(1 / (t + 1) for t in range(1, 9)) / 8
    torch.testing.assert_close(
        found, torch.full((3,), even, dtype=torch.float64), rtol=1e-5, atol=0
    )
    assert model.config._attn_implementation == before
