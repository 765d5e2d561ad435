"""A backbone of the user's own: a recurrent net, and an attention that looks ahead."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headless.errors import HeadlessError
from headless.models.backbone import (
    BackboneConfig,
    build_backbone,
    check_task,
    is_causal,
    unfilled_weights,
)
from headless.models.custom import CustomBackbone


class Recurrent(nn.Module):
    """GRUs over embeddings, which give the states of every layer."""

    def __init__(self, vocab_size: int, width: int = 16, layers: int = 2, rows: int = 0) -> None:
        super().__init__()
        self.table = nn.Embedding(rows or vocab_size, width)
        self.layers = nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(layers))

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def forward(self, input_ids: Tensor) -> Any:
        states = [self.table(input_ids)]
        for layer in self.layers:
            states.append(states[-1] + layer(states[-1])[0])
        return SimpleNamespace(last_hidden_state=states[-1], hidden_states=tuple(states))


class LooksAhead(Recurrent):
    def forward(self, input_ids: Tensor) -> Tensor:
        return super().forward(input_ids.flip(1)).last_hidden_state.flip(1)  # type: ignore[no-any-return]


def own(kind: type = Recurrent, **extra: Any) -> BackboneConfig:
    return BackboneConfig(custom=f"{__name__}.{kind.__name__}", extra=extra)


def test_it_has_what_a_family_has() -> None:
    backbone: Any = build_backbone(own(width=8, layers=3), 50)
    ids = torch.randint(0, 50, (2, 5))
    output = backbone(input_ids=ids, use_cache=False)
    assert output.last_hidden_state.shape == (2, 5, 8)
    assert len(output.hidden_states) == 4 == backbone.config.num_hidden_layers + 1
    assert backbone.config.hidden_size == 8
    assert backbone.training


@pytest.mark.parametrize("filled", [True, False])
def test_what_it_sees_is_tried_out(filled: bool) -> None:
    state = torch.get_rng_state()
    for kind, causal in ((Recurrent, True), (LooksAhead, False)):
        module = kind(50)
        if not filled:
            with unfilled_weights(), torch.no_grad():
                for parameter in module.parameters():
                    parameter.fill_(float("nan"))
        torch.set_rng_state(state)
        backbone: Any = CustomBackbone(module, 50, is_filled=filled)
        assert torch.equal(torch.get_rng_state(), state)
        assert is_causal(backbone) is causal
        check_task(backbone, "causal" if causal else "masked")
        with pytest.raises(HeadlessError, match="custom sees"):
            check_task(backbone, "masked" if causal else "causal")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (own(rows=7), "has 7 rows, the data 50 tokens"),
        (own(depth=3), "needs vocab_size among its arguments"),
        (BackboneConfig(custom="nowhere.Net"), "give --import nowhere"),
        (BackboneConfig(custom=f"{__name__}.Absent"), "is no class of an imported module"),
        (
            BackboneConfig(custom=f"{__name__}.Recurrent", activation_checkpointing=True),
            "checkpoint",
        ),
    ],
)
def test_what_cannot_be_used_is_named(config: BackboneConfig, message: str) -> None:
    with pytest.raises(HeadlessError, match=message):
        build_backbone(config, 50)
    assert "nowhere" not in sys.modules


def test_a_family_beside_it_is_refused() -> None:
    with pytest.raises(HeadlessError, match=r"leave out model\.backbone\.hidden_size"):
        BackboneConfig(custom="own.Net", hidden_size=8)
