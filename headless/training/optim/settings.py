"""What a config says of an optimizer."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from headless.errors import HeadlessError

Table = Literal["dense", "lazy", "rowwise"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Which optimizer, at which rates.

    Every class is given learning rates and weight decay by group; what else is its own stands in
    `init_args`. A group's rate is `lr` times the group's multiple.

    Args:
        class_path: "AdamW" (Loshchilov and Hutter 2019), "Muon" (Jordan et al. 2024: the matrices
            of the backbone are orthogonalised, all else is AdamW's) or the dotted path of another
            torch.optim.Optimizer: `torch.optim.SGD`, or a class of a module named by --import.
        lr: peak learning rate of the weight matrices. Muon's updates have the size of AdamW's
            (`adjust_lr_fn` "match_rms_adamw"), so that AdamW's rate is where to begin.
        betas: decay of AdamW's two moments.
        eps: added to the root of AdamW's second moment.
        weight_decay: applied to weight matrices; never to biases and norms.
        decay_embeddings: whether embedding tables and an untied head decay too.
        table: how the embedding table moves under a headless objective: "dense" as all else;
            "lazy": AdamW on the rows that the step looked up or scored, all others rest and are
            caught up before they are read, to the weights of "dense"; "rowwise": the same with one
            second moment a row. A step's time and memory then do not depend on the size of the
            vocabulary.
        table_lr: multiple of `lr` for the embedding tables (a tied head is one).
        head_lr: multiple for an untied head's matrix.
        vector_lr: multiple for biases, gains of norms and a learned temperature.
        init_args: arguments of the class itself, e.g. `{momentum: 0.9}` for Muon.
    """

    class_path: str = "AdamW"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    decay_embeddings: bool = False
    table: Table = "dense"
    table_lr: float = 1.0
    head_lr: float = 1.0
    vector_lr: float = 1.0
    init_args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "table_lr", "head_lr", "vector_lr"):
            value = getattr(self, name)
            require(f"optimizer.{name}", 0.0 < value < math.inf, "be positive and finite", value)
        value = self.weight_decay
        require("optimizer.weight_decay", 0.0 <= value < math.inf, "not be negative", value)
        known = get_args(Table)
        require("optimizer.table", self.table in known, f"be one of {', '.join(known)}", self.table)
        inside = all(0.0 <= beta < 1.0 for beta in self.betas)
        require("optimizer.betas", inside, "be in [0, 1)", list(self.betas))
        self.check_own("lr", "weight_decay", "decay_embeddings", "table_lr", "head_lr", "vector_lr")

    def check_own(self, *shared: str) -> None:
        """Refuse a setting in `init_args` that has a place outside of it."""
        for name in shared:
            if name in self.init_args:
                raise HeadlessError(
                    f"model.optimizer.init_args holds {name}: write model.optimizer.{name}"
                )


def require(name: str, holds: bool, rule: str, value: Any) -> None:
    if not holds:
        raise HeadlessError(f"{name} must {rule}, got {value}")


def check_clipping(largest: float | None) -> None:
    """Refuse a `gradient_clip_val` that would turn gradients around."""
    if largest is not None and not largest >= 0:
        raise HeadlessError(
            f"trainer.gradient_clip_val must be a positive number, got {largest}: 0 clips nothing"
        )
