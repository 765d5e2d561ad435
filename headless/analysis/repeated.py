"""The same token again and again: what a model does where nothing new comes.

Shapes: S sequences, T positions, D hidden size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import PAPER
from headless.analysis.states.capture import Point, capture, middle_blocks
from headless.analysis.states.families import backbone_of, family_of
from headless.errors import HeadlessError
from headless.geometry import principal_axes, unit
from headless.models.backbone import blocks
from headless.pages.figures import (
    MUTED,
    compact_ticks,
    drawing_style,
    new_figure,
    series_color,
)

SHORTEST = 16


def longest_sequence(backbone: nn.Module) -> int | None:
    """How many positions a model can take; None where its config does not say."""
    config: Any = backbone_of(backbone).config
    most = getattr(config, "max_position_embeddings", None)
    if most is not None and config.model_type == "roberta":
        most -= config.pad_token_id + 1  # its positions begin after the padding's
    return most


@torch.no_grad()
def middle_states(backbone: nn.Module, ids_ST: Tensor) -> tuple[Tensor, Tensor]:
    """States after the middle blocks, averaged over them, of sequences that run one by one.

    Returns:
        Their mean [S, T, D], and the mean of their norms [S, T]; float64 on the CPU.
    """
    inside: Any = backbone_of(backbone)
    family, chosen = family_of(inside), middle_blocks(range(len(blocks(inside))))
    points = [Point("post", i) for i in chosen]
    options = {} if family.post_norm else {"use_cache": False}
    was_training = inside.training
    inside.eval()
    means, norms = [], []
    try:
        for ids_T in ids_ST:
            states: list[Tensor] = []

            def keep(point: Point, state: Tensor, states: list[Tensor] = states) -> None:
                states.append(state[0].double().cpu())

            with capture(inside, keep, points):
                inside(input_ids=ids_T[None].to(next(inside.parameters()).device), **options)
            means.append(torch.stack(states).mean(dim=0))
            norms.append(torch.stack([s.norm(dim=1) for s in states]).mean(dim=0))
    finally:
        inside.train(was_training)
    return torch.stack(means), torch.stack(norms)


def repeated_token(
    backbone: nn.Module,
    tokens: Sequence[int],
    *,
    first: int | None = None,
    length: int = 512,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Finding:
    """Sequences of one token, beside a sequence of random tokens.

    Args:
        backbone: with or without a head.
        tokens: one sequence for each; the first one is described.
        first: the token before them (BOS), or None.
        length: of the sequences, `first` included.
        names: of the tokens, for the pictures.
        seed: of the null model.

    Raises:
        HeadlessError: no token, one outside of the vocabulary, or a length that does not fit.
    """
    config: Any = backbone_of(backbone).config
    most = longest_sequence(backbone)
    if length < SHORTEST or (most is not None and length > most):
        raise HeadlessError(f"sequences of {length} tokens: choose between {SHORTEST} and {most}")
    every = [*tokens, *([] if first is None else [first])]
    if not tokens or not all(0 <= t < config.vocab_size for t in every):
        raise HeadlessError(f"name tokens to repeat, each below {config.vocab_size}")
    generator = torch.Generator().manual_seed(seed)
    random_T = torch.randint(config.vocab_size, (length,), generator=generator)
    ids_ST = torch.stack([*(torch.full((length,), t) for t in tokens), random_T])
    if first is not None:
        ids_ST[:, 0] = first
    state_STD, norm_ST = middle_states(backbone, ids_ST)
    direction_STD = torch.stack([unit(x_TD) for x_TD in state_STD])
    to_last_ST = (direction_STD * direction_STD[:, -1:]).sum(dim=-1)
    step_ST = state_STD.diff(dim=1).norm(dim=-1) / state_STD[:, 1:].norm(dim=-1).clamp(min=1e-300)
    mid, tenth = length // 2, max(2, length // 10)
    scalars = {
        "repeated/norm_first": float(norm_ST[0, 0]),
        "repeated/norm_second": float(norm_ST[0, 1]),
        "repeated/norm_tenth": float(norm_ST[0, tenth]),
        "repeated/norm_last": float(norm_ST[0, -1]),
        "repeated/cos_second_last": float(to_last_ST[0, 1]),
        "repeated/cos_tenth_last": float(to_last_ST[0, tenth]),
        "repeated/cos_half_last": float(to_last_ST[0, mid]),
        "repeated/cos_half_last/null": float(to_last_ST[-1, mid]),
        "repeated/cos_first_last": float(to_last_ST[0, 0]),
        "repeated/cos_first_last/null": float(to_last_ST[-1, 0]),
        "repeated/step_second": float(step_ST[0, 0]),
        "repeated/step_last": float(step_ST[0, -1]),
        "repeated/step_last/null": float(step_ST[-1, -1]),
        "repeated/norm_last/null": float(norm_ST[-1, -1]),
    }
    half, null = scalars["repeated/cos_half_last"], scalars["repeated/cos_half_last/null"]
    growth = scalars["repeated/norm_last"] / max(scalars["repeated/norm_second"], 1e-300)
    captured = scalars["repeated/norm_last"] / max(scalars["repeated/norm_first"], 1e-300)
    back = scalars["repeated/cos_first_last"]
    answer = (
        f"Half-way the state points where the last one points (cosine {half:.3f}; "
        f"{null:.3f} for random tokens) and a step moves it by {scalars['repeated/step_last']:.1%} "
        f"at the end ({scalars['repeated/step_last/null']:.0%} for random tokens). Its norm goes "
        f"from {scalars['repeated/norm_second']:.3g} to {scalars['repeated/norm_last']:.3g}; the "
        f"first position has {scalars['repeated/norm_first']:.3g}, and the cosine between first "
        f"and last state is {back:.2f}."
    )
    massive = scalars["repeated/norm_first"] >= 3 * scalars["repeated/norm_second"]
    claims = (
        Claim(
            f"{PAPER}, first version (LLaMA-7B)",
            "States of a repeated token converge",
            half >= 0.95 and half > null,
            f"cosine of the state half-way and the last {half:.3f}, at least 0.950 and above that "
            f"of random tokens ({null:.3f})",
        ),
        Claim(
            f"{PAPER}, first version (LLaMA-7B)",
            "In the end they look like the first position's: of its norm and its direction",
            (captured >= 0.5 and growth >= 3 and back >= 0.8) if massive else None,
            f"last norm over first {captured:.2f}, at least 0.50; over the second's {growth:.1f}, "
            f"at least 3; cosine {back:.2f}, at least 0.80"
            if massive
            else "the first position's norm is not 3 times the second's: nothing to be captured by",
        ),
    )
    about = (
        "A sequence of one token, again and again, has nothing but position to tell its states "
        "apart. The pictures follow the mean state after the middle blocks: does its direction "
        "settle, does its norm grow to that of the first position, which many models give a huge "
        "norm of no meaning? A sequence of random tokens stands beside it: its states do not "
        "settle."
    )
    labels = list(names) if names is not None else [f"token {t}" for t in tokens]
    arrays = {
        "norm": norm_ST.numpy(),
        "cos_last": to_last_ST.numpy(),
        "step": step_ST.numpy(),
    }
    paths = {
        "raw, without the first": principal_axes(state_STD[0, 1:])(state_STD[0, 1:]).numpy(),
        "unit vectors": principal_axes(direction_STD[0])(direction_STD[0]).numpy(),
    }
    pictures = (
        Picture(
            "repeated-curves",
            "By position: norm, cosine with the last state, and relative step; random tokens grey.",
            lambda: _draw_curves(arrays, labels),
        ),
        Picture(
            "repeated-path",
            f"The path of {labels[0]} in its first two principal components, light at its end.",
            lambda: _draw_paths(paths),
        ),
    )
    return Finding("repeated", "A token repeated", about, answer, scalars, arrays, pictures, claims)


def _draw_curves(arrays: dict[str, np.ndarray], labels: Sequence[str]) -> Any:
    names = {"norm": "norm", "cos_last": "cosine with the last", "step": "relative step"}
    with drawing_style():
        figure = new_figure(11.2, 3.4)
        for panel, (key, name) in zip(figure.subplots(1, 3), names.items(), strict=True):
            values_ST = arrays[key]
            start = 2 if key == "step" else 1  # positions from 1, for the logarithm
            x = np.arange(values_ST.shape[1]) + start
            panel.plot(x, values_ST[-1], color=MUTED, linewidth=0.8, label="random tokens")
            for index, label in enumerate(labels):
                panel.plot(x, values_ST[index], color=series_color(index), label=label)
            compact_ticks(panel.xaxis, log=True)
            if key != "cos_last":
                compact_ticks(panel.yaxis, log=True)
            panel.set(xlabel="position, from 1", title=name)
        handles, texts = panel.get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper left", ncols=min(6, len(texts)))
    return figure


def _draw_paths(paths: dict[str, np.ndarray]) -> Any:
    with drawing_style():
        figure = new_figure(11.2, 3.6)
        panels = figure.subplots(1, len(paths))
        for panel, (name, z_TK) in zip(panels, paths.items(), strict=True):
            panel.plot(z_TK[:, 0], z_TK[:, 1], color=MUTED, linewidth=0.5)
            dots = panel.scatter(
                z_TK[:, 0], z_TK[:, 1], c=np.arange(len(z_TK)), cmap="winter", s=9, linewidths=0
            )
            panel.set(title=name, xlabel="component 1", ylabel="component 2")
        figure.colorbar(dots, ax=list(panels), label="position", fraction=0.03)
    return figure
