"""Embedding tables and LM heads: expectation against reality, with and without the mean."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import TALK
from headless.analysis.weights_drawing import (
    NULL_DASH,
    bottom_labels,
    legend,
    logarithmic,
    panels_for,
    spectrum_line,
)
from headless.analysis.weights_measure import null_spectrum, spread
from headless.errors import HeadlessError
from headless.geometry import (
    MarchenkoPastur,
    compare_with_noise,
    rank_law,
    ranks_of,
    singular_spectrum,
    tail_law,
)
from headless.pages.figures import MUTED, drawing_style, series_color

NAME = "table_spectra"
POSITIONS = ("wpe", "position_embeddings")
_ABOUT = (
    "The embedding table has one row a token, the LM head too; where both are one matrix it is "
    "shown once. If rows pointed everywhere alike, the singular values would be nearly equal, as "
    "those of the same entries shuffled are (expectation). One value far above the rest (reality) "
    "is a direction that all rows share: a cone. Subtracting the mean row takes it away, and what "
    "remains is compared with the same null. The share σ₁²/Σσ² is the strongest direction's part "
    "of the squared norm; `missing` is how many nats the spectrum is away from equal values."
)


@dataclass(frozen=True)
class Table:
    """A table's singular values, descending.

    Args:
        name: "embedding", "head" or "positions".
        shape: [rows, width].
        std: of its entries about their mean.
        raw_R: as it is.
        centred_R: without its mean row.
        shuffled_R: with its entries in random order; empty where no null was asked for.
        start_R: before training; None where that is not known.
    """

    name: str
    shape: tuple[int, int]
    std: float
    raw_R: Tensor
    centred_R: Tensor
    shuffled_R: Tensor
    start_R: Tensor | None


def tables_of(
    backbone: nn.Module,
    head: Tensor | None = None,
    initial: nn.Module | None = None,
    *,
    nulls: bool = True,
) -> list[Table]:
    """Embeddings, the head where it is another matrix, learned positions where there are some.

    Args:
        backbone: with `get_input_embeddings()`.
        head: [V, D]; a head that equals the embedding table is that table.
        initial: the same backbone before training.
        nulls: decompose the shuffled tables as well.

    Raises:
        HeadlessError: the head is of another width, or the first tables of another shape.
    """
    weights = _weights(backbone)
    starts = _weights(initial) if initial is not None else {}
    embedding = weights["embedding"]
    if head is not None:
        if head.ndim != 2 or head.shape[1] != embedding.shape[1]:
            raise HeadlessError(
                f"a head of shape {list(head.shape)} does not read hidden states of width "
                f"{embedding.shape[1]}: give it as [vocabulary, width]"
            )
        if head.shape != embedding.shape or not torch.equal(head, embedding.to(head)):
            weights = {"embedding": embedding, "head": head.detach()} | weights
    found = []
    for name, weight in weights.items():
        start = starts.get(name)
        if start is not None and start.shape != weight.shape:
            raise HeadlessError(
                f"the {name} table before training is {list(start.shape)}, after it "
                f"{list(weight.shape)}: give the first checkpoint of the same run"
            )
        found.append(
            Table(
                name=name,
                shape=(weight.shape[0], weight.shape[1]),
                std=spread(weight),
                raw_R=singular_spectrum(weight).cpu(),
                centred_R=singular_spectrum(weight, center=True).cpu(),
                shuffled_R=null_spectrum(weight) if nulls else torch.empty(0),
                start_R=None if start is None else singular_spectrum(start).cpu(),
            )
        )
    return found


def _weights(backbone: nn.Module) -> dict[str, Tensor]:
    own: Any = backbone
    weights = {"embedding": own.get_input_embeddings().weight.detach()}
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Embedding) and name.split(".")[-1] in POSITIONS:
            weights["positions"] = module.weight.detach()
    return weights


def tables_finding(tables: list[Table], *, has_head: bool = True) -> Finding:
    """Singular values of embeddings and head: raw, centred, shuffled and before training.

    Args:
        tables: of `tables_of`; without one called "head" the embedding table is the head.
        has_head: unless the model has none.
    """
    scalars: dict[str, float] = {}
    arrays = {}
    for table in tables:
        scalars |= table_scalars(table)
        for kind in ("raw", "centred", "shuffled", "start"):
            values = getattr(table, f"{kind}_R")
            if values is not None:
                arrays[f"{table.name}/{kind}"] = values.numpy()
    names = {table.name for table in tables}
    reading = "head" if "head" in names else "embedding"
    raw, centred, null = (
        scalars[f"{NAME}/{reading}/first_share{kind}"] for kind in ("", "_centred", "_shuffled")
    )
    what = "LM head" if reading == "head" else "embedding table"
    none = "" if has_head else "no LM head is known; of the embeddings: "
    return Finding(
        name=NAME,
        title="Singular values of embeddings and LM head",
        about=_ABOUT,
        answer=(
            f"The strongest direction of the {what} holds {raw:.1%} of its squared norm "
            f"({centred:.1%} without the mean row, {null:.1%} with entries shuffled); its "
            f"effective rank is {scalars[f'{NAME}/{reading}/effective_rank']:.0f} of "
            f"{scalars[f'{NAME}/{reading}/full_rank']:.0f}."
        ),
        scalars=scalars,
        arrays=arrays,
        pictures=(
            Picture(
                "table-spectra",
                "Singular values over their rank. Expectation (dashed): the same entries "
                "shuffled. Reality: as it is, and without the mean row.",
                lambda: draw_tables(tables),
            ),
        ),
        claims=(
            Claim(
                TALK,
                "One direction dominates the LM head, which random values would not do.",
                raw >= 0.1 and raw >= 10 * null if has_head else None,
                f"{none}σ₁²/Σσ² of the {what} {raw:.3f}: at least 0.1, and at least ten times that "
                f"of its shuffled entries ({null:.4f})",
            ),
            Claim(
                TALK,
                "The dominating direction is the mean: without it the head is no cone.",
                centred <= raw / 3 if raw >= 0.1 and has_head else None,
                f"{none}σ₁²/Σσ² {raw:.3f}, centred {centred:.3f}: at most a third (asked where the "
                "first is 0.1 or more)",
            ),
            Claim(
                "Godey et al. 2024, Why do small language models underperform?",
                "Late in training the head's spectrum degenerates in models narrower than 1,000.",
                None,
                f"KL of σ/Σσ from uniform is {scalars[f'{NAME}/{reading}/missing']:.3f} nats here; "
                "the claim is about its course over checkpoints",
            ),
        ),
    )


def table_scalars(table: Table) -> dict[str, float]:
    """Every number of a table, by the name under which it is reported."""
    raw, centred = ranks_of(table.raw_R), ranks_of(table.centred_R)
    law = rank_law(table.raw_R)
    noise = compare_with_noise(table.raw_R, MarchenkoPastur.of(table.shape, table.std))
    numbers = {
        "first_share": raw.first_share,
        "first_share_centred": centred.first_share,
        "effective_rank": raw.effective,
        "effective_rank_centred": centred.effective,
        "full_rank": raw.full,
        "stable_rank": raw.stable,
        "missing": raw.missing,
        "spectral_norm": float(table.raw_R[0]),
        "second_singular_value": float(table.raw_R[1]) if len(table.raw_R) > 1 else 0.0,
        "rank_exponent": law.exponent,
        "alpha": tail_law(table.raw_R.square()).alpha,
        "above_noise": noise.above,
        "below_noise": noise.below,
    }
    if len(table.shuffled_R):
        numbers["first_share_shuffled"] = ranks_of(table.shuffled_R).first_share
    if table.start_R is not None:
        numbers["first_share_start"] = ranks_of(table.start_R).first_share
    return {f"{NAME}/{table.name}/{key}": float(value) for key, value in numbers.items()}


def draw_tables(tables: list[Table]) -> Any:
    """One panel a table."""
    lines: dict[str, Any] = {
        "as it is": ("raw_R", series_color(0), "solid", 1.7),
        "without the mean row": ("centred_R", series_color(1), "solid", 1.2),
        "entries shuffled": ("shuffled_R", MUTED, NULL_DASH, 1.2),
        "before training": ("start_R", MUTED, "dotted", 1.4),
    }
    with drawing_style():
        figure, panels = panels_for(
            [f"{t.name}, {t.shape[0]:,} × {t.shape[1]:,}" for t in tables], height=2.7, most=3
        )
        used = []
        for label, (field, color, style, width) in lines.items():
            for panel, table in zip(panels, tables, strict=True):
                values = getattr(table, field)
                if values is not None:
                    spectrum_line(panel, values, color=color, linestyle=style, linewidth=width)
                    panel.plot(1, values[0], "o", color=color, markersize=3.5)
            if any(getattr(table, field) is not None for table in tables):
                used.append((label, color, style, width))
        logarithmic(panels)
        bottom_labels(panels, "rank", "singular value", most=3)
        legend(figure, used)
    return figure
