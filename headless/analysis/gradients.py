"""Gradients of single examples, before anything averages or clips them.

Shapes: B = 1 sequence, T positions, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.families import backbone_of, block_matrices
from headless.analysis.finding import Claim, Finding, Picture
from headless.errors import HeadlessError
from headless.pages.figures import MUTED, drawing_style, new_figure, series_color

CONJECTURE = "Conjecture 2023"
LossOf = Callable[[Tensor], Tensor]
GAUSSIAN_TAIL = 6.334e-5  # P(|z| > 4)
Z = np.linspace(-12, 12, 193)  # edges of the histograms of standardised entries


def token_loss(model: Any, mask_token: int | None = None) -> LossOf:
    """Mean loss of a model with an LM head on a sequence, in nats per token.

    Args:
        model: `…ForCausalLM`, scored on each next token; or `…ForMaskedLM` with `mask_token`, on
            every seventh token, masked.
        mask_token: of a masked model.
    """

    def of(ids_BT: Tensor) -> Tensor:
        if mask_token is None:
            logits_BTV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1]
            targets_BT = ids_BT[:, 1:]
        else:
            masked_T = torch.arange(ids_BT.shape[1], device=ids_BT.device) % 7 == 3
            logits_BTV = model(input_ids=ids_BT.masked_fill(masked_T, mask_token)).logits
            logits_BTV, targets_BT = logits_BTV[:, masked_T], ids_BT[:, masked_T]
        flat_NV = logits_BTV.flatten(0, 1).float()
        return torch.nn.functional.cross_entropy(flat_NV, targets_BT.flatten())

    return of


@dataclass(frozen=True)
class Entries:
    """The distribution of a matrix' entries.

    Args:
        mean_over_std: should be near 0.
        std: of the entries.
        kurtosis: excess; 0 for a Gaussian.
        scaled_kurtosis: after each row and column was divided by its root mean square: what is
            not explained by some inputs and outputs having larger gradients.
        largest: max |z|.
        tail: P(|z| > 4) over a Gaussian's.
        piled: entries within 1 % of the largest |entry|: many where values were clipped.
        histogram: counts of z between `Z`.
    """

    mean_over_std: float
    std: float
    kurtosis: float
    scaled_kurtosis: float
    largest: float
    tail: float
    piled: int
    histogram: np.ndarray


def entries(matrix: Tensor) -> Entries:
    """Describe the entries of a matrix, in float64.

    Raises:
        ValueError: all entries are the same.
    """
    x = matrix.detach().double()
    mean, std = float(x.mean()), float(x.std(correction=0))
    if not std > 0:
        raise ValueError("all entries are the same")
    z = (x - mean) / std
    size = x.abs()
    row = x.square().mean(dim=1, keepdim=True).sqrt()
    column = (x / row.clamp(min=1e-300)).square().mean(dim=0, keepdim=True).sqrt()
    scaled = x / row.clamp(min=1e-300) / column.clamp(min=1e-300)
    return Entries(
        mean_over_std=mean / std,
        std=std,
        kurtosis=float(z.pow(4).mean()) - 3,
        scaled_kurtosis=_kurtosis(scaled),
        largest=float(z.abs().max()),
        tail=float((z.abs() > 4).double().mean()) / GAUSSIAN_TAIL,
        piled=int((size >= 0.99 * size.max()).sum()),
        histogram=np.histogram(z.cpu().numpy(), Z)[0],
    )


def _kurtosis(x: Tensor) -> float:
    x = x - x.mean()
    return float(x.pow(4).mean() / x.square().mean().square()) - 3


@contextmanager
def gradients_as_weights(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]
) -> Iterator[None]:
    """Inside this, parameters hold their gradients: what reads weights reads those.

    Parameters without a gradient hold zeros. Weights come back whatever happens.
    """
    saved = [p.data for p in parameters]
    try:
        for p, gradient in zip(parameters, gradients, strict=True):
            p.data = torch.zeros_like(p) if gradient is None else gradient
        yield
    finally:
        for p, weight in zip(parameters, saved, strict=True):
            p.data = weight


def gradients(backbone: nn.Module, examples: Sequence[Tensor], loss_of: LossOf) -> Finding:
    """The distribution of the gradient of one example in each matrix, and how examples agree.

    Args:
        backbone: what the loss runs through; weights and their `.grad` stay as they are.
        examples: sequences [1, T], one a backward pass; the first one's gradient is described,
            all together give the mean's and the noise scale.
        loss_of: the loss of an example, not scaled, e.g. `token_loss(model)`.

    Raises:
        HeadlessError: no example, or a loss that is not finite.
    """
    if not examples:
        raise HeadlessError("gradients need an example: a sequence of tokens")
    inside = backbone_of(backbone)
    was_training = inside.training
    wanted = {p: p.requires_grad for p in inside.parameters()}
    inside.eval()
    try:
        for p in wanted:
            p.requires_grad_(True)
        single, mean, square = _backward(inside, examples, loss_of)
    finally:
        for p, want in wanted.items():
            p.requires_grad_(want)
        inside.train(was_training)
    scalars: dict[str, float] = {}
    for (block, role), e in single.items():
        key = f"gradients/{role}/{block:02d}"
        scalars |= {
            f"{key}/mean_over_std": e.mean_over_std,
            f"{key}/std": e.std,
            f"{key}/kurtosis": e.kurtosis,
            f"{key}/scaled_kurtosis": e.scaled_kurtosis,
            f"{key}/largest": e.largest,
            f"{key}/tail": e.tail,
            f"{key}/piled": float(e.piled),
        }
        if len(examples) > 1:
            scalars[f"{key}/batch_kurtosis"] = mean[block, role].kurtosis
            scalars[f"{key}/noise_scale"] = _noise_scale(*square[block, role], len(examples))
    kurtosis = np.array([e.kurtosis for e in single.values()])
    scaled = np.array([e.scaled_kurtosis for e in single.values()])
    off = max(abs(e.mean_over_std) for e in single.values())
    piled = float(np.median([e.piled for e in single.values()]))
    gauss = float(np.median([e.tail for e in single.values()]))
    scalars |= {
        "gradients/median_kurtosis": float(np.median(kurtosis)),
        "gradients/median_scaled_kurtosis": float(np.median(scaled)),
        "gradients/largest_mean_over_std": off,
        "gradients/median_tail": gauss,
        "gradients/median_piled": piled,
        "gradients/examples": float(len(examples)),
    }
    answer = (
        f"Entries have mean 0 (at most {off:.3f} standard deviations off). Their excess kurtosis "
        f"is {np.median(kurtosis):.1f} in the median matrix and {kurtosis.max():.0f} in the worst "
        f"(0 for a Gaussian), and entries beyond four standard deviations are {gauss:.0f} times "
        f"as frequent as a Gaussian's. With rows and columns scaled to one size "
        f"{np.median(scaled):.1f} is left."
    )
    if len(examples) > 1:
        averaged = np.median([e.kurtosis for e in mean.values()])
        scales = [_noise_scale(*s, len(examples)) for s in square.values()]
        scalars["gradients/median_batch_kurtosis"] = float(averaged)
        scalars["gradients/median_noise_scale"] = float(np.median(scales))
        answer += (
            f" The mean of {len(examples)} examples has {averaged:.1f}; the noise scale is "
            f"{np.median(scales):.3g} examples."
        )
    claims = (
        Claim(
            CONJECTURE,
            "Gradients of single examples have mean 0",
            off <= 0.05,
            f"largest |mean| over standard deviation {off:.3f}, at most 0.050",
        ),
        Claim(
            CONJECTURE,
            "Gradients of single examples are highly Gaussian",
            float(np.median(kurtosis)) <= 1,
            f"median excess kurtosis {np.median(kurtosis):.1f}, at most 1.0",
        ),
        Claim(
            CONJECTURE,
            "Outliers pile up at one value, as if they had been clipped",
            piled >= 10,
            f"entries within 1 % of the largest {piled:.0f} in the median matrix, at least 10",
        ),
    )
    about = (
        "One example's gradient, not averaged over a batch and not clipped, says what a single "
        "sequence wants of each weight. Each histogram shows the entries of a matrix in standard "
        "deviations, beside the Gaussian with the same mean and deviation. Excess kurtosis is 0 "
        "for a Gaussian and large where few entries are huge. A gradient is a sum of products of "
        "an input and an error, so that one large input dimension makes a large column: the "
        "scaled kurtosis is what is left when rows and columns have one size. The noise scale "
        "says in how many examples the mean gradient's length equals the noise of one (McCandlish "
        "et al. 2018)."
    )
    roles = list(dict.fromkeys(role for _, role in single))
    depth = 1 + max(block for block, _ in single)
    grid = np.full((len(roles), depth), np.nan)
    for (block, role), e in single.items():
        grid[roles.index(role), block] = e.kurtosis
    arrays = {
        "kurtosis": grid,
        "edges": Z,
        **{f"{role}_{block:02d}": e.histogram for (block, role), e in single.items()},
    }
    pictures = (
        Picture(
            "gradients-histograms",
            "Entries of each kind of matrix in standard deviations, one line a block (dark: "
            "early), and the Gaussian (dashed); logarithmic, so that a Gaussian is a parabola.",
            lambda: _draw_histograms(single, roles, depth),
        ),
        Picture(
            "gradients-kurtosis",
            "Excess kurtosis by matrix and block; 0 for a Gaussian.",
            lambda: _draw_kurtosis(grid, roles),
            wide=False,
        ),
    )
    return Finding(
        "gradients", "Gradients of one example", about, answer, scalars, arrays, pictures, claims
    )


Place = tuple[int, str]


def _backward(
    inside: nn.Module, examples: Sequence[Tensor], loss_of: LossOf
) -> tuple[dict[Place, Entries], dict[Place, Entries], dict[Place, tuple[float, float]]]:
    """The first example's entries, those of the mean, and (mean of |g|², |mean g|²)."""
    parameters = list(inside.parameters())
    device = parameters[0].device
    single: dict[Place, Entries] = {}
    sums: dict[Place, Tensor] = {}
    squares: dict[Place, float] = {}
    for number, ids_BT in enumerate(examples):
        with torch.enable_grad():
            loss = loss_of(ids_BT.to(device))
        if not bool(loss.isfinite()):
            raise HeadlessError(f"the loss of example {number} is not finite: its gradient is not")
        # Not backward(): no .grad of the caller's is touched, the head's neither.
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        with gradients_as_weights(parameters, found):
            for matrix in block_matrices(inside):
                place = (matrix.block, matrix.role)
                if number == 0:
                    single[place] = _described(matrix.weight, place)
                g = matrix.weight.double()
                squares[place] = squares.get(place, 0.0) + float(g.square().sum())
                if len(examples) > 1:
                    sums[place] = sums[place] + g if place in sums else g.clone()
    mean = {place: _described(total / len(examples), place) for place, total in sums.items()}
    both = {
        place: (squares[place] / len(examples), float((total / len(examples)).square().sum()))
        for place, total in sums.items()
    }
    return single, mean, both


