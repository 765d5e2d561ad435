"""Muon on matrices that hold several maps, against torch's Muon on each map alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, build_backbone
from headless.objectives import CrossEntropy
from headless.training.optim import OptimizerConfig, ScheduleConfig, build_optimizer
from headless.training.optim.muon import Cut, cut_of

D, HEADS, V = 16, 2, 30


def model(family: str) -> nn.ModuleDict:
    config = BackboneConfig(
        model_type=family,
        hidden_size=D,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        intermediate_size=None if family == "gpt2" else 24,
        max_position_embeddings=8,
    )
    objective = CrossEntropy(unigram_bias="initial")
    objective.setup(V, D, 0.02)
    return nn.ModuleDict({"backbone": build_backbone(config, V), "objective": objective})


def maps(name: str, weight: Tensor) -> list[Tensor] | None:
    """The maps [outputs, inputs] that a parameter holds, sliced by hand; None: AdamW's."""
    if weight.ndim < 2 or "emb" in name or "wte" in name or "wpe" in name or "weight_VD" in name:
        return None
    if "c_attn" in name:  # inputs in rows
        return [weight[:, :D].T, weight[:, D : 2 * D].T, weight[:, 2 * D :].T]
    if "query_key_value" in name:
        size = D // HEADS
        starts = [h * 3 * size for h in range(HEADS)]
        return [
            torch.cat([weight[s + k * size : s + (k + 1) * size] for s in starts]) for k in range(3)
        ]
    if "Wqkv" in name:
        return [weight[:D], weight[D : 2 * D], weight[2 * D :]]
    if "Wi" in name:
        return [weight[:24], weight[24:]]
    return [weight.T] if name.split(".")[-2] in ("c_proj", "c_fc") else [weight]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "modernbert"])
@pytest.mark.parametrize("scaling", ["match_rms_adamw", "original"])
def test_each_map_is_orthogonalised_by_itself(family: str, scaling: str) -> None:
    module = model(family)
    config = OptimizerConfig(
        class_path="Muon", lr=0.02, weight_decay=0.1, init_args={"adjust_lr_fn": scaling}
    )
    optimizer, _ = build_optimizer(module, config, ScheduleConfig("constant"), 10)
    pieces: dict[str, list[nn.Parameter]] = {}
    others = {}
    for name, parameter in module.named_parameters():
        found = maps(name, parameter.detach())
        if found is None:
            others[name] = nn.Parameter(parameter.detach().clone())
        else:
            pieces[name] = [nn.Parameter(x.clone()) for x in found]
    assert len(pieces) >= 4
    muon = torch.optim.Muon(
        [p for parts in pieces.values() for p in parts], 0.02, 0.1, adjust_lr_fn=scaling
    )
    adamw = torch.optim.AdamW(others.values(), 0.02, (0.9, 0.95), weight_decay=0.0)
    for _ in range(3):
        for name, parameter in module.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            if name in others:
                others[name].grad = parameter.grad.clone()
            else:
                for part, gradient in zip(pieces[name], maps(name, parameter.grad), strict=True):
                    part.grad = gradient.clone()
        for one in (optimizer, muon, adamw):
            one.step()
    for name, parameter in module.named_parameters():
        if name in others:
            torch.testing.assert_close(parameter.data, others[name].data, msg=name)
        else:  # a step is lr large; its direction is of bfloat16
            for ours, theirs in zip(maps(name, parameter.data), pieces[name], strict=True):
                torch.testing.assert_close(ours, theirs.data, rtol=0, atol=1e-3, msg=name)


def test_maps_need_not_be_in_one_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    for stack in (2**24, 2 * D * D, 1):
        monkeypatch.setattr("headless.training.optim.muon.STACK", stack)
        torch.manual_seed(2)
        module = model("gpt_neox")
        config, schedule = OptimizerConfig("Muon", lr=0.1), ScheduleConfig("constant")
        optimizer, _ = build_optimizer(module, config, schedule, 10)
        for parameter in module.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        moved.append(list(module.parameters()))
    for parameters in zip(*moved, strict=True):
        assert all(torch.equal(parameters[0], other) for other in parameters[1:])


def test_its_groups_have_their_own_rates() -> None:
    config = OptimizerConfig("Muon", lr=0.02, table_lr=3.0, head_lr=0.5, vector_lr=2.0)
    optimizer, schedule = build_optimizer(model("gpt2"), config, ScheduleConfig("linear"), 11)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.02, 0.06, 0.01, 0.04])
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0, 0, 0]
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(
        [0.55 * x for x in (0.02, 0.06, 0.01, 0.04)]
    )


def test_its_state_goes_on() -> None:
    """One state dict of plain values holds all of both."""

    def trained(steps: int, state: Any = None) -> tuple[nn.Module, Any, list[Tensor]]:
        torch.manual_seed(5)
        module = model("gpt_neox")
        optimizer, _ = build_optimizer(
            module, OptimizerConfig("Muon"), ScheduleConfig("constant"), 10
        )
        if state is not None:
            module.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
        for step in range(0 if state is None else 3, steps):
            torch.manual_seed(step)
            for parameter in module.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        return module, optimizer, [p.detach().clone() for p in module.parameters()]

    module, optimizer, _ = trained(3)
    state = module.state_dict(), optimizer.state_dict()
    assert len(state[1]["state"]) == len(list(module.parameters()))
    again, whole = trained(6, state)[2], trained(6)[2]
    assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))


def test_what_muon_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = ScheduleConfig()
    module = model("gpt2")
    config = OptimizerConfig("Muon", init_args={"momentun": 0.9})
    with pytest.raises(HeadlessError, match="momentun"):
        build_optimizer(module, config, schedule, 10)
    with pytest.raises(HeadlessError, match=r"write model\.optimizer\.lr"):
        OptimizerConfig("Muon", init_args={"lr": 0.9})
    with pytest.raises(HeadlessError, match="no matrix"):
        build_optimizer(nn.LayerNorm(3), OptimizerConfig("Muon"), schedule, 10)
    monkeypatch.setattr(torch.Tensor, "to_local", None, raising=False)
    with pytest.raises(HeadlessError, match="choose ddp"):
        build_optimizer(module, OptimizerConfig("Muon"), schedule, 10)
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(HeadlessError, match="has no Muon"):
        build_optimizer(module, OptimizerConfig("Muon"), schedule, 10)


def test_keys_and_values_of_fewer_heads_leave_a_fused_layer_one_map() -> None:
    fused = nn.Linear(64, 64 + 2 * 16, bias=False)  # multi-query: one head of 16 for each
    for name in ("c_attn", "query_key_value", "Wqkv"):
        assert cut_of(fused, name, 4) == Cut()
    assert cut_of(nn.Linear(64, 192), "query_key_value", 4) == Cut(maps=3, heads=4)
