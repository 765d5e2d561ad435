"""A model with its blocks in another order: does what an analysis shows need the order?

Shapes: B sequences, T positions, D hidden size.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.states.capture import Point, capture, points_of
from headless.analysis.states.families import backbone_of, family_of
from headless.errors import HeadlessError
from headless.models.backbone import blocks
from headless.pages.figures import (
    MUTED,
    compact_ticks,
    drawing_style,
    new_figure,
    series_color,
)

Strategy = Literal["identity", "reverse", "random", "swap"]
Loss = Callable[[nn.Module, Tensor], float]
M = TypeVar("M", bound=nn.Module)


def block_order(
    depth: int,
    strategy: Strategy,
    *,
    swap: tuple[int, int] | None = None,
    seed: int = 0,
) -> list[int]:
    """Which block comes at which place.

    Args:
        depth: number of blocks.
        strategy: "identity", "reverse", "random" (never the identity) or "swap".
        swap: the two blocks that change places.
        seed: for "random".

    Raises:
        HeadlessError: a strategy that does not exist, or what it needs is missing or wrong.
    """
    places = list(range(depth))
    if strategy not in get_args(Strategy):
        raise HeadlessError(f"no strategy {strategy}: choose {', '.join(get_args(Strategy))}")
    if strategy == "reverse":
        return places[::-1]
    if strategy == "random":
        generator = torch.Generator().manual_seed(seed)
        drawn = places
        while drawn == places and depth > 1:
            drawn = torch.randperm(depth, generator=generator).tolist()
        return drawn
    if strategy == "swap":
        if swap is None or not all(0 <= i < depth for i in swap):
            raise HeadlessError(f"swap needs two blocks between 0 and {depth - 1}")
        a, b = swap
        places[a], places[b] = places[b], places[a]
        return places
    return places


def sharing_copy(model: M) -> M:
    """A copy whose modules may be moved about, with the weights of the original."""
    whole: Any = getattr(model, "_orig_mod", model)
    tensors = {id(t): t for t in (*whole.parameters(), *whole.buffers())}
    found: M = copy.deepcopy(whole, memo=tensors)
    return found


def reorder(model: nn.Module, order: Sequence[int]) -> None:
    """Put the i-th of `order` of a model's blocks at its i-th place."""
    inside = backbone_of(model)
    old = blocks(inside)
    holder = next(m for m in inside.modules() if isinstance(m, nn.ModuleList) and list(m) == old)
    for place, block in enumerate(order):
        holder[place] = old[block]


def block_permutation(
    model: nn.Module,
    batches: Sequence[Tensor],
    *,
    loss: Loss | None = None,
    swaps: int = 8,
    seed: int = 0,
) -> Finding:
    """What other orders of the blocks do to the last states, norms by depth, and the loss.

    Args:
        model: a backbone or a model with a head; it stays as it is.
        batches: token numbers [B, T].
        loss: of a model on a batch, in nats per token; None: it is not measured.
        swaps: pairs of neighbours that are exchanged at the most, evenly over the depth.
        seed: of the random orders.

    Raises:
        HeadlessError: one block only, or no batch.
    """
    depth = len(blocks(backbone_of(model)))
    if depth < 2 or not batches:
        raise HeadlessError("other orders need two blocks or more, and a batch of tokens")
    orders = {
        "identity": block_order(depth, "identity"),
        "reverse": block_order(depth, "reverse"),
        **{f"random {i + 1}": block_order(depth, "random", seed=seed + i) for i in range(3)},
    }
    # Evenly over the depth, the first and the last pair among them.
    pairs = np.unique(np.linspace(0, depth - 2, min(swaps, depth - 1)).round().astype(int)).tolist()
    exchanged = {f"swap {i}": block_order(depth, "swap", swap=(i, i + 1)) for i in pairs}
    copied = sharing_copy(model)
    was = blocks(backbone_of(copied))
    measured = {}
    for name, order in {**orders, **exchanged}.items():
        now = blocks(backbone_of(copied))
        # From whatever order it has now: only one copy is ever made.
        reorder(copied, [now.index(was[i]) for i in order])
        measured[name] = _measure(copied, batches, loss)
    base = measured["identity"]
    scalars: dict[str, float] = {}
    for name, (last, _, nats) in measured.items():
        key = f"permutation/{name.replace(' ', '_')}"
        scalars[f"{key}/cosine"] = float((last * base[0]).sum(dim=1).mean())
        if nats is not None and base[2] is not None:
            scalars[f"{key}/loss_change"] = nats - base[2]
    if base[2] is not None:
        scalars["permutation/loss"] = base[2]
    kind = "loss_change" if base[2] is not None else "cosine"
    values = [scalars[f"permutation/swap_{i}/{kind}"] for i in pairs]
    randoms = [scalars[f"permutation/random_{i + 1}/cosine"] for i in range(3)]
    swap_cosines = [scalars[f"permutation/swap_{i}/cosine"] for i in pairs]
    worst = pairs[int(np.argmax(values) if kind == "loss_change" else np.argmin(values))]
    worst_of_all = pairs[int(np.argmin(swap_cosines))]
    worst_value = scalars[f"permutation/swap_{worst}/{kind}"]
    inner = swap_cosines[1:-1] or swap_cosines
    answer = (
        f"Two neighbouring blocks exchanged leave a cosine of {np.mean(swap_cosines):.2f} with the "
        f"original last states on average, random orders {np.mean(randoms):.2f}, the reverse one "
        f"{scalars['permutation/reverse/cosine']:.2f}. The exchange that matters most is "
        f"{worst}↔{worst + 1}"
        + (f", which costs {worst_value:.2f} nats per token." if kind == "loss_change" else ".")
    )
    claims = (
        Claim(
            "Lad et al. 2024 (arXiv 2406.19384)",
            "Exchanging neighbouring blocks hurts little in the middle, most at the ends",
            worst_of_all in (0, depth - 2) and min(inner) > max(randoms) if depth >= 4 else None,
            f"least cosine at {worst_of_all}↔{worst_of_all + 1}, must be the first or the last "
            f"pair; between them at least {min(inner):.2f}, above each of three random orders "
            f"(largest {max(randoms):.2f})"
            if depth >= 4
            else "fewer than four blocks",
        ),
    )
    about = (
        "If the picture of an analysis stays the same with the blocks in another order, it does "
        "not show what the model computes. Here the blocks run in reverse, in three random orders, "
        "and with pairs of neighbours exchanged. The cosine compares each last state with that "
        "of the model as it is (1: nothing changed); random orders are the null model for "
        "exchanges of neighbours."
    )
    arrays: dict[str, np.ndarray] = {
        "pairs": np.array(pairs),
        "swap": np.array(values),
        "swap_cosine": np.array(swap_cosines),
    }
    arrays |= {f"norm_{name}".replace(" ", "_"): measured[name][1] for name in orders}
    pictures = (
        Picture(
            "permutation-norms",
            "Norm of the stream by place, positions but the first, before and after.",
            lambda: _draw_norms({name: measured[name][1] for name in orders}),
            wide=False,
        ),
        Picture(
            "permutation-swaps",
            "Neighbouring blocks exchanged: cosine with the original last states"
            + (" and change of the loss" if kind == "loss_change" else "")
            + "; grey: random orders.",
            lambda: _draw_swaps(
                pairs, swap_cosines, randoms, values if kind == "loss_change" else None
            ),
        ),
    )
    return Finding(
        "permutation", "Blocks in another order", about, answer, scalars, arrays, pictures, claims
    )


