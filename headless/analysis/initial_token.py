"""What a model does with the first position: norms of single tokens, and attention to it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from headless.analysis.states.capture import Point, backbone_of, capture
from headless.analysis.states.families import family_of
from headless.errors import HeadlessError
from headless.models.backbone import blocks as blocks_of


@torch.no_grad()
def initial_token_norms(
    model: nn.Module, tokens_N: Tensor, batch: int = 256
) -> dict[Point, Tensor]:
    """The norm of each token's state when it is alone, after every block.

    Args:
        model: a backbone or a model with a head.
        tokens_N: token ids, e.g. some hundreds of the vocabulary.
        batch: sequences of one token at a time.

    Returns:
        [N] float64 for each `post` point.
    """
    backbone = backbone_of(model)
    options = {} if family_of(backbone).post_norm else {"use_cache": False}
    points = [Point("post", block) for block in range(len(blocks_of(backbone)))]
    found: dict[Point, list[Tensor]] = {point: [] for point in points}
    device = next(backbone.parameters()).device
    was_training = backbone.training
    backbone.eval()
    try:
        with capture(
            model, lambda p, x: found[p].append(x[:, 0].double().norm(dim=-1).cpu()), points
        ):
            for part in tokens_N.split(batch):
                backbone(input_ids=part[:, None].to(device), **options)
    finally:
        backbone.train(was_training)
    return {point: torch.cat(parts) for point, parts in found.items()}


@torch.no_grad()
def sink_strength(model: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Attention to position 0 from all later positions, by block [L]: mean over heads.

    The model computes attention in the plain way for this pass, since faster ways keep no weights.

    Args:
        model: a backbone or a model with a head.
        batches: token ids [B, T] with T of at least 2.

    Raises:
        HeadlessError: no batch, or a model that gives no attention weights.
    """
    backbone: Any = backbone_of(model)
    before, was_training = backbone.config._attn_implementation, backbone.training
    options = {} if family_of(backbone).post_norm else {"use_cache": False}
    device = next(backbone.parameters()).device
    total: Tensor | None = None
    rows = 0
    backbone.eval()
    try:
        backbone.set_attn_implementation("eager")
        for batch_BT in batches:
            output = backbone(input_ids=batch_BT.to(device), output_attentions=True, **options)
            weights = output.attentions
            if not weights or weights[0] is None:
                raise HeadlessError("this model gives no attention weights: leave out the sink")
            here = torch.stack(
                [w[:, :, 1:, 0].double().mean(dim=(1, 2)).sum().cpu() for w in weights]
            )
            total = here if total is None else total + here
            rows += len(batch_BT)
    finally:
        backbone.set_attn_implementation(before)
        backbone.train(was_training)
    if total is None:
        raise HeadlessError("no sequences to measure attention on: give more text")
    return total / rows
