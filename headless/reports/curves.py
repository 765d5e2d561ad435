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
    grid,
    logged,
    scale_x,
    shown,
    zero_line,
)
from headless.runs.run import AXES, Run

AXIS_NAMES = {"tokens": "training tokens", "seconds": "training seconds", "flops": "training FLOPs"}
FREQUENCY = "tenth of the training tokens\n(0: the most frequent)"
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
