"""The MLP's neurons: what is captured, and planted sparsity."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import draw_all, gather, gaussian, states_lab
from scipy import stats
from test_capture import DEPTH, FAMILIES, HEADS, D, V, model_of, states_of

from headless.analysis.shape.distributions import hidden_activations
from headless.analysis.states.capture import Point, inner_points_of, points_of, width_of
from headless.analysis.states.families import activation_of, block_matrices, family_of
from headless.analysis.states.measure import measure
from headless.analysis.states.moments import shares_below
from headless.models.backbone import BackboneConfig, blocks, build_backbone

NINE = {
    **FAMILIES,
    "qwen3": {"num_key_value_heads": 2, "head_dim": 6},
    "roberta": {"pad_token_id": 1},
}


def any_model(family: str) -> Any:
    if family in FAMILIES:
        return model_of(family)
    torch.manual_seed(2)
    config = BackboneConfig(
        model_type=family,
        hidden_size=D,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=40,
        max_position_embeddings=32,
        extra=NINE[family],
    )
    return build_backbone(config, V).eval()


@pytest.mark.parametrize("family", NINE)
def test_neurons_are_what_the_last_matrix_reads(family: str) -> None:
    """What the MLP adds is its last matrix times the captured state, and its bias, in some
    families through a norm."""
    model, ids = any_model(family), torch.randint(0, V, (2, 11))
    inner = inner_points_of(model)
    assert len(inner) == DEPTH
    states = states_of(model, ids, points=[*points_of(model), *inner])
    weights = {(m.block, m.role): m.weight for m in block_matrices(model)}
    x = states[Point("hidden", 1)]
    assert x.shape[-1] == width_of(model, Point("hidden", 0)) == 40
    block, family_names = blocks(model)[1], family_of(model)
    bias = block.get_submodule(family_names.matrices["down"]).bias
    wanted = x @ weights[1, "down"].T + (0 if bias is None else bias)
    if not family_names.matrices["down"].startswith(family_names.mlp):
        wanted = block.get_submodule(family_names.mlp)(wanted)  # a norm before it is added
    torch.testing.assert_close(states[Point("mlp", 1)], wanted, rtol=1e-4, atol=1e-5)
    assert width_of(model, Point("post", 0)) == D


def test_the_nonlinearity_is_the_models() -> None:
    model, ids = model_of("llama"), torch.randint(0, V, (2, 11))
    act, gated = activation_of(model)
    assert gated
    states = states_of(model, ids, points=[Point("norm2", 1), Point("hidden", 1)])
    mlp = model.layers[1].mlp
    x = states[Point("norm2", 1)]
    wanted = act(mlp.gate_proj(x)) * mlp.up_proj(x)
    torch.testing.assert_close(states[Point("hidden", 1)], wanted)
    model = model_of("gpt2")
    act, gated = activation_of(model)
    assert not gated
    states = states_of(model, ids, points=[Point("norm2", 1), Point("hidden", 1)])
    wanted = act(model.h[1].mlp.c_fc(states[Point("norm2", 1)]))
    torch.testing.assert_close(states[Point("hidden", 1)], wanted)


def test_inner_points_are_measured_where_they_are_asked_for() -> None:
    model = model_of("gpt_neox")
    batches = list(
        torch.randint(0, V, (6, 12), generator=torch.Generator().manual_seed(1)).split(2)
    )
    assert list(measure(model, batches)) == points_of(model)
    found = measure(model, batches, points=[*points_of(model), *inner_points_of(model)])
    assert list(found)[: len(points_of(model))] == points_of(model)
    s = found[Point("hidden", 2)]
    assert s.outer_DD is None
    assert s.position_sum_TD is None
    assert not len(s.sample_KD)
    states = states_of(model, torch.cat(batches), points=[Point("hidden", 2)])
    x = states[Point("hidden", 2)][:, 1:].double()
    torch.testing.assert_close(s.powers_G4D[1, 1], x.square().sum(dim=(0, 1)), rtol=1e-5, atol=0)
    assert torch.equal(s.positive_GD[1], (x > 0).double().sum(dim=(0, 1)))


def test_the_histogram_stands_for_the_values() -> None:
    draw = np.random.default_rng(0)
    x = np.concatenate([draw.standard_t(3, 40_000), 5 + 0.1 * draw.standard_normal(10_000)])
    s = gather(torch.from_numpy(x.reshape(50, 100, 10)))
    rest = x.reshape(50, 100, 10)[:, 1:].ravel()
    histogram = s.histogram.numpy()
    for place in (-2.0, -0.01, 0.01, 1.0, 5.0):
        (share,) = shares_below(histogram, np.array([place]))
        assert share == pytest.approx((rest < place).mean(), abs=0.003)


def sparse(width: int = 64) -> torch.Tensor:
    """ReLU of Gaussian numbers; neuron 7 is dead, neuron 9 twenty times as large."""
    x = gaussian(60, 33, width).relu()
    x[..., 7] = -0.1
    x[..., 9] *= 20
    return x


def inner_lab(states: dict[Point, Any], **config: Any) -> Any:
    return states_lab({}, inner=states, config=config)


def test_planted_neurons_are_found(tmp_path: Path) -> None:
    states = {Point("hidden", i): gather(sparse(), reservoir=0) for i in range(3)}
    finding = hidden_activations(inner_lab(states, model_type="gpt2", activation_function="relu"))
    s = {k.removeprefix("hidden_activations/01/"): v for k, v in finding.scalars.items()}
    x = sparse()[:, 1:].numpy()
    assert s["rms"] == pytest.approx(np.sqrt(np.square(x).mean()))
    assert s["not_positive"] == pytest.approx((x <= 0).mean())
    assert s["small"] == pytest.approx((np.abs(x) < 0.01 * s["rms"]).mean(), abs=0.005)
    assert s["never_positive"] == 1 / 64
    assert s["kurtosis/pooled"] == pytest.approx(stats.kurtosis(x.ravel()))
    share = np.square(x).mean(axis=(0, 1))
    assert s["top_1_share"] == pytest.approx(share[9] / share.sum())
    # half of the null's is 0; its kurtosis is that of a rectified Gaussian
    assert s["null/not_positive"] == pytest.approx(0.5, abs=0.01)
    assert s["null/small"] == pytest.approx(0.5, abs=0.01)
    rectified = np.maximum(np.random.default_rng(0).standard_normal(10**6), 0)
    assert s["null/kurtosis"] == pytest.approx(stats.kurtosis(rectified), rel=0.05)
    assert "number 9 of block" in finding.answer
    draw_all(finding, tmp_path)


def test_the_null_has_the_measured_size() -> None:
    """Of a gated MLP with Gaussian inputs the null model is the model itself."""
    u, v = gaussian(100, 33, 64, seed=1), gaussian(100, 33, 64, seed=2)
    x = torch.nn.functional.silu(1.7 * u) * 1.7 * v
    states = {Point("hidden", 0): gather(x, reservoir=0)}
    s = hidden_activations(inner_lab(states, model_type="llama", hidden_act="silu")).scalars
    key = "hidden_activations/00"
    for name in ("small", "not_positive"):
        assert s[f"{key}/null/{name}"] == pytest.approx(s[f"{key}/{name}"], abs=0.01)
    assert s[f"{key}/null/kurtosis"] == pytest.approx(s[f"{key}/kurtosis/pooled"], rel=0.1)
