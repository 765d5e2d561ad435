"""The headline numbers: which, in which order, in which unit and with how many digits.

One table for the page, for the terminal and for `compare.json`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from headless.errors import HeadlessError
from headless.pages.numbers import MISSING, compact, decimals
from headless.pages.page import Cell, Column
from headless.reports.fairness import (
    inexact,
    same_budget,
    same_clock,
    same_data,
    same_hardware,
    same_tokenizer,
    same_unit,
)
from headless.reports.groups import Group
from headless.reports.plots import group_curves, mean_curve
from headless.reports.statistics import Estimate, difference, estimate, leader

# How a number is written: counts with a prefix, or a fixed number of decimals.
Digits = int | Literal["compact"]


@dataclass(frozen=True)
class Quantity:
    """A number of a run: see `Run.value` for `key`; `scale` multiplies it for display."""

    key: str
    name: str
    unit: str
    group: str
    digits: Digits
    better: Literal["lower", "higher"] | None = None
    scale: float = 1.0

    def text(self, value: float | None) -> str:
        """The value alone."""
        if value is None:
            return MISSING
        if self.digits == "compact":
            return compact(value * self.scale)
        return decimals(value * self.scale, self.digits)

    def interval(self, found: Estimate | None) -> str:
        """± the half width; empty for a single run, and where the runs do not vary."""
        if found is None or not found.half_width or found.half_width < 1e-9 * abs(found.mean):
            return ""
        return f"± {self.text(found.half_width)}"


COST, SCORES, GEOMETRY = "cost", "validation, under the objective's LM head", "geometry"
RANK = "geometry/effective_rank/last_layer"
STATES, NOISE = "geometry/states", "geometry/effective_rank/null"
MEMORY = ("peak_memory_gib", "peak_validation_memory_gib")
CLOCKED = ("seconds", "tokens_per_second")
QUANTITIES = (
    Quantity("parameters", "params", "", COST, "compact"),
    Quantity("tokens", "tokens", "", COST, "compact"),
    Quantity("seconds", "time", "seconds", COST, 0, "lower"),
    Quantity("tokens_per_second", "speed", "tokens/s", COST, 0, "higher"),
    Quantity("startup_seconds", "start-up", "seconds", COST, 0),
    Quantity("peak_memory_gib", "memory", "GiB", COST, 2, "lower"),
    Quantity("peak_validation_memory_gib", "memory, validation", "GiB", COST, 2, "lower"),
    Quantity("val/nll", "nll", "nats/token", SCORES, 3, "lower"),
    Quantity("val/perplexity", "perplexity", "", SCORES, 2, "lower"),
    Quantity("val/bits_per_byte", "bits/byte", "", SCORES, 3, "lower"),
    Quantity("val/accuracy", "accuracy", "top-1, %", SCORES, 2, "higher", 100.0),
    Quantity("val/nll_uncalibrated", "bare head", "nats/token", SCORES, 3),
    Quantity("geometry/anisotropy/last_layer", "anisotropy", "last layer", GEOMETRY, 3),
    Quantity(RANK, "eff. rank", "last layer", GEOMETRY, 1),
)


def shown(groups: Sequence[Group]) -> list[Quantity]:
    """The quantities that any of the groups has."""
    return [q for q in QUANTITIES if any(estimate(group.values(q.key)) for group in groups)]


def headline(groups: Sequence[Group]) -> tuple[list[Column], list[list[Cell]]]:
    """The headline table: one row a group, mean and 95 % interval over its runs.

    The best mean of a column is strong where it is better than every other by more than chance
    over seeds (`leader`), and only where the runs can be compared: `_comparable`.
    """
    quantities = shown(groups)
    columns = [Column("objective", "backbone, runs", "left")]
    for q in quantities:
        columns.append(Column(marked(q, groups), _unit(q, groups), "right", q.group))
    best = {q.key: _best(q, groups) for q in quantities}
    rows = []
    for group in groups:
        backbone = str(group.first.summary.get("backbone") or "")
        runs = f"{len(group.runs)} run{'s' * (len(group.runs) > 1)}"
        about = ", ".join(filter(None, (backbone, runs)))
        row = [Cell(group.label, about, swatch=group.index)]
        for q in quantities:
            found = estimate(group.values(q.key))
            text = q.text(found.mean if found else None)
            detail = _detail(q, found, group, groups) if found else ""
            row.append(Cell(text, detail, strong=best[q.key] is group))
        rows.append(row)
    return columns, rows


def _unit(q: Quantity, groups: Sequence[Group]) -> str:
    """The unit, and what else is the same for all groups."""
    if q.key in MEMORY:
        return ", ".join([q.unit, *filter(None, memory_of(groups, q.key))])
    widths = {group.first.width for group in groups}
    if q.key != RANK or len(widths) > 1 or None in widths:
        return q.unit
    noise = noise_ranks(groups)
    return f"of {next(iter(widths))}" + (f", noise {noise[0][1]:.0f}" if len(noise) == 1 else "")


def _detail(q: Quantity, found: Estimate, group: Group, groups: Sequence[Group]) -> str:
    """The interval, and what is not the same for all groups."""
    parts = [q.interval(found)]
    if q.key == RANK and len({group.first.width for group in groups}) > 1:
        parts.append(f"of {group.first.width}")
    if found.n < len(group.runs):
        parts.append(f"({found.n} runs)")
    if q.key in MEMORY:
        common = memory_of(groups, q.key)
        own = [words for words in memory_of([group], q.key) if words and words not in common]
        parts.append(", ".join(own))
    return " ".join(filter(None, parts))


def marked(quantity: Quantity, groups: Sequence[Group]) -> str:
    """The name of a quantity, with a mark where `fairness.inexact` has something to say of it."""
    star = "*" if quantity.key.endswith("bits_per_byte") and inexact(groups) else ""
    return quantity.name + star


def memory_of(groups: Sequence[Group], key: str = MEMORY[0]) -> tuple[str, str]:
    """Whose memory the peaks are and of what: "host", "training"; empty where they differ."""
    runs = [run for group in groups for run in group.runs]
    kinds, scopes = {run.memory_kind for run in runs}, {run.memory_scope for run in runs}
    scope = scopes.pop() if len(scopes) == 1 and key == MEMORY[0] else ""
    return kinds.pop() if len(kinds) == 1 else "", scope


def noise_ranks(groups: Sequence[Group]) -> list[tuple[int, float]]:
    """How many states the last layer's effective rank is of, and the rank of as many Gaussian
    vectors: what a sample of that size can show at most. As the runs measured them."""
    runs = [run for group in groups for run in group.runs]
    logged = [(run.value(STATES), run.value(NOISE)) for run in runs]
    return sorted({(int(count), round(rank, 1)) for count, rank in logged if count and rank})


def baseline_of(groups: Sequence[Group], name: str | None = None) -> Group:
    """What the others are measured against: what is named, or the first cross-entropy group, else
    the first group.

    Args:
        groups: of the comparison.
        name: the label of a group, or the name or the path of a run.

    Raises:
        HeadlessError: nothing is called that, or several groups are.
    """
    if name is None:
        vanilla = [group for group in groups if group.first.objective_class == "CrossEntropy"]
        return (vanilla or list(groups))[0]
    found = [group for group in groups if group.label == name] or [
        group
        for group in groups
        if any(name in (run.name, str(run.directory.path)) for run in group.runs)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        labels = ", ".join(repr(group.label) for group in found)
        raise HeadlessError(f"--baseline {name} is in several recipes: name one of them, {labels}")
    known = [word for g in groups for word in (repr(g.label), *(run.name for run in g.runs))]
    raise HeadlessError(
        f"--baseline: no recipe or run that is compared is called {name!r}; "
        f"there are {', '.join(known) or 'none'}"
    )


def relative(
    groups: Sequence[Group], baseline: Group | None = None
) -> tuple[list[Column], list[list[Cell]]]:
    """Each group against the baseline: ratios of costs, differences of scores.

    The last columns say after which share of the baseline's budget a group's mean validation nll
    had come down to the baseline's last value.
    """
    baseline = baseline or baseline_of(groups)
    ratios = ["seconds", "tokens_per_second", "peak_memory_gib", "flops"]
    ratios = [key for key in ratios if estimate(baseline.values(key))]
    names = {
        "seconds": ("time", "ratio"),
        "tokens_per_second": ("speed", "ratio"),
        "peak_memory_gib": ("memory", "ratio"),
        "flops": ("FLOPs", "ratio"),
    }
    deltas = [q for q in QUANTITIES if q.key in ("val/nll", "val/bits_per_byte", "val/accuracy")]
    deltas = [q for q in deltas if estimate(baseline.values(q.key))]
    columns = [Column("objective", "", "left")]
    columns += [Column(*names[key], "right", COST) for key in ratios]
    columns += [Column(f"Δ {marked(q, groups)}", q.unit, "right", "scores") for q in deltas]
    reach = "budget to reach its nll"
    columns += [Column("tokens", "ratio", "right", reach), Column("time", "ratio", "right", reach)]
    rows = []
    for group in groups:
        row = [Cell(group.label, "baseline" if group is baseline else "", swatch=group.index)]
        for key in ratios:
            one, other = estimate(group.values(key)), estimate(baseline.values(key))
            same = _same_measure(key, group, baseline)
            ratio = one.mean / other.mean if same and one and other and other.mean else None
            row.append(Cell(decimals(ratio, 2)))
        for quantity in deltas:
            found = gap(quantity, group, baseline)
            if group is baseline:
                row.append(Cell("0"))
            else:
                row.append(Cell(signed(quantity, found), quantity.interval(found)))
        row += [Cell(reached(group, baseline, axis)) for axis in ("tokens", "seconds")]
        rows.append(row)
    return columns, rows


def gap(quantity: Quantity, group: Group, baseline: Group) -> Estimate | None:
    """How much larger a group's value is; None where it is not known, or measures another thing."""
    if not _same_measure(quantity.key, group, baseline):
        return None
    return difference(group.by_seed(quantity.key), baseline.by_seed(quantity.key))


