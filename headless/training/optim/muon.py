"""Muon for the matrices, AdamW for tables, head and vectors, as one optimizer.

Muon (Jordan et al. 2024; torch.optim.Muon) replaces the momentum of a matrix by the nearest
semi-orthogonal one. That is a statement about one linear map, so that a parameter which holds
several is cut into them first:

* query, key and value side by side (GPT-2's `c_attn`, ModernBERT's `Wqkv`), gate and input
  (ModernBERT's `Wi`);
* query, key and value interleaved by head (GPT-NeoX's `query_key_value`: for each head its rows of
  the query, of the key, of the value);
* transposed matrices (GPT-2's Conv1D: inputs in rows) are turned.

Fused matrices of other names are one map to it. What has more than two dimensions is AdamW's.

torch's Muon takes one map after the other, 30 kernels for each. Here maps of one shape are
orthogonalised together, to the same numbers: on a GPU a step of small matrices is as long as its
list of kernels.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from transformers.pytorch_utils import Conv1D

from headless.errors import HeadlessError
from headless.training.optim.adamw import adamw_options
from headless.training.optim.groups import parameter_groups, roles
from headless.training.optim.settings import OptimizerConfig

SIDE_BY_SIDE = {"c_attn": 3, "Wqkv": 3, "Wi": 2}  # by the name of a layer: its maps
BY_HEAD = {"query_key_value": 3}


class Cut(NamedTuple):
    """How a parameter holds its maps, each [outputs, inputs]."""

    transposed: bool = False
    maps: int = 1
    heads: int = 1  # whose rows alternate between the maps; 1: the maps are side by side

    def pieces(self, matrix: Tensor) -> tuple[Tensor, ...]:
        """The maps: views where they lie in one piece, copies where heads alternate."""
        rows = matrix.T if self.transposed else matrix
        rows = rows.unflatten(0, (self.heads, self.maps, -1)).transpose(0, 1).flatten(0, 2)
        return rows.chunk(self.maps)

    def put_back(self, matrix: Tensor, pieces: list[Tensor]) -> None:
        """The opposite of `pieces`, in place; nothing to do where they were views."""
        if self.heads > 1:
            rows = torch.cat(pieces).unflatten(0, (self.maps, self.heads, -1))
            (matrix.T if self.transposed else matrix).copy_(rows.transpose(0, 1).flatten(0, 2))


def cut_of(layer: nn.Module, name: str, heads: int) -> Cut:
    """By the layer's name; keys and values of fewer heads than queries leave it one map."""
    transposed = isinstance(layer, Conv1D)
    weight = layer.get_parameter("weight")
    rows, inputs = weight.T.shape if transposed else weight.shape
    if name in BY_HEAD and rows == BY_HEAD[name] * inputs:
        return Cut(transposed, BY_HEAD[name], heads)
    maps = SIDE_BY_SIDE.get(name, 1)
    is_fused = name == "Wi" or rows == maps * inputs
    return Cut(transposed, maps if is_fused else 1)


STACK = 2**24  # elements orthogonalised together; more gains nothing and has to be held


