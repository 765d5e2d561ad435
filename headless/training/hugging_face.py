"""A run's backbone and head as a Hugging Face model, whose logits are the same.

Four ways, the plainest that is exact:

* the family's own class, where the head is a matrix (and a bias that the class has, or the BERT
  family's transform);
* the family's own class with a bias folded into its weights, where a LayerNorm ends the backbone
  (GPT-2, GPT-NeoX): its normalised vectors z sum to zero, so that for y = γ∘z + β and a = 1/γ the
  number aᵀy = Σ β/γ is a constant. With the norm's bias shifted by δ = ±γ/2, away from zero, it is
  s = Σ β'/γ with |s| at least D/2, and W' = W + (b - W·δ)·aᵀ/s gives W'(y + δ) = W·y + b for every
  y;
* the BERT family's own class, whose transform (dense, GELU, LayerNorm) is made to do nothing: the
  last LayerNorm of the backbone gave y = γ∘z + β with z of mean 0 and variance 1, the dense layer
  makes s·z of it for a small s, GELU(s·z) is s·z/2 but for a relative 0.8·s·z, and a LayerNorm
  with gain γ and bias β gives y again;
* the family's class with our head (headless/models/modeling_headless.py) for everything else:
  RMSNorm families, cosines, a soft-cap, the head of `duplicates="mask"`. The family's own class
  then finds the head without what it has no place for: the matrix alone, or what else can be
  folded.

Shapes: D hidden size, V vocabulary.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
)

from headless.errors import HeadlessError
from headless.models.backbone import is_causal, is_custom
from headless.models.modeling_headless import HeadlessHead, causal_class, masked_class
from headless.objectives import LMHead
from headless.objectives.cross_entropy import MaskedHeadTransform
from headless.training.module import PretrainingModule

HeadName = Literal["auto", "calibrated", "tied", "trained"]
Form = Literal["native", "folded", "custom"]
PROBE_TOKENS = 16  # of the sequence on which two models are compared
SMALL = 2.0**-16  # s above: the smaller the more exact; float16 ends at 2**-24
SOFTCAP = "final_logit_softcapping"  # in the configs of families that have one
FOLDED = "headless_folded_norm"  # in a config: whose bias was moved by half of its gain
TOLERANCE = 1e-4  # largest difference of logits, relative to the largest logit, in float32


class Converted(NamedTuple):
    """A Hugging Face model, and how its head came to be."""

    model: PreTrainedModel  # in evaluation mode, float32
    form: Form  # "custom" needs trust_remote_code
    error: float  # largest difference of its logits from the run's, relative to the largest logit


def choose_head(module: PretrainingModule, head: HeadName) -> tuple[str, LMHead]:
    """The LM head of a run, and the name of its kind.

    Args:
        head: "trained" is a cross-entropy head, "calibrated" the one that completes a contrastive
            objective with the unigram distribution, "tied" the input embeddings alone (what a
            reader who reuses the weights in the usual way sees), "auto" the first of the first two
            that the run has.
    """
    implied = module.lm_head()
    kind = "calibrated" if implied.is_calibrated else "trained"
    if head in ("auto", kind):
        return kind, implied
    if head == "tied":
        transform = implied.transform if implied.is_calibrated else None
        weight_VD = implied.weight_VD if implied.is_calibrated else module.embedding_VD
        return "tied", LMHead(weight_VD, None, transform)
    raise HeadlessError(
        f"this run was trained with {module.objective.describe()}: its heads are {kind} and tied, "
        f"not {head}"
    )


def language_model(
    module: PretrainingModule, head: HeadName = "auto"
) -> tuple[str, PreTrainedModel]:
    """A copy with a head, whose hidden states are the module's, and the name of the head's kind.

    The module is on the CPU, as `PretrainingModule.from_checkpoint` gives it.
    """
    name, lm_head = choose_head(module, head)
    converted = to_hugging_face(
        module.backbone, lm_head, embedding_VD=module.embedding_VD, fold=False
    )
    return name, converted.model


def to_hugging_face(
    backbone: PreTrainedModel, head: LMHead, *, embedding_VD: Tensor, fold: bool = True
) -> Converted:
    """A model whose logits are `head`'s of the backbone's last hidden states.

    Args:
        backbone: its tensors are copied.
        embedding_VD: the input embeddings: a head that is the same tensor stays tied to them.
        fold: whether a head may be folded into other weights: a bias shifts the hidden states.
    """
    if is_custom(backbone):
        raise HeadlessError(
            "a backbone of your own has no class in Transformers: it can be trained, validated and "
            "measured here; to export it or to write text, register its class there "
            "(AutoConfig.register, AutoModel.register) and name its model_type"
        )
    forms: list[Form] = ["native", "folded", "custom"] if fold else ["native", "custom"]
    for form in forms:
        model = _MAKERS[form](backbone, head, embedding_VD)
        if model is None:
            continue
        error = largest_error(backbone, head, model)
        if error <= TOLERANCE:
            return Converted(model, form, error)
    raise HeadlessError(
        f"the head cannot be carried over to a Hugging Face {backbone.config.model_type}: its own "
        "class changes the logits of a matrix (e.g. scales them)"
    )


@torch.no_grad()
def largest_error(backbone: Any, head: LMHead, model: Any) -> float:
    """The largest difference of logits on a fixed sequence, relative to the largest logit.

    Logits that say the same are equal up to a number a position, which is left out.
    """
    vocab, device = model.config.vocab_size, next(model.parameters()).device
    ids_1T = (torch.arange(PROBE_TOKENS) * 7919 % vocab)[None].to(device)
    training = backbone.training
    backbone.eval()
    expected = head.logits(backbone(input_ids=ids_1T).last_hidden_state).log_softmax(-1)
    backbone.train(training)
    converted = model(input_ids=ids_1T).logits.float().log_softmax(-1)
    return float((converted - expected).abs().max() / expected.abs().max())


def lm_class(config: PretrainedConfig, causal: bool) -> type[PreTrainedModel]:
    mapping: Any = MODEL_FOR_CAUSAL_LM_MAPPING if causal else MODEL_FOR_MASKED_LM_MAPPING
    if type(config) not in mapping:
        kind = "causal" if causal else "masked"
        raise HeadlessError(f"Transformers has no {kind} language model of {config.model_type}")
    return mapping[type(config)]


def _config(backbone: Any, tied: bool, softcap: float | None = None) -> Any:
    """A copy; where the family's own class caps logits (Gemma), it caps as ours does."""
    config = type(backbone.config)(**backbone.config.to_dict())
    config.tie_word_embeddings = tied
    if hasattr(config, SOFTCAP):
        setattr(config, SOFTCAP, softcap)
    config._attn_implementation = backbone.config._attn_implementation
    return config


