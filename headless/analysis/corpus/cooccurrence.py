"""Spectra of a text's token counts and co-occurrences. No V × V matrix is ever dense.

Shapes: N sequences of T tokens, V vocabulary.
"""

from typing import Any

import numpy as np
import torch

DENSE = 256  # the smaller side of a matrix of which all values are computed
TOP = 200  # values that are kept
WINDOW = 8  # how far apart tokens may stand that occur together


def spectra(tokens: np.ndarray, vocab_size: int, length: int) -> dict[str, np.ndarray]:
    """The largest values of three spectra of whole sequences: of pmi singular values."""
    counts = token_counts(tokens, length, vocab_size)
    return {
        "covariance": covariance_spectrum(counts),
        "correlation": covariance_spectrum(counts, scale=True),
        "pmi": pmi_spectrum(cooccurrences(tokens, vocab_size)),
    }


def token_counts(tokens: np.ndarray, length: int, vocab_size: int) -> Any:
    """How often each token occurs in each sequence: sparse [N, V], float64."""
    from scipy import sparse

    number = len(tokens) // length
    places = np.repeat(np.arange(number), length), tokens[: number * length]
    # Tokens of one place are added up.
    return sparse.csr_matrix((np.ones(number * length), places), shape=(number, vocab_size))


def covariance_spectrum(counts_NV: Any, *, scale: bool = False, top: int = TOP) -> np.ndarray:
    """The largest eigenvalues of the covariance of sparse rows, at most `top`, descending.

    With `scale` every token has variance 1 (the correlation); tokens that never vary are out.
    """
    from scipy import sparse
    from scipy.sparse.linalg import LinearOperator

    number = counts_NV.shape[0]
    mean_V = np.asarray(counts_NV.mean(axis=0)).ravel()
    variance_V = np.asarray(counts_NV.multiply(counts_NV).mean(axis=0)).ravel() - mean_V**2
    varies = variance_V > 1e-12
    factor = 1 / np.sqrt(variance_V[varies]) if scale else np.ones(varies.sum())
    mean = mean_V[varies] * factor
    x = sparse.csr_matrix(counts_NV[:, varies] @ sparse.diags(factor))
    if min(x.shape) <= max(top + 2, DENSE):
        values = _dense(x.toarray() - mean)[: min(top, number - 1)]
    else:
        operator = LinearOperator(  # centred products
            x.shape,
            matvec=lambda v: x @ v.ravel() - mean @ v.ravel(),
            rmatvec=lambda u: x.T @ u.ravel() - mean * u.sum(),
            dtype=np.float64,
        )
        values = _largest(operator, top)
    return values**2 / number


def _dense(matrix: np.ndarray) -> np.ndarray:
    return torch.linalg.svdvals(torch.from_numpy(matrix)).numpy()


def _largest(matrix: Any, top: int) -> np.ndarray:
    """Singular values by Lanczos, descending, the same ones every time."""
    from scipy.sparse.linalg import svds

    start = np.random.default_rng(0).standard_normal(min(matrix.shape))
    values = svds(matrix, k=top, return_singular_vectors=False, v0=start)
    return np.sort(values)[::-1]


def cooccurrences(tokens: np.ndarray, vocab_size: int, window: int = WINDOW) -> Any:
    """How often two tokens stand at most `window` apart, both ways round: sparse [V, V]."""
    from scipy import sparse

    left = np.concatenate([tokens[:-gap] for gap in range(1, window + 1)])
    right = np.concatenate([tokens[gap:] for gap in range(1, window + 1)])
    shape = (vocab_size, vocab_size)
    pairs = sparse.csr_matrix((np.ones(len(left)), (left, right)), shape=shape)
    return (pairs + pairs.T).tocsr()


def pmi_spectrum(cooccurrences_VV: Any, top: int = TOP) -> np.ndarray:
    """Singular values of positive pointwise mutual information, at most `top`, descending.

    log p(a, b) / p(a) p(b) where it is above 0, else 0 (Levy and Goldberg 2014).
    """
    from scipy import sparse

    pairs = cooccurrences_VV.tocoo()
    count_V = np.asarray(cooccurrences_VV.sum(axis=1)).ravel()
    value = np.log(pairs.data * pairs.data.sum() / (count_V[pairs.row] * count_V[pairs.col]))
    positive = value > 0
    used = np.unique([pairs.row[positive], pairs.col[positive]])
    matrix = sparse.csr_matrix(
        (value[positive], (pairs.row[positive], pairs.col[positive])), shape=cooccurrences_VV.shape
    )[used][:, used]
    few = len(used) <= max(top + 2, DENSE)
    return _dense(matrix.toarray())[:top] if few else _largest(matrix, top)
