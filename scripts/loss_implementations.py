"""Every way to compute the losses that `bench_objectives.py` measures, and the check of each.

Shapes: N rows, D hidden size, V vocabulary, M unique targets.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from headless.data.collate import unique_table
from headless.objectives import (
    UniqueTargets,
    contrastive_weight_tying_loss,
    cross_entropy_loss,
    unique_targets,
)
from headless.objectives.fused import has_kernels_for


class Inputs(NamedTuple):
    """One problem: leaves with gradients, labels, and their table."""

    hidden_ND: Tensor
    table_VD: Tensor
    targets_N: Tensor
    unique: UniqueTargets


Loss = Callable[[Inputs], Tensor]


def contrastive(x: Inputs) -> Tensor:
    """Ours."""
    return contrastive_weight_tying_loss(x.hidden_ND, x.targets_N, x.table_VD, unique=x.unique)


def contrastive_folded(x: Inputs) -> Tensor:
    """Ours as training compiles it: for every size of the table."""
    return contrastive(x._replace(unique=x.unique.unfolded()))


def contrastive_fused(x: Inputs) -> Tensor:
    """Ours in Triton, or an error where it would be the first one."""
    if not has_kernels_for(x.hidden_ND):
        raise RuntimeError("no Triton kernels for this device")
    return contrastive_weight_tying_loss(
        x.hidden_ND,
        x.targets_N,
        x.table_VD,
        implementation="fused",
        unique=x.unique.unfolded(),
    )


def paper(x: Inputs) -> Tensor:
    """The paper's N x N scores, with a log-sum-exp that cannot overflow."""
    return contrastive_weight_tying_loss(
        x.hidden_ND, x.targets_N, x.table_VD, implementation="reference"
    )


def paper_literal(x: Inputs) -> Tensor:
    """The same as the authors wrote it (Fig. 9): exp, diagonal, row sums.

    Under autocast their exp and sums are float32, which is done by hand here.
    """
    scores_NN = x.hidden_ND @ x.table_VD[x.targets_N].T
    exp_NN = torch.exp(scores_NN.to(torch.promote_types(scores_NN.dtype, torch.float32)))
    return -torch.log(exp_NN.diag() / (exp_NN.sum(dim=1) + 1e-9)).mean()


