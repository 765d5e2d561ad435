"""The figures of training itself: learning curves and geometry."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from headless.pages.figures import MUTED
from headless.reports.anchors import anchors_of
from headless.reports.groups import Group, runs_of
from headless.reports.plots import (
    Curve,
    Panel,
    Read,
    crop,
    curves_of,
    grid,
    logged,
    scale_x,
    shown,
)
from headless.runs.run import AXES, Run

AXIS_NAMES = {"tokens": "training tokens", "seconds": "training seconds", "flops": "training FLOPs"}
BARE = "val/nll_uncalibrated"


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
    bare = bool(curves_of(runs_of(groups), logged(BARE, "tokens")))
    rows = [
        [
            Panel(
                logged(key, axis),
                y=names[key] if axis == axes[0] else "",
                x=AXIS_NAMES[axis] if key == keys[-1] else "",
                also=logged(BARE, axis) if bare and key == "val/nll" else None,
                finish=partial(_finish, groups, first=axis == axes[0], key=key, top=key == keys[0]),
            )
            for axis in axes
        ]
        for key in keys
    ]
    return grid(groups, rows, dashed=["bare tied head, without calibration"] if bare else [])


def _finish(groups: Sequence[Group], panel: Any, *, first: bool, key: str, top: bool) -> None:
    if top:  # the panels below it share its axis
        scale_x(panel)
    if first:  # and those beside it
        crop(panel)
    if key == "val/nll":
        _draw_anchors(panel, anchors_of(groups), named=first)


def _draw_anchors(panel: Any, anchors: dict[str, float], *, named: bool) -> None:
    """Lines at what the text's simple models score: the nearest above is brought into view, those
    that lie higher are named at the top."""
    low, high = panel.get_ylim()
    above = sorted(nats for nats in anchors.values() if nats > high)
    if named and above and above[0] < low + 2.5 * (high - low):
        high = above[0] + 0.16 * (above[0] - low)
        panel.set_ylim(low, high)
    place = {"transform": panel.get_yaxis_transform(), "color": MUTED, "fontsize": 7.5}
    hidden = []
    for name, nats in sorted(anchors.items(), key=lambda item: item[1]):
        if low <= nats <= high:
            panel.axhline(nats, color=MUTED, linewidth=0.8, linestyle="dotted")
            if named:
                panel.text(0.99, nats, f"{name} {nats:.2f}", ha="right", va="bottom", **place)
        elif nats > high:
            hidden.append(f"{name} {nats:.2f}")
    if named and hidden:
        panel.text(0.99, 0.98 * high + 0.02 * low, f"above: {', '.join(hidden)}", ha="right",
                   va="top", **place)  # fmt: skip


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
