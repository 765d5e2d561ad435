"""Embeddings against the frequency of their tokens: Zipf's law, and the fate of rare tokens.

Shapes: V vocabulary, D hidden size, N states.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis.finding import Claim, Finding, Picture
from headless.errors import HeadlessError
from headless.geometry import (
    anisotropy,
    effective_rank,
    principal_axes,
    singular_spectrum,
    unit,
)
from headless.pages.figures import MUTED, compact_ticks, drawing_style, new_figure, series_color

GAO = "Gao et al. 2019"
GROUPS = 10
LEAST = 50  # tokens that occur
ZIPF = (10, 2000)  # ranks of the fit
MEASURES = {"norm": "norm", "cos_mean": "cosine with the mean", "pc1": "first component"}


def zipf(counts_V: np.ndarray) -> tuple[float, float]:
    """Slope and R² of log count on log rank, ranks 10 to 2000; 1 to all of small vocabularies."""
    sorted_V = np.sort(counts_V[counts_V > 0])[::-1].astype(np.float64)
    low, high = ZIPF if len(sorted_V) >= 4 * ZIPF[0] else (1, len(sorted_V))
    y = np.log(sorted_V[low - 1 : high])
    x = np.log(np.arange(low, low + len(y)))
    return float(np.polyfit(x, y, 1)[0]), float(np.corrcoef(x, y)[0, 1] ** 2)


def groups_of(counts_V: np.ndarray, groups: int = GROUPS) -> list[np.ndarray]:
    """Token numbers in groups of equal size from rare to frequent; unseen ones first, apart."""
    seen = np.flatnonzero(counts_V > 0)
    order = seen[np.argsort(counts_V[seen], kind="stable")]
    return [np.flatnonzero(counts_V == 0), *np.array_split(order, groups)]


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
        values = _measures(table_VD, hidden_ND)
        scalars |= _correlations(name, values, counts, draw)
        scalars |= _by_group(name, table_VD, values, parts, draw)
        arrays |= {f"{name}_{key}": v for key, v in values.items()}
        spectra[name] = [
            (singular_spectrum(table_VD[part], center=True) / max(len(part), 1) ** 0.5).numpy()
            for part in parts[1:]
        ]
        if hidden_ND is not None:
            scalars |= _gao(name, table_VD, parts, hidden_ND)
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
            lambda: _draw_zipf(counts, slope),
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
                lambda own=own, rhos=rhos: _draw_tokens(own, counts, rhos),  # type: ignore[misc]
            ),
            Picture(
                f"{stem}-spectra",
                f"Singular values of the {table_name} in ten groups of equally many tokens, from "
                "rare (light) to frequent (dark), and of a random group (dashed).",
                lambda lines=spectra[table_name], table=tables[table_name]: _draw_spectra(  # type: ignore[misc]
                    lines, _random_group(table[: len(counts)], len(parts[1]), seed)
                ),
                wide=False,
            ),
        ]
    return Finding(
        "frequency", "Embeddings and token frequency", about, answer, scalars, arrays,
        tuple(pictures), (common, negative),
    )  # fmt: skip


def _measures(table_VD: Tensor, hidden_ND: Tensor | None) -> dict[str, np.ndarray]:
    mean_D = table_VD.mean(dim=0)
    pc1_V = principal_axes(table_VD, 1)(table_VD)[:, 0]
    # An axis has no sign: towards the mean vector is positive.
    axis_D = principal_axes(table_VD, 1).axes_KD[0]
    if float(axis_D @ mean_D) < 0:
        pc1_V = -pc1_V
    values = {
        "norm": table_VD.norm(dim=1),
        "cos_mean": unit(table_VD) @ torch.nn.functional.normalize(mean_D, dim=0),
        "pc1": pc1_V,
    }
    if hidden_ND is not None:
        state_D = hidden_ND.detach().double().cpu().mean(dim=0)
        values["dot_state"] = table_VD @ state_D
        values["cos_state"] = unit(table_VD) @ torch.nn.functional.normalize(state_D, dim=0)
    return {name: value.numpy() for name, value in values.items()}


def _correlations(
    name: str, values: Mapping[str, np.ndarray], counts: np.ndarray, draw: np.random.Generator
) -> dict[str, float]:
    from scipy.stats import spearmanr

    seen = counts > 0
    found = {
        f"frequency/{name}/rho_{key}": float(spearmanr(counts[seen], value[seen]).statistic)
        for key, value in values.items()
    }
    shuffled = [
        abs(float(spearmanr(draw.permutation(counts[seen]), values["cos_mean"][seen]).statistic))
        for _ in range(19)
    ]
    return found | {f"frequency/{name}/rho_null": max(shuffled)}


def _by_group(
    name: str,
    table_VD: Tensor,
    values: Mapping[str, np.ndarray],
    parts: list[np.ndarray],
    draw: np.random.Generator,
) -> dict[str, float]:
    found = {}
    size = len(parts[1])
    random = draw.permutation(len(table_VD))[:size]
    for index, part in [*enumerate(parts), ("random", random)]:
        if len(part) < 2:
            continue
        label = f"{index:02d}" if isinstance(index, int) else index
        rows = table_VD[part]
        found[f"frequency/{name}/cos_mean_{label}"] = float(values["cos_mean"][part].mean())
        found[f"frequency/{name}/norm_{label}"] = float(values["norm"][part].mean())
        found[f"frequency/{name}/anisotropy_{label}"] = float(anisotropy(rows))
        found[f"frequency/{name}/effective_rank_{label}"] = float(effective_rank(rows))
    return found


def _gao(
    name: str, table_VD: Tensor, parts: list[np.ndarray], hidden_ND: Tensor
) -> dict[str, float]:
    hidden_ND = hidden_ND.detach().double().cpu()
    state_D, mean_D = hidden_ND.mean(dim=0), table_VD.mean(dim=0)
    rare_D = table_VD[parts[1]].mean(dim=0)
    frequent_D = table_VD[parts[-1]].mean(dim=0)

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(a, b, dim=0))

    found = {
        "rare_against_states": float((hidden_ND @ rare_D < 0).double().mean()),
        "frequent_against_states": float((hidden_ND @ frequent_D < 0).double().mean()),
        "rare_cos_mean_state": cosine(rare_D, state_D),
        "mean_cos_mean_state": cosine(mean_D, state_D),
        "negative_tokens": float((table_VD @ state_D < 0).double().mean()),
    }
    if len(parts[0]):
        unseen_D = table_VD[parts[0]].mean(dim=0)
        found["unseen_against_states"] = float((hidden_ND @ unseen_D < 0).double().mean())
    return {f"frequency/{name}/{key}": value for key, value in found.items()}


def _rarer(scalars: Mapping[str, float], name: str) -> bool:
    rare = scalars[f"frequency/{name}/anisotropy_01"]
    frequent = scalars[f"frequency/{name}/anisotropy_{GROUPS:02d}"]
    rho, null = scalars[f"frequency/{name}/rho_cos_mean"], scalars[f"frequency/{name}/rho_null"]
    return rare > frequent + 0.05 and rho < -null


def _random_group(table: Tensor, size: int, seed: int) -> np.ndarray:
    chosen = np.random.default_rng(seed).permutation(len(table))[:size]
    rows = table.detach().double().cpu()[chosen]
    return (singular_spectrum(rows, center=True) / max(size, 1) ** 0.5).numpy()


def _draw_zipf(counts: np.ndarray, slope: float) -> Any:
    values = np.sort(counts[counts > 0])[::-1]
    x = np.arange(1, len(values) + 1)
    with drawing_style():
        figure = new_figure(5.6, 3.4)
        panel = figure.subplots()
        panel.plot(x, values, color=series_color(0), label="counts")
        anchor = min(len(values), 100)
        line = values[anchor - 1] * (x / anchor) ** slope
        panel.plot(x, line, color=MUTED, linestyle="--", linewidth=1, label=f"rank^{slope:.2f}")
        compact_ticks(panel.xaxis, log=True)
        compact_ticks(panel.yaxis, log=True)
        panel.set(xlabel="rank", ylabel="occurrences")
        panel.set_ylim(bottom=0.7)
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def _draw_tokens(
    values: Mapping[str, np.ndarray], counts: np.ndarray, rhos: Mapping[str, float]
) -> Any:
    """One panel a measure; tokens that never occur stand at a third of an occurrence."""
    names = {**MEASURES, "dot_state": "product with the mean state"}
    x = np.where(counts > 0, counts, 1 / 3)
    jitter = np.random.default_rng(0).uniform(-0.12, 0.12, len(x))
    shown = np.random.default_rng(0).permutation(len(x))[:6000]
    with drawing_style():
        figure = new_figure(11.2, 3.2)
        panels = figure.subplots(1, len(values), squeeze=False)[0]
        for panel, (key, value) in zip(panels, values.items(), strict=True):
            panel.scatter(
                (x * np.exp(jitter))[shown], value[shown], s=3, alpha=0.35, linewidths=0,
                color=series_color(0),
            )  # fmt: skip
            bins = [part for part in groups_of(counts)[1:] if len(part)]
            panel.plot(
                [np.exp(np.log(x[part]).mean()) for part in bins],
                [np.median(value[part]) for part in bins],
                color=series_color(1), marker="o", markersize=3,
            )  # fmt: skip
            compact_ticks(panel.xaxis, log=True)
            panel.set(xlabel="occurrences", title=f"{names[key]}: ρ {rhos[key]:+.2f}")
    return figure


def _draw_spectra(lines: list[np.ndarray], random: np.ndarray) -> Any:
    import matplotlib

    shades = matplotlib.colormaps["Blues"](np.linspace(0.3, 1.0, len(lines)))
    with drawing_style():
        figure = new_figure(5.6, 3.6)
        panel = figure.subplots()
        for index, (values, shade) in enumerate(zip(lines, shades, strict=True)):
            values = values[values > 1e-6 * values[0]]
            label = {0: "rarest tenth", len(lines) - 1: "most frequent tenth"}.get(index)
            panel.plot(
                np.arange(1, len(values) + 1), values, color=shade, linewidth=1.1, label=label
            )
        random = random[random > 1e-6 * random[0]]
        panel.plot(
            np.arange(1, len(random) + 1), random, color=MUTED, linestyle="--", label="random"
        )
        compact_ticks(panel.xaxis, log=True)
        compact_ticks(panel.yaxis, log=True)
        panel.set(xlabel="rank", ylabel="singular value / √tokens")
        figure.legend(loc="outside upper left", ncols=3)
    return figure
