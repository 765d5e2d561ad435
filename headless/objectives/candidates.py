"""Who stands in the denominator of a contrastive loss, and with which weight.

Every form is loss_i = log( sum_m w_m exp(s_im) ) - s_iu, with u the row's own target: one matrix
of scores, one log-weight a candidate. With E[w_v] = ω_v for a token that is not the own target,
κ_v where it is, and r = softmax(s + log ω), the model that a form learns, and so its head, is
p(v | context) ∝ r_v · (1 + (κ_v / ω_v - 1) · r_v): derived in docs/theory.md, 2.

Shapes: N rows, M candidates of the table, K sampled ones, V vocabulary. P is the number of rows
that the table was made from, q the unigram distribution.
"""

from typing import Literal

import torch
from torch import Tensor

from headless.objectives.base import IGNORE_INDEX, UniqueTargets, at_least_float32

Duplicates = Literal["count", "mask", "unique", "logq"]


def unique_targets(targets_N: Tensor, pool_P: Tensor | None = None) -> UniqueTargets:
    """The unique targets of a batch, unpadded: ids ascending, rows with -100 left out.

    The collator makes the same table on the CPU; this is for callers that have none. A batch
    without any row that counts gets one entry, so that a softmax over it is defined.

    Args:
        targets_N: long; the rows that are scored.
        pool_P: the targets of all rows that serve as negatives, among them `targets_N`: what an
            all-gather of the integer labels gives. None: `targets_N` alone.
    """
    pool_P = targets_N if pool_P is None else pool_P
    ids_M, count_M = pool_P[pool_P != IGNORE_INDEX].unique(return_counts=True)
    if ids_M.numel() == 0:
        ids_M, count_M = targets_N.new_zeros(1), targets_N.new_ones(1)
    inverse_N = torch.searchsorted(ids_M, targets_N.clamp(min=0))
    return UniqueTargets(
        ids_M, inverse_N.masked_fill(targets_N == IGNORE_INDEX, IGNORE_INDEX), count_M
    )


def _log_inclusion(log_unigram: Tensor, rows: Tensor, arrival: Tensor | float) -> Tensor:
    """log of P(a token is a candidate): among rows - 1 other targets, or else among the sampled.

    `arrival` is the time at which the last sampled token came, see `sample_absent`; 0: none did.
    """
    q = log_unigram.exp()
    # log P(no other row has it as its target); a row alone gets a finite number, which it ignores
    log_absent = (rows - 1).clamp(min=1) * torch.log1p(-q)
    return torch.log(-torch.expm1(log_absent - q * arrival))


