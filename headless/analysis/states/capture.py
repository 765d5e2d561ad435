"""Every intermediate state of a backbone while it runs, one at a time, nothing stored.

Points, in the order of the computation (TransformerLens' names in brackets):

    embed     the residual stream before the first block (resid_pre of block 0)
    norm1     output of a block's first norm (ln1)
    attn      what attention adds (attn_out)
    mid       the stream after that (resid_mid); a parallel block has none
    norm2     output of the second norm (ln2)
    mlp       what the MLP adds (mlp_out)
    post      the stream after the block (resid_post)
    norm_f    output of the final norm (ln_final)

One more has a width of its own and is captured where it is asked for (`inner_points_of`):

    hidden    the MLP's neurons, before its last matrix (mlp.hook_post); of gated MLPs the product

In a pre-norm block embed or post of the block before + attn = mid, mid + mlp = post; in a parallel
one the stream + attn + mlp = post. In a post-norm block (BERT) norm1(stream + attn) = mid and
norm2(mid + mlp) = post: its norms' outputs are the stream, and are not captured twice. Where a
branch ends with a norm of its own (OLMo 2, Gemma), attn and mlp are what comes out of it. Of a
family without a row in `families` the points are embed, post and norm_f.

Shapes: B sequences, T positions, D hidden size.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from headless.analysis.states.families import UNKNOWN, Family, backbone_of, family_of
from headless.errors import HeadlessError
from headless.models.attention import without_mask
from headless.models.backbone import blocks, is_causal, is_custom

Component = Literal["embed", "norm1", "attn", "mid", "norm2", "hidden", "mlp", "post", "norm_f"]
COMPONENTS: tuple[Component, ...] = get_args(Component)
INNER: tuple[Component, ...] = ("hidden",)  # inside a part, not as wide as the stream


class Point(NamedTuple):
    """A place in the computation; `block` is −1 for `embed`, the number of blocks for `norm_f`."""

    component: Component
    block: int

    @property
    def name(self) -> str:
        """For keys: `post/07`, `embed`."""
        if self.component in ("embed", "norm_f"):
            return self.component
        return f"{self.component}/{self.block:02d}"


Observe = Callable[[Point, Tensor], None]


def points_of(model: nn.Module) -> list[Point]:
    """The points of the residual stream's width, in the order of the computation."""
    backbone = backbone_of(model)
    family = family_of(backbone)
    inside: list[Component] = ["norm1", "attn", "mid", "norm2", "mlp", "post"]
    if family is UNKNOWN:
        inside = ["post"]
    elif family.post_norm:
        inside = ["attn", "mid", "mlp", "post"]
    absent = {
        "norm1": family.norm1 is None,
        "norm2": family.norm2 is None,
        "mid": family.parallel(backbone.config),
    }
    depth: int = backbone.config.num_hidden_layers  # type: ignore[union-attr, assignment]
    points = [Point(part, i) for i in range(depth) for part in inside if not absent.get(part)]
    ends = family.final_norm is None or is_custom(backbone)
    return [Point("embed", -1), *points, *([] if ends else [Point("norm_f", depth)])]


def inner_points_of(model: nn.Module) -> list[Point]:
    """The points inside the MLPs."""
    backbone = backbone_of(model)
    if family_of(backbone) is UNKNOWN:
        return []
    return [Point("hidden", i) for i in range(len(blocks(backbone)))]


def final_point(points: Iterable[Point]) -> Point:
    """What the head reads: the last of them, in the order of the computation."""
    return [p for p in points if p.component in ("post", "norm_f")][-1]


def width_of(model: nn.Module, point: Point) -> int:
    """How wide the states at a point are: those of the first block are as wide as any other's."""
    backbone = backbone_of(model)
    if point.component not in INNER:
        return int(backbone.config.hidden_size)  # type: ignore[union-attr,arg-type]
    last: Any = blocks(backbone)[point.block].get_submodule(family_of(backbone).matrices["down"])
    return int(last.nx if hasattr(last, "nx") else last.in_features)  # GPT-2 has `Conv1D`