def chunk_rows(rows: int) -> int:
    """4,096 rows a chunk, and eight chunks at most: a compiler unrolls them."""
    return max(4096, -(-rows // 8))


def cross_entropy(x: Inputs, chunk_size: int | None = None) -> Tensor:
    """Ours over the whole vocabulary: all N x V logits at once, or those of some rows."""
    return cross_entropy_loss(x.hidden_ND, x.targets_N, x.table_VD, chunk_size=chunk_size)


def chunked(x: Inputs) -> Tensor:
    """Ours, some rows at a time."""
    return cross_entropy(x, chunk_rows(len(x.targets_N)))


def torch_chunked(x: Inputs) -> Tensor:
    """torch's own chunked operator, with large chunks (small ones lose precision in bf16)."""
    from torch.nn.modules.linear_cross_entropy_options import LinearCrossEntropyOptions

    options = LinearCrossEntropyOptions(
        allow_retain_graph=True,
        batch_chunk_size=chunk_rows(len(x.targets_N)),
        chunking_method=None,
        acc_policy="compact",
    )
    return F.linear_cross_entropy(x.hidden_ND, x.table_VD, x.targets_N, options=options)  # type: ignore[attr-defined, unused-ignore]


def liger(x: Inputs) -> Tensor:
    """Liger's fused linear cross-entropy, its weight gradient summed in float32."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(accum_dtype=torch.float32)
    return loss(x.table_VD, x.hidden_ND, x.targets_N)


def cut(**options: Any) -> Loss:
    """Cut cross-entropy, as it comes or with all gradients: it leaves small ones out."""

    def loss(x: Inputs) -> Tensor:
        from cut_cross_entropy import linear_cross_entropy

        return linear_cross_entropy(x.hidden_ND, x.table_VD, x.targets_N, impl="cce", **options)

    return loss


def quack(x: Inputs) -> Tensor:
    """QuACK's chunked linear cross-entropy."""
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    return chunked_linear_cross_entropy(
        x.hidden_ND, x.table_VD, x.targets_N, chunk_size=4096, reduction="mean"
    )


class Implementation(NamedTuple):
    """A way to compute a loss; `kind` says which loss it is and over which candidates."""

    kind: str
    loss: Loss
    compiled: bool = False
    blockwise: bool = False  # holds the scores of some rows only


IMPLEMENTATIONS = {
    "cwt": Implementation("cwt", contrastive),
    "cwt compiled": Implementation("cwt", contrastive_folded, compiled=True),
    "cwt compiled, static M": Implementation("cwt", contrastive, compiled=True),
    "cwt fused": Implementation("cwt", contrastive_fused, blockwise=True),
    "cwt fused compiled": Implementation("cwt", contrastive_fused, True, True),
    "paper N x N": Implementation("paper", paper),
    "paper N x N, authors' form": Implementation("paper", paper_literal),
    "paper N x N compiled": Implementation("paper", paper, compiled=True),
    "cross-entropy": Implementation("ce", cross_entropy),
    "cross-entropy compiled": Implementation("ce", cross_entropy, compiled=True),
    "cross-entropy chunked": Implementation("ce", chunked, blockwise=True),
    "cross-entropy chunked compiled": Implementation("ce", chunked, True, True),
    "torch linear_cross_entropy": Implementation("ce", torch_chunked, blockwise=True),
    "liger": Implementation("ce", liger, blockwise=True),
    "cut-cross-entropy": Implementation("ce", cut(), blockwise=True),
    "cut-cross-entropy unfiltered": Implementation("ce", cut(filter_eps=None), blockwise=True),
    "quack": Implementation("ce", quack, blockwise=True),
}


def make_inputs(
    labels: np.ndarray, d: int, v: int, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> Inputs:
    """Hidden states of a normed model and a table whose scores have a spread of about one."""
    ids, inverse, count, _ = unique_table(labels, v)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(len(labels), d, generator=generator).to(device, dtype)
    table = (torch.randn(v, d, generator=generator) / d**0.5).to(device, dtype)
    tensors = (torch.from_numpy(x).to(device) for x in (ids, inverse, count))
    targets = torch.from_numpy(labels).to(device)
    return Inputs(hidden.requires_grad_(), table.requires_grad_(), targets, UniqueTargets(*tensors))


def step(loss: Loss, x: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and both gradients."""
    value = loss(x)
    d_hidden, d_table = torch.autograd.grad(value, (x.hidden_ND, x.table_VD))
    return value, d_hidden, d_table


def exact_step(kind: str, x: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and both gradients in float64, from the definitions, on the same numbers."""
    leaves = (t.detach().double().requires_grad_() for t in (x.hidden_ND, x.table_VD))
    exact = Inputs(*leaves, x.targets_N, unique_targets(x.targets_N))
    return step(cross_entropy if kind == "ce" else paper, exact)


def errors(
    found: tuple[Tensor, Tensor, Tensor], wanted: tuple[Tensor, Tensor, Tensor]
) -> dict[str, float]:
    """Relative errors of a loss and of its gradients."""
    return {
        name: float((a.detach().double() - b.detach()).norm() / b.detach().norm())
        for name, a, b in zip(("loss", "d_hidden", "d_table"), found, wanted, strict=True)
    }


def is_right(found: dict[str, float], dtype: torch.dtype) -> bool:
    """Whether errors are what the dtype allows; NaN is not."""
    allowed = 2e-2 if dtype == torch.bfloat16 else 1e-4
    return all(error < allowed for error in found.values())
