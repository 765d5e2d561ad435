"""The contrastive loss without a matrix of all scores: `implementation="fused"`.

Shapes: N rows, R rows of a block, M candidates, D hidden size.

With logits x_im = s_im + log w_m, Z_i = sum_m exp(x_im) and loss_i = log Z_i - s_iu, the gradient
of the summed loss for the scores is p - 1[m = u], p = exp(x) / Z. One visit of each score is
enough, since Z can be divided out afterwards:

1. A tile of scores is multiplied in float32 and leaves as a_im = exp(x_im), rounded once, with its
   sums a row (`score_tiles`). A tile whose exp would leave its range takes its maximum off and is
   brought in line later, so that any finite score is right.
2. Once the tiles of R rows are there, a_iu -= Z_i (`finish_rows`).
3. d_hidden_i = (a_i · E) / Z_i and d_E += aᵀ · (h / Z): two ordinary matrix products.

6·N·M·D FLOPs, the least there are without keeping N x M numbers; recomputing the scores, as a
separate backward pass must, takes 8. Of the a, those of R rows exist at a time.
"""

import functools
import os
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from headless.objectives.base import at_least_float32
from headless.objectives.fused_kernels import HIGH, LOW, kernels, type_of

# Rows of a block: as many as make this number of exps (128 MiB in bf16), but so many at least that
# a · E gives each of an H100's 132 multiprocessors a tile of 128 x 256 at D = 512, and d_E is not
# read and written too often. Kernels count the exps and the numbers of hidden states in 31 bits.
MAX_EXPS, MIN_ROWS = 2**26, 8192
MOST_EXPS, MOST_ROWS = 2**30, 2**17
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = find_spec("triton") is not None


class Tile(NamedTuple):
    """Rows, candidates and depth of a tile of scores, and how Triton is to run it."""

    n: int
    m: int
    d: int
    warps: int
    stages: int


def _dtype_of(hidden_ND: Tensor) -> torch.dtype:
    """The dtype of a product with `hidden_ND`: autocast does not look into a Function."""
    kind = hidden_ND.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_ND.dtype


def has_kernels_for(hidden_ND: Tensor) -> bool:
    """Whether `fused_loss` runs on the device and in the dtype of `hidden_ND`.

    float16 cannot hold exp(logit); float64 is for the interpreter, where tests are exact.
    """
    dtype = _dtype_of(hidden_ND)
    if INTERPRETED:
        return HAS_TRITON and dtype != torch.float16
    is_cuda = hidden_ND.device.type == "cuda"
    return HAS_TRITON and is_cuda and dtype in (torch.bfloat16, torch.float32)


@functools.cache
def tile_for(device: torch.device, itemsize: int) -> Tile:
    """One tile for all D, by what fits: D is a loop.

    sm_90 and sm_100 (227 KiB of shared memory) need 128 x 256 to feed their tensor cores, which
    takes 3 · 48 KiB; others have as little as 99 KiB.
    """
    if device.type != "cuda":
        return Tile(32, 16, 16, warps=1, stages=1)  # the interpreter: many tiles of a small problem
    if itemsize > 2:
        return Tile(64, 64, 32, warps=4, stages=3)
    if torch.cuda.get_device_capability(device)[0] in (9, 10):
        return Tile(128, 256, 64, warps=8, stages=3)
    return Tile(128, 128, 32, warps=8, stages=3)


