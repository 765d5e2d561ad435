"""The figures of training itself: learning curves, geometry, loss by frequency."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from headless.pages.figures import MUTED
from headless.reports.groups import Group, anchors_of, runs_of
from headless.reports.headline import DECILES
from headless.reports.plots import (
    Curve,
    Panel,
    Read,
    crop,
    curves_of,
    grid,
    logged,
    mean_curve,
    reached_at,
    scale_x,
    shown,
    zero_line,
)
from headless.reports.statistics import estimate
from headless.runs.run import AXES, Run

AXIS_NAMES = {"tokens": "training tokens", "seconds": "training seconds", "flops": "training FLOPs"}
FREQUENCY = "tenth of the training tokens\n(0: the most frequent)"
BARE = "val/nll_uncalibrated"
NLL = logged("val/nll", "tokens")
BUDGETS = {"tokens": "tokens, over the baseline's", "seconds": "seconds, over the baseline's"}


def learning_curves(groups: Sequence[Group]) -> Any | None:
    """Validation nll, over the text's anchors, and training loss over tokens, seconds and FLOPs;
    None without any point."""
    names = {
        "val/nll": "validation nll\nnats per token",
        "train/loss": "training loss\nof each objective",
    }
    keys = [key for key in names if shown(groups, [Panel(logged(key, "tokens"))])]
    axes = [a for a in AXES if shown(groups, [Panel(logged(key, a)) for key in keys])]
    if not axes:
        return None
    rows = [
        [
            Panel(
                logged(key, axis),
                y=names[key] if axis == axes[0] else "",
                x=AXIS_NAMES[axis] if key == keys[-1] else "",
                also=logged(BARE, axis) if key == "val/nll" else None,
                finish=partial(_finish, groups, first=axis == axes[0], key=key, top=key == keys[0]),
            )
            for axis in axes
        ]
        for key in keys
    ]
    return grid(groups, rows, dashed="bare tied head, without calibration")


def _finish(groups: Sequence[Group], panel: Any, *, first: bool, key: str, top: bool) -> None:
    if top:  # the panels below it share its axis
        scale_x(panel)
    if first:  # and those beside it
        crop(panel)
    if key == "val/nll":
        _draw_anchors(panel, anchors_of(groups), named=first)


def _draw_anchors(panel: Any, anchors: dict[str, float], *, named: bool) -> None:
    """Lines at what the text's simple models score; the nearest above is brought into view."""
    low, high = panel.get_ylim()
    above = sorted(nats for nats in anchors.values() if nats > high)
    if named and above and above[0] < low + 2.5 * (high - low):
        high = above[0] + 0.09 * (above[0] - low)
    panel.set_ylim(low, high)
    style = {"color": MUTED, "fontsize": 7.5, "ha": "right", "va": "bottom"}
    for name, nats in anchors.items():
        panel.axhline(nats, color=MUTED, linewidth=0.8, linestyle="dotted")
        if named and low <= nats <= high:
            across = panel.get_yaxis_transform()
            panel.text(0.99, nats, f"{name} {nats:.2f}", transform=across, **style)


def geometry(groups: Sequence[Group]) -> Any | None:
    """Anisotropy and effective rank by layer at the end, and of two tables over training."""
    runs = runs_of(groups)
    if not any(run.layers for run in runs):
        return None
    relative = all(run.width for run in runs)
    rank = "effective rank\n" + ("share of the width" if relative else "")
    rows = {"anisotropy": "anisotropy\nmean cosine", "effective_rank": rank}
    titles = {"last_layer": "last layer, during training", "embedding": "embedding table"}
    panels = []
    for measure, name in rows.items():
        shrink, top = relative and measure == "effective_rank", measure == "anisotropy"
        x = "" if top else AXIS_NAMES["tokens"]
        by_layer = Panel(
            _by_layer(measure, shrink),
            "by layer, at the end" if top else "",
            "" if top else "layer (0: its input)",
            name,
            marked=1000,
            finish=partial(_layers, deepest=max(len(run.layers) for run in runs) - 1),
        )
        over_time = [
            Panel(
                logged(f"geometry/{measure}/{place}", "tokens", relative=shrink),
                title if top else "",
                x,
                finish=scale_x if top else lambda panel: None,
            )
            for place, title in titles.items()
        ]
        panels.append([by_layer, *over_time])
    return grid(groups, panels)


def _layers(panel: Any, deepest: int) -> None:
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.set(xlim=(-0.35, deepest + 0.35), ylim=(min(0.0, panel.get_ylim()[0]), None))


def _by_layer(measure: str, relative: bool) -> Read:
    def read(run: Run) -> Curve | None:
        values = [run.last.get(f"geometry/{measure}/{layer}", np.nan) for layer in run.layers]
        y = np.array(values) / ((run.width or 1) if relative else 1)
        return (np.arange(len(y)), y) if values else None

    return read