def log_weights(
    duplicates: Duplicates,
    ids_M: Tensor,
    count_M: Tensor,
    rows: Tensor,
    log_unigram_V: Tensor | None,
    arrival: Tensor | float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Log-weights [M] of candidates; those with count 0 are none and get -inf.

    * count: the paper's, every copy stands in the denominator.
    * mask: the same; the caller gives a row's own target the weight 1.
    * unique: 1 each.
    * logq: the inverse of the probability that the token is a candidate at all (Horvitz and
      Thompson 1952), so that the sum's expectation is the one over the whole vocabulary. The own
      target is not there by chance: the caller gives it the weight 1.
    """
    if duplicates in ("count", "mask"):
        return count_M.to(dtype).log()
    if duplicates == "unique":
        return torch.zeros_like(count_M, dtype=dtype).masked_fill(count_M == 0, -torch.inf)
    assert log_unigram_V is not None
    included_M = _log_inclusion(at_least_float32(log_unigram_V)[ids_M], rows, arrival)
    return (-included_M).to(dtype).masked_fill(count_M == 0, -torch.inf)


def candidates(
    unique: UniqueTargets,
    duplicates: Duplicates,
    num_sampled: int,
    log_unigram_V: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """All candidates of a step: ids and log-weights, first the table's, then the sampled ones."""
    ids, counts, rows = unique.ids_M, unique.count_M, unique.count_M.sum()
    if num_sampled == 0:
        return ids, log_weights(duplicates, ids, counts, rows, log_unigram_V, dtype=dtype)
    assert log_unigram_V is not None
    q = at_least_float32(log_unigram_V)  # bf16 has 256 uniform numbers: too few to draw with
    if duplicates in ("count", "mask"):
        counts, ids_K, counts_K = sample_more(unique, num_sampled, q)
        arrival = arrival_K = q.new_zeros(())
    else:
        ids_K, counts_K, arrival_K, arrival = sample_absent(unique, num_sampled, q)
    return torch.cat([ids, ids_K]), torch.cat(
        [
            log_weights(duplicates, ids, counts, rows, q, arrival, dtype),
            log_weights(duplicates, ids_K, counts_K, rows, q, arrival_K, dtype),
        ]
    )


def sample_more(
    unique: UniqueTargets, num_sampled: int, log_unigram_V: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw `num_sampled` further targets from the unigram distribution, as if the batch had them.

    Returns:
        The table's counts [M] with the copies of its own ids added, and ids [K] and counts [K] of
        the others; count 0 marks an entry that is none.
    """
    drawn = torch.multinomial(log_unigram_V.exp(), num_sampled, replacement=True)
    count_V = torch.zeros_like(log_unigram_V, dtype=torch.long)
    count_V = count_V.scatter_add(0, drawn, torch.ones_like(drawn))
    valid_M = unique.count_M > 0
    added_M = count_V[unique.ids_M] * valid_M
    # Padding entries all have the same id, which may be a real one elsewhere in the table.
    count_V = count_V - torch.zeros_like(count_V).scatter_add(0, unique.ids_M, added_M)
    count_K, ids_K = count_V.topk(num_sampled)
    return unique.count_M + added_M, ids_K, count_K


def sample_absent(
    unique: UniqueTargets, num_sampled: int, log_unigram_V: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw `num_sampled` distinct tokens that the table does not hold.

    Each token waits an exponential time with rate q; the first K of those that are not in the
    table are taken. A token's probability to be among them, given all others' times, is
    1 - exp(-q·t) with t the K-th time of the others: exact, also when all tokens are taken
    (priority sampling: Duffield et al. 2007).

    Returns:
        ids [K]; 1 where there was such a token and 0 where the table holds too many [K]; and
        the times t that decide for a sampled token and for one of the table: inf when all came.
    """
    vocab_size = len(log_unigram_V)
    held_V = torch.zeros_like(log_unigram_V).scatter_add(
        0, unique.ids_M, (unique.count_M > 0).to(log_unigram_V.dtype)
    )
    wait_V = -torch.log1p(-torch.rand_like(log_unigram_V)) / log_unigram_V.exp()
    wait_V = wait_V.masked_fill(held_V > 0, torch.inf)
    first, ids = wait_V.topk(min(num_sampled + 1, vocab_size), largest=False, sorted=True)
    last = first[num_sampled - 1]
    beyond = first[num_sampled] if num_sampled < vocab_size else last.new_full((), torch.inf)
    count_K = (first[:num_sampled] < torch.inf).long()
    return ids[:num_sampled], count_K, beyond, last


def expected_log_weights(
    duplicates: Duplicates, log_unigram_V: Tensor, rows: Tensor, num_sampled: int
) -> Tensor | None:
    """log ω [V] up to a constant: the bias of the head that a form implies; None where it is 0."""
    if duplicates == "logq":
        return None
    if duplicates in ("count", "mask"):
        return log_unigram_V
    log_q_V, rows = log_unigram_V.double(), rows.double()
    return _log_inclusion(log_q_V, rows, _expected_arrival(log_q_V, rows, num_sampled)).float()


def own_excess(
    duplicates: Duplicates, log_unigram_V: Tensor, rows: Tensor, num_sampled: int
) -> Tensor | None:
    """κ/ω - 1 [V] where it does not vanish with many rows: only when own copies are masked.

    For "unique" it is 1/ω - 1, zero for all but rare tokens, and what rare tokens gain by it is
    less than the error of the approximation (tests/objectives/test_heads.py).
    """
    if duplicates != "mask":
        return None
    total = (rows.double() + num_sampled).clamp(min=2.0)
    return (1.0 / ((total - 1) * log_unigram_V.double().exp()) - 1.0).float()


def _expected_arrival(log_q_V: Tensor, rows: Tensor, num_sampled: int) -> Tensor | float:
    """The time t by which K tokens not in the batch are expected to come: bisection in log t."""
    if num_sampled == 0:
        return 0.0
    q_V = log_q_V.exp()
    absent_V = torch.exp((rows - 1) * torch.log1p(-q_V))
    low, high = (torch.full_like(rows, end) for end in (-40.0, 40.0))
    for _ in range(80):
        middle = (low + high) / 2
        enough = -(absent_V * torch.expm1(-q_V * middle.exp())).sum() > num_sampled
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return high.exp()
