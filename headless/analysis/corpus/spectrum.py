"""The spectrum of a corpus: which tokens occur together, and how much of that is word frequency.

Shapes: N tokens or sequences, V vocabulary, R ranks. No V × V matrix is ever dense.
"""

from typing import Any

import numpy as np
import torch

from headless.analysis.claims import Claim, Number, values
from headless.analysis.drawing import Ranks, by_rank
from headless.analysis.record import Finding, Measure, Place, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE, MOBY_DICK
from headless.analysis.states import moments
from headless.errors import HeadlessError
from headless.geometry import log_fit, singular_spectrum

LENGTH = 128  # tokens of a sequence
DENSE = 256  # the smaller side of a matrix of which all values are computed
TOP = 200  # values that are kept
LEAST, MOST = 64, 2000  # sequences
ZERO = 1e-9  # of the largest value: what is less is rounding
FIRST, LAST = 3, 100  # ranks of the fit
VARIANTS = ("covariance", "correlation")
MEASURES = (Measure("r2_head", "R² of log eigenvalue on log rank"),)


def _slope(finding: Finding, kind: str) -> float:
    return float(finding.values("slope_head", kind)[0])


def _word_frequency(finding: Finding) -> float:
    slope = _slope(finding, "covariance")
    return _slope(finding, "covariance/null") / slope if slope else float("nan")


def _farthest(finding: Finding) -> float:
    return float(np.abs(finding.values("slope") - _slope(finding, "covariance")).max())


@analysis(
    "corpus",
    title="The spectrum of the corpus",
    about=(
        f"Of sequences of {LENGTH} tokens, each a bag of counts, the eigenvalues of the tokens' "
        "covariance say in how many directions texts differ. They fall as a power law, which was "
        "said to explain power laws inside of models; but frequent words vary more than rare "
        "ones, and that alone gives one: the same tokens in shuffled order (the null) have it "
        "too. With every token's variance set to 1 (correlation), the difference to the null is "
        "what the text knows."
    ),
    needs={"text", "tokens"},
    states="last",
    figures=(
        by_rank(
            "corpus-spectrum",
            "Spectra by rank: the text, and its tokens in shuffled order.",
            Ranks("{place}_real", y="value", null="shuffled"),
        ),
        by_rank(
            "corpus-models",
            "The text's spectrum beside the model's, each relative to its largest value.",
            Ranks("_models", y="value over the largest", null="the text"),
        ),
    ),
    claims=(
        Claim(
            CONJECTURE,
            "The spectrum of the token covariance is an exceptionally clear power law",
            values("r2_head", "covariance").only.formed(".3f") >= 0.98,
            of_text=True,
        ),
        Claim(
            MOBY_DICK,
            "Most of the power law is word frequency: text in shuffled order has it, too",
            Number("exponent of shuffled text over that of the text", _word_frequency) >= 0.75,
            kind="own",
            of_text=True,
        ),
        Claim(
            CONJECTURE,
            "Models mimic the spectrum of their text",
            Number("largest distance of a model's exponent from the text's", _farthest) <= 0.25,
        ),
    ),
)
def corpus(lab: Session, *, nulls: bool) -> Finding:
    """Of the training text, of the same shuffled, and of the model's tables and last states."""
    text_N, models = _sample(lab.subject.tokens), _models(lab)
    by_kind = lab.text_spectra  # known where another model read the same text
    if not by_kind:
        rows = len(lab.whole_tables["embedding"])
        by_kind["real"] = spectra(text_N, rows, LENGTH)
        shuffled_N = np.random.default_rng(lab.seed).permutation(text_N)
        by_kind["null"] = spectra(shuffled_N, rows, LENGTH)
    real, null = by_kind["real"], by_kind["null"]
    sequences, types = len(text_N) // LENGTH, len(np.unique(text_N))
    sizes = {"sequences": float(sequences), "tokens": float(len(text_N)), "types": float(types)}
    numbers: dict[Place, dict[str, float]] = {Place(): sizes}
    for variant in VARIANTS:
        shared = min(len(real[variant]), len(null[variant]), 50)
        excess = real[variant][:shared].sum() / null[variant][:shared].sum() - 1
        numbers[Place(variant)] = {
            **_laws(real[variant]),
            "excess_50": float(excess),
            "ranks_above_null": float(np.sum(real[variant] > null[variant][0])),
        }
        numbers[Place(f"{variant}/null")] = _laws(null[variant])
    for name, values_R in models.items():
        numbers[Place(f"compare/{name}")] = {"slope": _laws(values_R)["slope_head"]}
    text_R = real["covariance"] / real["covariance"][0]
    payloads: dict[str, dict[Place, Any]] = {
        "{place}_real": {Place(v): Spectrum(real[v], null[v]) for v in VARIANTS},
        "_models": {
            Place(name): Spectrum(values_R / values_R[0], text_R)
            for name, values_R in models.items()
        },
    }
    finding = Finding(series_of(numbers, MEASURES), payloads)
    covariance, correlation = numbers[Place("covariance")], numbers[Place("correlation")]
    return finding.answered(
        f"The eigenvalues of the token covariance fall as rank^{covariance['slope_head']:.2f} (R² "
        f"{covariance['r2_head']:.3f}); word frequency alone makes {_word_frequency(finding):.0%} "
        "of the exponent. What occurs together adds "
        f"{covariance['excess_50']:.0%} to the 50 largest eigenvalues, "
        f"{correlation['excess_50']:.0%} where every token counts the same."
    )