def _with_backbone(model: Any, backbone: nn.Module) -> Any:
    missing, unexpected = model.base_model.load_state_dict(backbone.state_dict(), strict=False)
    if unexpected or any("pooler" not in key for key in missing):
        raise HeadlessError(f"a {type(model).__name__} has no place for {unexpected or missing}")
    return model.eval()


def _same(head: LMHead, embedding_VD: Tensor) -> bool:
    return head.weight_VD.shape == embedding_VD.shape and torch.equal(head.weight_VD, embedding_VD)


@torch.no_grad()
def _native(backbone: Any, head: LMHead, embedding_VD: Tensor) -> Any:
    """The family's own class, where it has a place for every part of the head; else None."""
    if head.own_excess_V is not None:
        return None
    causal, transform = is_causal(backbone), head.transform
    if transform is not None if causal else not isinstance(transform, MaskedHeadTransform):
        return None
    config = _config(backbone, _same(head, embedding_VD), head.softcap)
    if head.bias_V is not None and not _has_bias(config, causal):
        return None
    if getattr(config, SOFTCAP, None) != head.softcap:
        return None
    model: Any = lm_class(config, causal)(config)
    linear = model.get_output_embeddings()
    _with_backbone(model, backbone)
    linear.weight.copy_(head.weight_VD)
    if linear.bias is not None:
        linear.bias.zero_() if head.bias_V is None else linear.bias.copy_(head.bias_V)
    if isinstance(transform, MaskedHeadTransform):
        if (parts := _transform_parts(model)) is None:
            return None
        for part, ours in zip(parts, (transform.dense, transform.norm), strict=True):
            part.load_state_dict(ours.state_dict())
    return model


def _transform_parts(model: Any) -> tuple[nn.Linear, nn.LayerNorm] | None:
    """Dense layer and LayerNorm of a family's masked-LM transform, where it has just these."""
    outside = [m for n, m in model.named_children() if n != model.base_model_prefix]
    decoder = model.get_output_embeddings()
    modules = [m for part in outside for m in part.modules() if m is not decoder]
    dense = [m for m in modules if isinstance(m, nn.Linear)]
    norms = [m for m in modules if isinstance(m, nn.LayerNorm)]
    return (dense[0], norms[0]) if len(dense) == len(norms) == 1 else None


def transform_names(model: Any) -> list[str]:
    """Modules of a masked-LM transform. Folded, their weights are far below a step of training, and
    their gradients as far above all others: who trains the head on keeps them as they are."""
    parts = _transform_parts(model) or ()
    return [name for name, module in model.named_modules() if any(module is p for p in parts)]


def _folded(backbone: Any, head: LMHead, embedding_VD: Tensor) -> Any:
    """The family's own class with the head folded into its weights; None without a LayerNorm."""
    if head.transform is not None or head.own_excess_V is not None or head.softcap is not None:
        return None
    fold = _folded_bias if is_causal(backbone) else _folded_transform
    return fold(backbone, head, embedding_VD)


