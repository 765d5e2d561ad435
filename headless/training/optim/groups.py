"""Which parameter is what, and the parameter groups that follow."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from headless.training.optim.settings import OptimizerConfig

Role = Literal["matrix", "table", "head", "vector"]
ROLES: tuple[Role, ...] = ("matrix", "table", "head", "vector")


def roles(module: nn.Module) -> dict[nn.Parameter, Role]:
    """The role of each trainable parameter, in the module's order.

    Vectors are biases, gains and whatever a norm layer holds; tables the weights of embeddings; the
    head the matrix of an objective's own, with one row a token. Tables whose rows are moved one by
    one (`optim.table`) are left out.
    """
    tables = {m.weight for m in module.modules() if isinstance(m, nn.Embedding)}
    norms = {
        parameter
        for m in module.modules()
        if "norm" in type(m).__name__.lower()
        for parameter in m.parameters(recurse=False)
    }

    def role(name: str, parameter: nn.Parameter) -> Role:
        if parameter in tables:
            return "table"
        if parameter.ndim < 2 or parameter in norms:
            return "vector"
        return "head" if name.endswith("weight_VD") else "matrix"

    by_row = {*getattr(module, "tables_by_row", ())}
    return {
        p: role(name, p)
        for name, p in module.named_parameters()
        if p.requires_grad and p not in by_row
    }


def parameter_groups(
    found: Mapping[nn.Parameter, Role], config: OptimizerConfig
) -> list[dict[str, Any]]:
    """Groups of one rate and one weight decay each, matrices first. A parameter is in one group.

    Matrices decay and vectors do not; tables and an untied head do on request.
    """
    multiple = {"table": config.table_lr, "head": config.head_lr, "vector": config.vector_lr}
    decays = {"matrix": True, "table": config.decay_embeddings, "head": config.decay_embeddings}
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for role in ROLES:  # which fixes the order of the groups
        if role in found.values():
            key = decays.get(role, False), multiple.get(role, 1.0)
            groups.setdefault(key, {"params": [], "lr": config.lr * key[1]})
            groups[key]["weight_decay"] = config.weight_decay if key[0] else 0.0
    for parameter, role in found.items():
        groups[decays.get(role, False), multiple.get(role, 1.0)]["params"].append(parameter)
    return list(groups.values())
