"""Optimizers of embedding tables, which move the rows that a step touched and no others.

A step's gradient is (ids [U], rows [U, D]), each id once: `RowGradient` on the parameter, in place
of a dense `.grad`. What they cost does not depend on the number of rows.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from headless.errors import HeadlessError

ROWS = "touched_rows"  # the attribute of a parameter that holds its RowGradient
CATCH_UP = "catch_up"  # and the one that holds what must be done to rows before they are read
WINDOW = 512  # steps after which a resting row is taken to stand still
CHUNK = 2**22  # numbers of a table that are caught up at a time where all of it is


class RowGradient(NamedTuple):
    """The gradient of a table, which is 0 in all other rows."""

    ids_U: Tensor  # long, each once
    grad_UD: Tensor


def row_gradient(table: Tensor) -> RowGradient | None:
    return cast(RowGradient | None, getattr(table, ROWS, None))


def catch_up(table: Tensor, ids_U: Tensor) -> None:
    """Before rows are read: move them to where they are by now, in a table that is moved by row."""
    move: Callable[[Tensor, Tensor], None] | None = getattr(table, CATCH_UP, None)
    if move is not None:
        move(table, ids_U)


def settle(table: Tensor) -> None:
    """Catch up all rows: before somebody reads the table by itself."""
    every_V = torch.arange(len(table), device=table.device)
    for ids_U in every_V.split(max(1, CHUNK // table.shape[1])):
        catch_up(table, ids_U)


class WithTables(Optimizer):
    """Another optimizer, and AdamW on the touched rows of tables, behind one list of groups.

    AdamW moves a row without a gradient as well: its momentum fades, and carries it on meanwhile.
    Here such a row rests, and is caught up before it is next read (`catch_up`), which makes the
    weights those of AdamW over the whole table. A row whose moments were m and v after step s is
    moved at step t by w_t r^(t-s) m / √v, with r = β1 / √β2 and w_t the rate with Adam's bias
    corrections. What is the row's own is m / √v alone, so that one list of sums over t, with an
    entry for each s, serves all rows. How often a row is caught up changes nothing. Two things are
    as if: eps does not grow beside a second moment that fades, and what momentum moved does not
    itself decay while the row rests.

    Args:
        rest: of all other parameters.
        tables: [V, D] each.
        options: lr, betas, eps and weight_decay of the tables.
        by_row: one second moment a row, of the mean squared gradient of its entries: the state is
            V·D + 3·V numbers instead of 2·V·D + 2·V (and two for each step).

    Raises:
        ValueError: betas with which momentum outlives the second moment: a resting row would move
            for ever.
    """

    def __init__(
        self, rest: Optimizer, tables: list[nn.Parameter], options: dict[str, Any], by_row: bool
    ) -> None:
        beta1, beta2 = options["betas"]
        if beta1**2 >= beta2:
            raise ValueError(f"a table by row needs beta1² < beta2, got {beta1:g} and {beta2:g}")
        self.rest, self.by_row = rest, by_row
        super().__init__([*rest.param_groups, {"params": tables, **options}], {})
        for table in tables:
            setattr(table, CATCH_UP, self.catch_up)

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

    @torch.no_grad()
    def catch_up(self, table: Tensor, ids_U: Tensor) -> None:
        """Give rows of a table the steps that they rested for; ids may come more than once."""
        if not (state := self.state.get(table)):
            return
        group = self.param_groups[-1]
        beta1, beta2 = group["betas"]
        met_U, moved_U = state["met_at"][ids_U], state["moved_at"][ids_U]
        now, at_U = int(state["step"].item()), moved_U.long()
        rows_UD = table[ids_U]
        if group["weight_decay"]:
            rows_UD.mul_((state["decay"][now] - state["decay"][at_U]).exp().unsqueeze(1))
        path_U = state["coast"][at_U] * (beta1 / beta2**0.5) ** (moved_U - met_U)
        second_UD = state["exp_avg_sq"][ids_U].sqrt_().add_(group["eps"])
        rows_UD.addcdiv_(state["exp_avg"][ids_U].mul_(path_U.unsqueeze(1)), second_UD, value=-1)
        table.index_copy_(0, ids_U, rows_UD)
        state["moved_at"].index_fill_(0, ids_U, now)

    def _step_rows(self, table: nn.Parameter, gradient: RowGradient, group: dict[str, Any]) -> None:
        (ids_U, grad_UD), (beta1, beta2), state = gradient, group["betas"], self.state[table]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float64)  # on the host, as Adam's
            state["exp_avg"] = torch.zeros_like(table)
            second = table[:, :1] if self.by_row else table
            state["exp_avg_sq"] = torch.zeros_like(second)
            # In the table's dtype, which an optimizer's state is cast to when it is loaded.
            state["met_at"] = torch.zeros_like(table[:, 0])  # a row's last step with a gradient
            state["moved_at"] = torch.zeros_like(table[:, 0])  # the last step that it was given
            state["coast"] = table.new_zeros(WINDOW)  # by such a step: the path since, over m / √v
            state["decay"] = table.new_zeros(WINDOW)  # log of all decay up to a step
        self.catch_up(table, ids_U)  # those that only other processes have read
        state["step"] += 1
        step = int(state["step"].item())
        size = group["lr"] * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        self._count(state, step, size, group)
        square_UD = grad_UD.square()
        if self.by_row:
            square_UD = square_UD.mean(dim=1, keepdim=True)
        rested_U1 = (step - 1 - state["met_at"][ids_U]).unsqueeze(1)
        first_UD = state["exp_avg"][ids_U].mul_(beta1**rested_U1).lerp_(grad_UD, 1 - beta1)
        second_UD = state["exp_avg_sq"][ids_U].mul_(beta2**rested_U1).lerp_(square_UD, 1 - beta2)
        state["exp_avg"].index_copy_(0, ids_U, first_UD)
        state["exp_avg_sq"].index_copy_(0, ids_U, second_UD)
        for name in ("met_at", "moved_at"):
            state[name].index_fill_(0, ids_U, step)
        rows_UD = table[ids_U].mul_(1 - group["lr"] * group["weight_decay"])
        rows_UD.addcdiv_(first_UD, second_UD.sqrt_().add_(group["eps"]), value=-size)
        table.index_copy_(0, ids_U, rows_UD)

    @staticmethod
    def _count(state: dict[str, Any], step: int, size: float, group: dict[str, Any]) -> None:
        """Add a step to what resting rows will have to be given."""
        if step >= len(state["coast"]):  # twice as long, so that it is seldom
            for name in ("coast", "decay"):
                state[name] = torch.cat([state[name], torch.zeros_like(state[name])])
        beta1, beta2 = group["betas"]
        coast_S = state["coast"][max(0, step - WINDOW) : step]
        ages_S = torch.arange(len(coast_S), 0, -1, dtype=coast_S.dtype, device=coast_S.device)
        coast_S += size * (beta1 / beta2**0.5) ** ages_S
        if decay := group["lr"] * group["weight_decay"]:
            state["decay"][step] = state["decay"][step - 1] + math.log1p(-decay)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a state.

        Raises:
            HeadlessError: of a version that did not catch up rows.
        """
        super().load_state_dict(state_dict)
        for table in self.param_groups[-1]["params"]:
            if (state := self.state.get(table)) and "met_at" not in state:
                raise HeadlessError(
                    "the checkpoint's table was moved by row by an older version, which this one "
                    "cannot go on with: begin a run with model.init_from"
                )

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for table in self.param_groups[-1]["params"]:
            setattr(table, ROWS, None)
