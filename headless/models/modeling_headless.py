"""A Hugging Face model whose head the family's own class has no room for.

This file needs torch and transformers alone: `headless export` copies it into a model's directory
where the family's class cannot hold the head (a bias on logits that have none, a masked-LM head
without its transform, cosines), so that `from_pretrained(…, trust_remote_code=True)` loads it.
What the head is made of stands in the config's `headless_head`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput


class MaskedTransform(nn.Module):
    """What the BERT family does before the vocabulary: dense, GELU, LayerNorm."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=1e-12)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(hidden)))


class HeadlessHead(nn.Linear):
    """Hidden states [..., D] to logits [..., V], in at least float32.

    scores = transform(hidden) · weightᵀ, with a softcap c made c · tanh(scores / c), plus the bias.
    Where `own_excess` is, the model's distribution is proportional to r · (1 + own_excess · r) with
    r = softmax(scores). The matrix has the name that it has in the family's class, which loads it
    as its own head where this file is not trusted.
    """

    def __init__(self, config: Any) -> None:
        parts = config.headless_head
        super().__init__(config.hidden_size, config.vocab_size, bias=parts["bias"])
        self.transform = MaskedTransform(config.hidden_size) if parts["transform"] else None
        self.normalize = bool(parts["normalize"])
        self.softcap = parts.get("softcap")
        excess = torch.zeros(config.vocab_size) if parts["own_excess"] else None
        self.own_excess = None if excess is None else nn.Parameter(excess, requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        if self.transform is not None:
            hidden = self.transform(hidden)
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.to(dtype)
            if self.normalize:
                hidden = F.normalize(hidden, dim=-1)
            logits = F.linear(hidden, self.weight.to(dtype))
            if self.softcap is not None:
                logits = self.softcap * (logits / self.softcap).tanh()
            if self.bias is not None:
                logits = logits + self.bias.to(dtype)
            if self.own_excess is not None:
                logits = logits.log_softmax(dim=-1)
                logits = logits + (self.own_excess * logits.exp()).log1p()
        return logits


def causal_class(family: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """A family's model for generation with our head in the place of its own."""

    class HeadlessForCausalLM(family):  # type: ignore[misc,valid-type]
        _keys_to_ignore_on_load_missing: list[str] = []

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.set_output_embeddings(HeadlessHead(config))
            if isinstance(getattr(self, "decoder", None), HeadlessHead):
                self.lm_head = nn.Identity()  # a transform before it (ModernBERT's decoder)
            self.post_init()

    return HeadlessForCausalLM


def masked_class(family: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """A family's model for masked tokens with our head beside its own, which is not used here."""

    class HeadlessForMaskedLM(family):  # type: ignore[misc,valid-type]
        _keys_to_ignore_on_load_missing: list[str] = []

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.headless_head = HeadlessHead(config)
            self.post_init()

        def get_output_embeddings(self) -> nn.Module:
            return getattr(self, "headless_head", None) or super().get_output_embeddings()

        def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
            head: Any = self.headless_head
            new: Any = new_embeddings
            head.weight, head.bias, head.out_features = new.weight, new.bias, new.out_features

        def forward(
            self,
            input_ids: Tensor | None = None,
            attention_mask: Tensor | None = None,
            labels: Tensor | None = None,
            **kwargs: Any,
        ) -> MaskedLMOutput:
            """Logits of every position; the mean loss over those whose label is not -100."""
            kwargs["return_dict"] = True
            output = self.base_model(input_ids, attention_mask=attention_mask, **kwargs)
            logits = self.headless_head(output.last_hidden_state)
            loss = None
            if labels is not None:
                loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
            return MaskedLMOutput(
                loss=loss,
                logits=logits,
                hidden_states=output.hidden_states,
                attentions=output.attentions,
            )

    return HeadlessForMaskedLM