@torch.no_grad()
def _folded_transform(backbone: Any, head: LMHead, embedding_VD: Tensor) -> Any:
    """A masked-LM class whose transform does nothing."""
    config = _config(backbone, _same(head, embedding_VD))
    model: Any = lm_class(config, causal=False)(config)
    parts, last = _transform_parts(model), _last_norm(backbone)
    if parts is None or last is None or not _has_bias(config, causal=False):
        return None
    dense, norm = parts
    gain_D, bias_D = (p.double() for p in backbone.get_submodule(last).parameters())
    if not bool((1 / gain_D).isfinite().all()):
        return None
    _with_backbone(model, backbone)
    dense.weight.copy_((SMALL / gain_D).diag())
    dense.bias.copy_(-SMALL * bias_D / gain_D)
    half = SMALL / 2  # the standard deviation of what GELU gives
    norm.weight.copy_(gain_D * (half**2 + norm.eps) ** 0.5 / half)
    norm.bias.copy_(bias_D)
    linear = model.get_output_embeddings()
    linear.weight.copy_(head.weight_VD)
    linear.bias.zero_() if head.bias_V is None else linear.bias.copy_(head.bias_V)
    return model


@torch.no_grad()
def _folded_bias(backbone: Any, head: LMHead, embedding_VD: Tensor) -> Any:
    """A causal class without a bias, with one in its weights."""
    if head.bias_V is None:
        return None
    config = _config(backbone, tied=False)
    if _has_bias(config, causal=True) or (last := _last_norm(backbone)) is None:
        return None
    model: Any = lm_class(config, causal=True)(config)
    _with_backbone(model, backbone)
    norm: Any = model.base_model.get_submodule(last)
    gain_D, bias_D = norm.weight.double(), norm.bias.double()
    weight_VD, bias_V = head.weight_VD.double(), head.bias_V.double()
    shift_D = _shift(gain_D, bias_D)
    constant = ((bias_D + shift_D) / gain_D).sum()  # at least D / 2, whatever its sign
    folded_VD = weight_VD + torch.outer(bias_V - weight_VD @ shift_D, 1 / gain_D) / constant
    if not bool(folded_VD.isfinite().all()):
        return None
    model.get_output_embeddings().weight.copy_(folded_VD)
    norm.bias.copy_(bias_D + shift_D)
    setattr(model.config, FOLDED, last)
    return model


def _shift(gain_D: Tensor, bias_D: Tensor) -> Tensor:
    """Half a gain, away from zero in the sum of bias over gain: before the fold as after it."""
    return gain_D / 2 if (bias_D / gain_D).sum() >= 0 else -gain_D / 2


@torch.no_grad()
def unfold(model: Any) -> bool:
    """Give the backbone of a folded model its states as they were trained, in place.

    Folding moves the last states by a constant and adds one direction to all rows of the head:
    neither is the geometry of the model. The head does not fit the backbone afterwards.

    Returns whether it was folded.
    """
    name = getattr(model.config, FOLDED, None)
    if name is None:
        return False
    norm = model.base_model.get_submodule(name)
    norm.bias.sub_(_shift(norm.weight, norm.bias))
    delattr(model.config, FOLDED)
    return True


def _has_bias(config: Any, causal: bool) -> bool:
    """Whether the family's output layer has one: asked of a model without any memory."""
    with torch.device("meta"):
        model: Any = lm_class(config, causal)(config)
    return model.get_output_embeddings().bias is not None


def _last_norm(backbone: Any) -> str | None:
    """The name of the LayerNorm with gain and bias whose output is the last hidden state."""
    outputs: list[tuple[str, Tensor]] = []
    norms = {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.LayerNorm) and module.elementwise_affine
    }
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: outputs.append((name, out)))
        for name, module in norms.items()
        if module.bias is not None
    ]
    try:
        last = backbone(input_ids=torch.zeros(1, 2, dtype=torch.long)).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    return next((name for name, out in reversed(outputs) if torch.equal(out, last)), None)


@torch.no_grad()
def _custom(backbone: Any, head: LMHead, embedding_VD: Tensor) -> Any:
    """The family's class with our head."""
    causal = is_causal(backbone)
    config = _config(backbone, _same(head, embedding_VD))
    learned = isinstance(head.transform, MaskedHeadTransform)
    config.headless_head = {
        "bias": head.bias_V is not None,
        "transform": learned,
        "normalize": head.transform is not None and not learned,
        "own_excess": head.own_excess_V is not None,
        "softcap": head.softcap,
    }
    family = lm_class(config, causal)
    model: Any = (causal_class if causal else masked_class)(family)(config)
    _with_backbone(model, backbone)
    ours: Any = next(m for m in model.modules() if isinstance(m, HeadlessHead))
    ours.weight.copy_(head.weight_VD)
    if head.bias_V is not None:
        ours.bias.copy_(head.bias_V)
    if head.own_excess_V is not None:
        ours.own_excess.copy_(head.own_excess_V)
    if isinstance(head.transform, MaskedHeadTransform):
        ours.transform.load_state_dict(head.transform.state_dict())
    if not causal:  # what the family's own class finds in the file
        rest = head._replace(
            own_excess_V=None, softcap=None, transform=head.transform if learned else None
        )
        plain = _native(backbone, rest, embedding_VD) or _folded(backbone, rest, embedding_VD)
        if plain is not None:
            model.load_state_dict(plain.state_dict(), strict=False)
    return model


_MAKERS = {"native": _native, "folded": _folded, "custom": _custom}
