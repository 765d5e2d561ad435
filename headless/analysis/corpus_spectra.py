"""Spectra of a text's token counts and co-occurrences. No V × V matrix is ever dense.

Shapes: N sequences of T tokens, V vocabulary.
"""

from typing import Any

import numpy as np
import torch

GRAM = 4000  # a dense Gram matrix of this side at most: 128 MB
TOP = 200  # values where the spectrum is not computed whole
WINDOW = 8
VARIANTS = ("covariance", "correlation", "pmi")


def token_counts(tokens: np.ndarray, length: int, vocab_size: int) -> Any:
    """How often each token occurs in each sequence: sparse [N, V], float64."""
    from scipy import sparse

    number = len(tokens) // length
    rows = np.repeat(np.arange(number), length)
    ones = np.ones(number * length)
    shape = (number, vocab_size)
    counts = sparse.csr_matrix((ones, (rows, tokens[: number * length])), shape=shape)
    counts.sum_duplicates()
    return counts


def covariance_spectrum(counts_NV: Any, *, scale: bool = False, top: int = TOP) -> np.ndarray:
    """Eigenvalues of the covariance of sparse rows, descending.

    All that can be above 0 if N or the number of tokens that occur is at most `GRAM`: through the
    smaller Gram matrix of centred rows. Else the largest `top`, by Lanczos on centred products.

    Args:
        counts_NV: sparse.
        scale: give every token variance 1: of the correlation. Tokens that never vary are out.
        top: how many where not all are computed.
    """
    from scipy import sparse
    from scipy.sparse.linalg import LinearOperator, svds

    number = counts_NV.shape[0]
    mean_V = np.asarray(counts_NV.mean(axis=0)).ravel()
    square_V = np.asarray(counts_NV.multiply(counts_NV).mean(axis=0)).ravel()
    variance_V = square_V - mean_V**2
    varies = variance_V > 1e-12
    x = counts_NV[:, varies]
    mean = mean_V[varies]
    if scale:
        factor = 1 / np.sqrt(variance_V[varies])
        x, mean = x @ sparse.diags(factor), mean * factor
    x = sparse.csr_matrix(x)
    if min(x.shape) <= GRAM:
        if x.shape[1] <= number:
            gram = (x.T @ x).toarray() - number * np.outer(mean, mean)
            bound = min(number - 1, x.shape[1])
        else:
            cross = x @ mean
            gram = (x @ x.T).toarray() - cross[:, None] - cross[None, :] + mean @ mean
            bound = number - 1
        values = torch.linalg.eigvalsh(torch.from_numpy(gram)).flip(0).numpy()
        return np.maximum(values[:bound], 0) / number

    def forward(v: np.ndarray) -> np.ndarray:
        return x @ v.ravel() - mean @ v.ravel()

    def backward(u: np.ndarray) -> np.ndarray:
        return x.T @ u.ravel() - mean * u.sum()

    operator = LinearOperator(x.shape, matvec=forward, rmatvec=backward, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(min(x.shape))
    values = svds(operator, k=top, return_singular_vectors=False, v0=start)
    return np.sort(values)[::-1] ** 2 / number


def cooccurrences(tokens: np.ndarray, vocab_size: int, window: int = WINDOW) -> Any:
    """How often two tokens stand at most `window` apart, both ways round: sparse [V, V]."""
    from scipy import sparse

    total = sparse.csr_matrix((vocab_size, vocab_size))
    for gap in range(1, window + 1):
        left, right = tokens[:-gap], tokens[gap:]
        pairs = sparse.coo_matrix(
            (np.ones(len(left)), (left, right)), shape=(vocab_size, vocab_size)
        )
        total = total + pairs.tocsr()
    return (total + total.T).tocsr()


def pmi_spectrum(cooccurrences_VV: Any, top: int = TOP) -> np.ndarray:
    """Singular values of positive pointwise mutual information, descending (Levy and Goldberg
    2014). At most `top`.

    log p(a, b) / p(a) p(b) where it is above 0, else 0.
    """
    from scipy import sparse
    from scipy.sparse.linalg import svds

    pairs = cooccurrences_VV.tocoo()
    total = pairs.data.sum()
    count_V = np.asarray(cooccurrences_VV.sum(axis=1)).ravel()
    value = np.log(pairs.data * total / (count_V[pairs.row] * count_V[pairs.col]))
    here = value > 0
    used, place = np.unique(np.concatenate([pairs.row[here], pairs.col[here]]), return_inverse=True)
    rows, columns = place[: here.sum()], place[here.sum() :]
    matrix = sparse.csr_matrix((value[here], (rows, columns)), shape=(len(used), len(used)))
    if len(used) <= max(top + 2, 256):
        dense = torch.from_numpy(matrix.toarray())
        return torch.linalg.svdvals(dense).numpy()[:top]
    start = np.random.default_rng(0).standard_normal(len(used))
    values = svds(matrix, k=top, return_singular_vectors=False, v0=start)
    return np.sort(values)[::-1]


def spectra(
    tokens: np.ndarray, vocab_size: int, *, length: int = 128, window: int = WINDOW, top: int = TOP
) -> dict[str, np.ndarray]:
    """The three spectra of a text: covariance, correlation (eigenvalues), pmi (singular values).

    Args:
        tokens: whole sequences.
        vocab_size: V.
        length: T.
        window: how far apart tokens may stand that occur together, for pmi.
        top: how many where not all are computed.
    """
    counts = token_counts(tokens, length, vocab_size)
    return {
        "covariance": covariance_spectrum(counts, top=top),
        "correlation": covariance_spectrum(counts, scale=True, top=top),
        "pmi": pmi_spectrum(cooccurrences(tokens, vocab_size, window), top),
    }


def fitted_ranks(values: np.ndarray) -> dict[str, tuple[int, int]]:
    """The ranks of the two fits: the head, and what follows until the spectrum falls off."""
    ranks = int(np.sum(values > 1e-9 * values[0]))
    return {"head": (3, min(100, ranks)), "body": (10, max(13, round(0.6 * ranks)))}
