"""Parameter groups and schedules."""

import math
import shlex
from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, build_backbone, embedding_table
from headless.objectives import CrossEntropy
from headless.training.assembly import build
from headless.training.optim import (
    OptimizerConfig,
    ScheduleConfig,
    ScheduleFactor,
    build_optimizer,
    parameter_groups,
    roles,
)
from headless.training.step import gradient_norm


def model(family: str) -> torch.nn.Module:
    extra = {"num_key_value_heads": 2} if family == "llama" else {}
    config = BackboneConfig(
        model_type=family,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
        extra=extra,
    )
    objective = CrossEntropy()
    objective.setup(30, 16, 0.02)
    backbone = build_backbone(config, 30, eos_token_id=0, bos_token_id=0)
    return torch.nn.ModuleDict({"backbone": backbone, "objective": objective})


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
@pytest.mark.parametrize("decay_embeddings", [False, True])
def test_each_parameter_is_in_the_right_group(family: str, decay_embeddings: bool) -> None:
    module = model(family)
    groups = parameter_groups(roles(module), OptimizerConfig(decay_embeddings=decay_embeddings))
    placed = [id(p) for group in groups for p in group["params"]]
    assert sorted(placed) == sorted(id(p) for p in module.parameters())
    decaying = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in module.named_parameters():
        table = parameter is embedding_table(module["backbone"]) or name in (
            "objective.weight_VD",
            "backbone.wpe.weight",
        )
        expected = parameter.ndim == 2 and (decay_embeddings or not table)
        assert (id(parameter) in decaying) == expected, name


def test_groups_of_equal_rates_are_one() -> None:
    """As before there were rates by group: a checkpoint's states are numbered by group."""
    found = roles(model("gpt2"))
    groups = parameter_groups(found, OptimizerConfig(lr=0.1, head_lr=0.5, vector_lr=0.5))
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(0.1, 0.1), (0.1, 0.0), (0.05, 0.0)]
    plain = parameter_groups(found, OptimizerConfig())
    assert [p.ndim for p in plain[0]["params"]] == [2] * len(plain[0]["params"])
    rest = [p for p in found if found[p] != "matrix"]
    assert all(a is b for a, b in zip(plain[1]["params"], rest, strict=True))


class Own(torch.optim.SGD):
    """A user's."""


SPEC = '{"class_path": "Muon", "init_args": {"momentum": 0.8}}'


@pytest.mark.parametrize(
    ("words", "kind", "momentum", "rates"),
    [
        ("--model.optimizer.class_path=Muon", "Muon", 0.95, [2, 2]),
        ("--model.optimizer=Muon --model.optimizer.table_lr=3", "Muon", 0.95, [2, 6, 2]),
        (f"--model.optimizer '{SPEC}'", "Muon", 0.8, [2, 2]),
        (f"--config 'model: {{optimizer: {SPEC}}}'", "Muon", 0.8, [2, 2]),
        (
            f"--model.optimizer={__name__}.Own --model.optimizer.init_args.momentum=0.7",
            *("Own", 0.7, [2, 2]),
        ),
        ("--model.optimizer.class_path=torch.optim.SGD", "SGD", 0, [2, 2]),
        ("--model.optimizer.vector_lr=0.5", "AdamW", None, [2, 2, 1]),
        ("", "AdamW", None, [2, 2]),
    ],
)
def test_a_config_names_it(
    run_arguments: Callable[..., list[str]], words: str, kind: str, momentum: Any, rates: Any
) -> None:
    cli = build([*run_arguments("x", *shlex.split(words)), "--model.optimizer.lr=2"])
    optimizer, _ = build_optimizer(
        cli.model, cli.model.optimizer_config, ScheduleConfig("constant"), 10
    )
    assert type(optimizer).__name__ == kind
    assert optimizer.param_groups[0].get("momentum") == momentum
    assert [group["lr"] for group in optimizer.param_groups] == rates
    written = yaml.safe_load(cli.parser.dump(cli.config, skip_check=True))
    assert written["model"]["optimizer"]["lr"] == 2.0


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("Moun", "did you mean 'Muon'"),
        ("somewhere.Else", "--import somewhere"),
        ("torch.optim.lr_scheduler", "is no torch"),
        ("os.system", "is no torch"),
    ],
)
def test_what_is_no_optimizer_is_refused(name: str, match: str) -> None:
    with pytest.raises(HeadlessError, match=match):
        build_optimizer(torch.nn.Linear(2, 2), OptimizerConfig(name), ScheduleConfig(), 10)


def factors(total: int, **options: object) -> list[float]:
    factor = ScheduleFactor(ScheduleConfig(**options), total)  # type: ignore[arg-type]
    return [factor(step) for step in range(total)]


def test_cosine_against_the_formula() -> None:
    values = factors(100, name="cosine", warmup_steps=10, floor=0.1)
    assert values[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert values[10:] == pytest.approx(
        [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * i / 89)) for i in range(90)]
    )
    assert values[10] == 1.0
    assert values[-1] == pytest.approx(0.1)


def test_wsd_is_stable_and_then_falls() -> None:
    values = factors(100, name="wsd", warmup_steps=5, floor=0.0, decay_fraction=0.2)
    assert values[5:81] == [1.0] * 76
    assert values[80:] == pytest.approx([1 - i / 19 for i in range(20)])


def test_constant_without_a_last_step() -> None:
    factor = ScheduleFactor(ScheduleConfig(name="cosine", warmup_steps=2), math.inf)
    assert factor(10**6) == 1.0


@given(
    st.sampled_from(["cosine", "linear", "wsd", "constant"]),
    st.integers(0, 50),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 80),
)
def test_every_schedule_stays_between_floor_and_peak(name, warmup, floor, decay, total) -> None:
    values = factors(total, name=name, warmup_steps=warmup, floor=floor, decay_fraction=decay)
    assert all(0 < value <= 1 or value == floor == 0 for value in values)
    after = values[warmup:]
    assert all(a >= b - 1e-12 for a, b in zip(after, after[1:], strict=False))
    assert all(value >= floor - 1e-12 for value in after)


def test_the_first_update_uses_the_first_factor() -> None:
    module = torch.nn.Linear(2, 2)
    optimizer, schedule = build_optimizer(
        module, OptimizerConfig(lr=1.0), ScheduleConfig(warmup_steps=3), 10
    )
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_gradient_norm() -> None:
    module = torch.nn.Linear(3, 2)
    module.weight.grad = torch.full((2, 3), 2.0)
    module.bias.grad = torch.full((2,), 5.0)
    assert gradient_norm(module.parameters()).item() == pytest.approx(math.sqrt(6 * 4 + 2 * 25))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: OptimizerConfig(lr=0), "lr"),
        (lambda: OptimizerConfig(weight_decay=-1), "weight_decay"),
        (lambda: ScheduleConfig(name="cosin"), "cosine"),  # type: ignore[arg-type]
        (lambda: ScheduleConfig(floor=2), "floor"),
        (lambda: ScheduleConfig(warmup_steps=-1), "warmup_steps"),
    ],
)
def test_bad_settings_are_named(make, match: str) -> None:
    with pytest.raises(HeadlessError, match=match):
        make()
