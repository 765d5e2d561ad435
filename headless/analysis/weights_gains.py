"""Gains and biases of the norms: which dimensions each block amplifies or silences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import CONJECTURE
from headless.analysis.states.families import family_of
from headless.analysis.weights_drawing import bottom_labels, legend, new_figure
from headless.analysis.weights_measure import SEED, mean, share
from headless.geometry import moments
from headless.models.backbone import blocks
from headless.pages.figures import INK, MUTED, drawing_style, series_color

NAME = "norm_gains"
TOP = 5
_ABOUT = (
    "After a norm has made a state's dimensions comparable, its gain multiplies each of them: the "
    "block reads a dimension with a gain near 0 hardly at all (counted as silenced below 5 % of "
    "the median) and one with a large gain above all. Gains begin at 1, biases at 0. Skew and "
    "excess kurtosis say whether a few dimensions stand out, on which side; both are 0 for a "
    "Gaussian of the same mean and variance, the null. The Jaccard overlap of the largest five "
    "dimensions of neighbouring blocks (by |gain| from the median) says whether they are the same "
    "everywhere; by chance it is 5/(2·width) or so."
)


@dataclass(frozen=True)
class Norm:
    """One norm's parameters: place is "norm1", "norm2" or "final", block -1 for the final one."""

    place: str
    block: int
    gain_D: Tensor
    bias_D: Tensor | None


def norms_of(backbone: nn.Module) -> list[Norm]:
    """Both norms of every block and the final one, where they have gains.

    Raises:
        HeadlessError: another family.
    """
    family = family_of(backbone)
    places = [
        (place, i, block.get_submodule(getattr(family, place)))
        for place in ("norm1", "norm2")
        for i, block in enumerate(blocks(backbone))
    ]
    if family.final_norm is not None:
        places.append(("final", -1, backbone.get_submodule(family.final_norm)))
    found = []
    for place, block, norm in places:
        gain, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
        if isinstance(gain, Tensor):
            bias = bias.detach().double().cpu() if isinstance(bias, Tensor) else None
            found.append(Norm(place, block, gain.detach().double().cpu(), bias))
    return found


def gains_finding(norms: Sequence[Norm]) -> Finding | None:
    """Distribution of gains and biases by block; None for a model whose norms have none."""
    if not norms:
        return None
    places = list(dict.fromkeys(norm.place for norm in norms))
    arrays: dict[str, np.ndarray] = {}
    for place in places:
        own = [norm for norm in norms if norm.place == place]
        shapes = [moments(norm.gain_D) for norm in own]
        arrays[f"{place}/mean"] = np.array([s.mean for s in shapes])
        arrays[f"{place}/median"] = np.array([float(n.gain_D.quantile(0.5)) for n in own])
        arrays[f"{place}/std"] = np.array([s.std for s in shapes])
        arrays[f"{place}/skew"] = np.array([s.skew for s in shapes])
        arrays[f"{place}/excess_kurtosis"] = np.array([s.excess_kurtosis for s in shapes])
        arrays[f"{place}/silenced"] = np.array([_silenced(n.gain_D) for n in own], dtype=float)
        arrays[f"{place}/quantiles"] = np.stack(
            [np.quantile(n.gain_D.numpy(), (0, 0.05, 0.5, 0.95, 1)) for n in own]
        )
        arrays[f"{place}/top"] = np.stack([top_dimensions(n.gain_D).numpy() for n in own])
        arrays[f"{place}/overlap"] = np.array(
            [_jaccard(a, b) for a, b in zip(own[:-1], own[1:], strict=True)]
        )
        arrays[f"{place}/gain"] = np.stack([n.gain_D.numpy() for n in own])
        biases = [moments(n.bias_D) for n in own if n.bias_D is not None]
        if biases:
            arrays[f"{place}/bias_std"] = np.array([b.std for b in biases])
            arrays[f"{place}/bias_excess_kurtosis"] = np.array([b.excess_kurtosis for b in biases])
    scalars = {
        f"{NAME}/{key}": mean(values)
        for key, values in arrays.items()
        if values.ndim == 1 and len(values)
    }
    return Finding(
        name=NAME,
        title="Gains of the norms",
        about=_ABOUT,
        answer="Mean gains: "
        + "; ".join(_told(place, arrays) for place in places)
        + f". Silenced dimensions: {sum(arrays[f'{p}/silenced'].sum() for p in places):.0f}.",
        scalars=scalars,
        arrays=arrays,
        pictures=(
            Picture(
                "norm-gains",
                "Gains by block: mean (line), 5 to 95 % of the dimensions (band), smallest and "
                "largest (dots); the thin line is 1, where they begin. Right: excess kurtosis; "
                "the grey band is where 95 % of Gaussian samples of this width lie.",
                lambda: draw_depth(arrays, norms[0].gain_D.numel()),
            ),
            Picture(
                "norm-gain-values",
                "Gains of a middle block and of the final norm, with a Gaussian sample of the same "
                "mean and variance (line).",
                lambda: draw_values(norms),
            ),
        ),
        claims=_claims(arrays, places),
    )