def _described(matrix: Tensor, place: Place) -> Entries:
    try:
        return entries(matrix)
    except ValueError:
        raise HeadlessError(
            f"{place[1]} of block {place[0]} has no gradient: the loss does not run through it"
        ) from None


def _noise_scale(mean_square: float, square_mean: float, n: int) -> float:
    """tr Σ / |G|², both without bias from n examples; infinite where noise hides the mean."""
    noise = (mean_square - square_mean) * n / (n - 1)
    signal = square_mean - noise / n
    return noise / signal if signal > 0 else float("inf")


def _draw_histograms(single: dict[Place, Entries], roles: Sequence[str], depth: int) -> Any:
    import matplotlib

    middle = (Z[1:] + Z[:-1]) / 2
    width = Z[1] - Z[0]
    columns = min(4, len(roles))
    rows = -(-len(roles) // columns)
    shades = matplotlib.colormaps["Blues"](np.linspace(1.0, 0.4, max(depth, 2)))
    with drawing_style():
        figure = new_figure(11.2, 0.4 + 2.3 * rows)
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for panel, role in zip(panels.ravel(), roles, strict=False):
            for (block, name), e in single.items():
                if name == role:
                    density = e.histogram / max(e.histogram.sum(), 1) / width
                    shown = np.where(density > 0, np.log10(np.maximum(density, 1e-12)), np.nan)
                    panel.plot(middle, shown, color=shades[block], linewidth=0.9)
            gaussian = (-(middle**2) / 2 - 0.5 * np.log(2 * np.pi)) / np.log(10)
            panel.plot(middle, gaussian, color=MUTED, linestyle="--", linewidth=1.2)
            panel.set_title(role)
            panel.set_ylim(-6.5, 1.2)
        for panel in panels.ravel()[len(roles) :]:
            panel.set_visible(False)
        for panel in panels[-1]:
            panel.set_xlabel("standard deviations")
        for panel in panels[:, 0]:
            panel.set_ylabel("log10 density")
    return figure


def _draw_kurtosis(grid: np.ndarray, roles: Sequence[str]) -> Any:
    with drawing_style():
        figure = new_figure(5.6, 3.2)
        panel = figure.subplots()
        for index, (role, values) in enumerate(zip(roles, grid, strict=True)):
            panel.plot(
                np.log10(1 + np.maximum(values, 0)), marker="o", markersize=3.5,
                color=series_color(index), label=role,
            )  # fmt: skip
        ticks = [0, 1, 10, 100, 1000, 10000]
        top = np.log10(1 + max(float(np.nanmax(grid)), 1)) * 1.05
        panel.set_yticks([np.log10(1 + t) for t in ticks], [f"{t:,}" for t in ticks])
        panel.set_ylim(0, top)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set(xlabel="block", ylabel="excess kurtosis")
        figure.legend(loc="outside upper left", ncols=len(roles))
    return figure
