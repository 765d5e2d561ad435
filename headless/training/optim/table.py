"""Optimizers of embedding tables, which move the rows that a step touched and no others.

A step's gradient is (ids [U], rows [U, D]), each id once: `RowGradient` on the parameter, in place
of a dense `.grad`. What they cost does not depend on the number of rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

ROWS = "touched_rows"  # the attribute of a parameter that holds its RowGradient


class RowGradient(NamedTuple):
    """The gradient of a table, which is 0 in all other rows."""

    ids_U: Tensor  # long, each once
    grad_UD: Tensor


def row_gradient(table: Tensor) -> RowGradient | None:
    return cast(RowGradient | None, getattr(table, ROWS, None))


class WithTables(Optimizer):
    """Another optimizer, and Adam on the touched rows of tables, behind one list of groups.

    A row that is not touched rests: neither its weights nor its moments change, nor does it decay.
    When it is touched again its moments are those of then, where dense Adam would have let them
    fade (Adam's own bias corrections count all steps). With one second moment an entry these are
    the semantics of torch.optim.SparseAdam, with weight decay as AdamW's.

    Args:
        rest: of all other parameters.
        tables: [V, D] each.
        options: lr, betas, eps and weight_decay of the tables.
        by_row: one second moment a row, of the mean squared gradient of its entries: the state is
            V·D + V numbers instead of 2·V·D.
    """

    def __init__(
        self, rest: Optimizer, tables: list[nn.Parameter], options: dict[str, Any], by_row: bool
    ) -> None:
        self.rest, self.by_row = rest, by_row
        super().__init__([*rest.param_groups, {"params": tables, **options}], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        *groups, tables = self.param_groups
        self.rest.param_groups, self.rest.state = groups, self.state
        self.rest.step()
        for table in tables["params"]:
            if (gradient := row_gradient(table)) is not None:
                self._step_rows(table, gradient, tables)
        return loss

    def _step_rows(self, table: nn.Parameter, gradient: RowGradient, group: dict[str, Any]) -> None:
        (ids_U, grad_UD), (beta1, beta2), state = gradient, group["betas"], self.state[table]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float64)  # on the host, as Adam's
            state["exp_avg"] = torch.zeros_like(table)
            second = table[:, :1] if self.by_row else table
            state["exp_avg_sq"] = torch.zeros_like(second)
        state["step"] += 1
        step = state["step"].item()
        square_UD = grad_UD.square()
        if self.by_row:
            square_UD = square_UD.mean(dim=1, keepdim=True)
        first_UD = state["exp_avg"][ids_U].lerp_(grad_UD, 1 - beta1)
        second_UD = state["exp_avg_sq"][ids_U].lerp_(square_UD, 1 - beta2)
        state["exp_avg"].index_copy_(0, ids_U, first_UD)
        state["exp_avg_sq"].index_copy_(0, ids_U, second_UD)
        size = group["lr"] * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        rows_UD = table[ids_U].mul_(1 - group["lr"] * group["weight_decay"])
        rows_UD.addcdiv_(first_UD, second_UD.sqrt_().add_(group["eps"]), value=-size)
        table.index_copy_(0, ids_U, rows_UD)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for table in self.param_groups[-1]["params"]:
            setattr(table, ROWS, None)