def _sample(tokens: np.ndarray | None) -> np.ndarray:
    """Whole sequences from all over the text."""
    assert tokens is not None
    number = len(tokens) // LENGTH
    if number < LEAST:
        raise HeadlessError(
            f"{len(tokens)} tokens are {number} sequences of {LENGTH}: the spectrum of a corpus "
            f"needs {LEAST} or more"
        )
    chosen = np.unique(np.linspace(0, number - 1, min(MOST, number)).astype(int))
    rows = [tokens[i * LENGTH : (i + 1) * LENGTH] for i in chosen]
    return np.concatenate(rows).astype(np.int64)


def _models(lab: Session) -> dict[str, np.ndarray]:
    """Squared singular values of the tables, and eigenvalues of the last states' covariance."""
    spectra = {
        name: singular_spectrum(table_VD, center=True).square().cpu().numpy()
        for name, table_VD in lab.tables.items()
    }
    return spectra | {"last states": moments.eigenvalues(next(reversed(lab.statistics.values())))}


def _laws(values_R: np.ndarray) -> dict[str, float]:
    ranks = int(np.sum(values_R > ZERO * values_R[0]))
    slope, _, r2 = log_fit(values_R, FIRST, min(LAST, ranks))
    return {"largest": float(values_R[0]), "slope_head": slope, "r2_head": r2}


def spectra(tokens: np.ndarray, vocab_size: int, length: int) -> dict[str, np.ndarray]:
    """The largest eigenvalues of covariance and correlation, of whole sequences."""
    counts = token_counts(tokens, length, vocab_size)
    return {
        "covariance": covariance_spectrum(counts),
        "correlation": covariance_spectrum(counts, scale=True),
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
    from scipy.sparse.linalg import LinearOperator, svds

    number = counts_NV.shape[0]
    mean_V = np.asarray(counts_NV.mean(axis=0)).ravel()
    variance_V = np.asarray(counts_NV.multiply(counts_NV).mean(axis=0)).ravel() - mean_V**2
    varies = variance_V > 1e-12
    factor = 1 / np.sqrt(variance_V[varies]) if scale else np.ones(varies.sum())
    mean = mean_V[varies] * factor
    x = sparse.csr_matrix(counts_NV[:, varies] @ sparse.diags(factor))
    if min(x.shape) <= max(top + 2, DENSE):
        values = torch.linalg.svdvals(torch.from_numpy(x.toarray() - mean)).numpy()
        values = values[: min(top, number - 1)]
    else:
        operator = LinearOperator(  # centred products
            x.shape,
            matvec=lambda v: x @ v.ravel() - mean @ v.ravel(),
            rmatvec=lambda u: x.T @ u.ravel() - mean * u.sum(),
            dtype=np.float64,
        )
        start = np.random.default_rng(0).standard_normal(min(x.shape))
        values = np.sort(svds(operator, k=top, return_singular_vectors=False, v0=start))[::-1]
    return values**2 / number
