"""Values by rank: one panel a kind of place, one line a block, over a null."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from headless.analysis.drawing.grid import DASHED, by_kind, legend, log_axes
from headless.analysis.record import Figure, Finding, Place, Spectrum
from headless.pages.figures import INK, drawing_style, series_color

MARKS = 56  # ranks that a line is drawn through
SMALLEST = 1e-7  # of the first value: what is less is rounding


@dataclass(frozen=True)
class Ranks:
    """What is drawn: the payload's key, names of axes, which are logarithmic, kinds of places.

    `null` and `start` name the dashed and the dotted line, `bar` what the lines' colours are of;
    `also` are further payloads, a line each, with their names.
    """

    of: str
    x: str = "rank"
    y: str = "singular value"
    log: str = "xy"
    at: tuple[str, ...] = ()
    null: str = "entries shuffled"
    start: str = "before training"
    bar: str = "block"
    also: tuple[tuple[str, str], ...] = ()
    limits: tuple[float | None, float | None] = (None, None)  # of the y axis


def by_rank(
    name: str, caption: str, ranks: Ranks, *, wide: bool = True, film: tuple[str, str] | None = None
) -> Figure:
    """A figure of spectra."""
    return Figure(name, caption, partial(_draw, ranks), (ranks.of,), wide, film)


def _draw(ranks: Ranks, finding: Finding) -> Any:
    spectra: dict[Place, Spectrum] = {
        place: payload
        for place, payload in finding.payloads[ranks.of].items()
        if isinstance(payload, Spectrum) and (not ranks.at or place.kind in ranks.at)
    }

    def panel_of(panel: Any, own: dict[Place, Spectrum], colors: dict[int, Any]) -> None:
        _panel(ranks, panel, own, colors)
        for index, (key, _) in enumerate(ranks.also, 1):
            for place, values in finding.payloads.get(key, {}).items():
                if place.kind in {one.kind for one in own}:
                    draw_ranks(panel, np.asarray(values), color=series_color(index), lw=1.0)

    with drawing_style():
        figure = by_kind(spectra, panel_of, ranks.x, ranks.y, ranks.bar)
        entries: list[tuple[str, Any, Any]] = [
            (words, series_color(index), "solid") for index, (_, words) in enumerate(ranks.also, 1)
        ]
        if any(one.null is not None for one in spectra.values()):
            entries.append((ranks.null, INK, DASHED))
        if any(one.start is not None for one in spectra.values()):
            entries.append((ranks.start, INK, "dotted"))
        if entries:
            legend(figure, entries)
    return figure


def _panel(
    ranks: Ranks, panel: Any, spectra: Mapping[Place, Spectrum], colors: Mapping[int, Any]
) -> None:
    middle = list(spectra)[len(spectra) // 2]
    for place, one in spectra.items():
        color = series_color(0) if place.block is None else colors[place.block]
        draw_ranks(panel, one.values, one.at, color=color, lw=1.0)
        if place == middle:
            for values, style in ((one.null, DASHED), (one.start, "dotted")):
                if values is not None:
                    draw_ranks(panel, values, one.at, color=INK, ls=style, lw=1.1, zorder=3)
    log_axes(panel, ranks.log)
    panel.set_ylim(*ranks.limits)


def draw_ranks(
    panel: Any, values_R: np.ndarray, at: np.ndarray | None = None, **style: Any
) -> None:
    """One line: some of the values by rank, or all of them `at` places."""
    values = np.asarray(values_R, dtype=float)
    if at is None and len(values):
        values = values[values > SMALLEST * values.max()]
        at = np.unique(np.geomspace(1, len(values), min(MARKS, len(values))).round().astype(int))
        values = values[at - 1]
    if at is not None:
        panel.plot(at, values, marker="o" if len(at) < 8 else None, markersize=4, **style)