@torch.no_grad()
def _measure(
    model: nn.Module, batches: Sequence[Tensor], loss: Loss | None
) -> tuple[Tensor, np.ndarray, float | None]:
    """Last states as unit vectors [N, D], mean norms of the stream by place, and the loss."""
    inside: Any = backbone_of(model)
    options = {} if family_of(inside).post_norm else {"use_cache": False}
    stream = [p for p in points_of(inside) if p.component in ("embed", "post")]
    sums = dict.fromkeys(stream, 0.0)
    last, nats, states = [], [], 0
    inside.eval()

    def keep(point: Point, state: Tensor) -> None:
        # Points come in the order of the computation, whichever block is at a place.
        sums[point] += float(state[:, 1:].double().norm(dim=-1).sum())

    device = next(inside.parameters()).device
    for ids_BT in batches:
        with capture(inside, keep, stream):
            output = inside(input_ids=ids_BT.to(device), **options).last_hidden_state
        rest_ND = output[:, 1:].flatten(0, 1).double().cpu()
        states += len(rest_ND)
        last.append(torch.nn.functional.normalize(rest_ND, dim=1))
        if loss is not None:
            nats.append(loss(model, ids_BT.to(device)))
    norms = np.array([sums[p] / max(states, 1) for p in stream])
    return torch.cat(last), norms, float(np.mean(nats)) if nats else None


def _draw_norms(norms: dict[str, np.ndarray]) -> Any:
    with drawing_style():
        figure = new_figure(5.6, 3.4)
        panel = figure.subplots()
        for name, values in norms.items():
            random = name.startswith("random")
            colour = MUTED if random else series_color(int(name == "reverse"))
            panel.plot(
                np.arange(len(values)), values, color=colour, marker="o", markersize=3,
                linewidth=0.8 if random else 1.6, zorder=1 if random else 2,
                label=None if random and name != "random 1" else name.removesuffix(" 1"),
            )  # fmt: skip
        compact_ticks(panel.yaxis, log=True)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set(xlabel="place (0: embeddings)", ylabel="mean norm")
        figure.legend(loc="outside upper left", ncols=3)
    return figure


def _draw_swaps(
    pairs: Sequence[int],
    cosines: Sequence[float],
    randoms: Sequence[float],
    losses: Sequence[float] | None,
) -> Any:
    with drawing_style():
        figure = new_figure(11.2 if losses is not None else 5.6, 3.2)
        panels = figure.subplots(1, 1 if losses is None else 2, squeeze=False)[0]
        panels[0].plot(pairs, cosines, marker="o", markersize=4, color=series_color(0))
        for value in randoms:
            panels[0].axhline(value, color=MUTED, linewidth=0.8, zorder=1)
        panels[0].set(ylabel="cosine with the original")
        if losses is not None:
            panels[1].bar(pairs, losses, color=series_color(0), width=0.7)
            panels[1].set(ylabel="change of the loss, nats")
        for panel in panels:
            panel.set_xlabel("first of the two blocks")
            panel.xaxis.get_major_locator().set_params(integer=True)
    return figure
