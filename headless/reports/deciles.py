"""Loss by frequency: where in the vocabulary the arms differ.

`val/nll_decile_0` to `_9` are the nll of validation tokens by how frequent they are: each decile is
a tenth of the training text's tokens by occurrence, 0 the most frequent.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from headless.pages.figures import INK
from headless.pages.numbers import MISSING
from headless.pages.page import Cell, Column
from headless.reports.groups import Group
from headless.reports.headline import gap
from headless.reports.plots import Curve, Panel, Read, grid, shown
from headless.reports.statistics import Difference
from headless.reports.tables import Cells, Quantity, Sheet, Table
from headless.runs.run import Run

DECILES = tuple(f"val/nll_decile_{i}" for i in range(10))
ENDS = {0: "most frequent", 9: "rarest"}
COLUMNS = [
    Quantity(key, str(i), ENDS.get(i, ""), "tenth of the training tokens", 3, "lower")
    for i, key in enumerate(DECILES)
]
X = "tenth of the training tokens\n(0: the most frequent)"


def decile_table(groups: Sequence[Group]) -> Table | None:
    """The nll of each decile; None where none is known."""
    columns = [q for q in COLUMNS if any(group.number(q.key) for group in groups)]
    return Table(Column("objective", "", "left"), columns, groups) if columns else None


def difference_table(groups: Sequence[Group], baseline: Group) -> Sheet:
    """The differences from the baseline, bold where the interval leaves zero out."""
    rows: list[Cells] = []
    for group in groups:
        if group is not baseline:
            changes = ((q, gap(q.key, group, baseline)) for q in COLUMNS)
            rows.append([Cell(group.label, swatch=group.index), *(_cell(q, c) for q, c in changes)])
    return [Column("objective", "", "left"), *(q.column for q in COLUMNS)], rows


def _cell(quantity: Quantity, change: Difference | None) -> Cell:
    if change is None:
        return Cell(MISSING)
    sure = change.half_width is not None and abs(change.mean) > change.half_width
    return Cell(quantity.text(change.mean, signed=True), quantity.interval(change), strong=sure)


def deciles(groups: Sequence[Group], baseline: Group) -> Any | None:
    """The nll over the deciles, and what it differs from the baseline's."""
    panels = [
        Panel(_read(None), "", X, "validation nll\nnats per token", marked=10),
        Panel(_read(baseline), "", X, "nll less the baseline's", marked=10, finish=_zero),
    ]
    return grid(groups, [panels], share=False) if shown(groups, panels) else None


def _zero(panel: Any) -> None:
    panel.axhline(0, color=INK, linewidth=0.7)


def _read(baseline: Group | None) -> Read:
    """A run's deciles, less those of the baseline's run with its seed, or of its mean."""

    def read(run: Run) -> Curve | None:
        y = _values(run)
        if baseline is not None:
            y = y - np.mean([_values(partner) for partner in baseline.partners(run)], axis=0)
        return np.arange(10.0), y

    return read


def _values(run: Run) -> np.ndarray:
    return np.array([run.last.get(key, np.nan) for key in DECILES])
