"""Triton kernels of the fused contrastive loss (headless/objectives/fused.py has the mathematics).

Shapes: N rows, M candidates, D hidden size; T tiles of BLOCK_M candidates. Triton is imported when
the kernels are first needed: this module can be read without it. No kernel depends on D, and none
uses an atomic operation: results are the same in every run.
"""

# mypy: disallow-untyped-defs=False
# Triton reads annotations of arguments: only its own may stand there.
from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import triton.language as tl
else:
    tl = None  # set by `kernels`

# Logits of a tile stay as they are where their maximum lies between these, else the maximum is
# taken off. exp(LOW) ... exp(HIGH), summed over M and multiplied by vectors, fit bf16 and float32.
LOW, HIGH = -40.0, 60.0


@functools.cache
def kernels() -> tuple[Any, Any]:
    """`score_tiles` and `finish_rows`, ready to be launched."""
    global tl
    import triton
    import triton.language

    tl = triton.language
    return triton.jit(score_tiles), triton.jit(finish_rows)


def type_of(dtype: torch.dtype) -> Any:
    """Triton's name of float32 or float64."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def score_tiles(
    hidden_ND,
    rows_MD,
    own_N,
    weight_M,
    exps_NM,
    sum_NT,
    reference_NT,
    own_logit_N,
    n,
    m,
    d,
    low: tl.constexpr,
    high: tl.constexpr,
    own_unweighted: tl.constexpr,
    keep: tl.constexpr,
    precision: tl.constexpr,
    upcast: tl.constexpr,
    accumulator: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """exp(score + log-weight - reference) of a tile, and its sum a row.

    The reference is 0, or the largest logit of the row in this tile where exp would leave its
    range, or -inf where the tile has no candidate. `weight_M` and `exps_NM` are as long as all
    tiles together, with the weight -inf beyond M.
    """
    blocks_n = tl.cdiv(n, BLOCK_N)
    pid = tl.program_id(0)
    tile, tiles = pid // blocks_n, tl.cdiv(m, BLOCK_M)
    i = (pid % blocks_n) * BLOCK_N + tl.arange(0, BLOCK_N)
    j = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    k = tl.arange(0, BLOCK_D)
    hidden = hidden_ND + i[:, None] * d + k[None, :]
    rows = rows_MD + j[None, :] * d + k[:, None]
    scores = tl.zeros((BLOCK_N, BLOCK_M), accumulator)
    for start in range(0, d, BLOCK_D):
        inside = k < d - start
        a = tl.load(hidden, mask=(i[:, None] < n) & inside[None, :], other=0.0)
        b = tl.load(rows, mask=(j[None, :] < m) & inside[:, None], other=0.0)
        if upcast:  # the interpreter multiplies the bits of bf16
            a, b = a.to(accumulator), b.to(accumulator)
        scores = tl.dot(a, b, scores, input_precision=precision, out_dtype=accumulator)
        hidden += BLOCK_D
        rows += BLOCK_D

    own = tl.load(own_N + i, mask=i < n, other=-1)
    is_own = j[None, :] == own[:, None]
    weight = tl.load(weight_M + j)[None, :]
    if own_unweighted:
        weight = tl.where(is_own, 0.0, weight)
    logits = scores + weight
    has_own = (own >= tile * BLOCK_M) & (own < (tile + 1) * BLOCK_M)
    own_logit = tl.sum(tl.where(is_own, logits, 0.0), axis=1)
    tl.store(own_logit_N + i, own_logit, mask=(i < n) & has_own)
    top = tl.max(logits, axis=1)
    reference = tl.where((top > low) & (top < high), 0.0, top)
    exps = tl.exp(logits - tl.where(top == float("-inf"), 0.0, reference)[:, None])
    at = i * tiles + tile
    tl.store(reference_NT + at, reference, mask=i < n)
    tl.store(sum_NT + at, tl.sum(exps, axis=1), mask=i < n)
    if keep:
        to = exps_NM + i[:, None] * (tiles * BLOCK_M) + j[None, :]
        tl.store(to, exps.to(exps_NM.dtype.element_ty), mask=i[:, None] < n)


def finish_rows(
    own_N,
    weight_M,
    exps_NM,
    sum_NT,
    reference_NT,
    own_logit_N,
    loss_N,
    inverse_N,
    tiles,
    own_unweighted: tl.constexpr,
    keep: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """A row's loss, 1 / Z, and the exps less Z at its own target; the tiles get one reference.

    Afterwards the gradient of the summed loss for the row's scores is exps / Z.
    """
    i = tl.program_id(0)
    t = tl.arange(0, BLOCK_T)
    references = tl.load(reference_NT + i * tiles + t, mask=t < tiles, other=float("-inf"))
    sums = tl.load(sum_NT + i * tiles + t, mask=t < tiles, other=0.0)
    reference = tl.max(references, axis=0)
    total = tl.sum(sums * tl.exp(references - reference), axis=0)
    log_z = reference + tl.log(total)
    own = tl.load(own_N + i)
    valid = own >= 0
    own_logit = tl.load(own_logit_N + i, mask=valid, other=0.0)
    own_score = own_logit
    if not own_unweighted:
        own_score -= tl.load(weight_M + own, mask=valid, other=0.0)
    tl.store(loss_N + i, tl.where(valid, log_z - own_score, 0.0))
    if keep:
        tl.store(inverse_N + i, tl.where(valid, 1.0 / total, 0.0))
        exps = exps_NM + i * (tiles * BLOCK_M)
        differs = (references != reference) & (references > float("-inf"))
        if tl.max(differs.to(tl.int32), axis=0) > 0:  # hardly ever
            for tile in range(tiles):
                factor = tl.exp(tl.load(reference_NT + i * tiles + tile) - reference)
                j = tile * BLOCK_M + tl.arange(0, BLOCK_M)
                x = tl.load(exps + j).to(factor.dtype) * factor
                tl.store(exps + j, x.to(exps_NM.dtype.element_ty), mask=j != own)
        less_one = total * (tl.exp(own_logit - log_z) - 1.0)
        tl.store(exps + own, less_one.to(exps_NM.dtype.element_ty), mask=valid)
