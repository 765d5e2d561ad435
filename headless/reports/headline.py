"""The headline numbers: which, in which order, in which unit; and each against the baseline."""

from collections.abc import Sequence
from dataclasses import replace

from headless.errors import HeadlessError
from headless.pages.numbers import MISSING, decimals
from headless.pages.page import Cell, Column
from headless.reports.fairness import (
    same_budget,
    same_data,
    same_hardware,
    same_tokenizer,
    same_unit,
)
from headless.reports.groups import ANCHORS, OVER, Group, anchors_of, runs_of, tags_of
from headless.reports.plots import curves_of, logged, mean_curve, reached_at
from headless.reports.statistics import Difference, difference
from headless.reports.tables import Cells, Quantity, Sheet, Table, percent

COST, SCORES, GEOMETRY = "cost", "validation, under the objective's LM head", "geometry"
RANK = "geometry/effective_rank/last_layer"
NOISE = "geometry/effective_rank/null"
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
OBJECTIVE = Column("objective", "", "left")
RATIOS = {
    "seconds": "time",
    "tokens_per_second": "speed",
    "peak_memory_gib": "memory",
    "flops": "FLOPs",
}
DECILES = tuple(f"val/nll_decile_{i}" for i in range(10))
FREQUENCIES = [
    Quantity(key, str(i), {0: "most frequent", 9: "rarest"}.get(i, ""), SCORES, 3, "lower")
    for i, key in enumerate(DECILES)
]
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
    columns = [replace(q, unit=_unit(q, groups)) for q in shown]
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
    # What as many Gaussian vectors have: a sample of that size can show no more.
    noise = {round(rank) for run in runs_of(groups) if (rank := run.value(NOISE))}
    return f"of {widths.pop()}" + (f", noise {noise.pop()}" if len(noise) == 1 else "")


def _memory_of(group: Group) -> str:
    """Whose memory the peaks are: "host", "gpu", or both."""
    return " and ".join(sorted({run.memory_kind for run in group.runs}))


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
        if any(name in (run.name, str(run.directory.path), *tags_of(run)) for run in group.runs)
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
    columns = [OBJECTIVE]
    columns += [Column(f"Δ {q.name}", q.unit, "right", "scores") for q in deltas]
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
            row.append(MISSING if same else _pairs(gap(deltas[0].key, group, baseline)))
        for key in ratios:
            one, other = group.number(key), baseline.number(key)
            alike = _same_measure(key, group, baseline)
            ratio = one.mean / other.mean if alike and one and other and other.mean else None
            row.append(decimals(ratio, 2))
        shares = (share_to_reach(group, baseline, axis) for axis in BUDGETS)
        rows.append(row + [decimals(share, 2) for share in shares])
    return columns, rows


def _change(quantity: Quantity, change: Difference | None) -> Cell | str:
    if change is None:
        return MISSING
    p = "" if change.p is None else "p < 0.001" if change.p < 0.001 else f"p = {change.p:.2g}"
    return Cell(quantity.text(change.mean, signed=True), f"{quantity.interval(change)} {p}".strip())


def _pairs(change: Difference | None) -> str:
    """What a difference is the mean of."""
    if change is None:
        return MISSING
    return f"{change.n} pair{'s' * (change.n > 1)}" if change.by_seed else "no pairs: Welch"


def anchor_table(groups: Sequence[Group]) -> Table | None:
    """How far each arm is from each anchor; None where no run knows one."""
    common = anchors_of(groups)
    columns = [
        Quantity(OVER + name, name, decimals(common.get(name), 3), "nll, less the anchor's")
        for name in ANCHORS
        if any(group.number(OVER + name) for group in groups)
    ]
    nll = Quantity("val/nll", "nll", "nats/token")
    return Table(OBJECTIVE, [nll, *columns], groups) if columns else None


def decile_table(groups: Sequence[Group]) -> Table | None:
    """The nll of each decile by frequency; None where none is known."""
    columns = [q for q in FREQUENCIES if any(group.number(q.key) for group in groups)]
    return Table(OBJECTIVE, columns, groups) if columns else None


def decile_differences(groups: Sequence[Group], baseline: Group) -> Sheet:
    """The same less the baseline's, bold where the interval leaves zero out."""
    rows: list[Cells] = []
    for group in groups:
        if group is not baseline:
            changes = [(q, gap(q.key, group, baseline)) for q in FREQUENCIES]
            rows.append([Cell(group.label, swatch=group.index)])
            rows[-1] += [_decile(q, change) if change else MISSING for q, change in changes]
    return [OBJECTIVE, *(q.column for q in FREQUENCIES)], rows


def _decile(quantity: Quantity, change: Difference) -> Cell:
    sure = change.half_width is not None and abs(change.mean) > change.half_width
    text = quantity.text(change.mean, signed=True)
    return Cell(text, quantity.interval(change), strong=sure)


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


def share_to_reach(group: Group, baseline: Group, axis: str) -> float | None:
    """The share of the baseline's budget after which a group's mean nll is the baseline's last;
    None where it is never reached or not known."""
    if not _same_measure("val/nll", group, baseline):
        return None
    curves = [curves_of(g.runs, logged("val/nll", axis)) for g in (group, baseline)]
    if not all(curves):
        return None
    mine, (x, y) = map(mean_curve, curves)
    reached = reached_at(mine, y[-1]) if len(x) and x[-1] > 0 else None
    return None if reached is None else reached / float(x[-1])
