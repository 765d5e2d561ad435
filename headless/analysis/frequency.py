"""Embeddings against the frequency of their tokens: Zipf's law, and the fate of rare tokens.

Shapes: V vocabulary, D hidden size, N states.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.frequency_drawing import MEASURES, draw_spectra, draw_tokens, draw_zipf
from headless.analysis.frequency_measure import (
    GROUPS,
    correlations,
    gao,
    groups_of,
    measures,
    of_groups,
    random_group,
    spectrum_of,
    zipf,
)
from headless.analysis.sources import TALK
from headless.errors import HeadlessError

GAO = "Gao et al. 2019"
LEAST = 50  # tokens that occur


def frequency(
    tables: Mapping[str, Tensor],
    counts_V: Tensor,
    *,
    hidden_ND: Tensor | None = None,
    seed: int = 0,
) -> Finding:
    """What embeddings know of the frequency of their tokens, and Gao's claim measured.

    Args:
        tables: [V, D] by name, e.g. {"embedding": …, "head": …}; the head where there is one is
            what Gao speaks of, so the last table's signs are the ones that count.
        counts_V: occurrences in the training text.
        hidden_ND: states before the head, e.g. the reservoir at the final norm.
        seed: of the null model: the same counts given to tokens at random.

    Raises:
        HeadlessError: tables and counts do not fit, or too few tokens occur.
    """
    counts = counts_V.cpu().numpy().astype(np.int64)
    for name, table in tables.items():
        if len(table) < len(counts):
            raise HeadlessError(
                f"{len(counts)} counts for the {len(table)} rows of {name}: count the text with "
                "the model's own tokenizer"
            )
    if not tables or (counts > 0).sum() < LEAST:
        raise HeadlessError(f"fewer than {LEAST} tokens occur in the text: take a longer one")
    slope, r2 = zipf(counts)
    unseen = int((counts == 0).sum())
    scalars = {
        "frequency/zipf_slope": slope,
        "frequency/zipf_r2": r2,
        "frequency/types": float((counts > 0).sum()),
        "frequency/unseen": float(unseen),
    }
    arrays: dict[str, np.ndarray] = {"counts": counts}
    draw = np.random.default_rng(seed)
    parts = groups_of(counts)
    spectra: dict[str, list[np.ndarray]] = {}
    for name, table in tables.items():
        # Rows beyond the tokenizer's vocabulary stand for no token.
        table_VD = table.detach()[: len(counts)].double().cpu()
        values = measures(table_VD, hidden_ND)
        scalars |= correlations(name, values, counts, draw)
        random = random_group(len(table_VD), len(parts[1]), seed)
        spectra[name] = [spectrum_of(table_VD[part]) for part in [*parts, random]]
        scalars |= of_groups(name, table_VD, values, [*parts, random], spectra[name])
        arrays |= {f"{name}_{key}": v for key, v in values.items()}
        if hidden_ND is not None:
            scalars |= gao(name, table_VD, parts, hidden_ND)
    name = list(tables)[-1]
    rho = scalars[f"frequency/{name}/rho_cos_mean"]
    rho_null = scalars[f"frequency/{name}/rho_null"]
    answer = (
        f"Token counts fall as rank^{slope:.2f}. The cosine of a token's {name} vector with the "
        f"mean one has a rank correlation of {rho:+.2f} with frequency (±{rho_null:.2f} by "
        f"chance): {'rare' if rho < 0 else 'frequent'} tokens lie nearer to the common direction."
    )
    common = Claim(
        GAO,
        "Rare tokens are pushed to one common direction",
        _rarer(scalars, name),
        f"mean cosine among the rarest tenth {scalars[f'frequency/{name}/anisotropy_01']:.3f}, "
        f"above that of the most frequent tenth "
        f"({scalars[f'frequency/{name}/anisotropy_{GROUPS:02d}']:.3f}) by more than 0.05; rank "
        f"correlation {rho:+.2f}, below −{rho_null:.2f}",
    )
    negative = Claim(
        GAO,
        "That direction is negatively correlated with most hidden states",
        None,
        "no hidden states were measured",
    )
    if hidden_ND is not None:
        share = scalars[f"frequency/{name}/rare_against_states"]
        answer += (
            f" {share:.0%} of the hidden states have a negative product with the mean of the "
            f"rarest tenth; {scalars[f'frequency/{name}/negative_tokens']:.1%} of the tokens have "
            "one with the mean hidden state."
        )
        negative = Claim(
            GAO,
            negative.text,
            share > 0.5,
            f"share of states with a negative product {share:.2f}, above 0.50; cosine with the "
            f"mean state {scalars[f'frequency/{name}/rare_cos_mean_state']:+.3f}",
        )
    law = Claim(
        f"{TALK}; Zipf 1949",
        "Token frequencies fall as one over the rank",
        bool(abs(slope + 1) <= 0.2 and r2 >= 0.95),
        f"slope {slope:.2f}, between −1.2 and −0.8; R² {r2:.3f}, at least 0.95",
        of_text=True,
    )
    about = (
        "A few tokens make most of a text: counts fall about as one over the rank (Zipf's law). A "
        "softmax pushes the vectors of all tokens that are not the right one away from the state, "
        "and rare tokens are hardly ever right: Gao and others predict that rare tokens end in one "
        "common direction, opposite to most hidden states, and that this is the cone. Each point "
        "is a token; tokens that never occur are apart on the left. Rank correlations stand beside "
        "those of counts given to tokens at random. The spectra say whether groups of equally "
        "many rare and frequent tokens fill the space equally."
    )
    pictures = [
        Picture(
            "frequency-zipf",
            f"Counts by rank; the line has slope {slope:.2f}.",
            lambda: draw_zipf(counts, slope),
            wide=False,
        )
    ]
    for index, table_name in enumerate(tables):
        own = {
            key: arrays[f"{table_name}_{key}"]
            for key in [*MEASURES, "dot_state"]
            if f"{table_name}_{key}" in arrays
        }
        stem = "frequency" if index == 0 else f"frequency-{table_name}"
        rhos = {k: scalars[f"frequency/{table_name}/rho_{k}"] for k in own}
        noise = scalars[f"frequency/{table_name}/rho_null"]
        pictures += [
            Picture(
                f"{stem}-tokens",
                f"Tokens of the {table_name} by count (0: never); in the titles the rank "
                f"correlation, ±{noise:.2f} by chance.",
                lambda own=own, rhos=rhos: draw_tokens(own, counts, rhos),  # type: ignore[misc]
            ),
            Picture(
                f"{stem}-spectra",
                f"Singular values of the {table_name} in ten groups of equally many tokens, from "
                "rare (light) to frequent (dark), and of a random group (dashed).",
                lambda lines=spectra[table_name]: draw_spectra(lines[1:-1], lines[-1]),  # type: ignore[misc]
                wide=False,
            ),
        ]
    return Finding(
        "frequency", "Embeddings and token frequency", about, answer, scalars, arrays,
        tuple(pictures), (common, negative, law),
    )  # fmt: skip


def _rarer(scalars: Mapping[str, float], name: str) -> bool:
    rare = scalars[f"frequency/{name}/anisotropy_01"]
    frequent = scalars[f"frequency/{name}/anisotropy_{GROUPS:02d}"]
    rho, null = scalars[f"frequency/{name}/rho_cos_mean"], scalars[f"frequency/{name}/rho_null"]
    return rare > frequent + 0.05 and rho < -null
