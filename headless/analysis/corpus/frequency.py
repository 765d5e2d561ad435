"""Embeddings against the frequency of their tokens: Zipf's law, and the fate of rare tokens.

Shapes: V vocabulary, R rows that are looked at, D hidden size, N states.
"""

from collections.abc import Mapping
from math import nan
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from headless.analysis.claims import Claim, Number, values
from headless.analysis.drawing import Ranks, by_rank, cloud
from headless.analysis.head.lens import counts_of
from headless.analysis.record import Cloud, Figure, Finding, Place, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import TALK
from headless.geometry import anisotropy, effective_rank, log_fit, unit
from headless.models.backbone import embedding_table

GAO = "Gao et al. 2019"
GROUPS = 10
ZIPF = (10, 2000)  # ranks of the fit
SHUFFLES = 19
SHOWN = 6000  # tokens
DRAWN = {"norm": "norm", "cos_mean": "cosine with the mean"}


def _tokens_figure(stem: str, table: str) -> Figure:
    return cloud(
        f"{stem}-tokens",
        f"Tokens of the {table} by count (a third: never), and medians of ten groups of as many; "
        "in the titles the rank correlation.",
        f"_tokens_{table}",
        columns=2,
        log="x",
    )


def _beyond_chance(finding: Finding) -> float:
    rho, chance = (float(finding.values(name)[-1]) for name in ("rho_cos_mean", "rho_null"))
    return rho + chance


SLOPE = values("zipf_slope").only


@analysis(
    "frequency",
    title="Embeddings and token frequency",
    about=(
        "Counts fall about as one over the rank (Zipf's law). A softmax pushes the vectors of all "
        "tokens that are not the right one away from the state, and rare tokens are hardly ever "
        "right: Gao and others predict that they end in one common direction, opposite to most "
        "hidden states. Each point is a token; those that never occur are apart on the left. Rank "
        f"correlations stand beside the largest of {SHUFFLES} with counts given to tokens at "
        "random."
    ),
    needs={"text", "counts"},
    states="last",
    figures=(
        by_rank(
            "frequency-zipf",
            "Counts by rank, and the fitted law.",
            Ranks("_zipf", y="occurrences", null="the fitted law"),
            wide=False,
        ),
        _tokens_figure("frequency", "embedding"),
        _tokens_figure("frequency-head", "head"),
    ),
    claims=(
        Claim(
            GAO,
            "Rare tokens are pushed to one common direction",
            ((values("anisotropy_01") - values(f"anisotropy_{GROUPS:02d}")).last > 0.05)
            & (Number("rank correlation with frequency plus that by chance", _beyond_chance) < 0),
        ),
        Claim(
            GAO,
            "That direction is negatively correlated with most hidden states",
            values("rare_against_states").last > 0.5,
        ),
        Claim(
            f"{TALK}; Zipf 1949",
            "Token frequencies fall as one over the rank",
            (SLOPE >= -1.2) & (SLOPE <= -0.8) & (values("zipf_r2").only >= 0.95),
            of_text=True,
        ),
    ),
)
def frequency(lab: Session, *, nulls: bool) -> Finding:
    """Of the embeddings and, where it is another table, the head: that is what Gao speaks of."""
    counts_V = counts_of(lab, min(map(len, lab.whole_tables.values()))).numpy()
    slope, intercept, r2 = zipf(counts_V)
    counts_R = counts_V[lab.table_rows]
    groups = groups_of(counts_R)
    groups.append(np.random.default_rng(lab.seed).permutation(len(counts_R))[: len(groups[1])])
    draw = np.random.default_rng(lab.seed)
    states_ND = lab.last_states.detach().double().cpu()
    types = int((counts_V > 0).sum())
    whole = {"zipf_slope": slope, "zipf_r2": r2, "types": types, "unseen": len(counts_V) - types}
    numbers: dict[Place, dict[str, float]] = {Place(): whole}
    sorted_V = np.sort(counts_V[counts_V > 0])[::-1]
    law_V = np.exp(intercept + slope * np.log(np.arange(1, len(sorted_V) + 1)))
    payloads: dict[str, dict[Place, Any]] = {"_zipf": {Place(): Spectrum(sorted_V, law_V)}}
    for name, table in lab.tables.items():
        # Rows beyond the tokenizer's vocabulary stand for no token.
        table_RD = table.detach()[: len(counts_R)].double().cpu()
        measured = measures(table_RD, states_ND)
        if name == "embedding" and lab.subject.initial is not None:
            first_RD = embedding_table(lab.subject.initial).detach()[lab.table_rows]
            first_RD = first_RD[: len(counts_R)].double().cpu()
            measured["moved"] = (table_RD - first_RD).norm(dim=1).numpy()
        if name == "embedding" and lab.checkpoints and lab.checkpoints.rows_before is not None:
            rows_RD = lab.checkpoints.rows_before[: len(counts_R)].double().cpu()
            path_R = (table_RD - rows_RD).norm(dim=1).numpy()
            measured["update"] = path_R / lab.checkpoints.steps_since
        of_table = {**correlations(measured, counts_R, draw), **_gao(table_RD, groups, states_ND)}
        labels = [*(f"{index:02d}" for index in range(GROUPS + 1)), "random"]
        for label, group in zip(labels, groups, strict=True):
            if len(group) > 1:
                of_table |= {
                    f"{key}_{label}": float(measured[key][group].mean())
                    for key in ("cos_mean", "norm", "moved", "update")
                    if key in measured
                }
                of_table |= {
                    f"anisotropy_{label}": float(anisotropy(table_RD[group])),
                    f"effective_rank_{label}": float(effective_rank(table_RD[group])),
                }
        numbers[Place(name)] = of_table
        payloads[f"_tokens_{name}"] = _tokens(measured, counts_R, groups[1:-1], of_table)
    rho = of_table["rho_cos_mean"]
    return Finding(series_of(numbers), payloads).answered(
        f"Token counts fall as rank^{slope:.2f}. {'Rare' if rho < 0 else 'Frequent'} tokens lie "
        f"nearer to the common direction of the {name} (rank correlation {rho:+.2f}, "
        f"±{of_table['rho_null']:.2f} by chance). "
        f"{of_table['rare_against_states']:.0%} of the hidden states have a negative product with "
        "the mean of the rarest tenth."
    )