def rows_of_a_block(n: int, m: int) -> int:
    """R: the blocks are equal, but for rounding to whole tiles."""
    most = min(max(MIN_ROWS, MAX_EXPS // m), MOST_EXPS // m, MOST_ROWS)
    blocks = max(1, -(-n // most))
    return max(1, -(-n // (blocks * 128))) * 128


def _sum_of(total_MD: Tensor | None, a_MR: Tensor, b_RD: Tensor, dtype: torch.dtype) -> Tensor:
    """total + a · b in `dtype`, in place: sums of bf16 err more with each block."""
    with torch.autocast(a_MR.device.type, enabled=False):
        if a_MR.is_cuda and a_MR.dtype != dtype:
            product_MD = torch.mm(a_MR, b_RD, out_dtype=dtype)
        else:
            product_MD = a_MR.to(dtype) @ b_RD.to(dtype)
    return product_MD if total_MD is None else total_MD.add_(product_MD)


class _Scratch(NamedTuple):
    """What the kernels write for R rows."""

    exps_RW: Tensor  # W: M rounded up to whole tiles, so that every load and store is a wide one
    sum_RT: Tensor
    reference_RT: Tensor
    own_logit_R: Tensor


def _visit(
    hidden_RD: Tensor,
    rows_MD: Tensor,
    own_R: Tensor,
    weight_W: Tensor,
    own_unweighted: bool,
    scratch: _Scratch,
    loss_R: Tensor,
    inverse_R: Tensor,
) -> None:
    """Launch both kernels on some rows; `inverse_R` is empty where no gradient is wanted."""
    score_tiles, finish_rows = kernels()
    (r, d), m = hidden_RD.shape, len(rows_MD)
    tile = tile_for(hidden_RD.device, hidden_RD.itemsize)
    tiles, keep, accumulator = scratch.sum_RT.shape[1], len(inverse_R) > 0, loss_R.dtype
    tf32 = hidden_RD.is_cuda and torch.backends.cuda.matmul.fp32_precision == "tf32"
    score_tiles[(-(-r // tile.n) * tiles,)](
        hidden_RD,
        rows_MD,
        own_R,
        weight_W,
        *scratch,
        *(r, m, d),
        low=LOW,
        high=HIGH,
        own_unweighted=own_unweighted,
        keep=keep,
        precision="tf32" if tf32 else "ieee",
        upcast=INTERPRETED,
        accumulator=type_of(accumulator),
        BLOCK_N=tile.n,
        BLOCK_M=tile.m,
        BLOCK_D=tile.d,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    finish_rows[(r,)](
        own_R,
        weight_W,
        *scratch,
        loss_R,
        inverse_R,
        tiles,
        own_unweighted=own_unweighted,
        keep=keep,
        BLOCK_T=max(2, 1 << (tiles - 1).bit_length()),
        BLOCK_M=tile.m,
        num_warps=1,
    )


def _results(
    hidden_ND: Tensor,
    rows_MD: Tensor,
    own_N: Tensor,
    weight_M: Tensor,
    own_unweighted: bool,
    for_hidden: bool,
    for_rows: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the results go: all that a compiler needs to know of the operator."""
    n, d = hidden_ND.shape
    dtype = at_least_float32(hidden_ND[:0]).dtype
    return (
        hidden_ND.new_empty(n, dtype=dtype),
        hidden_ND.new_empty(n if for_hidden else 0, d),
        hidden_ND.new_empty(n if for_hidden or for_rows else 0, dtype=dtype),
        rows_MD.new_empty(rows_MD.shape[0] if for_rows else 0, d),
    )


def _losses_and_gradients(
    hidden_ND: Tensor,
    rows_MD: Tensor,
    own_N: Tensor,
    weight_M: Tensor,
    own_unweighted: bool,
    for_hidden: bool,
    for_rows: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Losses [N], d_hidden · Z, 1 / Z, d_rows: gradients of the sum, empty where not wanted."""
    n, m = len(hidden_ND), len(rows_MD)
    keep = for_hidden or for_rows
    tile = tile_for(hidden_ND.device, hidden_ND.itemsize)
    tiles, block = -(-m // tile.m), rows_of_a_block(n, m)
    loss_N, d_hidden_ND, inverse_N, d_rows_MD = _results(
        hidden_ND, rows_MD, own_N, weight_M, own_unweighted, for_hidden, for_rows
    )
    hidden_ND, table_MD = hidden_ND.contiguous(), rows_MD.to(hidden_ND.dtype).contiguous()
    weight_W = F.pad(weight_M.to(loss_N.dtype), (0, tiles * tile.m - m), value=-torch.inf)
    total_MD: Tensor | None = None
    rows = min(block, n)
    scaled_RD = torch.empty_like(hidden_ND[: rows if for_rows else 0])
    scratch = _Scratch(
        hidden_ND.new_empty(rows if keep else 0, tiles * tile.m),
        loss_N.new_empty(rows, tiles),
        loss_N.new_empty(rows, tiles),
        loss_N.new_empty(rows),
    )
    for begin in range(0, n, block):
        here = slice(begin, begin + block)
        hidden_RD, inverse_R = hidden_ND[here], inverse_N[here]
        with torch.cuda.device_of(hidden_ND):  # Triton takes the current one
            _visit(
                *(hidden_RD, table_MD, own_N[here], weight_W, own_unweighted),
                *(scratch, loss_N[here], inverse_R),
            )
        exps_RM = scratch.exps_RW[: len(hidden_RD), :m]
        if for_hidden:
            torch.mm(exps_RM, table_MD, out=d_hidden_ND[here])
        if for_rows:
            scaled = scaled_RD[: len(hidden_RD)]
            torch.mul(hidden_RD, inverse_R[:, None], out=scaled)
            total_MD = _sum_of(total_MD, exps_RM.T, scaled, loss_N.dtype)
    if total_MD is not None:
        d_rows_MD = total_MD.to(d_rows_MD.dtype)
    elif for_rows:  # there is no row at all
        d_rows_MD.zero_()
    return loss_N, d_hidden_ND, inverse_N, d_rows_MD


# One operator for a compiler: no graph break, and eager inside.
_contrastive = torch.library.custom_op(
    "headless::contrastive", _losses_and_gradients, mutates_args=()
)
_contrastive.register_fake(_results)


class _Fused(torch.autograd.Function):
    """The summed loss. Its gradients come with it: all that they lack is a factor."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        loss_N, *gradients = _contrastive(*arguments)
        ctx.save_for_backward(*gradients)
        *_, ctx.for_hidden, ctx.for_rows = arguments
        return loss_N.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor) -> Any:
        d_hidden_ND, inverse_N, d_rows_MD = ctx.saved_tensors
        d_hidden = d_rows = None
        if ctx.for_hidden:  # both factors in float32, and rounded once
            d_hidden = (d_hidden_ND * (inverse_N * d_total)[:, None]).to(d_hidden_ND.dtype)
        if ctx.for_rows:
            d_rows = (d_rows_MD * d_total).to(d_rows_MD.dtype)
        return d_hidden, d_rows, None, None, None, None, None


def fused_loss(
    hidden_ND: Tensor, rows_MD: Tensor, own_N: Tensor, weight_M: Tensor, own_unweighted: bool
) -> Tensor:
    """Summed loss in nats of rows against candidates, of which `own_N` is each row's own.

    Args:
        hidden_ND: cast to autocast's dtype.
        rows_MD: cast to the same; their gradient is summed in float32, and is of their own dtype.
        own_N: long, -100 where a row does not count.
        weight_M: log-weights; -inf marks padding.
        own_unweighted: a row's own candidate has the log-weight 0.
    """
    grad = torch.is_grad_enabled()
    return _Fused.apply(
        hidden_ND.to(_dtype_of(hidden_ND)),
        rows_MD,
        own_N,
        weight_M,
        own_unweighted,
        grad and hidden_ND.requires_grad,
        grad and rows_MD.requires_grad,
    )
