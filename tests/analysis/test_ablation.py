"""Taking out what a model uses costs it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from planted import claim, draw_all, text_lab
from torch import Tensor, nn

from headless.analysis.interventions import ablation
from headless.analysis.interventions.ablation import nll, outlier_ablation, replaced, short
from headless.analysis.states.capture import Point, capture
from headless.analysis.states.measure import measure
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, build_backbone

V, D = 31, 32


class Reader(nn.Module):
    """A backbone and a head that reads nothing but the first dimensions of the stream."""

    def __init__(self, used: int) -> None:
        super().__init__()
        self.base_model = build_backbone(
            BackboneConfig(
                model_type="llama",
                hidden_size=D,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=24,
                max_position_embeddings=16,
            ),
            V,
        ).eval()
        with torch.no_grad():
            for block in self.base_model.layers:  # type: ignore[union-attr]
                block.self_attn.o_proj.weight.zero_()
                block.mlp.down_proj.weight.zero_()
            table_VD = self.base_model.get_input_embeddings().weight  # type: ignore[operator]
            table_VD.normal_(0, 0.1)
            near_VU = torch.randn(V, used)
            table_VD[:, :used] = 8 * near_VU / near_VU.norm(dim=1, keepdim=True)
            self.head = nn.Linear(D, V, bias=False)
            self.head.weight.copy_(table_VD)

    def forward(self, input_ids: Tensor) -> Any:
        hidden = self.base_model(input_ids=input_ids).last_hidden_state
        return type("Output", (), {"logits": self.head(hidden)})

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def test_what_the_model_uses_costs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of one token each, which the model repeats from the first five dimensions alone."""
    text_NT = torch.randint(0, V, (16, 1)).expand(16, 10).contiguous()
    model = Reader(5)
    lab = text_lab(model, text_NT)
    lab._statistics = measure(model, [text_NT], points=[Point("post", 0)])
    monkeypatch.setattr(ablation, "COUNTS", (1, 5, 30))  # 30 of 32 are no few
    finding = outlier_ablation(lab)
    assert finding is not None
    assert not finding.values("zero", "30").size
    assert finding.scalars["outlier_ablation/5/zero"] > 1
    assert finding.scalars["outlier_ablation/5/random_largest"] < 0.2
    assert claim(finding, "zeroing outlier dimensions")
    assert finding.scalars["outlier_ablation/5/random_p"] == pytest.approx(1 / 20)
    assert finding.scalars["outlier_ablation/nll"] == nll(model, short(lab))
    draw_all(finding, tmp_path)
    # Three sets cannot show it: the real one is the largest of four once in four times.
    monkeypatch.setattr(ablation, "DRAWS", 3)
    few = outlier_ablation(lab)
    assert few is not None
    assert few.scalars["outlier_ablation/5/random_p"] == pytest.approx(1 / 4)
    assert claim(few, "zeroing outlier dimensions") is False
    lab._statistics = {}
    with pytest.raises(HeadlessError, match="no block was measured"):
        outlier_ablation(lab)


def model_of(family: str, depth: int) -> Any:
    config = BackboneConfig(
        model_type=family,
        hidden_size=D,
        num_hidden_layers=depth,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
    )
    return build_backbone(config, V).eval()


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "bert"])
def test_replaced_states_go_on(family: str) -> None:
    model = model_of(family, depth=2)
    ids = torch.randint(0, V, (2, 7))
    states: dict[Point, Tensor] = {}

    def run() -> Tensor:
        with torch.no_grad(), capture(model, lambda p, x: states.__setitem__(p, x.clone())):
            return model(input_ids=ids).last_hidden_state

    plain = run()
    with replaced(model, 0, torch.tensor([2, 9]), torch.tensor([0.0, 4.0])):
        changed = run()
    assert not torch.allclose(plain, changed)
    torch.testing.assert_close(run(), plain)
    same = states[Point("post", 0)]
    with replaced(model, 0, torch.arange(1), torch.zeros(1)), torch.no_grad():
        out = model(input_ids=ids, output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(out[..., 1:], same[..., 1:])
    assert not out[..., 0].any()


def test_the_loss_is_the_library_s() -> None:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    config = model_of("gpt2", depth=1).config
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.randint(0, V, (4, 9))
    with torch.no_grad():
        wanted = float(model(input_ids=ids, labels=ids).loss)
    assert nll(model, ids) == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(HeadlessError, match="no token to predict"):
        nll(model, ids[:, :1])
    bert = model_of("bert", depth=1).config
    masked = AutoModelForMaskedLM.from_config(bert).eval()
    first = nll(masked, ids, mask_token=3)
    assert first == nll(masked, ids, mask_token=3)
    assert first == pytest.approx(torch.tensor(float(V)).log().item(), abs=0.5)
