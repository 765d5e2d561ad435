"""The headline numbers: which, in which order, in which unit; and each against the baseline."""

from collections.abc import Sequence
from dataclasses import replace

from headless.errors import HeadlessError
from headless.pages.numbers import MISSING, decimals
from headless.pages.page import Cell, Column
from headless.reports.fairness import (
    inexact,
    same_budget,
    same_data,
    same_hardware,
    same_tokenizer,
    same_unit,
)
from headless.reports.groups import Group, runs_of
from headless.reports.plots import curves_of, logged, mean_curve, reached_at
from headless.reports.statistics import Difference, difference
from headless.reports.tables import Cells, Quantity, Sheet, Table, percent

COST, SCORES, GEOMETRY = "cost", "validation, under the objective's LM head", "geometry"
RANK = "geometry/effective_rank/last_layer"
STATES, NOISE = "geometry/states", "geometry/effective_rank/null"
MEMORY = ("peak_memory_gib", "peak_validation_memory_gib")
QUANTITIES = (
    Quantity("parameters", "params", "", COST, "compact"),
    Quantity("tokens", "tokens", "", COST, "compact"),
    Quantity("rows", "N", "rows of a loss", COST, 0),
    replace(percent("unique_share", "M/V", "% of the vocabulary", COST), better=None),
    Quantity("seconds", "time", "seconds", COST, 0, "lower"),
    Quantity("tokens_per_second", "speed", "tokens/s", COST, 0, "higher"),
    Quantity("startup_seconds", "start-up", "seconds", COST, 0),
    Quantity("flops", "FLOPs", "", COST, "compact"),
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
RATIOS = {
    "seconds": "time",
    "tokens_per_second": "speed",
    "peak_memory_gib": "memory",
    "flops": "FLOPs",
}
DELTAS = ("val/nll", "val/bits_per_byte", "val/accuracy")
BUDGETS = ("tokens", "seconds")


def headline(groups: Sequence[Group]) -> Table:
    """The headline table: one row a group, of the quantities that any of them has."""
    widths = {group.first.width for group in groups}
    kinds = {run.memory_kind for run in runs_of(groups)}
    fair = same_budget(groups) and same_tokenizer(groups) and same_data(groups)

    def can_lead(quantity: Quantity) -> bool:
        costs_alike = quantity.group != COST or same_hardware(groups)
        return fair and costs_alike and (quantity.key not in MEMORY or len(kinds) == 1)

    def note(quantity: Quantity, group: Group) -> str:
        """What is not the same for all groups."""
        number = group.number(quantity.key)
        parts = [
            f"of {group.first.width}" if quantity.key == RANK and len(widths) > 1 else "",
            f"({number.n} runs)" if number and number.n < len(group.runs) else "",
            _memory_of(group) if quantity.key in MEMORY and len(kinds) > 1 else "",
        ]
        return " ".join(filter(None, parts))

    shown = [q for q in QUANTITIES if any(group.number(q.key) for group in groups)]
    columns = [replace(q, name=_starred(q, groups), unit=_unit(q, groups)) for q in shown]
    heading = Column("objective", "backbone, runs, arithmetic", "left")
    return Table(heading, columns, groups, can_lead, note)


def _unit(quantity: Quantity, groups: Sequence[Group]) -> str:
    """The unit, and what else is the same for all groups."""
    kinds = {run.memory_kind for run in runs_of(groups)}
    if quantity.key in MEMORY and len(kinds) == 1:
        return f"{quantity.unit}, {kinds.pop()}"
    widths = {group.first.width for group in groups}
    if quantity.key != RANK or len(widths) > 1 or None in widths:
        return quantity.unit
    noise = noise_ranks(groups)
    return f"of {next(iter(widths))}" + (f", noise {noise[0][1]:.0f}" if len(noise) == 1 else "")


def _starred(quantity: Quantity, groups: Sequence[Group]) -> str:
    """The name, with a mark where `fairness.inexact` has something to say of it."""
    return quantity.name + "*" * bool(quantity.key.endswith("bits_per_byte") and inexact(groups))


def _memory_of(group: Group) -> str:
    """Whose memory the peaks are: "host", "gpu", or both."""
    return " and ".join(sorted({run.memory_kind for run in group.runs}))


def noise_ranks(groups: Sequence[Group]) -> list[tuple[int, float]]:
    """How many states the last layer's effective rank is of, and the rank of as many Gaussian
    vectors: what a sample of that size can show at most."""
    measured = [(run.value(STATES), run.value(NOISE)) for run in runs_of(groups)]
    return sorted({(int(count), round(rank, 1)) for count, rank in measured if count and rank})


def baseline_of(groups: Sequence[Group], name: str | None = None) -> Group:
    """What the others are measured against: the one group with that label, or with a run of that
    name or path; by default the first cross-entropy group, else the first one.
    """
    if name is None:
        vanilla = [group for group in groups if group.first.objective_class == "CrossEntropy"]
        return (vanilla or list(groups))[0]
    named = [group for group in groups if group.label == name] or [
        group
        for group in groups
        if any(name in (run.name, str(run.directory.path)) for run in group.runs)
    ]
    if len(named) == 1:
        return named[0]
    if named:
        labels = ", ".join(repr(group.label) for group in named)
        raise HeadlessError(f"--baseline {name} is in several recipes: name one of them, {labels}")
    names = [word for g in groups for word in (repr(g.label), *(run.name for run in g.runs))]
    raise HeadlessError(
        f"--baseline: no recipe or run that is compared is called {name!r}; "
        f"there are {', '.join(names) or 'none'}"
    )


def relative(groups: Sequence[Group], baseline: Group | None = None) -> Sheet:
    """Each group against the baseline: ratios of costs, differences of scores with the pairs they
    are over, and `share_to_reach` its nll."""
    baseline = baseline or baseline_of(groups)
    ratios = [key for key in RATIOS if baseline.number(key)]
    deltas = [q for q in QUANTITIES if q.key in DELTAS and baseline.number(q.key)]
    columns = [Column("objective", "", "left")]
    columns += [Column(f"Δ {_starred(q, groups)}", q.unit, "right", "scores") for q in deltas]
    columns += [Column("over", "", "right", "scores")] if deltas else []
    columns += [Column(RATIOS[key], "ratio", "right", COST) for key in ratios]
    columns += [
        Column(f"{name} to equal nll", "ratio", "right", COST) for name in ("tokens", "time")
    ]
    rows: list[Cells] = []
    for group in groups:
        same = group is baseline
        row: Cells = [
            Cell(group.label, "baseline" if same else "", swatch=group.index),
            *("0" if same else _change(q, gap(q.key, group, baseline)) for q in deltas),
        ]
        if deltas:
            row.append(MISSING if same else _over(gap(deltas[0].key, group, baseline)))
        for key in ratios:
            one, other = group.number(key), baseline.number(key)
            alike = _same_measure(key, group, baseline)
            ratio = one.mean / other.mean if alike and one and other and other.mean else None
            row.append(decimals(ratio, 2))
        rows.append(row + [_reached(group, baseline, axis) for axis in BUDGETS])
    return columns, rows


def _change(quantity: Quantity, change: Difference | None) -> Cell | str:
    if change is None:
        return MISSING
    p = "" if change.p is None else "p < 0.001" if change.p < 0.001 else f"p = {change.p:.2g}"
    return Cell(quantity.text(change.mean, signed=True), f"{quantity.interval(change)} {p}".strip())


def _over(change: Difference | None) -> Cell | str:
    """What a difference is the mean of."""
    if change is None:
        return MISSING
    if not change.by_seed:
        return Cell("no pairs", "Welch" if change.half_width is not None else "")
    return f"{change.n} pair{'s' * (change.n > 1)}"


def gap(key: str, group: Group, baseline: Group) -> Difference | None:
    """How much larger a group's value is; None where it is not known, or measures another thing."""
    if not _same_measure(key, group, baseline):
        return None
    return difference(group.by_seed(key), baseline.by_seed(key))


def _same_measure(key: str, group: Group, baseline: Group) -> bool:
    """Memory of one kind of device, scores of one unit."""
    if key in MEMORY:
        return _memory_of(group) == _memory_of(baseline)
    return not key.startswith("val/") or same_unit(key, [group, baseline])


def _reached(group: Group, baseline: Group, axis: str) -> str:
    share = share_to_reach(group, baseline, axis)
    missing = "not reached" if _same_measure("val/nll", group, baseline) else MISSING
    return missing if share is None else f"{share:.2f}"


def share_to_reach(group: Group, baseline: Group, axis: str) -> float | None:
    """The share of the baseline's budget after which a group's mean nll is the baseline's last;
    None where it is never reached or not known."""
    if not _same_measure("val/nll", group, baseline):
        return None
    mine, others = (curves_of(g.runs, logged("val/nll", axis)) for g in (group, baseline))
    if not mine or not others:
        return None
    curve, (x, y) = mean_curve(mine), mean_curve(others)
    if not len(curve[0]) or not len(x) or x[-1] <= 0:
        return None
    reached = reached_at(curve, y[-1])
    return None if reached is None else reached / float(x[-1])
