"""The spectrum of a corpus: which tokens occur together, and how much of that is word frequency.

Shapes: N sequences of T tokens, V vocabulary, R ranks. No V × V matrix is ever dense.
"""

from collections.abc import Mapping

import numpy as np

from headless.analysis.corpus_drawing import draw_compare, draw_excess, draw_spectra
from headless.analysis.corpus_spectra import (
    VARIANTS,
    WINDOW,
    fitted_ranks,
    spectra,
)
from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import CONJECTURE, MOBY_DICK
from headless.errors import HeadlessError
from headless.geometry import log_fit

LEAST = 64  # sequences


def corpus(
    tokens: np.ndarray,
    vocab_size: int,
    *,
    length: int = 128,
    most: int = 2000,
    window: int = WINDOW,
    compare: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    known: dict[str, dict[str, np.ndarray]] | None = None,
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
        known: keeps the text's spectra, which take long, for another model on the same text.

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
    found = {} if known is None else known
    if not found:
        for kind, text_N in (("real", real_N), ("null", shuffled_N)):
            found[kind] = spectra(text_N, vocab_size, length=length, window=window)
    scalars = {
        "corpus/sequences": float(len(chosen)),
        "corpus/tokens": float(len(real_N)),
        "corpus/types": float(len(np.unique(real_N))),
    }
    for kind, by_variant in found.items():
        for variant, values in by_variant.items():
            key = f"corpus/{variant}" + ("" if kind == "real" else "/null")
            for name, (low, high) in fitted_ranks(values).items():
                slope, _, r2 = log_fit(values, low, high)
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
        ranks = fitted_ranks(values)["head"]
        scalars[f"corpus/compare/{name}/slope"] = log_fit(values, *ranks)[0]
    first, last = fitted_ranks(found["real"]["covariance"])["head"]
    drop = _drop(found["real"]["covariance"], len(chosen), int(scalars["corpus/types"]))
    if drop is not None:
        scalars["corpus/covariance/drop"] = drop
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
            f"R² of log eigenvalue on log rank {r2:.3f} (ranks {first}–{last}), at least 0.980",
            of_text=True,
        ),
        Claim(
            CONJECTURE,
            "It drops sharply where the matrix' rank ends",
            None if drop is None else drop <= 0.5,
            "the spectrum was not computed whole"
            if drop is None
            else f"last eigenvalue over what the law of ranks {first}–{last} has there "
            f"{drop:.2g}, at most 0.50",
            of_text=True,
        ),
        Claim(
            MOBY_DICK,
            "Most of the power law is word frequency: text in shuffled order has it, too",
            share >= 0.75,
            f"exponent of shuffled text over that of the text {share:.2f}, at least 0.75",
            kind="own",
            of_text=True,
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
            lambda: draw_spectra(found),
        ),
        Picture(
            "corpus-excess",
            "The text's values over those of shuffled text, rank by rank: 1 is no difference.",
            lambda: draw_excess(found),
            wide=False,
        ),
    ]
    if others:
        pictures.append(
            Picture(
                "corpus-models",
                "The text's spectrum beside the model's, each relative to its largest value.",
                lambda: draw_compare(found, others),
                wide=False,
            )
        )
    return Finding(
        "corpus", "The spectrum of the corpus", about, answer, scalars, arrays, tuple(pictures),
        claims,
    )  # fmt: skip


def _drop(values: np.ndarray, sequences: int, types: int) -> float | None:
    """The last eigenvalue that is not 0 over what the fitted law has at its rank; None where the
    spectrum was not computed to its end."""
    if len(values) < min(sequences - 1, types):
        return None
    low, high = fitted_ranks(values)["head"]
    slope, level, _ = log_fit(values, low, high)
    left = values[values > 1e-9 * values[0]]
    return float(left[-1] / np.exp(level + slope * np.log(len(left))))