def _told(place: str, arrays: dict[str, np.ndarray]) -> str:
    means = arrays[f"{place}/mean"]
    if len(means) == 1:
        return f"{place} {means[0]:.2f}"
    ends = f"{means[0]:.2f} in the first block, {means[-1]:.2f} in the last"
    return f"{place} {means.mean():.2f} ({ends})"


def top_dimensions(gain_D: Tensor) -> Tensor:
    """The `TOP` dimensions whose gain is farthest from the median."""
    far_D = (gain_D - gain_D.quantile(0.5)).abs()
    return far_D.topk(min(TOP, len(far_D))).indices.sort().values


def _silenced(gain_D: Tensor) -> int:
    return int((gain_D.abs() < 0.05 * gain_D.quantile(0.5).abs()).sum())


def _jaccard(first: Norm, second: Norm) -> float:
    a, b = (set(top_dimensions(norm.gain_D).tolist()) for norm in (first, second))
    return len(a & b) / len(a | b)


def _claims(arrays: dict[str, np.ndarray], places: Sequence[str]) -> tuple[Claim, ...]:
    inner = [place for place in places if place != "final"]
    source = CONJECTURE
    if not inner:
        return ()
    means = np.concatenate([arrays[f"{p}/mean"] for p in inner])
    kurtosis = np.concatenate([arrays[f"{p}/excess_kurtosis"] for p in inner])
    skew = np.concatenate([arrays[f"{p}/skew"] for p in inner])
    untrained = bool((np.abs(means - 1) < 1e-6).all() and not np.isfinite(kurtosis).any())
    low, heavy, left = share(means <= 0.8), share(kurtosis >= 1), share(skew < 0)
    return (
        Claim(
            source,
            "Gains in the blocks are well below 1 (0.45 in the middle of GPT-2-medium).",
            None if untrained else low >= 0.8,
            f"mean gain at most 0.8 in {low:.0%} of the norms, at least 80 %; median of the means "
            f"{np.median(means):.2f}",
        ),
        Claim(
            source,
            "Gains have a high kurtosis: a few dimensions stand out.",
            None if untrained else heavy >= 0.5,
            f"excess kurtosis of at least 1 in {heavy:.0%} of the norms, at least half",
        ),
        Claim(
            source,
            "The outlying gains are mostly on the left, towards 0.",
            None if untrained else left >= 0.5,
            f"negative skew in {left:.0%} of the norms, at least half",
        ),
    )


def draw_depth(arrays: dict[str, np.ndarray], width: int) -> Any:
    """Gains of both norms over depth, and their kurtosis."""
    places = [p for p in ("norm1", "norm2") if f"{p}/mean" in arrays]
    with drawing_style():
        figure = new_figure(11.2, 3.0)
        panels = figure.subplots(1, len(places) + 1)
        for index, place in enumerate(places):
            panel, color = panels[index], series_color(index)
            q_L5 = arrays[f"{place}/quantiles"]
            x = np.arange(len(q_L5))
            panel.axhline(1, color=MUTED, linewidth=0.7)
            panel.fill_between(x, q_L5[:, 1], q_L5[:, 3], color=color, alpha=0.22, linewidth=0)
            panel.plot(x, q_L5[:, [0, 4]], ".", color=color, markersize=3)
            panel.plot(x, arrays[f"{place}/mean"], color=color, marker="o", markersize=2.5)
            panel.set_title(f"gains of {place}")
            panels[-1].plot(x, arrays[f"{place}/excess_kurtosis"], color=color, marker="o", ms=2.5)
        chance = 1.96 * np.sqrt(24 / width)
        panels[-1].axhspan(-chance, chance, color=MUTED, alpha=0.25, linewidth=0)
        panels[-1].set_yscale("symlog", linthresh=1.0)
        panels[-1].yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        panels[-1].set_title("excess kurtosis of the gains")
        for panel in panels:
            panel.set_xlabel("block")
            panel.xaxis.get_major_locator().set_params(integer=True)
        legend(figure, [(p, series_color(i), "solid", 1.6) for i, p in enumerate(places)])
    return figure


def draw_values(norms: Sequence[Norm]) -> Any:
    """Histograms of a middle block's norms and of the final one."""
    middle = (1 + max(norm.block for norm in norms)) // 2
    shown = [norm for norm in norms if norm.block in (middle, -1)]
    draw = torch.Generator().manual_seed(SEED)
    with drawing_style():
        figure = new_figure(11.2, 2.9)
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        for index, (panel, norm) in enumerate(zip(panels, shown, strict=True)):
            gain = norm.gain_D.numpy()
            title = "final norm" if norm.block < 0 else f"{norm.place}, block {norm.block}"
            panel.set_title(title)
            panel.hist(gain, 60, color=series_color(index), alpha=0.5)
            if gain.std() > 0:
                noise = torch.randn(len(gain), generator=draw, dtype=torch.float64).numpy()
                edges = panel.get_xlim()
                panel.hist(
                    gain.mean() + gain.std() * noise, np.linspace(gain.min(), gain.max(), 61),
                    histtype="step", color=INK, linewidth=0.9,
                )  # fmt: skip
                panel.set_xlim(edges)
        bottom_labels(panels, "gain", "dimensions")
        legend(figure, [("a Gaussian sample of the same mean and variance", INK, "solid", 0.9)])
    return figure