def orthogonalize(
    stack: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Newton-Schulz iterations in bfloat16 of each matrix of a stack, as torch.optim.Muon does.

    Args:
        stack: [maps, outputs, inputs].
        coefficients: a, b, c of X <- a X + (b A + c A A) X with A = X X^T, of the wide one of X
            and its transpose.
        eps: the smallest norm that the matrices are divided by.

    Returns:
        [maps, outputs, inputs], bfloat16: singular values between about 0.7 and 1.2.
    """
    a, b, c = coefficients
    tall = stack.size(-2) > stack.size(-1)
    wide = stack.bfloat16()
    wide = wide.mT if tall else wide
    wide = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.mT if tall else wide


def rate_factor(shape: torch.Size, how: str | None) -> float:
    """What the rate of a map is multiplied by: torch.optim.Muon's `adjust_lr_fn`."""
    outputs, inputs = shape
    if how == "match_rms_adamw":  # Liu et al. 2025, "Muon is scalable for LLM training"
        return 0.2 * math.sqrt(max(outputs, inputs))
    return math.sqrt(max(1, outputs / inputs))


class Map(NamedTuple):
    """One linear map of a parameter: views of these, or copies where heads alternate."""

    weight: Tensor
    gradient: Tensor
    momentum: Tensor


class Muon(Optimizer):
    """Muon and AdamW behind one list of groups and one state.

    Args:
        matrices: the parameters of Muon, each with how it is cut.
        options: torch.optim.Muon's, which reads and checks them.
        rest: AdamW over all other parameters.
    """

    def __init__(
        self, matrices: dict[nn.Parameter, Cut], options: dict[str, Any], rest: AdamW
    ) -> None:
        self.cuts = matrices
        self.rest = rest
        groups = torch.optim.Muon(list(matrices), **options).param_groups
        super().__init__([*groups, *rest.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices, *rest = self.param_groups
        self.rest.param_groups, self.rest.state = rest, self.state
        self.rest.step()
        self._step_matrices(matrices)
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        """Cut, move the maps of each shape together, put back what is no view."""
        by_shape: dict[torch.Size, list[Map]] = defaultdict(list)
        taken: list[tuple[Cut, Tensor, tuple[Tensor, ...]]] = []
        for matrix in group["params"]:
            if matrix.grad is None:
                continue
            if not self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
            cut, momentum = self.cuts[matrix], self.state[matrix]["momentum_buffer"]
            parts = [cut.pieces(x) for x in (matrix.detach(), matrix.grad, momentum)]
            for tensors in zip(*parts, strict=True):
                by_shape[tensors[0].shape].append(Map(*tensors))
            taken += [(cut, matrix.detach(), parts[0]), (cut, momentum, parts[2])]
        for shape, maps in by_shape.items():
            together = max(1, STACK // shape.numel())
            for first in range(0, len(maps), together):
                self._step_maps(maps[first : first + together], group)
        for cut, whole, pieces in taken:
            cut.put_back(whole, list(pieces))

    @staticmethod
    def _step_maps(maps: list[Map], group: dict[str, Any]) -> None:
        """torch.optim.Muon's step of maps of one shape."""
        weights, gradients, momenta = (list(tensors) for tensors in zip(*maps, strict=True))
        momentum, lr = group["momentum"], group["lr"]
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, momenta, momentum) if group["nesterov"] else momenta
        directions = orthogonalize(
            torch.stack(list(ahead)), group["ns_coefficients"], group["ns_steps"], group["eps"]
        ).to(weights[0].dtype)
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        factor = rate_factor(weights[0].shape, group["adjust_lr_fn"])
        torch._foreach_add_(weights, list(directions.unbind()), alpha=-lr * factor)


def muon(module: nn.Module, config: OptimizerConfig) -> Muon:
    """Refuses what it cannot do: no matrix to train, sharded ones, a torch without Muon."""
    if not hasattr(torch.optim, "Muon"):
        raise HeadlessError(
            f"torch {torch.__version__} has no Muon: install torch 2.9 or later, or choose "
            "model.optimizer.class_path AdamW"
        )
    found = roles(module)
    cuts = {
        layer.weight: cut_of(layer, path.rpartition(".")[2], _heads(module))
        for path, layer in module.named_modules()
        if isinstance(getattr(layer, "weight", None), nn.Parameter)
        and found.get(layer.weight) == "matrix"
        and layer.weight.ndim == 2
    }
    if not cuts:
        raise HeadlessError(
            "Muon finds no matrix to train: choose model.optimizer.class_path AdamW"
        )
    if any(hasattr(matrix, "to_local") for matrix in cuts):
        raise HeadlessError(
            "Muon needs whole matrices, and trainer.strategy fsdp shards them: choose ddp, or "
            "model.optimizer.class_path AdamW"
        )
    rest = {parameter: role for parameter, role in found.items() if parameter not in cuts}
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    options |= {"adjust_lr_fn": "match_rms_adamw"} | config.init_args
    rest_groups = parameter_groups(rest, config)
    return Muon(cuts, options, AdamW(rest_groups, **adamw_options(module, config)))


def _heads(module: nn.Module) -> int:
    """Attention heads of the backbone, which has a config."""
    configs = (getattr(part, "config", None) for part in module.modules())
    return next((h for c in configs if (h := getattr(c, "num_attention_heads", None))), 1)
