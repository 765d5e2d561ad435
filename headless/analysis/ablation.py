"""What outlier dimensions are for: the loss without them, against other dimensions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.by_depth import panels_of
from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import CONJECTURE
from headless.analysis.states import moments
from headless.analysis.states.accumulators import Statistics
from headless.analysis.states.capture import Point, backbone_of
from headless.analysis.states.families import family_of
from headless.errors import HeadlessError
from headless.models.backbone import blocks as blocks_of
from headless.pages.figures import drawing_style, series_color

DRAWS = 19  # random sets of the count that is asked about: the largest of 20 is so once in 20 times
FEW_DRAWS = 3  # of the other counts, whose range is drawn
MASKED = 0.15  # share of the tokens that are hidden from a masked model
_ABOUT = (
    "After one block the largest dimensions of the residual stream are set to zero, or to their "
    "mean over tokens, at every position, and the model goes on. If the loss grows much more than "
    "for as many other dimensions drawn at random (the null), the model uses them. Zero takes away "
    "what a dimension always adds; the mean leaves that and takes what differs between tokens. For "
    f"the largest number of dimensions {DRAWS} sets are drawn at random and p is the share of all "
    f"sets that cost as much; for the others {FEW_DRAWS} sets show a range, which tests nothing."
)


def outlier_ablation(
    model: nn.Module,
    batches: Sequence[Tensor],
    statistics: Mapping[Point, Statistics],
    *,
    block: int | None = None,
    counts: Sequence[int] = (1, 2, 5, 10),
    draws: int = DRAWS,
    mask_token: int | None = None,
    seed: int = 0,
) -> Finding:
    """The loss with the k largest dimensions taken out of the stream, against k random ones.

    Args:
        model: a model with an LM head: `model(input_ids=).logits`.
        batches: token ids [B, T]; each is run about draws + 5·len(counts) times.
        statistics: of `measure` with the `post` point of the block.
        block: after which; None: the middle one of those measured.
        counts: how many dimensions; those above half of the width are left out.
        draws: random sets for the largest count; the others have `FEW_DRAWS`.
        mask_token: for a masked model; None: a decoder.
        seed: of the random sets and of the masked positions.

    Raises:
        HeadlessError: no batch, or the block was not measured.
    """
    measured = sorted(point.block for point in statistics if point.component == "post")
    block = measured[len(measured) // 2] if block is None and measured else block
    if block is None or block not in measured:
        raise HeadlessError(f"block {block} was not measured: measure the stream after it first")
    s = statistics[Point("post", block)]
    rms_D, mean_D = moments.rms(s), moments.mean(s)
    order_D = rms_D.argsort(descending=True)
    counts = [k for k in counts if k <= len(rms_D) // 2]
    generator = torch.Generator().manual_seed(seed)

    def score(dims: Tensor, values: Tensor) -> float:
        with replaced(model, block, dims, values):
            return nll(model, batches, mask_token=mask_token, seed=seed)

    before = nll(model, batches, mask_token=mask_token, seed=seed)
    scalars = {"outlier_ablation/block": float(block), "outlier_ablation/nll": before}
    rows: dict[str, list[Any]] = {"zero": [], "mean": [], "random": []}
    for k in counts:
        dims = order_D[:k]
        rows["zero"].append(score(dims, torch.zeros(k, dtype=torch.float64)) - before)
        rows["mean"].append(score(dims, mean_D[dims]) - before)
        others = order_D[k:]
        number = draws if k == counts[-1] else min(draws, FEW_DRAWS)
        costs = np.full(draws, np.nan)
        for draw in range(number):
            chosen = others[torch.randperm(len(others), generator=generator)[:k]]
            costs[draw] = score(chosen, torch.zeros(k, dtype=torch.float64)) - before
        rows["random"].append(costs)
        scalars[f"outlier_ablation/{k}/zero"] = rows["zero"][-1]
        scalars[f"outlier_ablation/{k}/mean"] = rows["mean"][-1]
        scalars[f"outlier_ablation/{k}/random"] = float(np.nanmean(costs))
        scalars[f"outlier_ablation/{k}/random_largest"] = float(np.nanmax(costs))
    arrays = {name: np.array(values) for name, values in rows.items()}
    arrays["counts"] = np.array(counts)
    last = counts[-1]
    zero, mean = arrays["zero"][-1], arrays["mean"][-1]
    random = arrays["random"][-1]
    p = float((np.sum(random >= zero) + 1) / (draws + 1))
    scalars[f"outlier_ablation/{last}/random_p"] = p
    return Finding(
        name="outlier_ablation",
        title="What are outlier dimensions for?",
        about=_ABOUT,
        answer=(
            f"Without the {last} largest dimensions after block {block} the loss of {before:.3f} "
            f"nats grows by {zero:.3f} (zero) or {mean:.3f} (mean); without {last} random ones by "
            f"{random.mean():.3f} on average and {random.max():.3f} at most ({draws} draws, p "
            f"{p:.2f})."
        ),
        scalars=scalars,
        arrays=arrays,
        pictures=(
            Picture(
                "outlier-ablation",
                "How much the loss grows when the largest dimensions are set to zero or to their "
                "mean, and for random dimensions set to zero (null: mean and range over "
                f"{FEW_DRAWS} draws, {draws} of the largest number).",
                lambda: _draw(arrays),
                wide=False,
            ),
        ),
        claims=(
            Claim(
                CONJECTURE,
                "zeroing outlier dimensions has a large differential impact on the loss",
                bool(zero > 0.1 and zero > 3 * max(float(random.mean()), 0.0) and p <= 0.05),
                f"{zero:.3f} nats for the {last} largest against {random.mean():.3f} for random "
                f"ones: more than 0.1, more than three times as much, and p {p:.2f} at most 0.05",
            ),
        ),
    )


@contextmanager
def replaced(model: nn.Module, block: int, dims_K: Tensor, values_K: Tensor) -> Iterator[None]:
    """Inside this, dimensions of the stream after a block have fixed values.

    Args:
        model: a backbone or a model with a head.
        block: its number.
        dims_K: which dimensions.
        values_K: what they become, at every position.
    """
    backbone = backbone_of(model)
    family = family_of(backbone)
    layer = blocks_of(backbone)[block]
    if family.post_norm:
        layer = layer.get_submodule(family.norm2)

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        state = (output[0] if isinstance(output, tuple) else output).clone()
        state[..., dims_K.to(state.device)] = values_K.to(state.device, state.dtype)
        return (state, *output[1:]) if isinstance(output, tuple) else state

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def nll(
    model: nn.Module, batches: Sequence[Tensor], *, mask_token: int | None = None, seed: int = 0
) -> float:
    """Mean loss in nats a token: of the next one, or of masked ones where a mask is given.

    Args:
        model: with an LM head.
        batches: token ids [B, T].
        mask_token: its id, for a masked model: 15 % of the tokens are hidden, always the same.
        seed: chooses them.

    Raises:
        HeadlessError: no token to predict.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    try:
        for batch_BT in batches:
            ids_BT = labels_BT = batch_BT
            if mask_token is not None:
                hidden_BT = torch.rand(batch_BT.shape, generator=generator) < MASKED
                hidden_BT[:, min(1, batch_BT.shape[1] - 1)] = True
                ids_BT = batch_BT.masked_fill(hidden_BT, mask_token)
                labels_BT = batch_BT.masked_fill(~hidden_BT, -100)
            logits_BTV = model(input_ids=ids_BT.to(device)).logits.float()
            if mask_token is None:
                logits_BTV, labels_BT = logits_BTV[:, :-1], batch_BT[:, 1:]
            loss = nn.functional.cross_entropy(
                logits_BTV.flatten(0, 1), labels_BT.to(device).flatten(), reduction="sum"
            )
            total += float(loss)
            count += int((labels_BT != -100).sum())
    finally:
        model.train(was_training)
    if not count:
        raise HeadlessError("no token to predict: give sequences of at least two tokens")
    return total / count


def _draw(arrays: Mapping[str, np.ndarray]) -> Any:
    counts = arrays["counts"]
    with drawing_style():
        figure, (panel,) = panels_of(1, height=3.0)
        x = np.arange(len(counts))
        for index, (name, label) in enumerate((("zero", "largest, to zero"), ("mean", "to mean"))):
            color = series_color(index)
            panel.plot(x, arrays[name], color=color, marker="o", markersize=4, label=label)
        random = arrays["random"]
        panel.fill_between(
            x,
            np.nanmin(random, axis=1),
            np.nanmax(random, axis=1),
            color=series_color(6),
            alpha=0.25,
            lw=0,
        )
        panel.plot(
            x, np.nanmean(random, axis=1), "--", color=series_color(6), label="random, to zero"
        )
        panel.set_xticks(x, [str(k) for k in counts])
        panel.set(xlabel="dimensions taken out", ylabel="nats added to the loss")
        panel.legend(fontsize=8)
    return figure
