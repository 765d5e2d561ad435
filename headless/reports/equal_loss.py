"""What an arm needed for each loss that the baseline reached, along the baseline's training.

A ratio of 0.8 at 2 M tokens: what the baseline had learned after 2 M tokens, the arm had learned
after 1.6 M. Between two validations the loss falls with the logarithm of the tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from headless.reports.groups import Group
from headless.reports.plots import (
    Curve,
    Panel,
    Read,
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
from headless.runs.run import Run

NLL = logged("val/nll", "tokens")
AXES = {"tokens": "tokens, over the baseline's", "seconds": "seconds, over the baseline's"}


def ratios(baseline: Group, axis: str) -> Read:
    """Reads a run's share of what the baseline's run with its seed needed (its mean, where no run
    has that seed), over the baseline's tokens at each validation that was its best so far.

    Losses that the run never reached, or was below when it was first validated, are left out.
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
        Panel(ratios(baseline, axis), name, "the baseline's tokens at that loss", finish=finish)
        for axis, name in AXES.items()
    ]
    panels = shown(others, panels)
    return grid(others, [panels]) if panels else None


def as_json(group: Group, baseline: Group) -> list[dict[str, Any]]:
    """For each loss the mean ratios over those runs that reached it."""
    read = {axis: _by_tokens(group, ratios(baseline, axis)) for axis in AXES}
    curves = curves_of(baseline.runs, NLL)
    return [
        {"baseline_tokens": tokens, "baseline_nll": float(np.interp(tokens, *mean_curve(curves)))}
        | {
            f"{axis}_ratio": {"mean": number.mean, "half_width": number.half_width, "n": number.n}
            for axis in AXES
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