def deciles(groups: Sequence[Group], baseline: Group) -> Any | None:
    """The nll over the deciles, and what it differs from the baseline's."""
    panels = [
        Panel(_deciles(None), "", FREQUENCY, "validation nll\nnats per token", marked=10),
        Panel(
            _deciles(baseline),
            "",
            FREQUENCY,
            "nll less the baseline's",
            marked=10,
            finish=zero_line,
        ),
    ]
    return grid(groups, [panels], share=False) if shown(groups, panels) else None


def _deciles(baseline: Group | None) -> Read:
    """A run's deciles, less those of the baseline's run with its seed, or of its mean."""

    def read(run: Run) -> Curve | None:
        partners = baseline.partners(run) if baseline else []
        y, *others = (
            np.array([one.last.get(key, np.nan) for key in DECILES]) for one in (run, *partners)
        )
        return np.arange(len(y), dtype=float), y - (np.mean(others, axis=0) if others else 0.0)

    return read


def budget_ratios(baseline: Group, axis: str) -> Read:
    """What a run needed for each loss that the baseline reached, over what that needed.

    Over the baseline's tokens at each validation that was its best so far; of its run with the same
    seed, or else of its mean. 0.8 at 2 M tokens: what the baseline had learned after 2 M, the run
    had learned after 1.6 M. Between two validations the loss falls with the logarithm of the
    tokens. Losses that the run never reached, or was below when it was first validated, are left
    out.
    """

    def read(run: Run) -> Curve | None:
        partners, curve = baseline.partners(run), NLL(run)
        others = curves_of(partners, NLL)
        if curve is None or not others:
            return None
        tokens, nll = mean_curve(others)
        best = np.diff(np.minimum.accumulate(nll), prepend=np.inf) < 0
        best &= (tokens > 0) & np.isfinite(nll) & (nll <= _first(curve))
        needed = [_needed(curve, level) for level in nll[best]]
        reached = np.array([n is not None for n in needed], dtype=bool)
        if not reached.any():
            return None
        theirs = tokens[best][reached]
        mine = np.array([n for n in needed if n is not None])
        return theirs, _cost([run], mine, axis) / _cost(partners, theirs, axis)

    return read


def _first(curve: Curve) -> float:
    return float(curve[1][curve[0] > 0][:1].max(initial=-np.inf))


def _needed(curve: Curve, level: float) -> float | None:
    """The tokens after which a curve is at a level."""
    x, y = curve
    place = reached_at((np.log(x[x > 0]), y[x > 0]), level)
    return None if place is None else float(np.exp(place))


def _cost(runs: Sequence[Run], tokens: np.ndarray, axis: str) -> np.ndarray:
    """Tokens as they are, or the mean seconds after which runs had seen them."""
    if axis == "tokens":
        return tokens
    clocks = [run.curve(f"progress/{axis}", "tokens") for run in runs]
    return np.mean([np.interp(tokens, *c) if c[0] else np.nan * tokens for c in clocks], axis=0)


def equal_loss(groups: Sequence[Group], baseline: Group) -> Any | None:
    """Both ratios as curves; None where there is no other arm with a curve."""
    others = [group for group in groups if group is not baseline]

    def finish(panel: Any) -> None:
        scale_x(panel)
        zero_line(panel, 1.0)

    panels = [
        Panel(
            budget_ratios(baseline, axis), name, "the baseline's tokens at that loss", finish=finish
        )
        for axis, name in BUDGETS.items()
    ]
    panels = shown(others, panels)
    return grid(others, [panels]) if panels else None


def equal_loss_as_json(group: Group, baseline: Group) -> list[dict[str, Any]]:
    """For each loss the mean ratios over those runs that reached it."""
    read = {axis: _by_tokens(group, budget_ratios(baseline, axis)) for axis in BUDGETS}
    curves = curves_of(baseline.runs, NLL)
    mean = mean_curve(curves) if curves else ((), ())
    return [
        {"baseline_tokens": tokens}
        | ({"baseline_nll": float(np.interp(tokens, *mean))} if len(mean[0]) else {})
        | {
            f"{axis}_ratio": {"mean": number.mean, "half_width": number.half_width, "n": number.n}
            for axis in BUDGETS
            if (number := estimate(read[axis].get(tokens, [])))
        }
        for tokens in sorted(read["tokens"])
    ]


def _by_tokens(group: Group, read: Read) -> dict[float, list[float]]:
    found: dict[float, list[float]] = {}
    for x, y in curves_of(group.runs, read):
        for tokens, ratio in zip(x.tolist(), y.tolist(), strict=True):
            found.setdefault(tokens, []).append(ratio)
    return found
