"""How the analyses of weights draw: one panel a role, or one line a role over depth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headless.analysis.weights_measure import ROLES
from headless.pages.figures import MUTED, compact_ticks, new_figure, series_color

WIDE = 11.2
NULL_DASH = (0, (3.2, 2.2))
MARKS = 56  # ranks that a line of a spectrum is drawn through


def role_color(role: str) -> str:
    """Fixed for each role in every figure."""
    return series_color(ROLES.index(role))


def panels_for(names: Sequence[str], height: float = 2.2, most: int = 4, **share: Any) -> Any:
    """A figure with one titled panel a name, at most `most` in a row: (figure, panels)."""
    columns = min(len(names), most)
    rows = -(-len(names) // columns)
    figure = new_figure(WIDE * max(columns, 2) / max(most, 2), 0.55 + height * rows)
    grid = figure.subplots(rows, columns, squeeze=False, **share).flatten()
    for panel, name in zip(grid, names, strict=False):
        panel.set_title(name)
    for panel in grid[len(names) :]:
        panel.set_axis_off()
    for index in range(len(names)):  # with a row that is not full, the one above has the ticks
        if index + columns >= len(names):
            grid[index].tick_params(labelbottom=True)
    return figure, grid[: len(names)]


def bottom_labels(panels: Sequence[Any], x: str, y: str, most: int = 4) -> None:
    """Name the x axis below every column, the y axis at the left of every row."""
    columns = min(len(panels), most)
    for index, panel in enumerate(panels):
        if index + columns >= len(panels):
            panel.set_xlabel(x)
        if index % columns == 0:
            panel.set_ylabel(y)


def spectrum_line(panel: Any, values_R: Any, **style: Any) -> None:
    """Singular values over their rank, both logarithmic, through some of the ranks."""
    values = np.asarray(values_R, dtype=float)
    values = values[values > 1e-7 * values[0]] if len(values) and values[0] > 0 else values[:0]
    if len(values) == 0:
        return
    at = np.unique(np.geomspace(1, len(values), min(MARKS, len(values))).round().astype(int))
    panel.plot(at, values[at - 1], **style)


def logarithmic(panels: Sequence[Any]) -> None:
    """Both axes of panels with spectra."""
    for panel in panels:
        compact_ticks(panel.xaxis, log=True)
        compact_ticks(panel.yaxis, log=True)


def depth_alpha(block: int, depth: int) -> float:
    """Light for early blocks, full for the last one."""
    return 0.3 + 0.7 * (block / max(depth - 1, 1))


def lines_by_depth(panel: Any, table: Mapping[str, np.ndarray], dashed: bool = False) -> None:
    """One line a role over the blocks."""
    for role, values in table.items():
        panel.plot(
            np.arange(len(values)),
            values,
            color=role_color(role),
            linestyle=NULL_DASH if dashed else "solid",
            linewidth=0.9 if dashed else 1.6,
            marker="o" if len(values) < 8 and not dashed else None,
            markersize=3.5,
        )
    panel.set_xlabel("block")
    panel.xaxis.get_major_locator().set_params(integer=True)


def role_legend(figure: Any, roles: Sequence[str], *, null: str | None = None) -> None:
    """Roles by colour above the panels; `null` names the dashed lines."""
    entries: list[tuple[str, str, Any, float]] = [
        (role, role_color(role), "solid", 1.6) for role in roles
    ]
    if null:
        entries.append((null, MUTED, NULL_DASH, 0.9))
    legend(figure, entries)


def legend(figure: Any, entries: Sequence[tuple[str, str, Any, float]]) -> None:
    """Lines by (label, colour, line style, width) above the panels."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=color, linestyle=style, linewidth=width, label=label)
        for label, color, style, width in entries
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=9, borderaxespad=0.2)
