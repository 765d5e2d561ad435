"""The spectrum of a corpus: which tokens occur together, and how much of that is word frequency.

Shapes: N tokens of the sequences that are looked at, R ranks.
"""

from typing import Any

import numpy as np

from headless.analysis.claims import Claim, Number, values
from headless.analysis.corpus.cooccurrence import WINDOW, spectra
from headless.analysis.drawing import Ranks, by_rank
from headless.analysis.record import Finding, Measure, Place, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE, MOBY_DICK
from headless.analysis.states import moments
from headless.errors import HeadlessError
from headless.geometry import log_fit, singular_spectrum

LENGTH = 128  # tokens of a sequence
LEAST, MOST = 64, 2000  # sequences
ZERO = 1e-9  # of the largest value: what is less is rounding
VARIANTS = ("covariance", "correlation", "pmi")
MEASURES = (
    Measure("r2_head", "R² of log eigenvalue on log rank"),
    Measure("drop", "last eigenvalue over what the law has at its rank"),
)


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
        f"The text is cut into sequences of {LENGTH} tokens, and each is a bag of counts. Two "
        "tokens that occur in the same sequences are correlated; the eigenvalues of the covariance "
        "matrix of all tokens say in how many directions texts differ. They fall as a power law, "
        "which was said to explain power laws inside of models. But frequent words vary more than "
        "rare ones, and that alone gives a power law: the same tokens in shuffled order have the "
        "same frequencies and nothing that occurs together. With every token's variance set to 1 "
        "(correlation), and for pointwise mutual information (pmi) of tokens at most "
        f"{WINDOW} apart, frequency is taken out, and the difference to shuffled text is what "
        "the text knows."
    ),
    needs={"text", "tokens"},
    figures=(
        by_rank(
            "corpus-spectrum",
            "Spectra by rank: the text, and its tokens in shuffled order.",
            Ranks("{place}_real", y="value", null="shuffled"),
        ),
        by_rank(
            "corpus-excess",
            "The text's values over those of shuffled text, rank by rank: 1 is no difference.",
            Ranks("_excess", y="text over shuffled text", log="x", null="no difference"),
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
            CONJECTURE,
            "It drops sharply where the matrix' rank ends",
            values("drop").only <= 0.5,
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
        rows = len(lab.tables["embedding"])
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
    if (last := drop(real["covariance"], sequences, types)) is not None:
        numbers[Place("covariance")]["drop"] = last
    for name, values_R in models.items():
        slope = log_fit(values_R, *fitted_ranks(values_R)["head"])[0]
        numbers[Place(f"compare/{name}")] = {"slope": slope}
    text_R = real["covariance"] / real["covariance"][0]
    payloads: dict[str, dict[Place, Any]] = {
        "{place}_real": {Place(v): Spectrum(real[v], null[v]) for v in VARIANTS},
        "_excess": {Place(v): _excess(real[v], null[v]) for v in VARIANTS},
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
    numbers = {"largest": float(values_R[0])}
    for name, ranks in fitted_ranks(values_R).items():
        numbers[f"slope_{name}"], _, numbers[f"r2_{name}"] = log_fit(values_R, *ranks)
    return numbers


def fitted_ranks(values_R: np.ndarray) -> dict[str, tuple[int, int]]:
    """The ranks of the two fits: the head, and what follows until the spectrum falls off."""
    ranks = int(np.sum(values_R > ZERO * values_R[0]))
    return {"head": (3, min(100, ranks)), "body": (10, max(13, round(0.6 * ranks)))}


def drop(values_R: np.ndarray, sequences: int, types: int) -> float | None:
    """The last eigenvalue that is not 0 over what the fitted law has at its rank; None where the
    spectrum was not computed to its end."""
    if len(values_R) < min(sequences - 1, types):
        return None
    slope, intercept, _ = log_fit(values_R, *fitted_ranks(values_R)["head"])
    left = values_R[values_R > ZERO * values_R[0]]
    return float(left[-1] / np.exp(intercept + slope * np.log(len(left))))


def _excess(real_R: np.ndarray, null_R: np.ndarray) -> Spectrum:
    shared = round(0.8 * min(len(real_R), len(null_R)))
    ratio = real_R[:shared] / np.maximum(null_R[:shared], 1e-12)
    return Spectrum(ratio, np.ones(shared), at=np.arange(1, shared + 1))