def _same_measure(key: str, group: Group, baseline: Group) -> bool:
    """Memory of one device and of training alone, seconds of the same steps, scores of one unit."""
    both = [group, baseline]
    if key in MEMORY:
        return memory_of([group], key) == memory_of([baseline], key)
    if key in CLOCKED:
        return same_clock(both)
    return not key.startswith("val/") or same_unit(key, both)


def _same_course(axis: str, group: Group, baseline: Group) -> bool:
    return all(_same_measure(key, group, baseline) for key in ("val/nll", axis))


def signed(quantity: Quantity, found: Estimate | None) -> str:
    """A difference with its sign."""
    text = quantity.text(found.mean if found else None)
    return f"+{text}" if found and found.mean > 0 else text


def reached(group: Group, baseline: Group, axis: str) -> str:
    """The share of the baseline's budget after which a group's mean nll is the baseline's last."""
    if not _same_course(axis, group, baseline):
        return MISSING
    share = share_to_reach(group, baseline, axis)
    return "not reached" if share is None else f"{share:.2f}"


def share_to_reach(group: Group, baseline: Group, axis: str) -> float | None:
    """See `reached`; linear between validations, None where it is never reached or not known."""
    if not _same_course(axis, group, baseline):
        return None
    mine, others = (group_curves(g, "val/nll", axis) for g in (group, baseline))
    if not mine or not others:
        return None
    x, y = mean_curve(mine)
    reference_x, reference_y = mean_curve(others)
    if not len(x) or not len(reference_x) or reference_x[-1] <= 0:
        return None
    target = reference_y[-1]
    below = np.flatnonzero(y <= target)
    if not len(below):
        return None
    first = int(below[0])
    at = x[0] if first == 0 else np.interp(target, y[[first, first - 1]], x[[first, first - 1]])
    return float(at / reference_x[-1])


def _best(quantity: Quantity, groups: Sequence[Group]) -> Group | None:
    if quantity.better is None or not _comparable(quantity, groups):
        return None
    place = leader([group.by_seed(quantity.key) for group in groups], quantity.better)
    texts = [_mean_text(quantity, group) for group in groups]
    # What cannot be seen in the digits that are shown is not shown as better.
    return None if place is None or texts.count(texts[place]) > 1 else groups[place]


def _mean_text(quantity: Quantity, group: Group) -> str:
    found = estimate(group.values(quantity.key))
    return quantity.text(found.mean if found else None)


def _comparable(quantity: Quantity, groups: Sequence[Group]) -> bool:
    if not (same_budget(groups) and same_tokenizer(groups) and same_data(groups)):
        return False
    if quantity.group == COST and not same_hardware(groups):
        return False
    if quantity.key in CLOCKED and not same_clock(groups):
        return False
    return quantity.key not in MEMORY or all(memory_of(groups))
