"""The training step's scores, compiled: one graph for all batches."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from headless.objectives import ObjectiveOutput, UniqueTargets
from headless.objectives.base import folded

Score = Callable[..., ObjectiveOutput]


def compiled(score: Score, **options: Any) -> Score:
    """`PretrainingModule.score`, compiled with torch.compile and its options.

    It is one graph, whatever the sizes of the table of unique targets and of the rows that stand
    for the embedding table are.
    """
    # Torch counts the graphs of all runs of a process: the ninth form would stay uncompiled.
    torch.compiler.reset()

    def of_folded(
        input_ids: Tensor,
        targets: Tensor,
        unique: UniqueTargets | None,
        rows: Tensor | None,
        *tables: Tensor,
    ) -> ObjectiveOutput:
        whole = None if unique is None else unique.unfolded()
        flat = (table if table.ndim == 2 else table.flatten(0, 1) for table in tables)
        return score(input_ids, targets, whole, rows, *flat)

    made = torch.compile(of_folded, **options)

    def of_table(
        input_ids: Tensor,
        targets: Tensor,
        unique: UniqueTargets | None,
        rows: Tensor | None = None,
        *tables: Tensor,
    ) -> ObjectiveOutput:
        cut = None if unique is None else unique.folded()
        return made(input_ids, targets, cut, rows, *map(folded, tables))

    return of_table
