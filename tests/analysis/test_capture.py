"""Hooks on every family: the states are those that the model computes."""

from typing import Any

import pytest
import torch
from planted import identity_errors
from torch import Tensor, nn

from headless.analysis.laboratory import analyze, select
from headless.analysis.session import Session, Subject
from headless.analysis.states.capture import Point, capture, points_of
from headless.analysis.states.families import activation_of, block_matrices
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, build_backbone
from headless.models.custom import CustomBackbone

V, D, HEADS, DEPTH = 61, 16, 4, 3
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt_neox": {},
    "gpt_neox sequential": {"use_parallel_residual": False},
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "smollm3": {"num_key_value_heads": 2},
    "olmo2": {"num_key_value_heads": 2},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 4},
    "nanochat": {"num_key_value_heads": 2},
    "phi": {"num_key_value_heads": 2},
    "modernbert-decoder": {},
    "modernbert": {},
    "bert": {},
    "distilbert": {},
}


class Own(nn.Module):
    """A backbone that Transformers does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(V, D), nn.GRU(D, D, batch_first=True)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def forward(self, ids: Tensor) -> Tensor:
        return self.layer(self.table(ids))[0]  # type: ignore[no-any-return]


def model_of(family: str) -> Any:
    torch.manual_seed(2)
    backbone: Any = build_backbone(
        BackboneConfig(
            model_type=family.split(" ")[0],
            hidden_size=D,
            num_hidden_layers=DEPTH,
            num_attention_heads=HEADS,
            intermediate_size=40,
            max_position_embeddings=32,
            extra=FAMILIES[family],
        ),
        V,
    )
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone.eval()


def states_of(model: Any, ids: Tensor, **options: Any) -> dict[Point, Tensor]:
    states: dict[Point, Tensor] = {}

    def keep(point: Point, state: Tensor) -> None:
        assert point not in states, f"{point} came twice"
        states[point] = state.clone()

    with torch.no_grad(), capture(model, keep, **options):
        model(input_ids=ids)
    return states


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, V, (2, 11))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_residual_identities_hold(family: str, ids: Tensor) -> None:
    errors = identity_errors(model_of(family), ids)
    assert len(errors) == DEPTH
    assert max(errors.values()) < 2e-6
    if family in ("gpt2", "llama", "mistral", "qwen2", "olmo2", "gpt_neox sequential"):
        assert max(errors.values()) == 0  # added as the model adds


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_the_model(family: str, ids: Tensor) -> None:
    model = model_of(family)
    states = states_of(model, ids)
    assert list(states) == points_of(model)  # all of them, in the order of the computation
    with torch.no_grad():
        hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(states[Point("embed", -1)], hidden[0])
    for i in range(DEPTH - 1):
        torch.testing.assert_close(states[Point("post", i)], hidden[i + 1])
    last = Point("norm_f", DEPTH)
    final = states[last if last in states else Point("post", DEPTH - 1)]
    torch.testing.assert_close(final, hidden[-1])  # the last one is after the final norm


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_what_each_part_reads_and_writes(family: str, ids: Tensor) -> None:
    """Norms and parts called by themselves on the captured states."""
    model = model_of(family)
    states = states_of(model, ids)
    block = (model.h if family == "gpt2" else model.layers)[1]
    names = (
        ("ln_1", "ln_2") if family == "gpt2" else ("input_layernorm", "post_attention_layernorm")
    )
    norm1, norm2 = (getattr(block, name) for name in names)
    stream = states[Point("post", 0)]
    mid = stream if family == "gpt_neox" else states[Point("mid", 1)]
    with torch.no_grad():
        torch.testing.assert_close(norm1(stream), states[Point("norm1", 1)])
        torch.testing.assert_close(norm2(mid), states[Point("norm2", 1)])
        torch.testing.assert_close(block.mlp(norm2(mid)), states[Point("mlp", 1)])


def test_hooks_are_always_removed(ids: Tensor) -> None:
    model = model_of("gpt2")

    def count() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    before = count()

    def broken() -> None:
        with capture(model, lambda point, state: _stop()):
            assert count() > before
            model(input_ids=ids)

    with pytest.raises(RuntimeError, match="stop"):
        broken()
    assert count() == before
    with pytest.raises(HeadlessError, match="no mid/00"):
        states_of(model_of("gpt_neox"), ids, points=[Point("mid", 0)])


def _stop() -> None:
    raise RuntimeError("stop")


def test_only_what_is_asked_for(ids: Tensor) -> None:
    wanted = [Point("attn", 1), Point("embed", -1)]
    assert set(states_of(model_of("llama"), ids, points=wanted)) == set(wanted)


def test_a_model_with_a_head_and_a_compiled_one(ids: Tensor) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(model_of("llama").config).eval()
    assert states_of(model, ids).keys() == states_of(model.base_model, ids).keys()


def test_the_stream_of_a_family_that_nobody_described(ids: Tensor) -> None:
    """The same states as where its parts are known, from hooks on blocks and backbone alone."""
    model = model_of("llama")
    known = states_of(model, ids)
    model.config.model_type = "other"
    assert points_of(model) == [p for p in known if p.component in ("embed", "post", "norm_f")]
    for point, state in states_of(model, ids).items():
        torch.testing.assert_close(state, known[point])
    assert block_matrices(model) == []


def test_the_stream_of_a_backbone_of_ones_own(ids: Tensor) -> None:
    own = Own()
    states = states_of(CustomBackbone(own, V), ids)
    assert [point.name for point in states] == ["embed", "post/00"]
    torch.testing.assert_close(states[Point("embed", -1)], own.table(ids))
    torch.testing.assert_close(states[Point("post", 0)], own(ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_by_role_compute_what_the_block_computes(family: str, ids: Tensor) -> None:
    """Attention's output from the split matrices, in float64 and without the family's code, where
    nothing turns queries and keys: the values' path, and the MLP's, are linear in each matrix."""
    model = model_of(family)
    matrices = {(m.block, m.role): m.weight for m in block_matrices(model)}
    plain = ("gpt2", "gpt_neox", "bert", "distilbert", "phi", "nanochat")
    gated = family.split(" ")[0] not in plain
    roles = {"q", "k", "v", "o", "up", "down"} | ({"gate"} if gated else set())
    assert {role for _, role in matrices} == roles
    assert matrices[0, "q"].shape == matrices[0, "o"].shape == (D, D)
    assert matrices[0, "up"].shape == (40, D)
    assert matrices[0, "down"].shape == (D, 40)
    kept = D // HEADS * FAMILIES[family].get("num_key_value_heads", HEADS)
    assert matrices[0, "k"].shape == matrices[0, "v"].shape == (kept, D)


@pytest.mark.parametrize("family", ["llama", "modernbert", "modernbert-decoder", "nanochat"])
def test_the_mlp_from_its_matrices(family: str, ids: Tensor) -> None:
    """Also where gate and up are one matrix: which half is passed through the nonlinearity."""
    model = model_of(family)
    matrices = {(m.block, m.role): m.weight for m in block_matrices(model)}
    states = states_of(model, ids)
    x = states[Point("norm2", 1)]
    activation, gated = activation_of(model)
    with torch.no_grad():
        hidden = activation(x @ matrices[1, "gate" if gated else "up"].T)
        if gated:
            hidden = hidden * (x @ matrices[1, "up"].T)
        torch.testing.assert_close(hidden @ matrices[1, "down"].T, states[Point("mlp", 1)])


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_fused_matrices_are_split_as_the_family_does(family: str, ids: Tensor) -> None:
    """One position attends to itself alone: attention is then o(v(x)), whatever q and k are."""
    model = model_of(family)
    matrices = {(m.block, m.role): m.weight.double() for m in block_matrices(model)}
    states = states_of(model, ids[:, :1])
    block = (model.h if family == "gpt2" else model.layers)[0]
    attention = block.attn if family == "gpt2" else block.attention
    fused = attention.c_attn.bias if family == "gpt2" else attention.query_key_value.bias
    if family == "gpt2":
        bias = fused.chunk(3)[2]
    else:
        bias = fused.view(HEADS, 3, D // HEADS)[:, 2].reshape(D)
    out = attention.c_proj if family == "gpt2" else attention.dense
    x = states[Point("norm1", 0)].double()
    value = x @ matrices[0, "v"].T + bias.double()
    wanted = value @ matrices[0, "o"].T + out.bias.double()
    torch.testing.assert_close(states[Point("attn", 0)].double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "family", ["olmo2", "gemma3_text", "nanochat", "modernbert", "gpt_neo", "own"]
)
def test_every_analysis_runs_or_says_why_not(family: str) -> None:
    """Of families without a norm before a part or a gain, undescribed ones, and one's own."""
    if family == "own":
        model: Any = CustomBackbone(Own(), V)
    else:
        sizes = {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2}
        positions = {"max_position_embeddings": 64}
        model = build_backbone(BackboneConfig(model_type=family, **sizes, **positions), V).eval()
    counts_V = torch.randint(1, 100, (V,))
    subject = Subject("x", model, torch.randint(0, V, (8, 16)), counts_V, has_head=False)
    session = Session(subject, preset="cheap")
    findings, left_out = analyze(session, select(preset="cheap"))
    known = {finding.name for finding in findings}
    assert {"anisotropy", "norms", "covariance_spectra"} <= known
    for finding in findings:
        for picture in finding.pictures:
            picture.draw()
    assert ("weights" in left_out) == (family in ("gpt_neo", "own"))
