"""How a picture over checkpoints shows them; see `drawing.grid` for everything else."""

from typing import Any

import numpy as np


def depth_colors(count: int) -> list[Any]:
    """From light (first) to dark (last), readable on light and dark paper."""
    from matplotlib import colormaps

    return [colormaps["viridis"](x) for x in np.linspace(0.92, 0.08, max(count, 1))]


def panels_of(
    count: int, columns: int = 3, height: float = 2.8, width: float = 11.2
) -> tuple[Any, list[Any]]:
    """A figure with that many panels in rows; inside `drawing_style`."""
    from headless.pages.figures import new_figure

    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new_figure(width if columns > 1 else 7.3, 0.3 + height * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, list(panels[:count])
