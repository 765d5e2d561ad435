"""Every analysis of weights on every family, with planted structure and its nulls."""

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from planted import weights_lab
from scipy import stats

from headless.analysis.laboratory import findings_of
from headless.analysis.record import Finding, Place
from headless.analysis.states.families import block_matrices
from headless.analysis.weights.matrices import block_spectra, shuffled
from headless.analysis.weights.sizes import (
    gains,
    input_gains,
    sizes,
    sizes_of,
    top_dimensions,
    trend,
)
from headless.analysis.weights.spectra import circuits_of, movements_of
from headless.analysis.weights.tables import tables_of
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, build_backbone

V, D, HEADS, DEPTH = 83, 24, 3, 3
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt_neox": {},
    "llama": {"num_key_value_heads": 1},
    "bert": {},
    "distilbert": {},
}


def model_of(family: str, seed: int = 2, hidden: int = D, depth: int = DEPTH) -> Any:
    torch.manual_seed(seed)
    config = BackboneConfig(
        model_type=family,
        hidden_size=hidden,
        num_hidden_layers=depth,
        num_attention_heads=HEADS,
        intermediate_size=2 * hidden,
        max_position_embeddings=32,
        extra=FAMILIES[family],
    )
    return build_backbone(config, V).eval()


def trained(model: Any, seed: int = 5) -> Any:
    """The same model after a "training" that moves everything a little."""
    model = copy.deepcopy(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def weight_findings(model: Any, **known: Any) -> list[Finding]:
    """All of the option "weights"."""
    return findings_of("weights", weights_lab(model, **known))


def named(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_every_finding(family: str) -> None:
    start = model_of(family)
    model = trained(start)
    found = named(weight_findings(model, head=torch.randn(V, D), initial=start))
    assert list(found) == [
        "table_spectra", "weight_spectra", "weight_noise", "head_circuits", "weight_values",
        "weight_movement", "norm_gains", "weight_norms",
    ]  # fmt: skip
    for finding in found.values():
        assert all(key.startswith(f"{finding.name}/") for key in finding.scalars)
        assert all(isinstance(value, float) for value in finding.scalars.values())
        assert all(claim.agrees in (True, False, None) for claim in finding.claims)
        assert "nan" not in finding.answer
    assert "table_spectra/head/first_share" in found["table_spectra"].scalars
    assert found["weight_spectra"].arrays["q/rank_exponent"].shape == (DEPTH,)
    gated = family == "llama"
    assert ("gate/rank_exponent" in found["weight_spectra"].arrays) == gated
    assert len(found["weight_norms"].claims) == 2
    assert found["weight_norms"].claims[0].agrees is None  # three blocks say nothing of a trend


def test_the_pictures_are_drawn() -> None:
    start = model_of("gpt2")
    found = weight_findings(trained(start), head=torch.randn(V, D), initial=start)
    names = [picture.name for finding in found for picture in finding.pictures]
    assert len(names) == len(set(names))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for finding in found:
            for picture in finding.pictures:
                figure = picture.draw()
                figure.canvas.draw()
                assert figure.axes


def test_analyses_are_deterministic_and_change_nothing() -> None:
    model = model_of("llama")
    before = {name: p.clone() for name, p in model.state_dict().items()}
    first, second = (named(weight_findings(model)) for _ in range(2))
    assert "weight_movement" not in first
    for name, finding in first.items():
        assert finding.answer == second[name].answer
        np.testing.assert_equal(dict(finding.scalars), dict(second[name].scalars))
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_spectra_are_those_of_a_full_decomposition() -> None:
    model = model_of("gpt_neox")
    spectra = block_spectra(weights_lab(model), nulls=True)
    for s, matrix in zip(spectra, block_matrices(model), strict=True):
        reference = torch.linalg.svdvals(matrix.weight.double())
        torch.testing.assert_close(s.values_R, reference, rtol=1e-6, atol=1e-7)
        assert s.std == pytest.approx(float(matrix.weight.double().std(correction=0)))
        norm = matrix.weight.double().square().sum()
        torch.testing.assert_close(s.shuffled_R.square().sum(), norm)


def test_shuffling_keeps_the_entries() -> None:
    weight = torch.randn(7, 5)
    other = shuffled(weight)
    assert not torch.equal(other, weight)
    assert torch.equal(other.flatten().sort().values, weight.flatten().sort().values)
    assert torch.equal(other, shuffled(weight))


def test_planted_directions_stand_above_noise() -> None:
    model = model_of("llama", hidden=96, depth=2)
    plain = named(weight_findings(model))["weight_noise"]
    assert plain.scalars["weight_noise/o/above"] == 0
    assert plain.claims[0].agrees is False
    with torch.no_grad():
        for block in model.layers:
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                weight = getattr(block.self_attn, name).weight
                left = torch.linalg.qr(torch.randn(weight.shape[0], 4)).Q
                right = torch.linalg.qr(torch.randn(weight.shape[1], 4)).Q
                weight.add_(1.5 * weight.std() * 96**0.5 * 2 * left @ right.T)
    noise = named(weight_findings(model))["weight_noise"]
    for role in ("q", "k", "v", "o"):
        assert noise.scalars[f"weight_noise/{role}/above"] == 4
        assert noise.scalars[f"weight_noise/{role}/above_bulk"] == 4
        assert noise.scalars[f"weight_noise/{role}/above_shuffled"] < 1
    assert noise.scalars["weight_noise/up/above"] == 0


def test_a_cone_is_found_in_the_head_and_leaves_with_the_mean() -> None:
    model = model_of("gpt2")
    head = torch.randn(500, D) + 2
    finding = named(weight_findings(model, head=head))["table_spectra"]
    mean = head.double().mean(dim=0).square().sum() / head.double().square().sum() * 500
    share = finding.scalars["table_spectra/head/first_share"]
    assert share == pytest.approx(float(mean), rel=0.02)
    assert finding.scalars["table_spectra/head/first_share_centred"] < 0.1
    # shuffled entries keep the mean of all entries, the same in every dimension
    assert [claim.agrees for claim in finding.claims] == [False, True]
    head = torch.randn(500, D) + 2 * torch.randn(D)
    finding = named(weight_findings(model, head=head))["table_spectra"]
    assert finding.scalars["table_spectra/head/first_share"] > 0.6
    assert [claim.agrees for claim in finding.claims] == [True, True]


def test_a_tied_head_is_the_embedding_table() -> None:
    model = model_of("gpt2")
    tied = model.get_input_embeddings().weight
    assert [str(place) for place in tables_of(model, tied)] == ["embedding", "positions"]
    assert [str(place) for place in tables_of(model, tied + 1)] == [
        "embedding",
        "head",
        "positions",
    ]
    assert [str(place) for place in tables_of(model_of("gpt_neox"))] == ["embedding"]


def test_circuits_are_products_of_a_heads_matrices() -> None:
    model = model_of("llama")  # three heads share one pair of keys and values
    circuits = circuits_of(model)
    width = D // HEADS
    attention = model.layers[1].self_attn
    q, k, v, o = (getattr(attention, f"{r}_proj").weight.double() for r in "qkvo")
    for head in range(HEADS):
        rows = slice(head * width, (head + 1) * width)
        qk, ov = q[rows].T @ k, o[:, rows] @ v
        for kind, product in (("qk", qk), ("ov", ov)):
            reference = torch.linalg.svdvals(product)[:width]
            torch.testing.assert_close(
                circuits[Place(kind, 1)][0][head], reference, rtol=1e-6, atol=1e-9
            )


def test_heavy_tails_are_told_from_gaussian_weights() -> None:
    model = model_of("gpt_neox", hidden=48)
    plain = named(weight_findings(model))["weight_values"]
    assert plain.claims[0].agrees is True
    assert plain.claims[1].agrees is False
    with torch.no_grad():
        for matrix in block_matrices(model):
            heavy = torch.distributions.StudentT(3.0).sample(matrix.weight.shape)
            matrix.weight.copy_(0.02 * heavy)
        for block in model.layers:  # the fused matrix is seen through copies
            fused = block.attention.query_key_value.weight
            fused.copy_(0.02 * torch.distributions.StudentT(3.0).sample(fused.shape))
    heavy = named(weight_findings(model))["weight_values"]
    assert heavy.claims[0].agrees is False
    assert heavy.claims[1].agrees is True
    assert 2 < heavy.scalars["weight_values/down/nu"] < 4.5
    assert heavy.scalars["weight_values/best/student_t"] == 1


def test_movement_is_that_of_the_weights() -> None:
    start = model_of("gpt2")
    model = copy.deepcopy(start)
    direction = torch.outer(torch.ones(2 * D), torch.ones(D)) / D
    with torch.no_grad():
        model.h[1].mlp.c_proj.weight.add_(direction)
    moved, changes = movements_of(model, start)
    numbers, one = moved[Place("down", 1)], changes[Place("down", 1)]
    before = start.h[1].mlp.c_proj.weight.detach().double()
    assert numbers["distance"] == pytest.approx(float(direction.norm() / before.norm()))
    assert float(one.values_R[1]) < 1e-6 * float(one.values_R[0])  # one direction
    assert moved[Place("down", 0)]["distance"] == 0
    assert moved[Place("down", 0)]["cosine"] == pytest.approx(1)


def test_gains_find_the_dimensions_that_stand_out() -> None:
    model = model_of("llama", hidden=48)
    assert gains(weights_lab(model)).claims[0].agrees is None  # all are 1: nothing was learnt
    torch.manual_seed(0)
    with torch.no_grad():
        for block in model.layers:
            for norm in (block.input_layernorm, block.post_attention_layernorm):
                norm.weight.copy_(0.45 + 0.02 * torch.randn(48))
                norm.weight[[3, 40]] = 0.001
    finding = gains(weights_lab(model))
    assert [claim.agrees for claim in finding.claims] == [True, True, True]
    assert (finding.arrays["norm1/silenced"] == 2).all()
    assert {3, 40} <= set(top_dimensions(model.layers[0].input_layernorm.weight).tolist())
    assert finding.scalars["norm_gains/norm1/mean"] == pytest.approx(0.45 * 46 / 48, abs=0.01)


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_sizes_are_those_of_the_effective_matrix(family: str) -> None:
    model = trained(model_of(family))
    gains = input_gains(model)
    weights = {Place(m.role, m.block): m.weight.double() for m in block_matrices(model)}
    finding = sizes(weights_lab(model))
    assert set(sizes_of(model, dict.fromkeys(weights, 0.0))) == set(weights)
    for place, weight in weights.items():
        size = {name: one.at(place.kind).value for name, one in finding.series.items()}
        size = {n: v[place.block] for n, v in size.items() if len(v) == DEPTH}
        assert size["rms"] == pytest.approx(float(weight.square().mean().sqrt()))
        norm = float(torch.linalg.matrix_norm(weight, 2))
        assert size["spectral_norm"] == pytest.approx(norm, rel=1e-6)
        gain = gains.get(place)
        folded = weight if gain is None else weight @ torch.diag(gain)
        assert size["folded_rms"] == pytest.approx(float(folded.square().mean().sqrt()))
    assert Place("o", 0) not in gains
    if family == "bert":  # attention reads the norm at the end of the block before
        assert Place("q", 0) not in gains
        torch.testing.assert_close(
            gains[Place("q", 1)], model.encoder.layer[0].output.LayerNorm.weight.detach().double()
        )
    if family == "llama":
        torch.testing.assert_close(
            gains[Place("q", 0)], model.layers[0].input_layernorm.weight.detach().double()
        )


def test_a_trend_is_told_from_chance() -> None:
    rng = np.random.default_rng(0)
    rising = trend(np.exp(0.1 * np.arange(12)))
    assert rising["depth_spearman"] == pytest.approx(1)
    assert rising["depth_p"] < 0.001
    assert trend(np.array([1.0, 2.0, 3.0]))["depth_p"] == pytest.approx(2 / 6)  # all six orders
    values = rng.random(20)
    reference = stats.spearmanr(np.arange(20), values)
    found = trend(values)
    assert found["depth_spearman"] == pytest.approx(reference.statistic)
    assert found["depth_p"] == pytest.approx(reference.pvalue, abs=0.05)
    assert np.isnan(trend(np.ones(9))["depth_spearman"])


def test_a_trend_is_never_impossible_by_chance() -> None:
    """(b + 1)/(m + 1) of m random orders, whichever the values; exact where all orders are few."""
    for depth in (12, 30):
        for values in (np.arange(1.0, depth + 1), np.random.default_rng(0).random(depth) + 0.1):
            found = trend(values)
            assert 1 / 2001 <= found["depth_p"] <= 1
            assert (found["depth_p"] * 2001) == pytest.approx(
                round(found["depth_p"] * 2001), abs=1e-6
            )
    assert trend(np.arange(1.0, 13))["depth_p"] == pytest.approx(2 / 2001)
    assert trend(np.arange(1.0, 7))["depth_p"] == pytest.approx(2 / 720)


def test_a_trend_of_equal_sizes_has_their_mean_rank() -> None:
    values = np.array([1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 1.0])
    wanted = stats.spearmanr(np.arange(8), values)
    assert trend(values)["depth_spearman"] == pytest.approx(wanted.statistic)
    # In whichever order the equal ones stand, as those of two roles with one beginning do.
    assert trend(np.array([1.0, 1, 1, 2, 2, 2]))["depth_spearman"] == pytest.approx(
        stats.spearmanr(range(6), [0, 0, 0, 1, 1, 1]).statistic
    )


def test_writing_weights_that_grow_are_seen() -> None:
    model = model_of("gpt2", depth=8)
    with torch.no_grad():
        for i, block in enumerate(model.h):
            block.attn.c_proj.weight.mul_(1 + i)
            block.mlp.c_proj.weight.mul_(1 + i)
            block.attn.c_attn.weight.mul_(0.9**i)
            block.mlp.c_fc.weight.mul_(0.9**i)
    claims = named(weight_findings(model))["weight_norms"].claims
    assert [claim.agrees for claim in claims] == [True, True]


def test_what_does_not_fit_is_said_in_a_line() -> None:
    model = model_of("gpt2")
    with pytest.raises(HeadlessError, match="does not read hidden states of width 24"):
        weight_findings(model, head=torch.randn(V, D + 1))
    with pytest.raises(HeadlessError, match="has other matrices"):
        weight_findings(model, initial=model_of("gpt2", depth=2))
