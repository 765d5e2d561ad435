"""Tiny models whose stream is their embeddings, under a head that is planted."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from headless.analysis.session import Session, Subject

V, D, F = 300, 16, 160
ZIPF = (6000 / torch.arange(1, V + 1).double()).long()  # all tokens occur
ORDER = torch.randperm(V, generator=torch.Generator().manual_seed(0))


def model_of(family: str = "llama", vocab: int = V, width: int = D) -> Any:
    torch.manual_seed(0)
    if family == "gpt2":
        config: Any = GPT2Config(n_embd=width, n_layer=2, n_head=2, vocab_size=vocab,
                                 n_positions=64, tie_word_embeddings=False)  # fmt: skip
    else:
        config = LlamaConfig(hidden_size=width, num_hidden_layers=2, num_attention_heads=2,
                             intermediate_size=F, vocab_size=vocab, max_position_embeddings=64,
                             rms_norm_eps=1e-12, tie_word_embeddings=False)  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


@torch.no_grad()
def planted(embedding_VD: Tensor, head_VD: Tensor) -> Any:
    """A model whose blocks add nothing."""
    model = model_of(vocab=len(head_VD), width=head_VD.shape[1])
    for block in model.model.layers:
        block.self_attn.o_proj.weight.zero_()
        block.mlp.down_proj.weight.zero_()
    model.model.embed_tokens.weight.copy_(embedding_VD)
    model.lm_head.weight.copy_(head_VD)
    return model


def independent(sequences: int = 60, length: int = 34, counts_V: Tensor = ZIPF) -> Tensor:
    """Independent tokens with these frequencies."""
    draw = torch.Generator().manual_seed(1)
    drawn = torch.multinomial(counts_V.double(), sequences * length, True, generator=draw)
    return drawn.view(sequences, length)


def session(model: Any, ids_NT: Tensor, counts_V: Tensor | None = ZIPF, **more: Any) -> Session:
    tokens = more.pop("tokens", None)
    subject = Subject("planted", model, sequences_NT=ids_NT, counts_V=counts_V, tokens=tokens)
    return Session(subject, spread=False, **more)
