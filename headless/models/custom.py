"""A backbone of the user's own: any module that makes hidden states of token ids."""

import sys
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from headless.errors import HeadlessError

MODEL_TYPE = "custom"


class States(NamedTuple):
    """What a backbone gives back, under the names of Transformers."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]


class CustomBackbone(nn.Module):
    """The three members that everything here needs, over a module of somebody else's.

    The module is called as `module(input_ids)`, [B, T] of int64, and gives the last hidden states
    [B, T, D], or an object with `last_hidden_state` and, for what looks inside, `hidden_states`
    (L + 1 of them; else the embeddings and the last). `get_input_embeddings()` is its
    `nn.Embedding` [V, D]. Whether it is causal is tried out: a causal one says the same of a token
    whatever follows.
    """

    def __init__(self, module: nn.Module, vocab_size: int, *, is_filled: bool = True) -> None:
        super().__init__()
        self.module = module
        if not is_filled:  # what is tried out below needs numbers, which no random state may give
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.normal_(0, 0.02, generator=generator)
        table = self.get_input_embeddings().weight
        if table.shape[0] != vocab_size:
            raise HeadlessError(
                f"the embedding table of {type(module).__name__} has {table.shape[0]} rows, the "
                f"data {vocab_size} tokens: make it of the vocab_size that it is given"
            )
        with torch.no_grad():
            ids_BT = torch.arange(8, device=table.device).remainder(vocab_size)[None]
            states = self.eval()(ids_BT)
            other = self(torch.cat([ids_BT[:, :4], ids_BT[:, :4]], dim=1)).last_hidden_state
        last = states.last_hidden_state
        if last.shape != (1, 8, table.shape[1]):
            raise HeadlessError(
                f"the hidden states of {type(module).__name__} for ids of [1, 8] are "
                f"{list(last.shape)}, its embeddings {table.shape[1]} wide: expected "
                f"[1, 8, {table.shape[1]}]"
            )
        self.train()
        config: Any = PretrainedConfig()
        fields = dict(
            vocab_size=vocab_size,
            hidden_size=table.shape[1],
            num_hidden_layers=len(states.hidden_states) - 1,
            num_attention_heads=1,
            initializer_range=0.02,
            is_causal=torch.allclose(other[:, :4], last[:, :4], rtol=1e-4, atol=1e-6),
        )
        for name, value in {**fields, "model_type": MODEL_TYPE}.items():
            setattr(config, name, value)
        self.config = config

    @property
    def base_model(self) -> nn.Module:
        """Itself, as of a Transformers model without a head."""
        return self

    @property
    def device(self) -> torch.device:
        return self.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.get_input_embeddings().weight.dtype

    def get_input_embeddings(self) -> nn.Embedding:
        return self.module.get_input_embeddings()  # type: ignore[operator]

    def forward(self, input_ids: Tensor, **_: Any) -> States:
        states = self.module(input_ids)
        last = states if isinstance(states, Tensor) else states.last_hidden_state
        layers = getattr(states, "hidden_states", None)
        return States(last, layers or (self.get_input_embeddings()(input_ids), last))


def build_custom(
    name: str, vocab_size: int, arguments: dict[str, Any], *, is_filled: bool = True
) -> CustomBackbone:
    """The class of a dotted name, made as `Class(vocab_size=…, **arguments)`.

    Its module must be imported already, by the program or by --import: a name in a file imports
    nothing here.
    """
    module_name, _, class_name = name.rpartition(".")
    found = getattr(sys.modules.get(module_name), class_name, None)
    if found is None:
        raise HeadlessError(
            f"model.backbone.custom {name} is no class of an imported module: name it as "
            f"MODULE.CLASS and give --import {module_name or 'MODULE'}"
        )
    try:
        module = found(vocab_size=vocab_size, **arguments)
        return CustomBackbone(module, vocab_size, is_filled=is_filled)
    except HeadlessError:
        raise
    except Exception as error:
        raise HeadlessError(
            f"the backbone {name} cannot be used ({type(error).__name__}: {error}): it needs "
            "vocab_size among its arguments, get_input_embeddings() and a call with token ids"
        ) from error
