"""Gradients by matrix: against autograd, Gaussian and clipped entries, examples that agree."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import draw_all, text_lab
from scipy import stats
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
)

from headless.analysis.interventions.gradients import entries, gradients, measured
from headless.analysis.record import Finding, Place
from headless.errors import HeadlessError

V = 50


def model_of(family: str) -> Any:
    torch.manual_seed(0)
    small: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"intermediate_size": 24, "vocab_size": V, "max_position_embeddings": 32}
    if family == "gpt2":
        config: Any = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=V, n_positions=32)
    elif family == "bert":
        return AutoModelForMaskedLM.from_config(BertConfig(**small))
    else:
        config = {"gpt_neox": GPTNeoXConfig, "llama": LlamaConfig}[family](**small)
    return AutoModelForCausalLM.from_config(config)


def examples(number: int) -> torch.Tensor:
    return torch.randint(V, (number, 20), generator=torch.Generator().manual_seed(5))


def finding(model: Any, number: int, **subject: Any) -> Finding:
    found = gradients(text_lab(model, examples(number), **subject))
    assert found is not None
    return found


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "bert"])
def test_every_family(family: str, tmp_path: Path) -> None:
    model = model_of(family)
    before = {name: p.clone() for name, p in model.named_parameters()}
    found = finding(model, 3, mask_token=3 if family == "bert" else None)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])
        assert p.grad is None
    roles = {key.split("/")[1] for key in found.scalars if key.count("/") == 3}
    assert roles == {"q", "k", "v", "o", "up", "down"} | ({"gate"} if family == "llama" else set())
    draw_all(found, tmp_path)


def test_numbers_are_those_of_autograd() -> None:
    model = model_of("llama")
    ids = examples(1)
    found = finding(model, 1).scalars
    model(input_ids=ids, labels=ids).loss.backward()
    g = model.model.layers[1].mlp.down_proj.weight.grad.double().numpy()
    assert found["gradients/down/01/std"] == pytest.approx(g.std(), rel=1e-5)
    assert found["gradients/down/01/kurtosis"] == pytest.approx(stats.kurtosis(g, None), rel=1e-4)
    assert found["gradients/down/01/largest"] == pytest.approx(
        np.abs((g - g.mean()) / g.std()).max(), rel=1e-4
    )


def test_a_gaussian_and_what_is_none() -> None:
    def of(matrix: torch.Tensor) -> dict[str, float]:
        return entries(matrix, Place("q", 0))

    x = torch.randn(400, 500)
    e = of(x)
    assert abs(e["kurtosis"]) < 0.1
    assert abs(e["mean_over_std"]) < 0.01
    assert 0.2 < e["tail"] < 3
    assert e["piled"] <= 5
    assert of(x.clamp(-2, 2))["piled"] > 1000  # clipped
    wide = x * torch.logspace(-1, 1, 500)  # columns of different size explain all of it
    assert of(wide)["kurtosis"] > 3
    assert abs(of(wide)["scaled_kurtosis"]) < 0.2
    assert of(torch.distributions.StudentT(3).sample((400, 500)))["kurtosis"] > 5
    with pytest.raises(HeadlessError, match="q of block 0 has no gradient"):
        of(torch.ones(3, 3))


def test_the_same_example_twice_has_no_noise() -> None:
    model = model_of("gpt2")
    ids = examples(1)
    same = gradients(text_lab(model, torch.cat([ids, ids])))
    assert same is not None
    found = same.scalars
    assert found["gradients/median_noise_scale"] == pytest.approx(0, abs=1e-6)
    assert found["gradients/up/00/batch_kurtosis"] == pytest.approx(
        found["gradients/up/00/kurtosis"], rel=1e-4
    )
    assert finding(model, 3).scalars["gradients/median_noise_scale"] > 1


def test_what_cannot_be_measured() -> None:
    model = model_of("gpt2")
    with pytest.raises(HeadlessError, match="not finite"):
        measured(
            model.transformer, [examples(1)], lambda ids: model(input_ids=ids).logits.sum() / 0
        )
    with pytest.raises(HeadlessError, match="does not run through"):
        measured(model.transformer, [examples(1)], lambda ids: model.transformer.wte.weight.sum())
