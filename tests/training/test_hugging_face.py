"""Every head of every family as a Hugging Face model: the same logits, through files."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from headless.models.backbone import BackboneConfig, build_backbone, is_causal
from headless.objectives import ContrastiveWeightTying, CrossEntropy, LMHead, Objective
from headless.training.hugging_face import Converted, to_hugging_face, transform_names

V, D = 83, 16
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt_neox": {},
    "llama": {"intermediate_size": 32},
    "bert": {"intermediate_size": 32},
    "distilbert": {"intermediate_size": 32},
}
MORE: dict[str, dict[str, Any]] = {
    "mistral": {"intermediate_size": 32, "extra": {"num_key_value_heads": 2}},
    "qwen2": {"intermediate_size": 32, "extra": {"num_key_value_heads": 2}},
    "gemma2": {"intermediate_size": 32, "extra": {"num_key_value_heads": 2, "head_dim": 8}},
    "gemma": {"intermediate_size": 32, "extra": {"num_key_value_heads": 2, "head_dim": 8}},
}
OBJECTIVES: dict[str, Objective] = {
    "untied": CrossEntropy(),
    "tied": CrossEntropy(tied=True),
    "transform": CrossEntropy(tied=True, transform="mlm"),
    "fixed bias": CrossEntropy(tied=True, unigram_bias="fixed"),
    "calibrated": ContrastiveWeightTying(temperature=0.7),
    "calibrated untied": ContrastiveWeightTying(tied=False),
    "mask": ContrastiveWeightTying(duplicates="mask"),
    "capped": CrossEntropy(temperature=0.7, softcap=2.0, unigram_bias="initial"),
    "cosine": ContrastiveWeightTying(normalize=True, temperature=0.1),
}


def backbone_of(family: str) -> Any:
    torch.manual_seed(1)
    sizes = {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes["max_position_embeddings"] = 32
    config = BackboneConfig(model_type=family, **sizes, **(FAMILIES | MORE)[family])
    backbone: Any = build_backbone(config, V)
    with torch.no_grad():  # trained norms have gains of all sizes and signs
        for module in backbone.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.copy_(torch.randn(D).mul(0.4).add(1.0))
                module.bias.copy_(torch.randn(D) * 0.3)
    return backbone.eval()


def head_of(objective: Objective, backbone: Any) -> LMHead:
    counts_V = torch.randint(0, 5000, (V,))
    objective.setup(V, backbone.config.hidden_size, 0.3)
    objective.set_unigram(counts_V)
    if isinstance(objective, ContrastiveWeightTying):
        objective.num_rows.fill_(256)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return objective.lm_head(backbone.get_input_embeddings().weight, counts_V)


def log_probabilities(logits: Tensor) -> Tensor:
    return logits.double().log_softmax(-1)


def reload(converted: Converted, directory: Path) -> Any:
    """Through files, as `export` writes them."""
    from headless.downstream.export import CODE, _code

    model: Any = converted.model
    causal = is_causal(model)
    auto = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    if converted.form == "custom":
        name = type(model).__name__
        model.config.auto_map = {auto.__name__: f"{CODE[:-3]}.{name}"}
    model.save_pretrained(directory)
    if converted.form == "custom":
        (directory / CODE).write_text(_code(type(model)))
    return auto.from_pretrained(directory, trust_remote_code=converted.form == "custom").eval()


def expected_form(family: str, name: str) -> str:
    if family in ("bert", "distilbert"):
        if name in ("mask", "cosine", "capped"):
            return "custom"
        return "native" if name == "transform" else "folded"
    if name in ("untied", "tied"):
        return "native"
    folds = family != "llama" and name in ("fixed bias", "calibrated", "calibrated untied")
    return "folded" if folds else "custom"


CASES = [
    (family, name)
    for family in FAMILIES
    for name in OBJECTIVES
    # a decoder has no masked-LM transform
    if name != "transform" or family in ("bert", "distilbert")
]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_logits_are_the_same_through_files(family: str, name: str, tmp_path: Path) -> None:
    backbone = backbone_of(family)
    head = head_of(OBJECTIVES[name], backbone)
    converted = to_hugging_face(backbone, head, embedding_VD=backbone.get_input_embeddings().weight)
    assert converted.form == expected_form(family, name)
    model = reload(converted, tmp_path)
    ids_BT = torch.randint(0, V, (3, 9))
    with torch.no_grad():
        wanted = log_probabilities(head.logits(backbone(input_ids=ids_BT).last_hidden_state))
        found = log_probabilities(model(input_ids=ids_BT).logits)
        assert float((found - wanted).abs().max() / wanted.abs().max()) <= 1e-4
        bare = AutoModel.from_pretrained(tmp_path).eval()(input_ids=ids_BT).last_hidden_state
        if converted.form != "folded" or not is_causal(backbone):
            torch.testing.assert_close(bare, backbone(input_ids=ids_BT).last_hidden_state)
        labels = torch.randint(0, V, (3, 9))
        loss = model(input_ids=ids_BT, labels=labels).loss
    rows = found[:, :-1].flatten(0, 1) if is_causal(backbone) else found.flatten(0, 1)
    targets = labels[:, 1:].flatten() if is_causal(backbone) else labels.flatten()
    torch.testing.assert_close(loss.double(), F.nll_loss(rows, targets), rtol=1e-4, atol=1e-4)


TODAY = ["qwen3", "olmo2", "smollm3", "gemma3", "nanochat", "phi", "modernbert", "ettin"]


@pytest.mark.parametrize("family", TODAY)
@pytest.mark.parametrize("name", ["tied", "untied", "calibrated"])
def test_todays_families_keep_their_logits(family: str, name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    backbone: Any = build_backbone(BackboneConfig(f"{family}-1m", num_hidden_layers=2), V).eval()
    objective = copy.deepcopy(OBJECTIVES[name])
    head = head_of(objective, backbone)
    converted = to_hugging_face(backbone, head, embedding_VD=backbone.get_input_embeddings().weight)
    native = family == "phi" or (name != "calibrated" and family not in ("modernbert", "ettin"))
    assert converted.form == ("native" if native else "custom")
    model = reload(converted, tmp_path)
    ids_BT = torch.randint(0, V, (3, 9))
    with torch.no_grad():
        wanted = log_probabilities(head.logits(backbone(input_ids=ids_BT).last_hidden_state))
        found = log_probabilities(model(input_ids=ids_BT).logits)
    assert float((found - wanted).abs().max() / wanted.abs().max()) <= 1e-4


@pytest.mark.parametrize("name", ["calibrated", "mask"])
def test_a_loaded_model_generates(name: str, tmp_path: Path) -> None:
    backbone = backbone_of("llama")
    head = head_of(OBJECTIVES[name], backbone)
    table = backbone.get_input_embeddings().weight
    model = reload(to_hugging_face(backbone, head, embedding_VD=table), tmp_path)
    ids = torch.tensor([[5, 7, 11]])
    found = model.generate(input_ids=ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    wanted = ids
    with torch.no_grad():
        for _ in range(8):
            logits = head.logits(backbone(input_ids=wanted).last_hidden_state[:, -1])
            wanted = torch.cat([wanted, logits.argmax(-1, keepdim=True)], dim=1)
    assert found.tolist() == wanted.tolist()


def test_a_tied_head_stays_tied() -> None:
    backbone = backbone_of("gpt2")
    head = head_of(OBJECTIVES["tied"], backbone)
    model: Any = to_hugging_face(
        backbone, head, embedding_VD=backbone.get_input_embeddings().weight
    ).model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.tie_word_embeddings is True


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("bias", ["none", "initial"])
def test_a_family_that_caps_caps_as_the_run_did(softcap: float | None, bias: Any) -> None:
    backbone = backbone_of("gemma2")
    backbone.config.final_logit_softcapping = 30.0  # as that of a trained model of the family
    head = head_of(CrossEntropy(softcap=softcap, unigram_bias=bias), backbone)
    table = backbone.get_input_embeddings().weight
    converted = to_hugging_face(backbone, head, embedding_VD=table)
    assert converted.form == ("native" if bias == "none" else "custom")
    assert converted.error <= 1e-5
    capped = converted.model.config.final_logit_softcapping
    assert capped == (softcap if bias == "none" else None)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_the_folded_head_in_bf16_is_as_good_as_a_plain_one(family: str) -> None:
    backbone = backbone_of(family)
    table = backbone.get_input_embeddings().weight
    weight_VD = torch.randn(V, D)  # logits as large as a trained model's
    bias_V = torch.rand(V).clamp(min=1e-4).log()
    ids_BT = torch.randint(0, V, (8, 16))
    errors = {}
    heads = {"folded": LMHead(weight_VD, bias_V), "plain": LMHead(weight_VD, None)}
    for name, head in heads.items():
        model: Any = to_hugging_face(backbone, head, embedding_VD=table).model
        with torch.no_grad():
            wanted = log_probabilities(head.logits(backbone(input_ids=ids_BT).last_hidden_state))
            found = log_probabilities(model.bfloat16()(input_ids=ids_BT).logits)
        errors[name] = float((found - wanted).abs().mean() / wanted.abs().mean())
    assert errors["folded"] <= 4 * errors["plain"], errors


@settings(deadline=None, max_examples=40)
@example(seed=21, gain=1.4112521, spread=0.68346761, shift=-1.6502127, bias=8.56966920)
@given(
    seed=st.integers(0, 10_000),
    gain=st.floats(0.05, 20.0),
    spread=st.floats(0.0, 0.8),
    shift=st.floats(-3.0, 3.0),
    bias=st.floats(0.0, 12.0),
)
def test_a_bias_folds_into_any_layer_norm(
    seed: int, gain: float, spread: float, shift: float, bias: float
) -> None:
    backbone = backbone_of("gpt_neox")
    torch.manual_seed(seed)
    with torch.no_grad():
        norm = backbone.final_layer_norm
        norm.weight.copy_(gain * (1 + spread * (2 * torch.rand(D) - 1)))
        norm.bias.copy_(shift * torch.randn(D))
    head = LMHead(torch.randn(V, D) * 0.3, torch.randn(V) * bias)
    converted = to_hugging_face(backbone, head, embedding_VD=backbone.get_input_embeddings().weight)
    assert converted.form == "folded"
    assert converted.error <= 1e-5


def test_a_norm_that_cannot_take_it_gets_a_file_of_its_own() -> None:
    backbone = backbone_of("gpt2")
    with torch.no_grad():
        backbone.ln_f.weight[3] = 0.0  # 1/γ is infinite
    head = head_of(OBJECTIVES["calibrated"], backbone)
    table = backbone.get_input_embeddings().weight
    assert to_hugging_face(backbone, head, embedding_VD=table).form == "custom"
    assert to_hugging_face(backbone, head, embedding_VD=table).error <= 1e-5


PLAIN = [*FAMILIES, *MORE]
PLAIN_CASES = [
    (family, name)
    for family in PLAIN
    for name in ("untied", "tied", "calibrated", "calibrated untied", "mask", "at one")
]


@pytest.mark.parametrize(("family", "name"), PLAIN_CASES)
def test_the_familys_own_class_has_the_bare_head_or_a_better_one(
    family: str, name: str, tmp_path: Path
) -> None:
    """Without our file: states times the head's matrix, and its bias where it has a place."""
    backbone = backbone_of(family)
    objective = ContrastiveWeightTying() if name == "at one" else OBJECTIVES[name]
    head = head_of(objective, backbone)
    table = backbone.get_input_embeddings().weight
    converted = to_hugging_face(backbone, head, embedding_VD=table)
    reload(converted, tmp_path)
    auto = AutoModelForCausalLM if is_causal(backbone) else AutoModelForMaskedLM
    model, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    ids_BT = torch.randint(0, V, (3, 9))
    with torch.no_grad():
        hidden_BTD = backbone(input_ids=ids_BT).last_hidden_state
        found = log_probabilities(model.eval()(input_ids=ids_BT).logits)
        bias_V = None if converted.form == "custom" and is_causal(backbone) else head.bias_V
        wanted = log_probabilities(LMHead(head.weight_VD, bias_V).logits(hidden_BTD))
    assert float((found - wanted).abs().max() / wanted.abs().max()) <= 1e-4
    if name == "at one":  # the matrix is the table: it is there once
        assert head.weight_VD.equal(table)
        wanted = log_probabilities(
            hidden_BTD @ table.detach().T + (0 if bias_V is None else bias_V)
        )
        assert float((found - wanted).abs().max() / wanted.abs().max()) <= 1e-4
        folded = converted.form == "folded" and is_causal(backbone)
        assert model.config.tie_word_embeddings is not folded


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_transform_that_does_nothing_in_bf16(family: str) -> None:
    backbone = backbone_of(family)
    table = backbone.get_input_embeddings().weight
    head = LMHead(torch.randn(V, D), torch.randn(V))
    model: Any = to_hugging_face(backbone, head, embedding_VD=table).model
    ids_BT = torch.randint(0, V, (8, 16))
    with torch.no_grad():
        wanted = log_probabilities(head.logits(backbone(input_ids=ids_BT).last_hidden_state))
        found = log_probabilities(model.bfloat16()(input_ids=ids_BT).logits)
        hidden_BTD = model.base_model(input_ids=ids_BT).last_hidden_state
        plain = log_probabilities(head.logits(hidden_BTD.float()))
    errors = [float((x - wanted).abs().mean()) for x in (found, plain)]
    assert errors[0] <= 4 * errors[1], errors


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_folded_head_is_trained_on_beside_its_transform(family: str) -> None:
    """As the same head in a class of its own; with the transform it would be lost in a step."""
    backbone = backbone_of(family)
    table = backbone.get_input_embeddings().weight
    head = LMHead(torch.randn(V, D), torch.randn(V))
    folded, custom = (
        to_hugging_face(backbone, head, embedding_VD=table, fold=fold) for fold in (True, False)
    )
    assert (folded.form, custom.form) == ("folded", "custom")
    ids_BT = torch.randint(0, V, (8, 16))
    labels_BT = custom.model(input_ids=ids_BT).logits.argmax(-1)  # what it knows

    def losses(model: Any, kept: list[str]) -> list[float]:
        model = copy.deepcopy(model)
        for name in kept:
            model.get_submodule(name).requires_grad_(False)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        found = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = model(input_ids=ids_BT, labels=labels_BT).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            found.append(loss.item())
        return found

    names = transform_names(folded.model)
    assert len(names) == 2
    assert losses(folded.model, names) == pytest.approx(losses(custom.model, []), rel=1e-2)
    assert losses(folded.model, [])[1] > losses(custom.model, [])[1] + 0.3


def test_our_own_commands_ask_for_the_file_that_completes_the_head(tmp_path: Path) -> None:
    from headless.errors import HeadlessError
    from headless.models.pretrained import load_pretrained

    backbone = backbone_of("llama")
    head = head_of(OBJECTIVES["calibrated"], backbone)
    table = backbone.get_input_embeddings().weight
    reload(to_hugging_face(backbone, head, embedding_VD=table), tmp_path)
    with pytest.raises(HeadlessError, match="--trust_remote_code true"):
        load_pretrained(str(tmp_path), AutoModelForCausalLM)