def zipf(counts_V: np.ndarray) -> tuple[float, float, float]:
    """Slope, intercept and R² of log count on log rank, ranks 10 to 2000; all of few tokens."""
    sorted_V = np.sort(counts_V[counts_V > 0])[::-1].astype(np.float64)
    return log_fit(sorted_V, *(ZIPF if len(sorted_V) >= 4 * ZIPF[0] else (1, len(sorted_V))))


def groups_of(counts_V: np.ndarray) -> list[np.ndarray]:
    """Token numbers in groups of equal size from rare to frequent; unseen ones first, apart.

    Tokens of one count are in random order: tokenizers number theirs by frequency in another text,
    so that among tokens that occur once the order of their numbers would be one of frequency.
    """
    seen = np.random.default_rng(0).permutation(np.flatnonzero(counts_V > 0))
    order = seen[np.argsort(counts_V[seen], kind="stable")]
    return [np.flatnonzero(counts_V == 0), *np.array_split(order, GROUPS)]


def measures(table_VD: Tensor, states_ND: Tensor) -> dict[str, np.ndarray]:
    """Of each token [V]: norm, cosine with the mean vector, and product with the mean state."""
    return {
        "norm": table_VD.norm(dim=1).numpy(),
        "cos_mean": (unit(table_VD) @ normalize(table_VD.mean(dim=0), dim=0)).numpy(),
        "dot_state": (table_VD @ states_ND.mean(dim=0)).numpy(),
    }


def correlations(
    measured: Mapping[str, np.ndarray], counts_V: np.ndarray, draw: np.random.Generator
) -> dict[str, float]:
    """Rank correlations of each measure with counts, and the largest with shuffled ones."""
    from scipy.stats import spearmanr

    seen = counts_V > 0
    counts = counts_V[seen]
    cosine = measured["cos_mean"][seen]
    chance = [spearmanr(draw.permutation(counts), cosine).statistic for _ in range(SHUFFLES)]
    rho = {
        f"rho_{name}": float(spearmanr(counts, x_V[seen]).statistic) if np.ptp(x_V[seen]) else nan
        for name, x_V in measured.items()
    }
    return rho | {"rho_null": float(np.abs(chance).max())}


def _gao(table_VD: Tensor, groups: list[np.ndarray], states_ND: Tensor) -> dict[str, float]:
    """Where the mean vectors of rare and frequent tokens stand to the hidden states."""
    state_D = states_ND.mean(dim=0)
    named = {"unseen": groups[0], "rare": groups[1], "frequent": groups[GROUPS]}
    means = {name: table_VD[group].mean(dim=0) for name, group in named.items() if len(group)}
    against = {
        f"{name}_against_states": float((states_ND @ mean_D < 0).double().mean())
        for name, mean_D in means.items()
    }
    cosine = cosine_similarity(means["rare"], state_D, dim=0)
    return against | {"rare_cos_mean_state": float(cosine)}


def _tokens(
    measured: Mapping[str, np.ndarray],
    counts_V: np.ndarray,
    groups: list[np.ndarray],
    rhos: Mapping[str, float],
) -> dict[Place, Cloud]:
    x_V = np.where(counts_V > 0, counts_V, 1 / 3)
    draw = np.random.default_rng(0)  # apart, where many tokens have one count
    apart_V = x_V * np.exp(draw.uniform(-0.12, 0.12, len(x_V)))
    shown = draw.permutation(len(x_V))[:SHOWN]
    middle = [np.exp(np.log(x_V[group]).mean()) for group in groups if len(group)]
    clouds = {}
    for key, words in DRAWN.items():
        y_V = measured[key]
        medians = [np.median(y_V[group]) for group in groups if len(group)]
        clouds[Place(f"{words}: ρ {rhos[f'rho_{key}']:+.2f}")] = Cloud(
            np.stack([apart_V[shown], y_V[shown]], axis=1),
            axes=("occurrences",),
            lines=(np.stack([middle, medians], axis=1),),
        )
    return clouds
