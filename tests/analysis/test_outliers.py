"""Planted outlier dimensions are found, and taking out what a model uses costs it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import claim, draw_all, gather, gaussian, states_lab, stream
from torch import Tensor, nn

from headless.analysis.ablation import nll, outlier_ablation, replaced
from headless.analysis.shape.outliers import int8_dims, massive_dims, outliers
from headless.analysis.states.capture import Point, capture
from headless.analysis.states.measure import measure
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, build_backbone

PLANTED = [3, 17, 20, 25, 30]
V, D = 31, 32


def planted(blocks: int = 4) -> list[Tensor]:
    states = []
    for seed in range(blocks):
        x = gaussian(seed=seed)
        x[..., PLANTED] *= 9
        x[..., PLANTED[:2]] += torch.tensor([60.0, -60.0], dtype=torch.float64)
        states.append(x)
    return states


def test_planted_dimensions(tmp_path: Path) -> None:
    finding = outliers(states_lab(stream(planted())))
    for block in range(4):
        key = f"outliers/post/{block:02d}"
        assert finding.scalars[f"{key}/scale_dims"] == len(PLANTED)
        assert finding.scalars[f"{key}/cosine_share_top2"] > 0.98
        assert finding.scalars[f"{key}/leading_dim"] in PLANTED[:2]
        assert finding.scalars[f"{key}/leading_among_top"] > 0.99
        assert finding.scalars[f"{key}/leading_sign_constancy"] > 0.99
        assert finding.scalars[f"{key}/massive_dims"] == 0
    assert finding.arrays["persistent"].tolist() == PLANTED
    assert claim(finding, "the same ones")
    assert claim(finding, "one to three dimensions")
    assert claim(finding, "keeps its sign")
    draw_all(finding, tmp_path)


def test_a_gaussian_has_none() -> None:
    finding = outliers(states_lab(stream([gaussian(seed=seed) for seed in range(4)])))
    assert finding.scalars["outliers/post/00/scale_dims"] == 0
    assert not claim(finding, "the same ones")
    assert claim(finding, "one to three dimensions") is None  # there is no mean cosine to carry
    assert not claim(finding, "massive")


def test_massive_activations_are_absolute_and_relative() -> None:
    x = gaussian()
    x[0, 0, 5] = 5000.0  # position 0 of one text
    assert massive_dims(gather(x)).nonzero().flatten().tolist() == [5]
    assert not massive_dims(gather(x * 0.001)).any()  # 5: not above 100
    assert not massive_dims(gather(x * torch.where(x > 4000, 1, 100))).any()  # median too large


def test_int8_dims_need_enough_layers_and_positions() -> None:
    plain, loud = gaussian(), gaussian()
    loud[..., 4] = 7.0
    loud[0, :, 6] = 7.0  # one text of sixty: too few positions
    assert int8_dims(stream([plain] * 3 + [loud], "norm1")).nonzero().flatten().tolist() == [4]  # type: ignore[union-attr]
    assert not int8_dims(stream([plain] * 4 + [loud], "norm1")).any()  # type: ignore[union-attr]
    assert int8_dims(stream([loud])) is None


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
            self.head = table_VD.clone()

    def forward(self, input_ids: Tensor) -> Any:
        hidden = self.base_model(input_ids=input_ids).last_hidden_state
        return type("Output", (), {"logits": hidden @ self.head.T})


def test_what_the_model_uses_costs_it(tmp_path: Path) -> None:
    """Texts of one token each, which the model repeats from the first five dimensions alone."""
    model = Reader(5)
    batches = [torch.randint(0, V, (8, 1)).expand(8, 10).contiguous() for _ in range(2)]
    statistics = measure(model, batches, points=[Point("post", 0)])
    finding = outlier_ablation(model, batches, statistics, counts=(1, 5, 30))
    assert finding.arrays["counts"].tolist() == [1, 5]  # 30 of 32 are no few
    assert finding.scalars["outlier_ablation/5/zero"] > 1
    assert finding.scalars["outlier_ablation/5/random_largest"] < 0.2
    assert claim(finding, "zeroing outlier dimensions")
    random = finding.arrays["random"]
    assert np.isfinite(random).sum(axis=1).tolist() == [3, 19]
    assert finding.scalars["outlier_ablation/5/random_p"] == pytest.approx(1 / 20)
    # Three sets cannot show it: the real one is the largest of four once in four times.
    few = outlier_ablation(model, batches, statistics, counts=(5,), draws=3)
    assert few.scalars["outlier_ablation/5/random_p"] == pytest.approx(1 / 4)
    assert claim(few, "zeroing outlier dimensions") is False
    assert finding.scalars["outlier_ablation/nll"] == nll(model, batches)
    draw_all(finding, tmp_path)
    with pytest.raises(HeadlessError, match="block 1 was not measured"):
        outlier_ablation(model, batches, statistics, block=1)


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
    assert nll(model, [ids[:3], ids[3:]]) == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(HeadlessError, match="no token to predict"):
        nll(model, [ids[:, :1]])
    bert = model_of("bert", depth=1).config
    masked = AutoModelForMaskedLM.from_config(bert).eval()
    first = nll(masked, [ids], mask_token=3)
    assert first == nll(masked, [ids], mask_token=3)
    assert first == pytest.approx(torch.tensor(float(V)).log().item(), abs=0.5)