@contextmanager
def capture(
    model: nn.Module, observe: Observe, points: Collection[Point] | None = None
) -> Iterator[None]:
    """Call `observe(point, state)` once for each state [B, T, D] of a run inside the context.

    The states are detached views of what the model computes: who keeps one must copy it. The model
    runs in evaluation mode, with `use_cache=False` and without gradient checkpointing, which would
    run blocks twice. No `points`: all of `points_of`.

    Raises:
        HeadlessError: a point that the model does not have.
    """
    backbone = backbone_of(model)
    family, known = family_of(backbone), points_of(model)
    wanted = set(known if points is None else points)
    if unknown := wanted - set(known) - set(inner_points_of(model)):
        names = ", ".join(sorted(point.name for point in unknown))
        raise HeadlessError(f"this model has no {names} (a parallel block has no mid)")
    handles: list[Any] = []

    def hook(module: nn.Module, point: Point, reads: bool) -> None:
        if point in wanted and reads:
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, args, kwargs: observe(point, _input(args, kwargs)), with_kwargs=True
                )
            )
        elif point in wanted:
            handles.append(
                module.register_forward_hook(lambda m, i, out: observe(point, _output(out)))
            )

    try:
        if is_custom(backbone):
            handles.append(_split(backbone, known, wanted, observe))
            yield
            return
        layers = blocks(backbone)
        hook(layers[0], Point("embed", -1), True)
        for i, block in enumerate(layers):
            for component, name, reads in _hooks(family):
                hook(block.get_submodule(name), Point(component, i), reads)
        if family.final_norm is not None:
            hook(backbone.get_submodule(family.final_norm), Point("norm_f", len(layers)), False)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _split(
    backbone: nn.Module, known: list[Point], wanted: Collection[Point], observe: Observe
) -> Any:
    """The states that a backbone of one's own gives back, point by point."""

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        for point, state in zip(known, output.hidden_states, strict=True):
            if point in wanted:
                observe(point, state.detach())

    return backbone.register_forward_hook(hook)


def _hooks(family: Family) -> list[tuple[Component, str, bool]]:
    """Component, module in a block ("" is the block), and whether its input is meant."""
    inside: list[tuple[Component, str | None, bool]] = [
        ("hidden", family.matrices.get("down"), True),
        ("attn", family.attn, False),
        ("mlp", family.mlp, False),
    ]
    if family.post_norm:
        inside += [("mid", family.norm1, False), ("post", family.norm2, False)]
    else:
        inside += [
            ("norm1", family.norm1, False),
            ("norm2", family.norm2, False),
            ("mid", family.mid or family.norm2, True),  # a parallel block's is not asked for
            ("post", "", False),
        ]
    return [(component, name, reads) for component, name, reads in inside if name is not None]


def _output(output: Any) -> Tensor:
    """Attention gives a tuple, some blocks too, a backbone its last hidden state among others."""
    output = getattr(output, "last_hidden_state", output)
    return (output[0] if isinstance(output, tuple) else output).detach()


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return (args[0] if args else kwargs["hidden_states"]).detach()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside this, a model is in evaluation mode."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def run(backbone: nn.Module, input_ids_BT: Tensor) -> None:
    """On the backbone's device, without a cache, which would keep every key and value."""
    options = {"use_cache": False} if is_causal(backbone) else {}
    with without_mask(backbone, input_ids_BT.shape[1]):
        backbone(input_ids=input_ids_BT.to(next(backbone.parameters()).device), **options)


@torch.no_grad()
def states_at(
    model: nn.Module, input_ids_BT: Tensor, points: Collection[Point]
) -> dict[Point, Tensor]:
    """States [B, T, D] at points of one run of the backbone, in evaluation mode."""
    backbone, states = backbone_of(model), dict[Point, Tensor]()
    with (
        evaluating(backbone),
        capture(backbone, lambda point, x_BTD: states.update({point: x_BTD.clone()}), points),
    ):
        run(backbone, input_ids_BT)
    return states


def middle_blocks(blocks: Collection[int]) -> list[int]:
    """The blocks between a sixth and three quarters of the depth: where states are neither near
    the tokens that come in nor near those that go out (blocks 2 to 8 of 12). Never none."""
    ordered = sorted(blocks)
    first, last = len(ordered) // 6, max(len(ordered) // 6 + 1, 3 * len(ordered) // 4)
    return ordered[first:last]
