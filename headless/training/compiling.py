"""The training step's scores, compiled: one graph for all batches."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from headless.objectives import ObjectiveOutput, UniqueTargets

Score = Callable[[Tensor, Tensor, UniqueTargets | None, Tensor | None], ObjectiveOutput]


def compiled(score: Score, **options: Any) -> Score:
    """`score`, compiled with torch.compile and its options, whatever the size of the table is."""

    def of_folded(
        input_ids: Tensor, targets: Tensor, unique: UniqueTargets | None, rows: Tensor | None
    ) -> ObjectiveOutput:
        return score(input_ids, targets, None if unique is None else unique.unfolded(), rows)

    made = torch.compile(of_folded, **options)

    def of_table(
        input_ids: Tensor,
        targets: Tensor,
        unique: UniqueTargets | None,
        rows: Tensor | None = None,
    ) -> ObjectiveOutput:
        return made(input_ids, targets, None if unique is None else unique.folded(), rows)

    return of_table
