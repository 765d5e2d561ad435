"""Neurons that are planted: for log p(v), and where the head does not read; and none."""

from pathlib import Path
from typing import Any

import pytest
import torch
from heads import ORDER, ZIPF, D, F, independent, model_of, session
from planted import claim, draw_all

from headless.analysis.head.lens import final_norm, head_of, readout_of
from headless.analysis.head.neurons import Cases, neurons
from headless.analysis.interventions.ablation import nll, short
from headless.errors import HeadlessError
from headless.objectives.base import log_unigram

FREQUENCY, ENTROPY = range(8), range(8, 16)


def planted_neurons() -> Any:
    """The head reads log p in dimension 0, nothing in dimension 1; eight neurons write to each."""
    model = model_of()
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        model.lm_head.weight.normal_(generator=draw)
        model.lm_head.weight[:, 0] = log_unigram(ZIPF) / 4
        model.lm_head.weight[:, 1] = 0
        for layer in model.model.layers:
            layer.mlp.gate_proj.weight.normal_(generator=draw)
            layer.mlp.up_proj.weight.normal_(generator=draw)
        down_DF = model.model.layers[-1].mlp.down_proj.weight
        down_DF.normal_(0, 0.001, generator=draw)
        down_DF[:, :16] = 0
        down_DF[0, FREQUENCY] = 0.1
        down_DF[1, ENTROPY] = 1.0
    return model


def test_planted_neurons_are_counted(tmp_path: Path) -> None:
    found = neurons(session(planted_neurons(), independent(8), seed=1))
    s = found.scalars
    assert 8 <= s["neurons/mlp/01/token_frequency"] <= 11  # of the others one by chance
    assert s["neurons/mlp/01/token_frequency_random"] < 5
    assert s["neurons/mlp/01/entropy"] == 8
    assert s["neurons/mlp/00/entropy"] == 0
    at = s["neurons/token_frequency_set/unigram_change"]
    assert abs(at) > s["neurons/token_frequency_set/unigram_change_random"]
    assert s["neurons/token_frequency_set/unigram_change_p"] == pytest.approx(1 / 20)
    assert s["neurons/entropy_set/entropy_change_p"] == pytest.approx(1 / 20)
    assert claim(found, "Token-frequency neurons")
    assert claim(found, "Entropy neurons")
    draw_all(found, tmp_path)
    other = neurons(session(planted_neurons(), independent(8), ZIPF[ORDER], seed=1))
    assert other.scalars["neurons/mlp/01/token_frequency"] < 5
    assert claim(other, "Token-frequency neurons") is False


def test_an_untrained_model_has_none() -> None:
    found = neurons(session(model_of(), independent(8)))
    assert found.scalars["neurons/mlp/01/token_frequency"] < 5
    assert found.scalars["neurons/mlp/01/entropy"] < 3
    assert claim(found, "Token-frequency neurons") is False
    assert claim(found, "Entropy neurons") is False


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_held_at_its_mean(family: str) -> None:
    """The same loss as of the model itself, run again with the neurons held."""
    model = model_of(family)
    lab = session(model, independent(4, 64))
    norm = final_norm(lab)
    assert norm is not None
    cases = Cases.of(lab, head_of(lab), norm.read)
    held_K = torch.tensor([3, 8, 63])
    inside = slice(1, -1)
    last = model.model.layers[-1].mlp.down_proj if family == "llama" else (
        model.transformer.h[-1].mlp.c_proj
    )  # fmt: skip

    def hold(module: Any, inputs: Any) -> Any:
        hidden_BTF = inputs[0].clone()
        mean_K = hidden_BTF[:, inside, held_K].mean(dim=(0, 1))
        hidden_BTF[:, inside, held_K] = mean_K
        return (hidden_BTF,)

    def said() -> dict[str, float]:  # at the positions that are looked at
        ids_BT = short(lab)
        with torch.no_grad():
            logits_NV = model(input_ids=ids_BT).logits[:, inside].flatten(0, 1)
        said_N = torch.distributions.Categorical(logits=logits_NV)
        frequent = torch.distributions.Categorical(logits=log_unigram(ZIPF))
        return {
            "loss": -float(said_N.log_prob(ids_BT[:, 2:].flatten()).mean()),
            "entropy": float(said_N.entropy().mean()),
            "unigram": float(torch.distributions.kl_divergence(said_N, frequent).mean()),
        }

    before = cases.without(torch.zeros(0, dtype=torch.long))
    assert before == pytest.approx(said(), rel=1e-5)
    handle = last.register_forward_pre_hook(hold)
    assert cases.without(held_K) == pytest.approx(said(), rel=1e-5)
    handle.remove()
    assert abs(cases.without(held_K)["loss"] - before["loss"]) > 1e-6
    assert nll(model, short(lab)) > 0


def test_families_whose_neurons_have_no_vectors() -> None:
    from transformers import AutoModelForCausalLM, Olmo2Config

    sizes = {"hidden_size": D, "num_attention_heads": 2, "intermediate_size": F, "vocab_size": 300}
    config = Olmo2Config(**sizes, num_hidden_layers=1, max_position_embeddings=64)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert readout_of(session(model, independent(4))).spread > 0
    with pytest.raises(HeadlessError, match="a norm follows it"):
        neurons(session(model, independent(4)))
