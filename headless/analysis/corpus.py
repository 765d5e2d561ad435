"""The spectrum of a corpus: which tokens occur together, and how much of that is word frequency.

Shapes: N sequences of T tokens, V vocabulary, R ranks. No V × V matrix is ever dense.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from headless.analysis.finding import Claim, Finding, Picture
from headless.errors import HeadlessError
from headless.geometry import rank_law
from headless.pages.figures import MUTED, compact_ticks, drawing_style, new_figure, series_color

CONJECTURE = "Conjecture 2023"
GRAM = 4000  # a dense Gram matrix of this side at most: 128 MB
TOP = 200  # values where the spectrum is not computed whole
WINDOW = 8
LEAST = 64  # sequences
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


def corpus(
    tokens: np.ndarray,
    vocab_size: int,
    *,
    length: int = 128,
    most: int = 2000,
    window: int = WINDOW,
    compare: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> Finding:
    """The spectrum of the token–token covariance of a text, beside the same text shuffled.

    Args:
        tokens: of a split, e.g. `open_dataset(path).split("train").tokens`.
        vocab_size: V.
        length: T, of a sequence.
        most: sequences, evenly spread over the text.
        window: for pmi.
        compare: eigenvalues (of activations) or squared singular values (of weights) by name, to
            see whether a model has the spectrum of its text.
        seed: of the shuffled text.

    Raises:
        HeadlessError: too few tokens.
    """
    number = len(tokens) // length
    if number < LEAST:
        raise HeadlessError(
            f"{len(tokens)} tokens are {number} sequences of {length}: the spectrum of a corpus "
            f"needs {LEAST} or more"
        )
    chosen = np.unique(np.linspace(0, number - 1, min(most, number)).astype(int))
    real_N = np.concatenate([tokens[i * length : (i + 1) * length] for i in chosen])
    real_N = real_N.astype(np.int64)
    shuffled_N = np.random.default_rng(seed).permutation(real_N)
    settings = {"length": length, "window": window}
    found = {
        "real": spectra(real_N, vocab_size, **settings),
        "null": spectra(shuffled_N, vocab_size, **settings),
    }
    scalars = {
        "corpus/sequences": float(len(chosen)),
        "corpus/tokens": float(len(real_N)),
        "corpus/types": float(len(np.unique(real_N))),
    }
    for kind, by_variant in found.items():
        for variant, values in by_variant.items():
            key = f"corpus/{variant}" + ("" if kind == "real" else "/null")
            for name, (low, high) in _ranges(values).items():
                slope, r2 = log_slope(values, low, high)
                scalars[f"{key}/slope_{name}"], scalars[f"{key}/r2_{name}"] = slope, r2
            scalars[f"{key}/largest"] = float(values[0])
    for variant in VARIANTS:
        real, null = found["real"][variant], found["null"][variant]
        shared = min(len(real), len(null), 50)
        scalars[f"corpus/{variant}/excess_50"] = float(
            real[:shared].sum() / null[:shared].sum() - 1
        )
        scalars[f"corpus/{variant}/ranks_above_null"] = float(np.sum(real > null[0]))
    for name, values in (compare or {}).items():
        law = rank_law(torch.from_numpy(np.asarray(values, dtype=np.float64).copy()))
        scalars[f"corpus/compare/{name}/slope"] = -law.exponent
    cov, null_cov = (scalars[f"corpus/covariance{k}/slope_head"] for k in ("", "/null"))
    r2 = scalars["corpus/covariance/r2_head"]
    share = null_cov / cov if cov else float("nan")
    excess = scalars["corpus/covariance/excess_50"]
    answer = (
        f"The eigenvalues of the token covariance fall as rank^{cov:.2f} (R² {r2:.3f}); with the "
        f"tokens of the text shuffled as rank^{null_cov:.2f}. Word frequency alone makes "
        f"{share:.0%} of the exponent; what occurs together adds {excess:.0%} to the 50 largest "
        f"eigenvalues, {scalars['corpus/correlation/excess_50']:.0%} where every token counts the "
        "same."
    )
    slopes = {name: scalars[f"corpus/compare/{name}/slope"] for name in (compare or {})}
    claims = (
        Claim(
            CONJECTURE,
            "The spectrum of the token covariance is an exceptionally clear power law",
            r2 >= 0.98,
            f"R² of log eigenvalue on log rank {r2:.3f} (ranks "
            f"{'–'.join(map(str, _ranges(found['real']['covariance'])['head']))}), at least 0.980",
        ),
        Claim(
            CONJECTURE,
            "The power law is about which tokens occur together",
            abs(share) < 0.5,
            f"share of the exponent that shuffled text has {share:.2f}, below 0.50",
        ),
        Claim(
            CONJECTURE,
            "Models mimic the spectrum of their text",
            bool(all(abs(s - cov) <= 0.25 for s in slopes.values())) if slopes else None,
            "exponents "
            + (", ".join(f"{name} {s:.2f}" for name, s in slopes.items()) or "not given")
            + f", within 0.25 of {cov:.2f}",
        ),
    )
    about = (
        f"The text is cut into sequences of {length} tokens, and each is a bag of counts. Two "
        "tokens that occur in the same sequences are correlated; the eigenvalues of the covariance "
        "matrix of all tokens say in how many directions texts differ. They fall as a power law, "
        "which was said to explain power laws inside of models. But frequent words vary more than "
        "rare ones, and that alone gives a power law: the same tokens in shuffled order have the "
        "same frequencies and nothing that occurs together. With every token's variance set to 1 "
        "(correlation), and for pointwise mutual information of tokens at most "
        f"{window} apart, frequency is taken out, and the difference to shuffled text is what "
        "the text knows."
    )
    arrays = {
        f"{variant}_{kind}": values
        for kind, by_variant in found.items()
        for variant, values in by_variant.items()
    }
    others = {
        name: np.asarray(values, dtype=np.float64) for name, values in (compare or {}).items()
    }
    pictures = [
        Picture(
            "corpus-spectrum",
            "Spectra by rank: the text, and its tokens in shuffled order (grey).",
            lambda: _draw(found),
        ),
        Picture(
            "corpus-excess",
            "The text's values over those of shuffled text, rank by rank: 1 is no difference.",
            lambda: _draw_excess(found),
            wide=False,
        ),
    ]
    if others:
        pictures.append(
            Picture(
                "corpus-models",
                "The text's spectrum beside the model's, each relative to its largest value.",
                lambda: _draw_compare(found, others),
                wide=False,
            )
        )
    return Finding(
        "corpus", "The spectrum of the corpus", about, answer, scalars, arrays, tuple(pictures),
        claims,
    )  # fmt: skip


def log_slope(values: np.ndarray, low: int, high: int) -> tuple[float, float]:
    """Slope and R² of log value on log rank, for ranks low … high counted from 1."""
    y = np.asarray(values[low - 1 : high], dtype=np.float64)
    x = np.arange(low, low + len(y))
    here = y > 0
    if here.sum() < 3:
        return float("nan"), float("nan")
    log_x, log_y = np.log(x[here]), np.log(y[here])
    slope, _ = np.polyfit(log_x, log_y, 1)
    return float(slope), float(np.corrcoef(log_x, log_y)[0, 1] ** 2)


def _ranges(values: np.ndarray) -> dict[str, tuple[int, int]]:
    """The ranks of the two fits: the head, and what follows until the spectrum falls off."""
    ranks = int(np.sum(values > 1e-9 * values[0]))
    return {"head": (3, min(100, ranks)), "body": (10, max(13, round(0.6 * ranks)))}


def _draw(found: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    names = {"covariance": "eigenvalue", "correlation": "eigenvalue", "pmi": "singular value"}
    with drawing_style():
        figure = new_figure(11.2, 3.4)
        for panel, (variant, name) in zip(figure.subplots(1, 3), names.items(), strict=True):
            for kind, colour, label in (
                ("null", MUTED, "shuffled"),
                ("real", series_color(0), "text"),
            ):
                values = found[kind][variant]
                values = values[values > 1e-9 * values[0]]
                panel.plot(np.arange(1, len(values) + 1), values, color=colour, label=label)
            compact_ticks(panel.xaxis, log=True)
            compact_ticks(panel.yaxis, log=True)
            panel.set(title=variant.replace("pmi", "pointwise mutual information"))
            panel.set(xlabel="rank", ylabel=name)
        figure.legend(*panel.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def _draw_excess(found: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    with drawing_style():
        figure = new_figure(5.6, 3.4)
        panel = figure.subplots()
        for index, variant in enumerate(VARIANTS):
            real, null = found["real"][variant], found["null"][variant]
            shared = round(0.8 * min(len(real), len(null)))
            ratio = real[:shared] / np.maximum(null[:shared], 1e-12)
            x = np.arange(1, shared + 1)
            panel.plot(x, ratio, color=series_color(index), label=variant)
        panel.axhline(1, color=MUTED, linewidth=0.8)
        compact_ticks(panel.xaxis, log=True)
        panel.set(xlabel="rank", ylabel="text over shuffled text")
        figure.legend(loc="outside upper left", ncols=3)
    return figure


def _draw_compare(
    found: Mapping[str, Mapping[str, np.ndarray]], others: Mapping[str, np.ndarray]
) -> Any:
    lines = {"text": found["real"]["covariance"], **others}
    with drawing_style():
        figure = new_figure(5.6, 3.6)
        panel = figure.subplots()
        for index, (name, values) in enumerate(lines.items()):
            values = values[values > 1e-9 * values[0]] / values[0]
            x = np.arange(1, len(values) + 1)
            panel.plot(x, values, color=series_color(index), label=name)
        compact_ticks(panel.xaxis, log=True)
        compact_ticks(panel.yaxis, log=True)
        panel.set(xlabel="rank", ylabel="value over the largest")
        figure.legend(loc="outside upper left", ncols=3)
    return figure
